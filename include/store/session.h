/* The saved session: what a run leaves in one file for the next, so that this needs no full handshake. Knows
 * nothing of DTLS: what is saved are opaque bytes.
 *
 * An association that is used twice repeats nonces, which breaks the encryption. So the file is taken, never
 * read and left: who has it is the only one. An association is kept on tmpfs alone, in the very file that it
 * was saved in, and is valid in that boot alone: no power cut, no backup, no disk that is put back and no
 * copy ever brings an old one back. Elsewhere the session alone is kept. */
#ifndef SESSION_H
#define SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SESSION_BINDING_SIZE 32    /* bytes: a SHA-256 */
#define SESSION_STAMP_SIZE   120   /* bytes */
#define SESSION_AGE_MAX_S    86400 /* seconds */

typedef struct {
    unsigned char *association; /* keys and record counters; owned, from malloc(3); NULL: none */
    size_t association_length;
    unsigned char *session; /* for an abbreviated handshake; owned, from malloc(3); NULL: none */
    size_t session_length;
    /* When the last full handshake was, which the caller notes at each: Unix time, and session_clock_ms().
     * What was saved ends with it after SESSION_AGE_MAX_S, however often it was saved since. */
    int64_t full_at, full_ms;
    int64_t heard_ms;      /* when the server was last heard, on session_clock_ms() */
    int64_t expiry;        /* of the first certificate to expire on either side, Unix time; 0: not known */
    int64_t round_trip_us; /* 0: not known */
    int64_t answer_us;     /* how long an answer takes, smoothed; 0: not known */
    uint64_t failures;     /* how many runs in a row failed with it; at two or more the caller drops it */
    /* CoAP's counters under the association's keys: saved and loaded with an association, 0 without. */
    uint16_t message_id, token;
    bool want_ticket; /* the server gives no session ids */
    /* What it was made with, for the caller to compare: a digest, and a stamp that spares making one. */
    unsigned char digest[SESSION_BINDING_SIZE];
    unsigned char stamp[SESSION_STAMP_SIZE];
} session_t;

/* Milliseconds since this boot, sleep included. */
int64_t session_clock_ms(void);

/* A string of bytes. */
typedef struct {
    const void *bytes;
    size_t length;
} session_part_t;

/* Makes one SHA-256 of `count` strings, and of where each ends: what a session is bound to. False: out of
 * memory. */
bool session_bind(unsigned char binding[static SESSION_BINDING_SIZE], const session_part_t *parts,
                  size_t count);

/* Takes what was saved in the file `path`, which is gone then. Always fills in `session`, to be freed with
 * session_free(), as far as what was saved is intact, ours alone, bound to `binding`, at most
 * SESSION_AGE_MAX_S after its full handshake and not expired; the association only if it lay on tmpfs, in the
 * file that it was saved in, and is of this boot. What is not used costs a handshake, and is told with -v. */
void session_take(const char *path, const unsigned char binding[static SESSION_BINDING_SIZE],
                  session_t *session);

/* Saves `session` in the file `path` (0600), in place at once; without its association where that is not on
 * tmpfs, which is told with -v. A run that failed saves what it took without an association and with one more
 * failure. False: `*reason` says why and what to do. */
bool session_put(const char *path, const unsigned char binding[static SESSION_BINDING_SIZE],
                 const session_t *session, const char **reason);

/* Whether session_put() keeps associations at `path`, for a report: it lies on tmpfs. */
bool session_keeps_associations(const char *path);

/* Puts another session, from malloc(3), in place of the one before; NULL: none. */
void session_replace(session_t *session, unsigned char *bytes, size_t length);

/* Wipes and frees what is left of an association, which must never be used again. The counters stay: who goes
 * on with the association has use for them. */
void session_drop_association(session_t *session);

/* Wipes and frees everything; harmless when repeated. */
void session_free(session_t *session);

#endif
