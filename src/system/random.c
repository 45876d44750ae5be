#include "system/random.h"

#include <errno.h>
#include <sys/random.h>

#include <mbedtls/entropy.h>

int random_bytes(void *context, unsigned char *output, size_t length)
{
    (void)context;
    while (length > 0) {
        ssize_t got = getrandom(output, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return MBEDTLS_ERR_ENTROPY_SOURCE_FAILED;
        output += got;
        length -= (size_t)got;
    }
    return 0;
}

uint64_t random_up_to(uint64_t most)
{
    uint64_t random = 0;
    if (random_bytes(NULL, (unsigned char *)&random, sizeof random) != 0)
        return 0;
    return most < UINT64_MAX ? random % (most + 1) : random;
}
