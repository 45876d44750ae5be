#include "dtls/callbacks.h"

#include <string.h>

#include <mbedtls/debug.h>

#include "system/log.h"
#include "system/random.h"

/* From level 3 on the library prints the premaster secret. */
enum { LIBRARY_LOG_LEVEL = 2 };

static int draw(void *context, unsigned char *output, size_t length)
{
    callbacks_t *callbacks = context;
    if (!callbacks->seeded) {
        int status = mbedtls_ctr_drbg_seed(&callbacks->drbg, random_bytes, NULL,
                                           (const unsigned char *)"dtls-send", 9);
        if (status != 0)
            return status;
        callbacks->seeded = true;
    }
    return mbedtls_ctr_drbg_random(&callbacks->drbg, output, length);
}

static void print_log(void *context, int level, const char *file, int line, const char *message)
{
    (void)context;
    (void)level;
    const char *slash = strrchr(file, '/');
    log_print(LOG_DEBUG, "mbedtls: %s:%d: %.*s", slash != NULL ? slash + 1 : file, line,
              (int)strcspn(message, "\n"), message);
}

void callbacks_init(callbacks_t *callbacks)
{
    mbedtls_ctr_drbg_init(&callbacks->drbg);
    callbacks->seeded = false;
}

void callbacks_install(callbacks_t *callbacks, mbedtls_ssl_config *config)
{
    mbedtls_ssl_conf_rng(config, draw, callbacks);
    if (log_level() < LOG_DEBUG)
        return;
    mbedtls_ssl_conf_dbg(config, print_log, NULL);
    mbedtls_debug_set_threshold(LIBRARY_LOG_LEVEL);
}

void callbacks_free(callbacks_t *callbacks)
{
    mbedtls_ctr_drbg_free(&callbacks->drbg);
    callbacks_init(callbacks);
}
