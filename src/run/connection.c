#include "run/connection.h"

#include <string.h>
#include <time.h>

#include "credentials/fingerprint.h"
#include "store/file.h"
#include "system/log.h"

_Static_assert(sizeof(fingerprint_stamp_t) == SESSION_STAMP_SIZE, "a saved session holds the stamp");

void connection_init(connection_t *connection)
{
    memset(connection, 0, sizeof *connection);
    dtls_init(&connection->dtls);
}

bool connection_spares_credentials(const connection_config_t *config)
{
    const credentials_source_t *source = &config->credentials;
    const char *path = config->session_file;
    return path == NULL || !(file_is_same(path, source->cert_file) || file_is_same(path, source->key_file) ||
                             file_is_same(path, source->passphrase_file) || file_is_same(path, source->ca) ||
                             file_is_same(path, source->psk_file));
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

static dtls_config_t config_with_session(const connection_t *connection)
{
    dtls_config_t config = connection->config.dtls;
    const session_t *saved = &connection->saved;
    config.session = (dtls_blob_t){saved->session, saved->session_length};
    config.want_ticket = saved->want_ticket;
    config.offer_connection_id = connection->config.session_file != NULL;
    config.round_trip_us = saved->round_trip_us;
    return config;
}

/* Notes what a handshake has brought for later runs. */
static void note_session(connection_t *connection)
{
    dtls_blob_t session;
    session_t *saved = &connection->saved;
    saved->heard_ms = session_clock_ms();
    if (dtls_expiry(&connection->dtls) != 0 || saved->full_at == 0) { /* it was a full one */
        saved->full_at = time(NULL);
        saved->full_ms = saved->heard_ms;
    }
    if (connection->config.session_file == NULL)
        return;
    /* A ticket that holds our certificate would make every ClientHello larger than the certificate; only a
     * server that gives no session id is asked for one, and then always. */
    if (!dtls_save_session(&connection->dtls, &session))
        saved->want_ticket = true;
    session_replace(saved, session.bytes, session.length);
    if (dtls_expiry(&connection->dtls) != 0)
        saved->expiry = dtls_expiry(&connection->dtls);
}

/* A handshake, abbreviated where the last run's session allows it. */
static dtls_outcome_t shake_hands(connection_t *connection)
{
    dtls_config_t config = config_with_session(connection);
    if (!credentials_load(&connection->dtls.credentials, &connection->config.credentials))
        return DTLS_CREDENTIALS;
    dtls_outcome_t outcome = dtls_connect(&connection->dtls, &config);
    bool failed_over_session =
        outcome == DTLS_PROTOCOL || outcome == DTLS_UNTRUSTED || outcome == DTLS_REJECTED;
    if (failed_over_session && connection->saved.session != NULL) {
        log_step("once more, without the saved session");
        session_replace(&connection->saved, NULL, 0);
        dtls_close(&connection->dtls);
        return shake_hands(connection);
    }
    if (outcome == DTLS_OK)
        note_session(connection);
    return outcome;
}

/* Goes on with the last run's association where that may be trusted: it proves nothing about the server by
 * itself. Where it may not, the server is told goodbye by it if that may be needed. */
static bool reuse_association(connection_t *connection)
{
    session_t *saved = &connection->saved;
    dtls_blob_t association = {saved->association, saved->association_length};
    dtls_config_t config = config_with_session(connection);
    bool trusted =
        connection->config.answered || session_clock_ms() - saved->heard_ms < connection->config.lease_ms;
    dtls_outcome_t outcome = DTLS_CLOSED;
    if (association.bytes != NULL && (trusted || dtls_is_known_by_address(&association)))
        outcome = dtls_resume(&connection->dtls, &config, &association);
    session_drop_association(saved);
    if (outcome != DTLS_OK && outcome != DTLS_CLOSED)
        log_step("%s", dtls_error_text(&connection->dtls));
    connection->reused = outcome == DTLS_OK && trusted;
    if (connection->reused)
        log_step("association with %s reused: no handshake", connection->dtls.transport.peer);
    else
        dtls_close(&connection->dtls);
    return connection->reused;
}

dtls_outcome_t connection_open(connection_t *connection, const connection_config_t *config)
{
    connection->config = *config;
    take_session(connection);
    return reuse_association(connection) ? DTLS_OK : shake_hands(connection);
}

dtls_outcome_t connection_renew(connection_t *connection)
{
    log_step("the reused association is of no use any more");
    connection->reused = false;
    dtls_close(&connection->dtls);
    return shake_hands(connection);
}

void connection_note_heard(connection_t *connection)
{
    connection->saved.heard_ms = session_clock_ms();
    connection->reused = false;
}

const char *connection_keep(connection_t *connection)
{
    dtls_blob_t association;
    const char *reason = NULL;
    session_t *saved = &connection->saved;
    if (connection->config.session_file == NULL)
        return NULL;
    saved->round_trip_us = dtls_round_trip_us(&connection->dtls);
    if (dtls_suspend(&connection->dtls, &association)) {
        saved->association = association.bytes;
        saved->association_length = association.length;
    }
    return session_put(connection->config.session_file, connection->binding, saved, &reason) ? NULL : reason;
}

void connection_close(connection_t *connection)
{
    dtls_close(&connection->dtls);
    session_free(&connection->saved);
}
