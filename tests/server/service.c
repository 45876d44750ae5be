#include "service.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/error.h>
#include <mbedtls/oid.h>

#include "boxes.h"
#include "dtls/compat.h"
#include "record.h"
#include "system/random.h"
#include "system/wait.h"

enum {
    HANDSHAKE_MTU = 1232, /* IPv6's least MTU less its headers and UDP's */
    DEVICE_MAX = 64,
    ADDRESS_TEXT = NI_MAXHOST + 8,
    SEND_PATIENCE_MS = 100,
    DATAGRAMS_AT_ONCE = 64, /* a flood must not hold up timers and signals */
    HEADER_LENGTH = 13,     /* type, version, epoch, sequence number, length (RFC 6347 section 4.1) */
    CID_OFFSET = 11,
    TYPE_HANDSHAKE = 22,
    TYPE_CID = 25, /* RFC 9146 section 4 */
    CLIENT_HELLO = 1
};

/* One device at one address, in a handshake or connected. */
struct peer {
    service_t *service;
    mbedtls_ssl_context ssl;
    address_t address;
    unsigned char cid[TLS_CID_LENGTH];
    unsigned long association; /* its number; 0: none yet, the address is not proved */
    unsigned long long heard;  /* the service's count of datagrams at the last one from here */
    int64_t intermediate_ms;   /* the handshake's timer, on wait_now_ms()'s clock */
    int64_t final_ms;          /* 0: not running */
    bool connected;
    bool full;                   /* the handshake was not abbreviated */
    const unsigned char *record; /* what the library may read next; NULL: nothing */
    size_t record_length;
    unsigned long last_stored; /* number of the last uplink in its inbox; 0: not known */
    char device[DEVICE_MAX + 1];
};

/* --- Addresses --- */

static void format_address(const address_t *address, char text[static ADDRESS_TEXT])
{
    char host[NI_MAXHOST], port[8];
    if (getnameinfo((const struct sockaddr *)&address->storage, address->length, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(text, ADDRESS_TEXT, "unknown");
    else
        snprintf(text, ADDRESS_TEXT, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

static bool is_same_address(const address_t *left, const address_t *right)
{
    return left->length == right->length && memcmp(&left->storage, &right->storage, left->length) == 0;
}

static void log_record(const service_t *service, unsigned long association, const unsigned char *record,
                       size_t length)
{
    char address[ADDRESS_TEXT];
    if (service->records == NULL)
        return;
    format_address(&service->from, address);
    record_log(service->records, address, association, record, length);
}

/* --- What mbed TLS calls --- */

/* A datagram that cannot leave is a datagram lost, and the timers see to those. */
static int send_datagram(void *context, const unsigned char *bytes, size_t length)
{
    const peer_t *peer = context;
    int fd = peer->service->fd;
    const struct sockaddr *address = (const struct sockaddr *)&peer->address.storage;
    if (sendto(fd, bytes, length, 0, address, peer->address.length) < 0 && errno == EAGAIN &&
        wait_for(fd, POLLOUT, wait_limit_in(SEND_PATIENCE_MS)) == WAIT_READY)
        (void)sendto(fd, bytes, length, 0, address, peer->address.length);
    return (int)length;
}

static int receive_record(void *context, unsigned char *buffer, size_t size)
{
    peer_t *peer = context;
    if (peer->record == NULL)
        return MBEDTLS_ERR_SSL_WANT_READ;
    size_t length = peer->record_length < size ? peer->record_length : size;
    memcpy(buffer, peer->record, length);
    peer->record = NULL;
    return (int)length;
}

static void set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms)
{
    peer_t *peer = context;
    int64_t now_ms = wait_now_ms();
    peer->intermediate_ms = now_ms + intermediate_ms;
    peer->final_ms = final_ms == 0 ? 0 : now_ms + final_ms;
}

/* -1: not running; 0, 1, 2: neither, the intermediate, the final delay has passed. */
static int get_timer(void *context)
{
    const peer_t *peer = context;
    int64_t now_ms = wait_now_ms();
    if (peer->final_ms == 0)
        return -1;
    return now_ms >= peer->final_ms ? 2 : now_ms >= peer->intermediate_ms ? 1 : 0;
}

/* --- The life of an association --- */

static void report_failure(const peer_t *peer, int status)
{
    char address[ADDRESS_TEXT], reason[512];
    uint32_t flaws = mbedtls_ssl_get_verify_result(&peer->ssl);
    bool is_refusal =
        status == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED || status == MBEDTLS_ERR_SSL_BAD_CERTIFICATE;
    format_address(&peer->address, address);
    if (is_refusal && flaws != 0 && flaws != UINT32_MAX)
        mbedtls_x509_crt_verify_info(reason, sizeof reason, "", flaws);
    else if (status == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        snprintf(reason, sizeof reason, "the device sent alert %d", compat_alert(&peer->ssl));
    else
        mbedtls_strerror(status, reason, sizeof reason);
    reason[strcspn(reason, "\n")] = '\0';
    printf("failed %s %s\n", address, reason);
}

static void peer_free(peer_t *peer)
{
    mbedtls_ssl_free(&peer->ssl);
    free(peer);
}

static int set_address(peer_t *peer, const address_t *address)
{
    peer->address = *address;
    return mbedtls_ssl_set_client_transport_id(&peer->ssl, (const unsigned char *)&address->storage,
                                               address->length);
}

/* For whoever sent the datagram at hand. */
static peer_t *peer_new(service_t *service)
{
    peer_t *peer = calloc(1, sizeof *peer);
    if (peer == NULL)
        return NULL;
    peer->service = service;
    mbedtls_ssl_init(&peer->ssl);
    int status = random_bytes(NULL, peer->cid, sizeof peer->cid);
    if (status == 0)
        status = tls_prepare(service->tls, &service->settings->tls, &peer->ssl, peer->cid);
    if (status == 0)
        status = set_address(peer, &service->from);
    if (status != 0) {
        report_failure(peer, status);
        peer_free(peer);
        return NULL;
    }
    mbedtls_ssl_set_bio(&peer->ssl, peer, send_datagram, receive_record, NULL);
    mbedtls_ssl_set_timer_cb(&peer->ssl, peer, set_timer, get_timer);
    mbedtls_ssl_set_mtu(&peer->ssl, HANDSHAKE_MTU);
    return peer;
}

/* The address is proved, by a cookie. */
static void begin_association(peer_t *peer)
{
    char address[ADDRESS_TEXT];
    peer->association = ++peer->service->associations;
    format_address(&peer->address, address);
    if (peer->service->records != NULL)
        fprintf(peer->service->records, "association %lu %s\n", peer->association, address);
}

/* Copies a name so that it is safe as a file's: no slash, no leading dot, not empty. */
static void sanitise(char name[static DEVICE_MAX + 1], const unsigned char *bytes, size_t length)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t used = 0;
    for (; used < length && used < DEVICE_MAX; used++)
        name[used] = (char)(memchr(allowed, bytes[used], sizeof allowed - 1) != NULL ? bytes[used] : '_');
    if (used == 0 || name[0] == '.')
        name[0] = '_';
    name[used == 0 ? 1 : used] = '\0';
}

/* The certificate's last, that is most specific, common name; or the PSK's identity, of which there is only
 * one. */
static void name_device(peer_t *peer)
{
    const char *identity = peer->service->settings->tls.psk_identity;
    const mbedtls_x509_crt *certificate = mbedtls_ssl_get_peer_cert(&peer->ssl);
    if (identity != NULL) {
        sanitise(peer->device, (const unsigned char *)identity, strlen(identity));
        return;
    }
    sanitise(peer->device, (const unsigned char *)"", 0);
    for (const mbedtls_x509_name *part = certificate == NULL ? NULL : &certificate->subject; part != NULL;
         part = part->next)
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &part->oid) == 0)
            sanitise(peer->device, part->val.p, part->val.len);
}

static bool send_downlink(void *context, const unsigned char *bytes, size_t length)
{
    peer_t *peer = context;
    int status = mbedtls_ssl_write(&peer->ssl, bytes, length);
    if (status < 0)
        report_failure(peer, status);
    else
        printf("downlink %s %zu\n", peer->device, length);
    return status >= 0;
}

static void answer(peer_t *peer)
{
    const service_settings_t *settings = peer->service->settings;
    size_t count = boxes_deliver(settings->state_dir, peer->device, send_downlink, peer);
    if (count == 0 && settings->reply != NULL)
        send_downlink(peer, (const unsigned char *)settings->reply, strlen(settings->reply));
}

/* Handles an uplink that was just decrypted. Its sender is the device, wherever that is now: a NAT may have
 * moved it (RFC 9146 section 6). False: the association has ended. */
static bool take_uplink(peer_t *peer, size_t length)
{
    service_t *service = peer->service;
    if (!is_same_address(&peer->address, &service->from))
        (void)set_address(peer, &service->from);
    if (service->uplinks++ < service->settings->drop_uplinks) {
        printf("dropped %s %zu\n", peer->device, length);
        return true;
    }
    if (!boxes_store(service->settings->state_dir, peer->device, &peer->last_stored, service->uplink, length))
        fprintf(stderr, "inboxd: inbox of %s: %s\n", peer->device, strerror(errno));
    printf("uplink %s %zu\n", peer->device, length);
    answer(peer);
    if (!service->settings->close)
        return true;
    mbedtls_ssl_close_notify(&peer->ssl);
    printf("closed %s\n", peer->device);
    return false;
}

static bool is_wanting(int status)
{
    return status == MBEDTLS_ERR_SSL_WANT_READ || status == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static bool shake_hands(peer_t *peer);

/* The device has lost its association and begins anew from the same port; the library has already thrown the
 * old one away and holds the ClientHello. */
static bool start_over(peer_t *peer)
{
    peer->connected = peer->full = false;
    mbedtls_ssl_set_mtu(&peer->ssl, HANDSHAKE_MTU);
    begin_association(peer);
    return shake_hands(peer);
}

/* Takes in what came over an association. False: it has ended. */
static bool take_records(peer_t *peer)
{
    service_t *service = peer->service;
    for (;;) {
        int status = mbedtls_ssl_read(&peer->ssl, service->uplink, sizeof service->uplink);
        bool empty = compat_take_empty_record(&peer->ssl);
        if ((status > 0 || empty) && !take_uplink(peer, status > 0 ? (size_t)status : 0))
            return false;
        if (status > 0)
            continue;
        if (status == 0 || is_wanting(status))
            return true;
        if (status == MBEDTLS_ERR_SSL_CLIENT_RECONNECT)
            return start_over(peer);
        if (status == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            mbedtls_ssl_close_notify(&peer->ssl); /* owed: RFC 5246 section 7.2.1 */
            printf("closed %s\n", peer->device);
        } else {
            report_failure(peer, status);
        }
        return false;
    }
}

/* Whether the library waits for what only a full handshake has. */
static bool is_in_full_handshake(const mbedtls_ssl_context *ssl)
{
    int state = ssl->MBEDTLS_PRIVATE(state);
    return state >= MBEDTLS_SSL_CLIENT_CERTIFICATE && state <= MBEDTLS_SSL_CERTIFICATE_VERIFY;
}

/* Continues a handshake. False: it has failed, or its ClientHello bears no cookie yet. */
static bool shake_hands(peer_t *peer)
{
    int status = mbedtls_ssl_handshake(&peer->ssl);
    if (status == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED)
        return false;
    if (is_wanting(status)) {
        peer->full = peer->full || is_in_full_handshake(&peer->ssl);
        return true;
    }
    if (status ==
        MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE) /* the one refusal that the library keeps to itself */
        mbedtls_ssl_send_alert_message(&peer->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                       MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
    if (status != 0) {
        report_failure(peer, status);
        return false;
    }
    peer->connected = true;
    mbedtls_ssl_set_mtu(&peer->ssl, 0); /* it would cap downlinks too */
    name_device(peer);
    printf("handshake %s %s %s\n", peer->device, peer->full ? "full" : "resumed",
           mbedtls_ssl_get_ciphersuite(&peer->ssl));
    return take_records(peer);
}

/* Gives the library one record, or (NULL) the time. One at a time, since an empty one can be noticed only
 * until the next. False: the association has ended. */
static bool feed(peer_t *peer, const unsigned char *record, size_t length)
{
    bool alive = true;
    peer->record = record;
    peer->record_length = length;
    /* Twice where a timer has run out, which the library sees to first. */
    for (int i = 0; i < 2 && alive && (i == 0 || peer->record != NULL); i++)
        alive = peer->connected ? take_records(peer) : shake_hands(peer);
    peer->record = NULL;
    return alive;
}

/* --- All peers --- */

static void remove_peer(service_t *service, size_t index)
{
    peer_free(service->peers[index]);
    service->peers[index] = service->peers[--service->peer_count];
}

/* Makes room, if needed, at the cost of the one that was silent for longest. */
static void add_peer(service_t *service, peer_t *peer)
{
    if (service->peer_count == SERVICE_PEERS_MAX) {
        size_t oldest = 0;
        for (size_t i = 1; i < service->peer_count; i++)
            if (service->peers[i]->heard < service->peers[oldest]->heard)
                oldest = i;
        remove_peer(service, oldest);
    }
    service->peers[service->peer_count++] = peer;
}

/* The length of the connection ids that are handed out; 0: none are. */
static size_t cid_length(const service_t *service)
{
    return service->settings->tls.cid ? TLS_CID_LENGTH : 0;
}

/* The index of the peer that the datagram at hand is for; peer_count: none. */
static size_t find_peer(const service_t *service, size_t length)
{
    const unsigned char *cid = record_cid(service->datagram, length, cid_length(service));
    size_t i = 0;
    for (; i < service->peer_count; i++) {
        const peer_t *peer = service->peers[i];
        if (cid != NULL ? memcmp(peer->cid, cid, TLS_CID_LENGTH) == 0
                        : is_same_address(&peer->address, &service->from))
            break;
    }
    return i;
}

/* False: the association has ended. */
static bool feed_datagram(peer_t *peer, size_t length)
{
    service_t *service = peer->service;
    const unsigned char *bytes = service->datagram;
    bool alive = true;
    for (size_t taken = 0; taken < length && alive;) {
        size_t record = record_length(bytes + taken, length - taken, cid_length(service));
        log_record(service, peer->association, bytes + taken, record);
        alive = feed(peer, bytes + taken, record);
        taken += record;
    }
    return alive;
}

static void greet_stranger(service_t *service, size_t length)
{
    const unsigned char *bytes = service->datagram;
    peer_t *peer = record_is_client_hello(bytes, length) ? peer_new(service) : NULL;
    if (peer == NULL) {
        log_record(service, 0, bytes, record_length(bytes, length, cid_length(service)));
        return;
    }
    if (!feed_datagram(peer, length)) {
        peer_free(peer);
        return;
    }
    begin_association(peer);
    peer->heard = service->datagrams;
    add_peer(service, peer);
}

static void handle_datagram(service_t *service, size_t length)
{
    size_t index = find_peer(service, length);
    service->datagrams++;
    if (index == service->peer_count) {
        greet_stranger(service, length);
        return;
    }
    service->peers[index]->heard = service->datagrams;
    if (!feed_datagram(service->peers[index], length))
        remove_peer(service, index);
}

void service_receive(service_t *service)
{
    for (int i = 0; i < DATAGRAMS_AT_ONCE; i++) {
        service->from = (address_t){.length = sizeof service->from.storage};
        ssize_t length = recvfrom(service->fd, service->datagram, sizeof service->datagram, 0,
                                  (struct sockaddr *)&service->from.storage, &service->from.length);
        if (length < 0)
            return;
        if (length > 0)
            handle_datagram(service, (size_t)length);
    }
}

int64_t service_deadline_ms(const service_t *service)
{
    int64_t deadline_ms = INT64_MAX;
    for (size_t i = 0; i < service->peer_count; i++) {
        const peer_t *peer = service->peers[i];
        if (!peer->connected && peer->final_ms != 0 && peer->final_ms < deadline_ms)
            deadline_ms = peer->final_ms;
    }
    return deadline_ms;
}

void service_tick(service_t *service)
{
    int64_t now_ms = wait_now_ms();
    /* Backwards, since the last one takes the place of one that is removed. */
    for (size_t i = service->peer_count; i-- > 0;) {
        peer_t *peer = service->peers[i];
        if (!peer->connected && peer->final_ms != 0 && peer->final_ms <= now_ms && !feed(peer, NULL, 0))
            remove_peer(service, i);
    }
}

void service_forget(service_t *service)
{
    while (service->peer_count > 0)
        remove_peer(service, service->peer_count - 1);
}
