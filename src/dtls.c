#include "dtls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <mbedtls/debug.h>
#include <mbedtls/version.h>

#include "compat.h"
#include "diagnose.h"
#include "log.h"
#include "random.h"
#include "resolve.h"

enum {
    RETRANSMIT_FIRST_MS = 1000, /* RFC 6347 section 4.2.4.1 */
    RETRANSMIT_LAST_MS = 4000,  /* after waiting 1, 2 and 4 s a handshake starts afresh, from another port */
    SILENT_MS = 2000, /* a first try of an address that says nothing ends then, if there are others */
    DRAIN_MS = 100    /* what still arrives after a deadline is read for so long: a flood must not hold us */
};

/* ECDHE with AEAD only. ChaCha20-Poly1305 first: without AES instructions, as on a Pi Zero, it is the
 * fastest, and its records are 8 bytes shorter than those of GCM. CCM_8 is what constrained servers have (RFC
 * 7925 section 4.2). */
static const int cipher_suites[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                                    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                                    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                                    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
                                    0};

/* What a certificate on the way to an anchor may be made of. */
static const mbedtls_x509_crt_profile certificate_profile = {
    .allowed_mds = MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA256) | MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA384) |
                   MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA512),
    .allowed_pks = 0xFFFFFFF, /* any */
    .allowed_curves = MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP256R1) |
                      MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP384R1) |
                      MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP521R1),
    .rsa_min_bitlen = 2048,
};

static dtls_outcome_t fail(dtls_state_t *state, dtls_outcome_t outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Notes the reason behind "HOST:PORT: ". */
static dtls_outcome_t fail(dtls_state_t *state, dtls_outcome_t outcome, const char *format, ...)
{
    const char *open = strchr(state->config.host, ':') != NULL ? "[" : "";
    const char *close = *open != '\0' ? "]" : "";
    int used = snprintf(state->error, sizeof state->error, "%s%s%s:%s: ", open, state->config.host, close,
                        state->config.port);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state->error + used, sizeof state->error - (size_t)used, format, arguments);
    va_end(arguments);
    return outcome;
}

void dtls_init(dtls_state_t *state)
{
    memset(state, 0, sizeof *state);
    credentials_init(&state->credentials);
    transport_init(&state->transport);
    mbedtls_ssl_init(&state->ssl);
    mbedtls_ssl_config_init(&state->ssl_config);
    mbedtls_ctr_drbg_init(&state->drbg);
}

const char *dtls_error_text(const dtls_state_t *state)
{
    return state->error;
}

int dtls_fd(const dtls_state_t *state)
{
    return state->transport.net.fd;
}

const char *dtls_library(void)
{
    static char text[32];
    mbedtls_version_get_string_full(text);
    return text;
}

int64_t dtls_round_trip_us(const dtls_state_t *state)
{
    return state->transport.round_trip_us;
}

/* --- What mbed TLS calls --- */

static int draw(void *context, unsigned char *output, size_t length)
{
    dtls_state_t *state = context;
    if (!state->drbg_seeded) {
        int status =
            mbedtls_ctr_drbg_seed(&state->drbg, random_bytes, NULL, (const unsigned char *)"dtls-send", 9);
        if (status != 0)
            return status;
        state->drbg_seeded = true;
    }
    return mbedtls_ctr_drbg_random(&state->drbg, output, length);
}

static void print_library_log(void *context, int level, const char *file, int line, const char *message)
{
    (void)context;
    (void)level;
    const char *slash = strrchr(file, '/');
    log_print(LOG_DEBUG, "mbedtls: %s:%d: %.*s", slash != NULL ? slash + 1 : file, line,
              (int)strcspn(message, "\n"), message);
}

/* --- Who the server must be --- */

/* Splits off what a certificate never has: the dot of a fully qualified name, the zone of an IPv6 address. */
static void set_server_name(dtls_state_t *state)
{
    const dtls_config_t *config = &state->config;
    const char *name = config->server_name != NULL ? config->server_name : config->host;
    snprintf(state->server_name, sizeof state->server_name, "%s", name);
    size_t length = strlen(state->server_name);
    if (length > 1 && state->server_name[length - 1] == '.')
        state->server_name[length - 1] = '\0';
    if (strchr(state->server_name, ':') != NULL)
        state->server_name[strcspn(state->server_name, "%")] = '\0';
    state->name_address_length = 0;
    if (inet_pton(AF_INET, state->server_name, state->name_address) == 1)
        state->name_address_length = 4;
    else if (inet_pton(AF_INET6, state->server_name, state->name_address) == 1)
        state->name_address_length = 16;
}

/* mbed TLS 2.28 knows no iPAddress names, so addresses are compared here for all versions (RFC 5280 section
 * 4.2.1.6); the library is then given no name to check. */
static bool carries_address(const dtls_state_t *state, const mbedtls_x509_crt *certificate)
{
    for (const mbedtls_x509_sequence *name = &certificate->subject_alt_names; name != NULL;
         name = name->next) {
        if (name->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_IP_ADDRESS) &&
            name->buf.len == state->name_address_length &&
            memcmp(name->buf.p, state->name_address, name->buf.len) == 0)
            return true;
    }
    return false;
}

/* Called for each certificate of the chain after the library's own checks; depth 0 is the server's. It only
 * ever adds to what is wrong. */
static int check_certificate(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    dtls_state_t *state = context;
    if (depth == 0 && state->name_address_length > 0 && !carries_address(state, certificate))
        *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    if ((*flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0)
        credentials_format_date(&certificate->valid_to, state->bad_date);
    else if ((*flags & MBEDTLS_X509_BADCERT_FUTURE) != 0)
        credentials_format_date(&certificate->valid_from, state->bad_date);
    return 0;
}

static int configure(dtls_state_t *state)
{
    mbedtls_ssl_config *config = &state->ssl_config;
    int status = mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                             MBEDTLS_SSL_PRESET_DEFAULT);
    if (status != 0)
        return status;
    compat_dtls12_only(config);
    compat_groups_and_signatures(config);
    mbedtls_ssl_conf_ciphersuites(config, cipher_suites);
    mbedtls_ssl_conf_encrypt_then_mac(config, MBEDTLS_SSL_ETM_DISABLED); /* for CBC, which is not offered */
    mbedtls_ssl_conf_session_tickets(config, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_cert_profile(config, &certificate_profile);
    mbedtls_ssl_conf_verify(config, check_certificate, state);
    mbedtls_ssl_conf_ca_chain(config, &state->credentials.anchors, NULL);
    mbedtls_ssl_conf_handshake_timeout(config, RETRANSMIT_FIRST_MS, RETRANSMIT_LAST_MS);
    mbedtls_ssl_conf_rng(config, draw, state);
    if (log_level() >= LOG_DEBUG) {
        mbedtls_ssl_conf_dbg(config, print_library_log, NULL);
        mbedtls_debug_set_threshold(2); /* from 3 on it prints the premaster secret */
    }
    return mbedtls_ssl_conf_own_cert(config, &state->credentials.chain, &state->credentials.key);
}

/* Notes what an mbed TLS error means to the caller. */
static dtls_outcome_t explain(dtls_state_t *state, int status)
{
    char reason[448];
    dtls_outcome_t outcome = diagnose(state, status, reason, sizeof reason);
    return fail(state, outcome, "%s", reason);
}

/* --- Waiting --- */

/* Waits for what the library wants, until `limit` or until its timer asks for a retransmission. DTLS_OK: call
 * it again. */
static dtls_outcome_t pause_for(dtls_state_t *state, int wanted, wait_limit_t limit)
{
    if (wait_now_ms() - DRAIN_MS > limit.deadline_ms)
        return DTLS_TIMEOUT;
    switch (
        transport_wait(&state->transport, wanted == MBEDTLS_ERR_SSL_WANT_WRITE ? POLLOUT : POLLIN, limit)) {
    case WAIT_READY:
        return DTLS_OK;
    case WAIT_TIMEOUT:
        return DTLS_TIMEOUT;
    case WAIT_INTERRUPTED:
        return fail(state, DTLS_INTERRUPTED, "interrupted");
    default:
        return fail(state, DTLS_SYSTEM, "poll: %s", strerror(errno));
    }
}

static bool is_wanting(int status)
{
    return status == MBEDTLS_ERR_SSL_WANT_READ || status == MBEDTLS_ERR_SSL_WANT_WRITE;
}

/* --- Connecting --- */

static dtls_outcome_t prepare_handshake(dtls_state_t *state)
{
    mbedtls_ssl_free(&state->ssl);
    mbedtls_ssl_init(&state->ssl);
    int status = mbedtls_ssl_setup(&state->ssl, &state->ssl_config);
    /* No name for an address: check_certificate() does that, and RFC 6066 section 3 forbids it in the
     * extension.
     */
    if (status == 0)
        status =
            mbedtls_ssl_set_hostname(&state->ssl, state->name_address_length > 0 ? NULL : state->server_name);
    if (status != 0)
        return explain(state, status);
    mbedtls_ssl_set_bio(&state->ssl, &state->transport, transport_send, transport_receive, NULL);
    mbedtls_ssl_set_timer_cb(&state->ssl, &state->transport, transport_set_timer, transport_get_timer);
    mbedtls_ssl_set_mtu(&state->ssl, state->config.mtu != 0 ? state->config.mtu : DTLS_MTU_DEFAULT);
    return DTLS_OK;
}

/* `silent` bounds the wait for the first answer, the connection's own limit the rest. */
static dtls_outcome_t handshake(dtls_state_t *state, wait_limit_t silent)
{
    for (;;) {
        state->transport.may_receive = true;
        int status = mbedtls_ssl_handshake(&state->ssl);
        if (status == 0)
            break;
        dtls_outcome_t outcome =
            is_wanting(status)
                ? pause_for(state, status, state->transport.round_trip_us == 0 ? silent : state->config.limit)
                : explain(state, status);
        if (outcome == DTLS_CLOSED)
            return DTLS_PROTOCOL;
        if (outcome == DTLS_TIMEOUT)
            return fail(state, DTLS_TIMEOUT,
                        state->transport.round_trip_us == 0
                            ? "no answer from %s"
                            : "the handshake with %s was not completed in time",
                        state->transport.peer);
        if (outcome != DTLS_OK)
            return outcome;
    }
    /* It would hold for application records too, and refuse any payload that is larger. */
    mbedtls_ssl_set_mtu(&state->ssl, 0);
    state->connected = true;
    log_step("connected to %s: full handshake, %s, round trip %.1f ms", state->transport.peer,
             mbedtls_ssl_get_ciphersuite(&state->ssl), (double)state->transport.round_trip_us / 1000);
    return DTLS_OK;
}

static dtls_outcome_t attempt(dtls_state_t *state, const struct addrinfo *address, wait_limit_t silent)
{
    bool opened = transport_open(&state->transport, address);
    log_step("trying %s", state->transport.peer);
    dtls_outcome_t outcome = opened ? prepare_handshake(state) : explain(state, 0);
    if (outcome == DTLS_OK)
        outcome = handshake(state, silent);
    if (outcome != DTLS_OK)
        log_step("%s", state->error);
    return outcome;
}

/* One round over all addresses. In the first round one that says nothing is left soon for the next. */
static dtls_outcome_t try_each(dtls_state_t *state, const struct addrinfo *addresses, bool first_round)
{
    dtls_outcome_t result = DTLS_REFUSED;
    for (const struct addrinfo *address = addresses; address != NULL; address = address->ai_next) {
        int64_t left = 1; /* addresses yet to be tried */
        for (const struct addrinfo *other = address->ai_next; other != NULL; other = other->ai_next)
            left++;
        int64_t share_ms = (state->config.limit.deadline_ms - wait_now_ms()) / left;
        wait_limit_t silent = state->config.limit;
        if (first_round && addresses->ai_next != NULL)
            silent = wait_at_most(silent, share_ms < SILENT_MS ? share_ms : SILENT_MS);
        dtls_outcome_t outcome = attempt(state, address, silent);
        if (outcome == DTLS_TIMEOUT)
            result = DTLS_TIMEOUT;
        else if (outcome != DTLS_REFUSED)
            return outcome;
    }
    return result;
}

static dtls_outcome_t try_addresses(dtls_state_t *state, const struct addrinfo *addresses)
{
    dtls_outcome_t outcome = try_each(state, addresses, true);
    while (outcome == DTLS_TIMEOUT && wait_now_ms() < state->config.limit.deadline_ms)
        outcome = try_each(state, addresses, false);
    return outcome;
}

static dtls_outcome_t find_addresses(dtls_state_t *state, struct addrinfo **addresses)
{
    const char *reason = "";
    switch (resolve(state->config.host, state->config.port, state->config.family, state->config.limit,
                    addresses, &reason)) {
    case RESOLVE_OK:
        return DTLS_OK;
    case RESOLVE_UNKNOWN:
        return fail(state, DTLS_NAME_UNKNOWN, "host name unknown: %s", reason);
    case RESOLVE_UNAVAILABLE:
    case RESOLVE_TIMEOUT:
        return fail(state, DTLS_TIMEOUT, "host name not found yet: %s", reason);
    case RESOLVE_INTERRUPTED:
        return fail(state, DTLS_INTERRUPTED, "%s", reason);
    default:
        return fail(state, DTLS_SYSTEM, "host name not looked up: %s", reason);
    }
}

dtls_outcome_t dtls_connect(dtls_state_t *state, const dtls_config_t *config)
{
    struct addrinfo *addresses = NULL;
    state->config = *config;
    set_server_name(state);
    dtls_outcome_t outcome = find_addresses(state, &addresses);
    if (outcome != DTLS_OK)
        return outcome;
    int status = configure(state);
    outcome = status == 0 ? try_addresses(state, addresses) : explain(state, status);
    freeaddrinfo(addresses);
    return outcome;
}

/* --- Connected --- */

size_t dtls_payload_maximum(const dtls_state_t *state)
{
    int maximum = mbedtls_ssl_get_max_out_record_payload(&state->ssl);
    return maximum < 0 ? 0 : maximum < DTLS_PAYLOAD_MAX ? (size_t)maximum : DTLS_PAYLOAD_MAX;
}

dtls_outcome_t dtls_send(dtls_state_t *state, const void *payload, size_t length)
{
    size_t maximum = dtls_payload_maximum(state);
    if (length > maximum)
        return fail(state, DTLS_TOO_LARGE, "takes payloads of at most %zu bytes; this one has %zu", maximum,
                    length);
    for (;;) {
        int status = mbedtls_ssl_write(&state->ssl, payload, length);
        if (status >= 0)
            return DTLS_OK;
        dtls_outcome_t outcome =
            is_wanting(status) ? pause_for(state, status, state->config.limit) : explain(state, status);
        if (outcome == DTLS_TIMEOUT)
            return fail(state, DTLS_TIMEOUT, "the payload could not be sent in time");
        if (outcome != DTLS_OK)
            return outcome;
    }
}

/* Hands out the record that the library holds decrypted. */
static dtls_outcome_t take_record(dtls_state_t *state, unsigned char *buffer, size_t size, size_t *length)
{
    *length = mbedtls_ssl_get_bytes_avail(&state->ssl);
    if (*length > size)
        return fail(state, DTLS_TOO_LARGE, "a downlink of %zu bytes came, and the buffer holds %zu", *length,
                    size);
    int status = mbedtls_ssl_read(&state->ssl, buffer, size);
    return status == (int)*length ? DTLS_OK : explain(state, status);
}

dtls_outcome_t dtls_receive(dtls_state_t *state, void *buffer, size_t size, size_t *length,
                            int64_t timeout_ms)
{
    wait_limit_t limit = wait_at_most(state->config.limit, timeout_ms);
    *length = 0;
    for (;;) {
        state->transport.may_receive = true;
        int status = mbedtls_ssl_read(&state->ssl, NULL, 0); /* takes a record in, and nothing out of it */
        bool empty = compat_take_empty_record(&state->ssl);
        if (status == 0 && mbedtls_ssl_get_bytes_avail(&state->ssl) > 0)
            return take_record(state, buffer, size, length);
        if (empty && (status == 0 || is_wanting(status)))
            return DTLS_OK;
        dtls_outcome_t outcome = status == 0 || is_wanting(status)
                                     ? pause_for(state, MBEDTLS_ERR_SSL_WANT_READ, limit)
                                     : explain(state, status);
        if (outcome == DTLS_TIMEOUT)
            return fail(state, DTLS_TIMEOUT, "no downlink came");
        if (outcome != DTLS_OK)
            return outcome;
    }
}

void dtls_close(dtls_state_t *state)
{
    if (state->connected) {
        mbedtls_ssl_close_notify(&state->ssl);
        log_step("closed: %llu bytes in %lu datagrams sent, %llu bytes in %lu datagrams received",
                 state->transport.bytes_sent, state->transport.datagrams_sent,
                 state->transport.bytes_received, state->transport.datagrams_received);
    }
    mbedtls_ssl_free(&state->ssl);
    mbedtls_ssl_config_free(&state->ssl_config);
    mbedtls_ctr_drbg_free(&state->drbg);
    transport_close(&state->transport);
    credentials_free(&state->credentials);
    dtls_init(state);
}
