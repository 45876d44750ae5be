/* What is offered and accepted: the security policy, in one place. DTLS 1.2 only; ECDHE with AEAD only, and
 * with a pre-shared key that alone, least preferred; SHA-256 and better; no renegotiation. No option weakens
 * it. */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>

#include <mbedtls/ssl.h>

/* Fills in a fresh `config` for a client, that shows a certificate or, where `psk` is set, has a pre-shared
 * key. Credentials, randomness and callbacks are the caller's to add; they may be there already. Returns 0 or
 * an mbed TLS error. */
int policy_apply(mbedtls_ssl_config *config, bool psk, bool want_ticket);

/* What policy_apply() offers: cipher suites, best first, and a zero. */
const int *policy_cipher_suites(bool psk);

/* The same for an association that is resumed, in which all this is settled: without the defaults, which cost
 * more than its record does. */
int policy_apply_to_resumed(mbedtls_ssl_config *config);

/* To be called once a connection is made or resumed, with its cipher suite: where that has a short tag, the
 * connection is given up (MBEDTLS_ERR_SSL_INVALID_MAC) at the hundredth record that does not decrypt, those
 * before it was saved included. */
void policy_limit_forgeries(mbedtls_ssl_config *config, int suite);

#endif
