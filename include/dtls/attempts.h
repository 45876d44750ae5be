/* The attempts to connect to a server: which address when, how long each may last, and what they say
 * together. During a handshake an ICMP error or an alert may come from anyone, so such a failure is believed
 * when a second attempt at the same address, from another port, brings the same. Knows nothing of DTLS. */
#ifndef ATTEMPTS_H
#define ATTEMPTS_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtls/outcome.h"
#include "system/wait.h"

/* A handshake without a word from the server for so many milliseconds starts afresh, from another port. Some
 * servers resend on their own timer alone, OpenSSL after 1, 3 and 7 s. */
enum { ATTEMPTS_PATIENCE_MS = 8000, ATTEMPTS_TEXT_SIZE = 768 };

/* How one attempt ended. */
typedef struct {
    dtls_outcome_t outcome;
    bool heard;       /* something came from the server */
    const char *text; /* one line on a failure; the maker's, until the next attempt */
} attempt_t;

/* Makes one attempt; `patience_ms` bounds its wait for the server's first word. */
typedef attempt_t attempts_make_t(void *context, const struct addrinfo *address, int64_t patience_ms);

/* Makes attempts at `addresses` in turn, again and again, until one succeeds, or fails in a way that no other
 * attempt can change, or every address brought the same refusal twice, or `limit` comes. With `persist` a
 * refusal is never believed: the server may be restarting, and is tried again after a pause. Returns how that
 * ended; `text` holds one line on it. Of all failures the one that says most is told: one that came twice
 * says more than one that did not, and a server that was heard says more than silence or a refusal. */
dtls_outcome_t attempts_run(const struct addrinfo *addresses, bool persist, wait_limit_t limit,
                            attempts_make_t *make, void *context, char text[static ATTEMPTS_TEXT_SIZE]);

#endif
