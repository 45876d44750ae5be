/* What all associations of the server share: its credentials, and what mbed TLS is configured to do. */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>

#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cache.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/ssl_ticket.h>

#define TLS_CID_LENGTH 8 /* bytes in a connection id that this server hands out */

/* The strings stay the caller's. */
typedef struct {
    const char *cert_file; /* the server's certificate, then intermediates */
    const char *key_file;
    const char *ca_file;      /* what device certificates must chain to */
    const char *psk_identity; /* pre-shared key instead of all these; NULL: certificates */
    unsigned char psk[32];
    size_t psk_length;
    bool cache;   /* resume sessions by id */
    bool tickets; /* and by ticket */
    bool cid;     /* hand out connection ids, if the library can */
} tls_settings_t;

typedef struct {
    mbedtls_ssl_config config;
    mbedtls_x509_crt chain;
    mbedtls_x509_crt anchors;
    mbedtls_pk_context key;
    mbedtls_ssl_cookie_ctx cookies;
    mbedtls_ssl_cache_context cache;
    mbedtls_ssl_ticket_context tickets;
    char error[256]; /* why tls_setup() returned false */
} tls_t;

/* Makes every member safe to free. */
void tls_init(tls_t *tls);

/* Reads the credentials and fills in tls->config, DTLS 1.2 with ECDHE (or PSK) and AEAD only. False:
 * tls->error says in one line why. */
bool tls_setup(tls_t *tls, const tls_settings_t *settings);

/* Prepares `ssl` for a handshake. `cid` is the connection id to hand out, where that is on. Returns 0 or an
 * mbed TLS error. */
int tls_prepare(const tls_t *tls, const tls_settings_t *settings, mbedtls_ssl_context *ssl,
                const unsigned char cid[static TLS_CID_LENGTH]);

void tls_free(tls_t *tls);

#endif
