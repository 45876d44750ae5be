#include "dtls.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/debug.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/version.h>

#include "dtls/compat.h"
#include "dtls/diagnose.h"
#include "dtls/policy.h"
#include "dtls_internal.h"
#include "system/log.h"
#include "system/random.h"
#include "system/resolve.h"

enum {
    RETRANSMIT_FIRST_MS = 1000, /* RFC 6347 section 4.2.4.1 */
    RETRANSMIT_LAST_MS =
        8000,         /* after waiting 1, 2, 4 and 8 of these a handshake starts afresh, from another port */
    SILENT_MS = 2000, /* a first try of an address that says nothing ends then, if there are others */
    DRAIN_MS = 100    /* what still arrives after a deadline is read for so long: a flood must not hold us */
};

dtls_outcome_t dtls_fail(dtls_state_t *state, dtls_outcome_t outcome, const char *format, ...)
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

int64_t dtls_expiry(const dtls_state_t *state)
{
    return state->expiry;
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

/* The certificates on the way to the anchor may end before the saved session does. */
static void note_expiry(dtls_state_t *state, const mbedtls_x509_crt *certificate)
{
    int64_t expiry = credentials_seconds(&certificate->valid_to);
    if (state->expiry == 0 || expiry < state->expiry)
        state->expiry = expiry;
}

/* Called in full handshakes, for each certificate of the chain after the library's own checks; depth 0 is the
 * server's. It only ever adds to what is wrong. */
static int check_certificate(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    dtls_state_t *state = context;
    if (depth == 0)
        *flags |= identity_find_faults(&state->identity, certificate);
    if ((*flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0)
        credentials_format_date(&certificate->valid_to, state->bad_date);
    else if ((*flags & MBEDTLS_X509_BADCERT_FUTURE) != 0)
        credentials_format_date(&certificate->valid_from, state->bad_date);
    note_expiry(state, certificate);
    return 0;
}

void dtls_add_callbacks(dtls_state_t *state)
{
    mbedtls_ssl_conf_rng(&state->ssl_config, draw, state);
    if (log_level() >= LOG_DEBUG) {
        mbedtls_ssl_conf_dbg(&state->ssl_config, print_library_log, NULL);
        mbedtls_debug_set_threshold(2); /* from 3 on it prints the premaster secret */
    }
}

static int configure_handshake(dtls_state_t *state)
{
    mbedtls_ssl_config *config = &state->ssl_config;
    const psk_t *psk = &state->credentials.psk;
    int status = policy_apply(config, psk->key_length > 0, state->config.want_ticket);
    if (status != 0)
        return status;
    dtls_add_callbacks(state);
    mbedtls_ssl_conf_verify(config, check_certificate, state);
    mbedtls_ssl_conf_handshake_timeout(config, RETRANSMIT_FIRST_MS, RETRANSMIT_LAST_MS);
    if (psk->key_length > 0)
        return mbedtls_ssl_conf_psk(config, psk->key, psk->key_length, psk->identity, psk->identity_length);
    mbedtls_ssl_conf_ca_chain(config, &state->credentials.anchors, NULL);
    return mbedtls_ssl_conf_own_cert(config, &state->credentials.chain, &state->credentials.key);
}

dtls_outcome_t dtls_explain(dtls_state_t *state, int status)
{
    char reason[448];
    dtls_outcome_t outcome = diagnose(state, status, reason, sizeof reason);
    state->server_closed = outcome == DTLS_CLOSED;
    return dtls_fail(state, outcome, "%s", reason);
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
        return dtls_fail(state, DTLS_INTERRUPTED, "interrupted");
    default:
        return dtls_fail(state, DTLS_SYSTEM, "poll: %s", strerror(errno));
    }
}

static bool is_wanting(int status)
{
    return status == MBEDTLS_ERR_SSL_WANT_READ || status == MBEDTLS_ERR_SSL_WANT_WRITE;
}

/* --- Connecting --- */

int dtls_prepare(dtls_state_t *state)
{
    mbedtls_ssl_free(&state->ssl);
    mbedtls_ssl_init(&state->ssl);
    int status = mbedtls_ssl_setup(&state->ssl, &state->ssl_config);
    mbedtls_ssl_set_bio(&state->ssl, &state->transport, transport_send, transport_receive, NULL);
    mbedtls_ssl_set_timer_cb(&state->ssl, &state->transport, transport_set_timer, transport_get_timer);
    return status;
}

/* Asks for an abbreviated handshake where a session was saved; one that cannot be used costs a full one. No
 * other suite than the session's can come of it, so at first only that is offered, in both ClientHellos. A
 * server that takes it no more refuses, and the caller comes again without the session; or it says nothing.
 */
static void offer_session(dtls_state_t *state)
{
    mbedtls_ssl_session session;
    const int *suites = policy_cipher_suites(state->credentials.psk.key_length > 0);
    mbedtls_ssl_session_init(&session);
    if (state->config.session.length > 0 &&
        mbedtls_ssl_session_load(&session, state->config.session.bytes, state->config.session.length) == 0 &&
        mbedtls_ssl_set_session(&state->ssl, &session) == 0 && !state->has_stalled) {
        state->offered_suite[0] = compat_suite(&session);
        suites = state->offered_suite;
    }
    mbedtls_ssl_conf_ciphersuites(&state->ssl_config, suites);
    memcpy(state->offered, compat_master(&session), sizeof state->offered);
    mbedtls_ssl_session_free(&session);
}

static dtls_outcome_t prepare_handshake(dtls_state_t *state)
{
    int status = dtls_prepare(state);
    /* No name for an address: check_certificate() does that, and RFC 6066 section 3 forbids it in the
     * extension. */
    if (status == 0)
        status = mbedtls_ssl_set_hostname(&state->ssl,
                                          state->identity.address_length > 0 ? NULL : state->identity.name);
    if (status == 0 && state->config.offer_connection_id)
        status = compat_offer_connection_id(&state->ssl);
    if (status != 0)
        return dtls_explain(state, status);
    mbedtls_ssl_set_mtu(&state->ssl, state->config.mtu != 0 ? state->config.mtu : DTLS_MTU_DEFAULT);
    state->expiry = 0;
    transport_expect_round_trip(&state->transport, state->config.round_trip_us);
    offer_session(state);
    return DTLS_OK;
}

static dtls_outcome_t explain_silence(dtls_state_t *state)
{
    if (state->transport.round_trip_us == 0)
        return dtls_fail(state, DTLS_TIMEOUT, "no answer from %s", state->transport.peer);
    /* RFC 6347 section 4.1.2.7: what does not decrypt is dropped without a word. */
    return dtls_fail(
        state, DTLS_TIMEOUT, "the handshake with %s was not completed in time%s", state->transport.peer,
        state->credentials.psk.key_length > 0 ? "; perhaps its key is not the one in --psk" : "");
}

/* Whether the handshake was abbreviated. */
static bool was_resumed(const dtls_state_t *state)
{
    return memcmp(compat_master(compat_session(&state->ssl)), state->offered, sizeof state->offered) == 0;
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
                : dtls_explain(state, status);
        if (outcome == DTLS_CLOSED)
            return DTLS_PROTOCOL;
        if (outcome == DTLS_TIMEOUT)
            return explain_silence(state);
        if (outcome != DTLS_OK)
            return outcome;
    }
    /* It would hold for application records too, and refuse any payload that is larger. */
    mbedtls_ssl_set_mtu(&state->ssl, 0);
    policy_limit_forgeries(&state->ssl_config, compat_suite(compat_session(&state->ssl)));
    state->connected = true;
    log_step("connected to %s: %s handshake, %s, round trip %.1f ms", state->transport.peer,
             was_resumed(state) ? "resumed" : "full", mbedtls_ssl_get_ciphersuite(&state->ssl),
             (double)state->transport.round_trip_us / 1000);
    return DTLS_OK;
}

static dtls_outcome_t attempt(dtls_state_t *state, const struct addrinfo *address, wait_limit_t silent)
{
    /* A handshake that stalled and starts afresh need not wait a whole second again to find a datagram lost.
     */
    if (state->transport.round_trip_us != 0)
        state->config.round_trip_us = state->transport.round_trip_us;
    bool opened = transport_open(&state->transport, address, NULL);
    log_step("trying %s", state->transport.peer);
    dtls_outcome_t outcome = opened ? prepare_handshake(state) : dtls_explain(state, 0);
    if (outcome == DTLS_OK)
        outcome = handshake(state, silent);
    if (outcome != DTLS_OK)
        log_step("%s", state->error);
    state->has_stalled = state->has_stalled || outcome == DTLS_TIMEOUT;
    return outcome;
}

/* One round over all addresses. In the first, one that says nothing is left soon for the next: after
 * SILENT_MS, or half the time that is left if that is less. */
static dtls_outcome_t try_each(dtls_state_t *state, const struct addrinfo *addresses, bool first_round)
{
    dtls_outcome_t result = DTLS_REFUSED;
    for (const struct addrinfo *address = addresses; address != NULL; address = address->ai_next) {
        wait_limit_t silent = state->config.limit;
        if (first_round && address->ai_next != NULL) {
            int64_t half_ms = (silent.deadline_ms - wait_now_ms()) / 2;
            silent = wait_at_most(silent, half_ms < SILENT_MS ? half_ms : SILENT_MS);
        }
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
        return dtls_fail(state, DTLS_NAME_UNKNOWN, "host name unknown: %s", reason);
    case RESOLVE_UNAVAILABLE:
    case RESOLVE_TIMEOUT:
        return dtls_fail(state, DTLS_TIMEOUT, "host name not found yet: %s", reason);
    case RESOLVE_INTERRUPTED:
        return dtls_fail(state, DTLS_INTERRUPTED, "%s", reason);
    default:
        return dtls_fail(state, DTLS_SYSTEM, "host name not looked up: %s", reason);
    }
}

dtls_outcome_t dtls_connect(dtls_state_t *state, const dtls_config_t *config)
{
    struct addrinfo *addresses = NULL;
    state->config = *config;
    identity_set(&state->identity, config->server_name != NULL ? config->server_name : config->host);
    dtls_outcome_t outcome = find_addresses(state, &addresses);
    if (outcome != DTLS_OK)
        return outcome;
    int status = configure_handshake(state);
    outcome = status == 0 ? try_addresses(state, addresses) : dtls_explain(state, status);
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
        return dtls_fail(state, DTLS_TOO_LARGE, "takes payloads of at most %zu bytes; this one has %zu",
                         maximum, length);
    for (;;) {
        int status = mbedtls_ssl_write(&state->ssl, payload, length);
        if (status >= 0)
            return DTLS_OK;
        dtls_outcome_t outcome =
            is_wanting(status) ? pause_for(state, status, state->config.limit) : dtls_explain(state, status);
        if (outcome == DTLS_TIMEOUT)
            return dtls_fail(state, DTLS_TIMEOUT, "the payload could not be sent in time");
        if (outcome != DTLS_OK)
            return outcome;
    }
}

/* Hands out the record that the library holds decrypted. */
static dtls_outcome_t take_record(dtls_state_t *state, unsigned char *buffer, size_t size, size_t *length)
{
    *length = mbedtls_ssl_get_bytes_avail(&state->ssl);
    if (*length > size)
        return dtls_fail(state, DTLS_TOO_LARGE, "a downlink of %zu bytes came, and the buffer holds %zu",
                         *length, size);
    int status = mbedtls_ssl_read(&state->ssl, buffer, size);
    return status == (int)*length ? DTLS_OK : dtls_explain(state, status);
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
                                     : dtls_explain(state, status);
        if (outcome == DTLS_TIMEOUT)
            return dtls_fail(state, DTLS_TIMEOUT, "no downlink came");
        if (outcome != DTLS_OK)
            return outcome;
    }
}

void dtls_log_traffic(const dtls_state_t *state)
{
    const transport_t *transport = &state->transport;
    log_step("%llu bytes in %lu datagrams sent, %llu bytes in %lu datagrams received", transport->bytes_sent,
             transport->datagrams_sent, transport->bytes_received, transport->datagrams_received);
}

void dtls_close(dtls_state_t *state)
{
    if (state->connected) {
        mbedtls_ssl_close_notify(&state->ssl);
        dtls_log_traffic(state);
    }
    mbedtls_ssl_free(&state->ssl);
    mbedtls_ssl_config_free(&state->ssl_config);
    mbedtls_ctr_drbg_free(&state->drbg);
    transport_close(&state->transport);
    credentials_free(&state->credentials);
    dtls_init(state);
}
