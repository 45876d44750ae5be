/* What mbed TLS calls for randomness and for its log. */
#ifndef CALLBACKS_H
#define CALLBACKS_H

#include <stdbool.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ssl.h>

typedef struct {
    mbedtls_ctr_drbg_context drbg;
    bool seeded; /* when first asked for a number, which a run that reuses an association never does */
} callbacks_t;

/* Makes it safe to free. */
void callbacks_init(callbacks_t *callbacks);

/* Makes `config` call them; they must outlive it. With -vv the library's log is printed. */
void callbacks_install(callbacks_t *callbacks, mbedtls_ssl_config *config);

/* Wipes and frees. */
void callbacks_free(callbacks_t *callbacks);

#endif
