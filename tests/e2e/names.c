/* Preloaded by tests: a getaddrinfo(3) that answers for every host name with what TEST_ADDRESSES says, since
 * a test cannot rely on any name server:
 *
 *     ::1,127.0.0.1  these addresses, in this order
 *     none           no such name
 *     again          no name server answers
 *     hang           never returns
 *
 * Numeric hosts, and all where TEST_ADDRESSES is not set, are left to the C library. */
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int getaddrinfo_t(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* The library's own lists, chained: so its own freeaddrinfo(3), which releases node by node, fits them. */
static int look_up_all(getaddrinfo_t *library, const char *addresses, const char *service,
                       const struct addrinfo *hints, struct addrinfo **result)
{
    struct addrinfo numeric = hints != NULL ? *hints : (struct addrinfo){.ai_family = AF_UNSPEC};
    numeric.ai_flags |= AI_NUMERICHOST;
    char copy[512] = "";
    char *rest = NULL;
    struct addrinfo **end = result;

    *result = NULL;
    strncpy(copy, addresses, sizeof copy - 1);
    for (char *address = strtok_r(copy, ",", &rest); address != NULL; address = strtok_r(NULL, ",", &rest)) {
        /* One of another family than asked for is passed over. */
        if (library(address, service, &numeric, end) != 0)
            *end = NULL;
        while (*end != NULL)
            end = &(*end)->ai_next;
    }
    return *result != NULL ? 0 : EAI_NONAME;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
    const char *addresses = getenv("TEST_ADDRESSES");
    getaddrinfo_t *library = NULL;
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
    memcpy(&library, &symbol, sizeof library); /* ISO C has no cast from an object to a function */
    if (library == NULL)
        return EAI_FAIL;

    struct addrinfo numeric = {.ai_flags = AI_NUMERICHOST};
    struct addrinfo *probe = NULL;
    int is_numeric = host == NULL || library(host, NULL, &numeric, &probe) == 0;
    if (probe != NULL)
        freeaddrinfo(probe);
    if (is_numeric || addresses == NULL)
        return library(host, service, hints, result);
    if (hints != NULL && (hints->ai_flags & AI_NUMERICHOST) != 0)
        return EAI_NONAME;

    if (strcmp(addresses, "none") == 0)
        return EAI_NONAME;
    if (strcmp(addresses, "again") == 0)
        return EAI_AGAIN;
    while (strcmp(addresses, "hang") == 0)
        pause();
    return look_up_all(library, addresses, service, hints, result);
}
