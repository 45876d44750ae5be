#include "system/resolve.h"

#include <errno.h>
#ifdef STATIC_BUILD
#include <nss.h>
#endif
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Shared by the run and the thread that looks up. Whoever lets go last releases it, so that a look-up that
 * was given up can end in its own time. */
typedef struct {
    atomic_int holders;
    int done_fd; /* an eventfd: readable when status and addresses are there */
    char *host;
    char *port;
    struct addrinfo hints;
    int status;
    struct addrinfo *addresses;
} lookup_t;

static void let_go(lookup_t *lookup)
{
    if (atomic_fetch_sub(&lookup->holders, 1) > 1)
        return;
    if (lookup->addresses != NULL)
        freeaddrinfo(lookup->addresses);
    if (lookup->done_fd >= 0)
        close(lookup->done_fd);
    free(lookup->host);
    free(lookup->port);
    free(lookup);
}

/* For what /etc/nsswitch.conf may name besides, mDNS for one, a static program loads modules into itself, and
 * crashes where they are of another glibc than its own. */
static void only_what_is_built_in(void)
{
#ifdef STATIC_BUILD
    __nss_configure_lookup("hosts", "files dns");
#endif
}

static void *look_up(void *argument)
{
    lookup_t *lookup = argument;
    only_what_is_built_in();
    lookup->status = getaddrinfo(lookup->host, lookup->port, &lookup->hints, &lookup->addresses);
    if (lookup->status != 0)
        lookup->addresses = NULL;
    eventfd_write(lookup->done_fd, 1);
    let_go(lookup);
    return NULL;
}

static bool start_thread(lookup_t *lookup)
{
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    atomic_store(&lookup->holders, 2);
    bool started = pthread_create(&thread, &attributes, look_up, lookup) == 0;
    if (!started)
        atomic_store(&lookup->holders, 1);
    pthread_attr_destroy(&attributes);
    return started;
}

static lookup_t *lookup_new(const char *host, const char *port, const struct addrinfo *hints)
{
    lookup_t *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL)
        return NULL;
    atomic_init(&lookup->holders, 1);
    lookup->done_fd = eventfd(0, EFD_CLOEXEC);
    lookup->host = strdup(host);
    lookup->port = strdup(port);
    lookup->hints = *hints;
    if (lookup->done_fd < 0 || lookup->host == NULL || lookup->port == NULL) {
        let_go(lookup);
        return NULL;
    }
    return lookup;
}

static resolve_outcome_t outcome_of(int status, const char **reason)
{
    *reason = gai_strerror(status);
    switch (status) {
    case 0:
        return RESOLVE_OK;
    case EAI_AGAIN:
        return RESOLVE_UNAVAILABLE;
    case EAI_MEMORY:
    case EAI_SYSTEM:
        return RESOLVE_FAILED;
    default:
        return RESOLVE_UNKNOWN;
    }
}

/* Takes what the thread found, or gives up. */
static resolve_outcome_t await(lookup_t *lookup, wait_limit_t limit, struct addrinfo **addresses,
                               const char **reason)
{
    switch (wait_for(lookup->done_fd, POLLIN, limit)) {
    case WAIT_READY:
        *addresses = lookup->addresses;
        lookup->addresses = NULL;
        return outcome_of(lookup->status, reason);
    case WAIT_TIMEOUT:
        *reason = "no name server answered in time";
        return RESOLVE_TIMEOUT;
    case WAIT_INTERRUPTED:
        *reason = "interrupted";
        return RESOLVE_INTERRUPTED;
    default:
        *reason = strerror(errno);
        return RESOLVE_FAILED;
    }
}

resolve_outcome_t resolve(const char *host, const char *port, int family, wait_limit_t limit,
                          struct addrinfo **addresses, const char **reason)
{
    struct addrinfo hints = {
        .ai_family = family, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    /* A numeric address needs no name server, and so no thread. */
    if (getaddrinfo(host, port, &hints, addresses) == 0)
        return RESOLVE_OK;

    hints.ai_flags = AI_NUMERICSERV;
    lookup_t *lookup = lookup_new(host, port, &hints);
    *reason = "out of memory";
    if (lookup == NULL)
        return RESOLVE_FAILED;
    resolve_outcome_t outcome = RESOLVE_FAILED;
    if (start_thread(lookup))
        outcome = await(lookup, limit, addresses, reason);
    else
        *reason = "no thread could be started for the name look-up";
    let_go(lookup);
    return outcome;
}
