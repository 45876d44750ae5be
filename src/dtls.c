#include "dtls.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/version.h>

#include "credentials/compat.h"
#include "dtls/diagnose.h"
#include "dtls/policy.h"
#include "system/log.h"
#include "system/resolve.h"

enum {
    /* RFC 6347 section 4.2.4.1; the transport decides how long such a second lasts, and the longest delay. */
    RETRANSMIT_FIRST_MS = 1000,
    RETRANSMIT_LAST_MS = 1 << 30,
    /* A server that serves one client at a time (Bouncy Castle's) needs so long to listen again. */
    GOODBYE_MS = 200,
    DRAIN_MS = 100 /* what still arrives after a deadline is read for so long: a flood must not hold us */
};

static dtls_outcome_t fail(dtls_state_t *state, dtls_outcome_t outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Notes the reason behind "HOST:PORT: ", for dtls_error_text(). */
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

static bool has_psk(const dtls_state_t *state)
{
    return state->credentials.psk.key_length > 0;
}

/* Notes what an mbed TLS error, or where `status` is 0 the transport's, means. The connection is over: after
 * a failed send the library would send that record later, with the close_notify. */
static dtls_outcome_t explain(dtls_state_t *state, int status)
{
    char reason[640];
    failure_t failure = {.status = status,
                         .socket_error = state->transport.error,
                         .peer = state->transport.peer,
                         .heard = state->transport.heard,
                         .connected = state->connected,
                         .psk = has_psk(state),
                         .flaws = mbedtls_ssl_get_verify_result(&state->ssl),
                         .verification = &state->verification};
    if (status == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        failure.alert = compat_alert(&state->ssl);
    dtls_outcome_t outcome = diagnose(&failure, reason, sizeof reason);
    state->connected = false;
    return fail(state, outcome, "%s", reason);
}

void dtls_init(dtls_state_t *state)
{
    memset(state, 0, sizeof *state);
    credentials_init(&state->credentials);
    transport_init(&state->transport);
    mbedtls_ssl_init(&state->ssl);
    mbedtls_ssl_config_init(&state->ssl_config);
    callbacks_init(&state->callbacks);
}

/* --- What is known --- */

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

bool dtls_was_resumed(const dtls_state_t *state)
{
    const mbedtls_ssl_session *session = compat_session(&state->ssl);
    return session != NULL && memcmp(compat_master(session), state->offered, sizeof state->offered) == 0;
}

int64_t dtls_expiry(const dtls_state_t *state)
{
    return state->verification.expiry;
}

int64_t dtls_round_trip_us(const dtls_state_t *state)
{
    return state->transport.round_trip_us;
}

/* --- The library's context --- */

static int configure_handshake(dtls_state_t *state)
{
    mbedtls_ssl_config *config = &state->ssl_config;
    const psk_t *psk = &state->credentials.psk;
    int status = policy_apply(config, has_psk(state), state->config.want_ticket);
    if (status != 0)
        return status;
    callbacks_install(&state->callbacks, &state->ssl_config);
    mbedtls_ssl_conf_verify(config, verification_check, &state->verification);
    mbedtls_ssl_conf_handshake_timeout(config, RETRANSMIT_FIRST_MS, RETRANSMIT_LAST_MS);
    if (has_psk(state))
        return mbedtls_ssl_conf_psk(config, psk->key, psk->key_length, psk->identity, psk->identity_length);
    mbedtls_ssl_conf_ca_chain(config, &state->credentials.anchors, NULL);
    return mbedtls_ssl_conf_own_cert(config, &state->credentials.chain, &state->credentials.key);
}

/* Makes a fresh context on the socket that was just opened. */
static int prepare(dtls_state_t *state)
{
    mbedtls_ssl_free(&state->ssl);
    mbedtls_ssl_init(&state->ssl);
    int status = mbedtls_ssl_setup(&state->ssl, &state->ssl_config);
    mbedtls_ssl_set_bio(&state->ssl, &state->transport, transport_send, transport_receive, NULL);
    mbedtls_ssl_set_timer_cb(&state->ssl, &state->transport, transport_set_timer, transport_get_timer);
    return status;
}

/* Ends the connection, of which the credentials and the traffic that was counted remain. */
static void end_connection(dtls_state_t *state)
{
    state->said_goodbye = state->connected && mbedtls_ssl_close_notify(&state->ssl) == 0;
    state->connected = false;
    mbedtls_ssl_free(&state->ssl);
    mbedtls_ssl_config_free(&state->ssl_config);
    mbedtls_ssl_init(&state->ssl);
    mbedtls_ssl_config_init(&state->ssl_config);
    transport_close(&state->transport);
}

/* --- Waiting --- */

static bool is_wanting(int status)
{
    return status == MBEDTLS_ERR_SSL_WANT_READ || status == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static dtls_outcome_t explain_wait(dtls_state_t *state, wait_outcome_t outcome)
{
    switch (outcome) {
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

/* Waits for what the library wants, until `limit` or until its timer asks for a retransmission. DTLS_OK: call
 * it again. */
static dtls_outcome_t pause_for(dtls_state_t *state, int wanted, wait_limit_t limit)
{
    short events = wanted == MBEDTLS_ERR_SSL_WANT_WRITE ? POLLOUT : POLLIN;
    if (wait_now_ms() - DRAIN_MS > limit.deadline_ms)
        return DTLS_TIMEOUT;
    return explain_wait(state, transport_wait(&state->transport, events, limit));
}

/* DTLS_TIMEOUT: the connection's limit came first. */
static dtls_outcome_t rest(dtls_state_t *state, int64_t delay_ms)
{
    dtls_outcome_t outcome =
        explain_wait(state, wait_for(-1, 0, wait_at_most(state->config.limit, delay_ms)));
    return outcome == DTLS_TIMEOUT && wait_now_ms() < state->config.limit.deadline_ms ? DTLS_OK : outcome;
}

/* --- One attempt --- */

/* Asks for an abbreviated handshake where a session was saved; one that cannot be used costs a full one. No
 * other suite than the session's can come of it, so at first only that is offered, in both ClientHellos. A
 * server that takes it no more refuses, or says nothing; the next attempt offers all. */
static void offer_session(dtls_state_t *state)
{
    const int *suites = policy_cipher_suites(has_psk(state));
    const dtls_blob_t *saved = &state->config.session;
    state->offered_suite[0] = 0;
    memset(state->offered, 0, sizeof state->offered);
    if (saved->length > 0 && !state->session_refused)
        state->offered_suite[0] = association_offer_session(&state->ssl, saved, state->offered);
    mbedtls_ssl_conf_ciphersuites(&state->ssl_config, state->offered_suite[0] != 0 && !state->has_stalled
                                                          ? state->offered_suite
                                                          : suites);
}

static dtls_outcome_t prepare_handshake(dtls_state_t *state)
{
    const identity_t *identity = &state->verification.identity;
    int status = prepare(state);
    /* No name for an address: verification_check() does that, and RFC 6066 section 3 forbids it in the
     * extension. */
    if (status == 0)
        status = mbedtls_ssl_set_hostname(&state->ssl, identity->address_length > 0 ? NULL : identity->name);
    if (status == 0 && state->config.offer_connection_id)
        status = compat_offer_connection_id(&state->ssl);
    if (status != 0)
        return explain(state, status);
    mbedtls_ssl_set_mtu(&state->ssl, state->config.mtu != 0 ? state->config.mtu : DTLS_MTU_DEFAULT);
    state->verification.expiry = 0;
    offer_session(state);
    return DTLS_OK;
}

static dtls_outcome_t shake_hands(dtls_state_t *state, int64_t patience_ms)
{
    for (;;) {
        state->transport.may_receive = true;
        int status = mbedtls_ssl_handshake(&state->ssl);
        if (status == 0)
            return DTLS_OK;
        dtls_outcome_t outcome =
            is_wanting(status)
                ? pause_for(state, status,
                            transport_bound(&state->transport, patience_ms, state->config.limit))
                : explain(state, status);
        if (outcome == DTLS_CLOSED)
            return DTLS_PROTOCOL;
        if (outcome == DTLS_TIMEOUT)
            return explain(state, MBEDTLS_ERR_SSL_TIMEOUT);
        if (outcome != DTLS_OK)
            return outcome;
    }
}

static void begin_association(dtls_state_t *state)
{
    /* The MTU would hold for application records too, and refuse any payload that is larger. */
    mbedtls_ssl_set_mtu(&state->ssl, 0);
    policy_limit_forgeries(&state->ssl_config, compat_suite(compat_session(&state->ssl)));
    state->transport.measures = false;
    state->connected = true;
}

static dtls_outcome_t attempt(dtls_state_t *state, const struct addrinfo *address, int64_t patience_ms)
{
    bool opened = transport_open(&state->transport, address, NULL);
    state->transport.measures = true;
    log_step("trying %s", state->transport.peer);
    dtls_outcome_t outcome = opened ? prepare_handshake(state) : explain(state, 0);
    if (outcome == DTLS_OK)
        outcome = shake_hands(state, patience_ms);
    if (outcome == DTLS_OK) {
        begin_association(state);
        log_step("connected to %s: %s handshake, %s, round trip %.1f ms", state->transport.peer,
                 dtls_was_resumed(state) ? "resumed" : "full", mbedtls_ssl_get_ciphersuite(&state->ssl),
                 (double)state->transport.round_trip_us / 1000);
        return DTLS_OK;
    }
    state->has_stalled = state->has_stalled || outcome == DTLS_TIMEOUT;
    state->session_refused = state->session_refused || outcome == DTLS_PROTOCOL || outcome == DTLS_REJECTED;
    return outcome;
}

/* --- The verbs --- */

static attempt_t make_attempt(void *context, const struct addrinfo *address, int64_t patience_ms)
{
    dtls_state_t *state = context;
    dtls_outcome_t outcome = attempt(state, address, patience_ms);
    return (attempt_t){.outcome = outcome, .heard = state->transport.heard, .text = state->error};
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
    char text[ATTEMPTS_TEXT_SIZE] = "";
    end_connection(state);
    state->config = *config;
    state->has_stalled = state->session_refused = false;
    verification_begin(&state->verification,
                       config->server_name != NULL ? config->server_name : config->host);
    transport_expect_round_trip(&state->transport, config->round_trip_us);
    dtls_outcome_t outcome = state->said_goodbye ? rest(state, GOODBYE_MS) : DTLS_OK;
    if (outcome == DTLS_OK)
        outcome = find_addresses(state, &addresses);
    if (outcome != DTLS_OK)
        return outcome;
    int status = configure_handshake(state);
    if (status == 0)
        outcome = attempts_run(addresses, config->persist, config->limit, make_attempt, state, text);
    else
        outcome = explain(state, status);
    if (text[0] != '\0')
        memcpy(state->error, text, sizeof text);
    freeaddrinfo(addresses);
    return outcome;
}

size_t dtls_payload_maximum(const dtls_state_t *state)
{
    int maximum = state->connected ? mbedtls_ssl_get_max_out_record_payload(&state->ssl) : 0;
    return maximum < 0 ? 0 : maximum < DTLS_PAYLOAD_MAX ? (size_t)maximum : DTLS_PAYLOAD_MAX;
}

dtls_outcome_t dtls_send(dtls_state_t *state, const void *payload, size_t length)
{
    size_t maximum = dtls_payload_maximum(state);
    if (!state->connected)
        return fail(state, DTLS_CLOSED, "not connected");
    if (length > maximum)
        return fail(state, DTLS_TOO_LARGE, "takes payloads of at most %zu bytes; this one has %zu", maximum,
                    length);
    for (;;) {
        int status = mbedtls_ssl_write(&state->ssl, payload, length);
        if (status >= 0)
            return DTLS_OK;
        dtls_outcome_t outcome =
            is_wanting(status) ? pause_for(state, status, state->config.limit) : explain(state, status);
        state->connected = outcome == DTLS_OK; /* or the close_notify would send the record that waits */
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
    while (state->connected) {
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
    return fail(state, DTLS_CLOSED, "not connected");
}

bool dtls_save_session(dtls_state_t *state, dtls_blob_t *blob)
{
    return association_pack_session(&state->ssl, blob);
}

bool dtls_suspend(dtls_state_t *state, dtls_blob_t *blob)
{
    *blob = (dtls_blob_t){0};
    if (!state->connected ||
        !association_pack(&state->ssl, dtls_fd(state), state->transport.round_trip_us, blob))
        return false;
    transport_log_traffic(&state->transport);
    state->connected = false; /* a close_notify would end what is kept */
    return true;
}

dtls_outcome_t dtls_resume(dtls_state_t *state, const dtls_config_t *config, const dtls_blob_t *blob)
{
    association_ends_t ends;
    state->config = *config;
    if (!association_read_ends(blob, &ends))
        return fail(state, DTLS_PROTOCOL, "the saved association is damaged");
    struct addrinfo peer = {.ai_family = ends.peer.ss_family,
                            .ai_addr = (struct sockaddr *)&ends.peer,
                            .ai_addrlen = ends.peer_length};
    struct addrinfo local = {.ai_addr = (struct sockaddr *)&ends.local, .ai_addrlen = ends.local_length};
    if (!transport_open(&state->transport, &peer, &local) &&
        !(ends.any_port && transport_open(&state->transport, &peer, NULL)))
        return explain(state, 0);
    int status = policy_apply_to_resumed(&state->ssl_config);
    callbacks_install(&state->callbacks, &state->ssl_config);
    if (status == 0)
        status = prepare(state);
    if (status == 0)
        status = association_load(&state->ssl, blob);
    if (status != 0)
        return explain(state, status);
    policy_limit_forgeries(&state->ssl_config, compat_suite(compat_session(&state->ssl)));
    transport_expect_round_trip(&state->transport, ends.round_trip_us);
    state->connected = true;
    return DTLS_OK;
}

void dtls_close(dtls_state_t *state)
{
    bool connected = state->connected;
    end_connection(state);
    if (connected)
        transport_log_traffic(&state->transport);
    callbacks_free(&state->callbacks);
    credentials_free(&state->credentials);
    dtls_init(state);
}
