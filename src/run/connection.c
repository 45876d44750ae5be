#include "run/connection.h"

#include <string.h>
#include <time.h>

#include "credentials/fingerprint.h"
#include "store/file.h"
#include "system/log.h"
#include "system/random.h"

/* So many runs in a row that fail with a session are a reason to drop it. */
enum { FAILURES_MAX = 2 };

_Static_assert(sizeof(fingerprint_stamp_t) == SESSION_STAMP_SIZE, "a saved session holds the stamp");

void connection_init(connection_t *connection)
{
    memset(connection, 0, sizeof *connection);
    dtls_init(&connection->dtls);
}

bool connection_would_replace(const char *session_file, const credentials_source_t *credentials)
{
    credentials_source_t source = credentials_resolve(credentials);
    return file_is_same(session_file, source.cert_file) || file_is_same(session_file, source.key_file) ||
           file_is_same(session_file, source.passphrase_file) || file_is_same(session_file, source.ca) ||
           file_is_same(session_file, source.psk_file);
}

const char *connection_error_text(const connection_t *connection)
{
    const dtls_state_t *dtls = &connection->dtls;
    return dtls->credentials.error[0] != '\0' ? dtls->credentials.error : dtls_error_text(dtls);
}

/* Whether the saved session was made with our credentials; notes which these are. The stamp spares reading
 * and digesting them; where there is none, the digest was made. */
static bool fits_credentials(connection_t *connection, const fingerprint_stamp_t *stamp,
                             unsigned char digest[static SESSION_BINDING_SIZE])
{
    session_t *saved = &connection->saved;
    if (stamp != NULL && memcmp(saved->stamp, stamp, sizeof *stamp) == 0)
        return true;
    if (stamp != NULL && !fingerprint_digest(&connection->config.credentials, digest))
        return false;
    bool fits = memcmp(saved->digest, digest, SESSION_BINDING_SIZE) == 0;
    memcpy(saved->digest, digest, SESSION_BINDING_SIZE);
    if (stamp != NULL)
        memcpy(saved->stamp, stamp, sizeof *stamp);
    else
        memset(saved->stamp, 0, sizeof saved->stamp);
    return fits;
}

/* Takes what the last run saved. It is good for the same server, name, credentials and libraries only. */
static void take_session(connection_t *connection)
{
    fingerprint_stamp_t stamp;
    unsigned char digest[SESSION_BINDING_SIZE];
    const connection_config_t *config = &connection->config;
    const dtls_config_t *dtls = &config->dtls;
    const char *name = dtls->server_name != NULL ? dtls->server_name : dtls->host;
    session_part_t parts[] = {{VERSION, sizeof VERSION},
                              {dtls_library(), strlen(dtls_library())},
                              {dtls->host, strlen(dtls->host)},
                              {dtls->port, strlen(dtls->port)},
                              {name, strlen(name)},
                              {&dtls->family, sizeof dtls->family}};
    if (config->session_file == NULL ||
        !session_bind(connection->binding, parts, sizeof parts / sizeof parts[0]))
        return;
    bool stamped = fingerprint_stamp(&config->credentials, &stamp);
    if (!stamped && !fingerprint_digest(&config->credentials, digest))
        return; /* credentials that cannot be read are told of when they are loaded */
    session_take(config->session_file, connection->binding, &connection->saved);
    if (fits_credentials(connection, stamped ? &stamp : NULL, digest))
        return;
    if (connection->saved.session != NULL || connection->saved.association != NULL)
        log_step("%s: no saved session: was saved for other credentials", config->session_file);
    session_free(&connection->saved);
}

static dtls_config_t config_with_session(const connection_t *connection, wait_limit_t limit)
{
    dtls_config_t config = connection->config.dtls;
    const session_t *saved = &connection->saved;
    config.session = (dtls_blob_t){saved->session, saved->session_length};
    config.want_ticket = saved->want_ticket;
    config.offer_connection_id = connection->config.session_file != NULL;
    config.round_trip_us = saved->round_trip_us;
    config.limit = limit;
    return config;
}

/* Until the first certificate on either side expires. */
static int64_t find_expiry(const connection_t *connection)
{
    int64_t server = dtls_expiry(&connection->dtls);
    int64_t own = credentials_expiry(&connection->dtls.credentials);
    return server != 0 && server < own ? server : own;
}

/* CoAP's ids and tokens start at random under new keys (RFC 7252 section 4.4). */
static void begin_counters(session_t *saved)
{
    random_bytes(NULL, (unsigned char *)&saved->message_id, sizeof saved->message_id);
    random_bytes(NULL, (unsigned char *)&saved->token, sizeof saved->token);
}

/* Notes what a handshake has brought for later runs. */
static void note_handshake(connection_t *connection)
{
    dtls_blob_t session;
    session_t *saved = &connection->saved;
    saved->heard_ms = session_clock_ms();
    saved->round_trip_us = dtls_round_trip_us(&connection->dtls);
    begin_counters(saved);
    /* An abbreviated handshake shows no certificates, and does not make the session younger. */
    if (!dtls_was_resumed(&connection->dtls)) {
        saved->full_at = time(NULL);
        saved->full_ms = saved->heard_ms;
        saved->expiry = find_expiry(connection);
    }
    /* A ticket that holds our certificate would make every ClientHello larger than the certificate; only a
     * server that gives no session id is asked for one, and then always. */
    if (!dtls_save_session(&connection->dtls, &session))
        saved->want_ticket = true;
    session_replace(saved, session.bytes, session.length);
}

/* A handshake, abbreviated where there is a session. */
static dtls_outcome_t shake_hands(connection_t *connection, wait_limit_t limit)
{
    dtls_config_t config = config_with_session(connection, limit);
    connection->reused = false;
    if (!connection->loaded &&
        !credentials_load(&connection->dtls.credentials, &connection->config.credentials))
        return DTLS_CREDENTIALS;
    connection->loaded = true;
    dtls_outcome_t outcome = dtls_connect(&connection->dtls, &config);
    if (outcome == DTLS_OK)
        note_handshake(connection);
    return outcome;
}

/* Goes on with the last run's association where that may be trusted: it proves nothing about the server by
 * itself. Where it may not, it stays connected for the goodbye that dtls_connect() says: a server that serves
 * one client at a time listens to no other handshake until then. */
static bool reuse_association(connection_t *connection)
{
    session_t *saved = &connection->saved;
    dtls_blob_t association = {saved->association, saved->association_length};
    dtls_config_t config = config_with_session(connection, connection->config.dtls.limit);
    int64_t silent_ms = session_clock_ms() - saved->heard_ms;
    bool trusted = connection->config.answered || silent_ms < connection->config.lease_ms;
    if (association.bytes == NULL)
        return false;
    dtls_outcome_t outcome = dtls_resume(&connection->dtls, &config, &association);
    session_drop_association(saved);
    if (outcome != DTLS_OK)
        log_step("%s", dtls_error_text(&connection->dtls));
    connection->reused = outcome == DTLS_OK && trusted;
    if (connection->reused)
        log_step("association with %s reused: no handshake", connection->dtls.transport.peer);
    return connection->reused;
}

dtls_outcome_t connection_open(connection_t *connection, const connection_config_t *config)
{
    connection->config = *config;
    take_session(connection);
    return reuse_association(connection) ? DTLS_OK : shake_hands(connection, config->dtls.limit);
}

dtls_outcome_t connection_renew(connection_t *connection, wait_limit_t limit)
{
    log_step("a new handshake is made: %s", connection->reused
                                                ? "the reused association is of no use any more"
                                                : "the association has ended");
    return shake_hands(connection, limit);
}

void connection_note_heard(connection_t *connection)
{
    connection->saved.heard_ms = session_clock_ms();
    connection->reused = false;
}

void connection_note_answer(connection_t *connection, int64_t answer_us)
{
    int64_t before_us = connection->saved.answer_us;
    connection->saved.answer_us = before_us == 0 ? answer_us : (before_us + answer_us) / 2;
}

int64_t connection_answer_us(const connection_t *connection)
{
    return connection->saved.answer_us;
}

int64_t connection_latency_us(const connection_t *connection)
{
    int64_t round_trip_us = dtls_round_trip_us(&connection->dtls);
    int64_t answer_us = connection->saved.answer_us;
    return answer_us > round_trip_us ? answer_us : round_trip_us;
}

const char *connection_keep(connection_t *connection, bool association)
{
    dtls_blob_t blob;
    const char *reason = NULL;
    session_t *saved = &connection->saved;
    if (connection->config.session_file == NULL)
        return NULL;
    saved->failures = 0;
    /* One that no later run could trust is ended with a goodbye now, not at the start of that run, which
     * would have to wait for the server to take it in. What was trusted unheard may be forgotten by the
     * server, and would be trusted again by its lease. */
    bool useful = connection->config.answered || connection->config.lease_ms > 0;
    if (association && useful && !connection->reused && dtls_suspend(&connection->dtls, &blob)) {
        saved->association = blob.bytes;
        saved->association_length = blob.length;
    }
    return session_put(connection->config.session_file, connection->binding, saved, &reason) ? NULL : reason;
}

void connection_put_back(connection_t *connection)
{
    const char *reason = NULL;
    session_t *saved = &connection->saved;
    if (connection->config.session_file == NULL || saved->session == NULL ||
        saved->failures >= FAILURES_MAX - 1)
        return;
    saved->failures++;
    if (!session_put(connection->config.session_file, connection->binding, saved, &reason))
        log_step("%s: the session is not saved: %s", connection->config.session_file, reason);
}

void connection_close(connection_t *connection)
{
    dtls_close(&connection->dtls);
    session_free(&connection->saved);
}
