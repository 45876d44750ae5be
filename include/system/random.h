/* The kernel's random generator, in the shape that mbed TLS asks for. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fills `output` with `length` bytes from getrandom(2). An f_rng and an f_entropy for mbed TLS: `context` is
 * not used. Blocks only until the kernel's generator is ready, early in a boot. Returns 0, or
 * MBEDTLS_ERR_ENTROPY_SOURCE_FAILED. */
int random_bytes(void *context, unsigned char *output, size_t length);

/* A random number from 0 to `most`; 0 where the system gives none. */
uint64_t random_up_to(uint64_t most);

#endif
