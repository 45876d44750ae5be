/* The saved session: what a run leaves in one file for the next, so that this needs no full handshake. Knows
 * nothing of DTLS: what is saved are opaque bytes.
 *
 * An association that is used twice repeats nonces, which breaks the encryption. So the file is taken, never
 * read and left: who has it is the only one; and an association is valid in the boot in which it was saved
 * alone, so that no power cut and no backup ever brings an old one back. */
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
    int64_t heard_ms;      /* when the server was last heard, on session_clock_ms() */
    int64_t expiry;        /* of the server's certificates, Unix time; 0: not known */
    int64_t round_trip_us; /* 0: not known */
    bool want_ticket;      /* the server gives no session ids */
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
 * session_free(), as far as what was saved is intact, ours alone, bound to `binding`, younger than
 * SESSION_AGE_MAX_S and not expired; the association only if it is of this boot. What is not used costs a
 * handshake, and is told with -v. */
void session_take(const char *path, const unsigned char binding[static SESSION_BINDING_SIZE],
                  session_t *session);

/* Saves `session` in the file `path` (0600), in place at once. False: `*reason` says why. */
bool session_put(const char *path, const unsigned char binding[static SESSION_BINDING_SIZE],
                 const session_t *session, const char **reason);

/* Puts another session, from malloc(3), in place of the one before; NULL: none. */
void session_replace(session_t *session, unsigned char *bytes, size_t length);

/* Wipes and frees what is left of an association, which must never be used again. */
void session_drop_association(session_t *session);

/* Wipes and frees everything; harmless when repeated. */
void session_free(session_t *session);

#endif
