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
    bool reused; /* the association of an earlier run is in use, and the server may have forgotten it */
} connection_t;

/* Makes every member safe to close. */
void connection_init(connection_t *connection);

/* The session's file is taken away and written anew. False: it is one of the files of credentials. */
bool connection_spares_credentials(const connection_config_t *config);

/* Connects, after connection_init(). `config` is copied. Blocks until its limit; without a datagram where an
 * association is reused. DTLS_OK, or what dtls_connect() may return, or DTLS_CREDENTIALS. */
dtls_outcome_t connection_open(connection_t *connection, const connection_config_t *config);

/* The reused association is of no use: the server has forgotten it, or cannot be reached by it. Makes a new
 * handshake, from a fresh source port since some servers do not listen to a ClientHello from one that has an
 * association. As connection_open(). */
dtls_outcome_t connection_renew(connection_t *connection);

/* Notes that a downlink came: whoever answers has not forgotten. */
void connection_note_heard(connection_t *connection);

/* Leaves the next run what it needs, where there is a file for it. Without a close_notify, which would end
 * what is kept: the connection can only be closed then. NULL, or why the file could not be written. */
const char *connection_keep(connection_t *connection);

/* One line on why the last call did not return DTLS_OK; belongs to the connection. */
const char *connection_error_text(const connection_t *connection);

/* Says goodbye where nothing was kept, wipes and frees everything. */
void connection_close(connection_t *connection);

#endif
