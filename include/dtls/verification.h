/* Whether a server's certificate is acceptable, beside what mbed TLS checks by itself; and what is worth
 * knowing about it afterwards. */
#ifndef VERIFICATION_H
#define VERIFICATION_H

#include <stdint.h>

#include <mbedtls/x509_crt.h>

#include "credentials/credentials.h"
#include "dtls/identity.h"

typedef struct {
    identity_t identity; /* who the server must be */
    int64_t expiry;      /* of the first certificate to expire in its chain, Unix time; 0: none was seen */
    /* For messages: the date of a certificate that is expired or not yet valid, and who issued the one that
     * leads to no trust anchor. */
    char bad_date[CREDENTIALS_DATE_SIZE];
    char issuer[CREDENTIALS_NAME_SIZE];
} verification_t;

/* Prepares for the certificates of a server that must carry `name`, a DNS name or an IP address. */
void verification_begin(verification_t *verification, const char *name);

/* An f_vrfy (mbedtls_ssl_conf_verify), whose context is the verification. mbed TLS calls it in full
 * handshakes for each certificate of the chain, after its own checks; depth 0 is the server's. It only ever
 * adds to what is wrong. */
int verification_check(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags);

#endif
