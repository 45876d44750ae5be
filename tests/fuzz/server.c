#include "server.h"

#include <mbedtls/ssl_cache.h>
#include <mbedtls/ssl_ticket.h>

#include "../unit/make_certs.h"
#include "credentials/compat.h"
#include "system/random.h"

enum { DOWNLINKS_MAX = 64, ASSOCIATION_MAX = 32768, TICKET_LIFETIME_S = 1 << 30, APPLICATION_DATA = 23 };

static const unsigned char psk_text[16] = "known to both";

#if MBEDTLS_VERSION_MAJOR < 3
int mbedtls_ssl_write_record(mbedtls_ssl_context *ssl, uint8_t force_flush);
#else
int mbedtls_ssl_write_record(mbedtls_ssl_context *ssl, int force_flush);
#endif

typedef struct {
    unsigned char *bytes;
    size_t length;
    bool whole, taken;
} downlink_t;

static struct {
    mbedtls_pk_context ca_key, key;
    blob_t ca, certificate, key_der;
    mbedtls_x509_crt chain, anchors;
    mbedtls_ssl_cookie_ctx cookies;
    mbedtls_ssl_ticket_context tickets;
    mbedtls_ssl_cache_context cache;
    unsigned char association[ASSOCIATION_MAX];
    size_t association_length;

    mbedtls_ssl_config config;
    mbedtls_ssl_context ssl;
    server_manner_t manner;
    bool connected, broken;
    const unsigned char *arrived; /* the datagram that is being received */
    size_t arrived_length;
    unsigned char uplink[SERVER_RECORD_MAX];
    size_t uplink_length;
    bool has_uplink;
    downlink_t downlinks[DOWNLINKS_MAX];
    size_t count;
    bool passed;  /* the last record was given whole to the network */
    bool strange; /* it has sent other records than downlinks */
} server;

/* --- What mbed TLS calls --- */

static int send_datagram(void *context, const unsigned char *bytes, size_t length)
{
    (void)context;
    server.passed = !server.manner.mute && network_send(bytes, length);
    return (int)length;
}

static int receive_datagram(void *context, unsigned char *buffer, size_t size)
{
    (void)context;
    size_t length = server.arrived_length < size ? server.arrived_length : size;
    if (server.arrived == NULL)
        return MBEDTLS_ERR_SSL_WANT_READ;
    memcpy(buffer, server.arrived, length);
    server.arrived = NULL;
    return (int)length;
}

/* It never sends again by itself: that the client does is enough. */
static void set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms)
{
    (void)intermediate_ms;
    *(bool *)context = final_ms != 0;
}

static int get_timer(void *context)
{
    return *(bool *)context ? 0 : -1;
}

/* --- Getting ready --- */

void server_prepare(void)
{
    make_ec_key(&server.ca_key, MBEDTLS_ECP_DP_SECP256R1);
    make_ec_key(&server.key, MBEDTLS_ECP_DP_SECP256R1);
    server.ca =
        make_certificate(&(certificate_plan_t){.subject = "CN=ca", .key = &server.ca_key, .ca = true});
    server.certificate = make_certificate(&(certificate_plan_t){.subject = "CN=" SERVER_NAME,
                                                                .key = &server.key,
                                                                .issuer = "CN=ca",
                                                                .issuer_key = &server.ca_key,
                                                                .both_ends = true});
    server.key_der = make_key_der(&server.key);
    mbedtls_x509_crt_init(&server.chain);
    mbedtls_x509_crt_init(&server.anchors);
    REQUIRE(mbedtls_x509_crt_parse_der(&server.chain, server.certificate.bytes, server.certificate.length) ==
            0);
    REQUIRE(mbedtls_x509_crt_parse_der(&server.anchors, server.ca.bytes, server.ca.length) == 0);
    mbedtls_ssl_cookie_init(&server.cookies);
    mbedtls_ssl_ticket_init(&server.tickets);
    mbedtls_ssl_cache_init(&server.cache);
    mbedtls_ssl_cache_set_timeout(&server.cache, 0);
    REQUIRE(mbedtls_ssl_cookie_setup(&server.cookies, random_bytes, NULL) == 0);
    REQUIRE(mbedtls_ssl_ticket_setup(&server.tickets, random_bytes, NULL, MBEDTLS_CIPHER_AES_256_GCM,
                                     TICKET_LIFETIME_S) == 0);
    mbedtls_ssl_init(&server.ssl);
    mbedtls_ssl_config_init(&server.config);
}

/* One certificate serves both ends. */
void server_give_credentials(credentials_t *credentials)
{
    REQUIRE(mbedtls_x509_crt_parse_der(&credentials->chain, server.certificate.bytes,
                                       server.certificate.length) == 0);
    REQUIRE(mbedtls_x509_crt_parse_der(&credentials->anchors, server.ca.bytes, server.ca.length) == 0);
    REQUIRE(compat_parse_key(&credentials->key, server.key_der.bytes, server.key_der.length, NULL, 0,
                             random_bytes) == 0);
}

void server_give_psk(credentials_t *credentials)
{
    credentials_free(credentials);
    credentials_init(credentials);
    memcpy(credentials->psk.identity, psk_text, sizeof psk_text);
    memcpy(credentials->psk.key, psk_text, sizeof psk_text);
    credentials->psk.identity_length = credentials->psk.key_length = sizeof psk_text;
}

static void configure(void)
{
    mbedtls_ssl_config *config = &server.config;
    mbedtls_ssl_config_free(config);
    mbedtls_ssl_config_init(config);
    REQUIRE(mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                        MBEDTLS_SSL_PRESET_DEFAULT) == 0);
    compat_dtls12_only(config);
    mbedtls_ssl_conf_rng(config, random_bytes, NULL);
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(config, &server.anchors, NULL);
    if (!server.manner.psk)
        REQUIRE(mbedtls_ssl_conf_own_cert(config, &server.chain, &server.key) == 0);
    mbedtls_ssl_conf_dtls_cookies(config, server.manner.cookies ? mbedtls_ssl_cookie_write : NULL,
                                  server.manner.cookies ? mbedtls_ssl_cookie_check : NULL, &server.cookies);
    if (server.manner.psk)
        REQUIRE(mbedtls_ssl_conf_psk(config, psk_text, sizeof psk_text, psk_text, sizeof psk_text) == 0);
    if (server.manner.tickets)
        mbedtls_ssl_conf_session_tickets_cb(config, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
                                            &server.tickets);
    if (server.manner.sessions) /* what it learns now it forgets, so that an input does the same every time */
        mbedtls_ssl_conf_session_cache(config, &server.cache, mbedtls_ssl_cache_get, NULL);
}

/* --- Serving --- */

static void forget(void)
{
    for (size_t i = 0; i < server.count; i++)
        free(server.downlinks[i].bytes);
    server.count = 0;
    server.has_uplink = server.connected = server.broken = server.strange = false;
}

static void begin(void)
{
    static bool timer;
    timer = false;
    forget();
    mbedtls_ssl_free(&server.ssl);
    mbedtls_ssl_init(&server.ssl);
    REQUIRE(mbedtls_ssl_setup(&server.ssl, &server.config) == 0);
    mbedtls_ssl_set_bio(&server.ssl, NULL, send_datagram, receive_datagram, NULL);
    mbedtls_ssl_set_timer_cb(&server.ssl, &timer, set_timer, get_timer);
    REQUIRE(mbedtls_ssl_set_client_transport_id(&server.ssl, (const unsigned char *)"client", 6) == 0);
}

static bool is_wanting(int status)
{
    return status == MBEDTLS_ERR_SSL_WANT_READ || status == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static void shake_hands(void)
{
    int status = mbedtls_ssl_handshake(&server.ssl);
    server.connected = status == 0;
    if (status == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED) {
        REQUIRE(mbedtls_ssl_session_reset(&server.ssl) == 0);
        REQUIRE(mbedtls_ssl_set_client_transport_id(&server.ssl, (const unsigned char *)"client", 6) == 0);
        return;
    }
    server.broken = status != 0 && !is_wanting(status);
}

static void take_uplink(void)
{
    int status = mbedtls_ssl_read(&server.ssl, server.uplink, sizeof server.uplink);
    bool empty = compat_take_empty_record(&server.ssl);
    if (status > 0 || empty) {
        server.uplink_length = status > 0 ? (size_t)status : 0;
        server.has_uplink = true;
    } else {
        server.broken = status != 0 && !is_wanting(status);
    }
}

static void receive(const unsigned char *bytes, size_t length)
{
    server.arrived = bytes;
    server.arrived_length = length;
    if (!server.connected && !server.broken)
        shake_hands();
    if (server.connected && !server.broken)
        take_uplink();
}

const network_peer_t *server_peer(server_manner_t manner)
{
    static const network_peer_t peer = {begin, receive};
    server.manner = manner;
    configure();
    return &peer;
}

void server_remember_session(void)
{
    const mbedtls_ssl_session *session = server.ssl.MBEDTLS_PRIVATE(session);
#if MBEDTLS_VERSION_MAJOR < 3
    REQUIRE(mbedtls_ssl_cache_set(&server.cache, session) == 0);
#else
    REQUIRE(mbedtls_ssl_cache_set(&server.cache, session->MBEDTLS_PRIVATE(id),
                                  session->MBEDTLS_PRIVATE(id_len), session) == 0);
#endif
}

void server_remember_association(void)
{
    REQUIRE(mbedtls_ssl_context_save(&server.ssl, server.association, sizeof server.association,
                                     &server.association_length) == 0);
}

void server_resume(void)
{
    begin();
    REQUIRE(mbedtls_ssl_context_load(&server.ssl, server.association, server.association_length) == 0);
    server.connected = true;
}

bool server_is_connected(void)
{
    return server.connected && !server.broken;
}

/* --- Downlinks and uplinks --- */

static void note_downlink(input_t content)
{
    downlink_t *downlink = &server.downlinks[server.count++];
    *downlink = (downlink_t){malloc(content.length + 1), content.length, server.passed, false};
    REQUIRE(downlink->bytes != NULL);
    if (content.length > 0)
        memcpy(downlink->bytes, content.bytes, content.length);
}

void server_send_record(unsigned char type, input_t content)
{
    mbedtls_ssl_context *ssl = &server.ssl;
    int maximum = mbedtls_ssl_get_max_out_record_payload(ssl);
    if (!server_is_connected() || maximum < 0 || server.count == DOWNLINKS_MAX)
        return;
    if (content.length > (size_t)maximum)
        content.length = (size_t)maximum;
    ssl->MBEDTLS_PRIVATE(out_msgtype) = type;
    ssl->MBEDTLS_PRIVATE(out_msglen) = content.length;
    if (content.length > 0)
        memcpy(ssl->MBEDTLS_PRIVATE(out_msg), content.bytes, content.length);
    server.passed = false;
    server.broken = mbedtls_ssl_write_record(ssl, 1) != 0;
    if (type == APPLICATION_DATA)
        note_downlink(content);
    else
        server.strange = true;
}

bool server_got(const void *payload, size_t length)
{
    bool got =
        server.has_uplink && server.uplink_length == length && memcmp(server.uplink, payload, length) == 0;
    server.has_uplink = false;
    return got;
}

/* Of several alike, one that was given whole to the network first. */
static downlink_t *find_downlink(const void *bytes, size_t length, bool whole)
{
    for (size_t i = 0; i < server.count; i++) {
        downlink_t *downlink = &server.downlinks[i];
        if (!downlink->taken && downlink->whole == whole && downlink->length == length &&
            memcmp(downlink->bytes, bytes, length) == 0)
            return downlink;
    }
    return NULL;
}

bool server_sent(const void *downlink, size_t length)
{
    downlink_t *found = find_downlink(downlink, length, true);
    if (found == NULL)
        found = find_downlink(downlink, length, false);
    if (found != NULL)
        found->taken = true;
    return found != NULL;
}

bool server_misses_a_downlink(void)
{
    for (size_t i = 0; i < server.count; i++) {
        const downlink_t *downlink = &server.downlinks[i];
        bool told_apart = downlink->length > 0 || !network_has_glued();
        if (downlink->whole && !downlink->taken && told_apart && !server.strange)
            return true;
    }
    return false;
}
