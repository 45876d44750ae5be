/* Who a server must be: the name, or the address, that its certificate must carry. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#include <mbedtls/x509_crt.h>

typedef struct {
    char name[256];            /* without what a certificate never has: a trailing dot, an IPv6 zone */
    unsigned char address[16]; /* the name where it is an IP address, in network order */
    size_t address_length;     /* 4 or 16; 0: it is a DNS name */
} identity_t;

/* Takes a DNS name or an IP address as people write it. */
void identity_set(identity_t *identity, const char *name);

/* Whether the certificate carries the address among its iPAddress names (RFC 5280 section 4.2.1.6). mbed
 * TLS 2.28 knows none of these; DNS names are left to the library. */
bool identity_has_address(const identity_t *identity, const mbedtls_x509_crt *certificate);

#endif
