/* The connection to the server, by the cheapest way that is open: the association that the last run kept, an
 * abbreviated handshake by its session, a full handshake; each falls back to the next. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "dtls.h"
#include "store/session.h"

/* Strings stay the caller's and must outlive the connection. */
typedef struct {
    dtls_config_t dtls; /* all but what a saved session brings, which is filled in here */
    credentials_source_t credentials;
    const char *session_file; /* where the session is kept between runs; NULL: nowhere */
    bool answered;            /* every payload will be answered, so that a dead association is noticed */
    int64_t lease_ms; /* where not: how long after the server was heard an association is trusted unheard */
} connection_config_t;

typedef struct {
    connection_config_t config;
    dtls_state_t dtls;                           /* connected after DTLS_OK: for dtls_send() and the like */
    session_t saved;                             /* what the last run left, and what this one will leave */
    unsigned char binding[SESSION_BINDING_SIZE]; /* what that is good for */
    bool loaded; /* the credentials are, which happens once a run, and only where a handshake is needed */
    bool reused; /* the association of an earlier run is in use, and nothing was heard over it yet */
} connection_t;

/* Makes every member safe to close. */
void connection_init(connection_t *connection);

/* Whether the session's file, which is taken away and written anew, is one of the files of credentials. */
bool connection_would_replace(const char *session_file, const credentials_source_t *credentials);

/* Connects, after connection_init(). `config` is copied. Blocks until its limit; without a datagram where an
 * association is reused. DTLS_OK, or what dtls_connect() may return, or DTLS_CREDENTIALS. */
dtls_outcome_t connection_open(connection_t *connection, const connection_config_t *config);

/* Ends the association, if there is one, and makes a new one by a handshake, from a fresh source port: some
 * servers do not listen to a ClientHello from a port that has an association. As connection_open(), but
 * blocks until `limit`. */
dtls_outcome_t connection_renew(connection_t *connection, wait_limit_t limit);

/* Notes that something came over the association: whoever answers has not forgotten. */
void connection_note_heard(connection_t *connection);

/* Notes how long an answer to something that was sent once has taken, in microseconds. */
void connection_note_answer(connection_t *connection, int64_t answer_us);

/* How long answers take, smoothed; 0: not known. */
int64_t connection_answer_us(const connection_t *connection);

/* What the path and the server need for an answer, at least: the longer of the round trip and the answers;
 * 0: not known. */
int64_t connection_latency_us(const connection_t *connection);

/* Leaves the next run what it needs, where there is a file for it; with `association` also that, and then
 * without a close_notify, which would end what is kept: the connection can only be closed then. One that was
 * trusted and stayed unheard is not left, nor one that runs like this one could not trust. NULL, or why the
 * file could not be written. */
const char *connection_keep(connection_t *connection, bool association);

/* The run failed for a reason that may pass: leaves the session that it took or made, never an association,
 * unless runs before this one failed with it too. */
void connection_put_back(connection_t *connection);

/* One line on why the last call did not return DTLS_OK; belongs to the connection. */
const char *connection_error_text(const connection_t *connection);

/* Says goodbye where nothing was kept, wipes and frees everything. */
void connection_close(connection_t *connection);

#endif
