/* The pre-shared key (RFC 4279), from a file of one line: identity:hexkey. */
#ifndef PSK_H
#define PSK_H

#include <stdbool.h>
#include <stddef.h>

#include <mbedtls/ssl.h>

#define PSK_IDENTITY_MAX 128 /* bytes: what every server must support (RFC 4279 section 5.3) */

typedef struct {
    unsigned char identity[PSK_IDENTITY_MAX];
    size_t identity_length;
    unsigned char key[MBEDTLS_PSK_MAX_LEN];
    size_t key_length; /* bytes; 0: there is none */
} psk_t;

/* Reads the file `path`, which nobody but its owner may be able to read. False: `error`, of `size` bytes,
 * says in one line why, and what to do, without a word of the file's content. */
bool psk_load(psk_t *psk, const char *path, char *error, size_t size);

/* Wipes it. */
void psk_wipe(psk_t *psk);

#endif
