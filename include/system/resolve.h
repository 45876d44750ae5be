/* A host's name to its addresses, within a deadline: getaddrinfo(3) itself knows none. */
#ifndef RESOLVE_H
#define RESOLVE_H

#include <netdb.h>

#include "system/wait.h"

typedef enum {
    RESOLVE_OK,
    RESOLVE_UNKNOWN,     /* there is no such name, or it has no address of that family */
    RESOLVE_UNAVAILABLE, /* no name server answered; later may work */
    RESOLVE_TIMEOUT,
    RESOLVE_INTERRUPTED,
    RESOLVE_FAILED /* no memory, no thread */
} resolve_outcome_t;

/* Looks up the UDP addresses of `host` (a name or a numeric address) at `port`. family: AF_UNSPEC, AF_INET or
 * AF_INET6. Gives up at `limit`; the look-up itself, which cannot be stopped, then ends in a thread of its
 * own and releases what it holds. On RESOLVE_OK `*addresses` is the caller's, for freeaddrinfo(3), in the
 * resolver's order (RFC 6724).
 * `*reason`: a static string, for a message. */
resolve_outcome_t resolve(const char *host, const char *port, int family, wait_limit_t limit,
                          struct addrinfo **addresses, const char **reason);

#endif
