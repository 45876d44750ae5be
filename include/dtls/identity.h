/* Who a server must be: the name, or the address, that its certificate must carry. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/x509_crt.h>

typedef struct {
    char name[256];            /* without what a certificate never has: a trailing dot, an IPv6 zone */
    unsigned char address[16]; /* the name where it is an IP address, in network order */
    size_t address_length;     /* 4 or 16; 0: it is a DNS name */
} identity_t;

/* Takes a DNS name or an IP address as people write it. */
void identity_set(identity_t *identity, const char *name);

/* Returns what is wrong with the server's certificate besides what mbed TLS finds by itself, which looks for
 * a DNS name in the subjectAltName and, where there is none, in the common name. A set of flags:
 * MBEDTLS_X509_BADCERT_CN_MISMATCH: the identity is an address, and not among the certificate's iPAddress
 * names (RFC 5280 section 4.2.1.6), of which mbed TLS 2.28 knows none.
 * MBEDTLS_X509_BADCERT_OTHER: there is no subjectAltName, which RFC 9525 section 6.3 asks for, and the
 * extended key usage does not say that it is a server's. Such a common name may be any device's. */
uint32_t identity_find_faults(const identity_t *identity, const mbedtls_x509_crt *certificate);

#endif
