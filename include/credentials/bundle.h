/* What is what among the certificates of one file, in whatever order they stand there. */
#ifndef BUNDLE_H
#define BUNDLE_H

#include <stdbool.h>

#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>

/* The certificate in `bundle` that belongs to the private key, wherever it stands. After a renewal with the
 * same key there may be two: the one that is valid now wins. NULL: none. */
const mbedtls_x509_crt *bundle_find_own(const mbedtls_x509_crt *bundle, const mbedtls_pk_context *key);

/* Appends to `chain` copies of `own`, one of the bundle, and of its issuers in the order of RFC 5246 section
 * 7.4.2, less the root, which the server must have anyhow. Returns 0 or an mbed TLS error. */
int bundle_build_chain(const mbedtls_x509_crt *bundle, const mbedtls_x509_crt *own, mbedtls_x509_crt *chain);

/* Appends to `anchors` copies of the CA certificates that stand beside the device's own: those whose basic
 * constraints say CA (RFC 5280 section 4.2.1.9). Never one of the device's own `key`, old or new, though it
 * may claim to be a CA: who holds that key could then pass for any server. Returns 0 or an mbed TLS error. */
int bundle_add_anchors(const mbedtls_x509_crt *bundle, const mbedtls_pk_context *key,
                       mbedtls_x509_crt *anchors);

/* The same for a bundle that the user named as trust anchors. There a self-issued certificate of version 1,
 * which cannot say CA, is one too. `*refused` is set where one of them is no anchor, else left alone. */
int bundle_add_named_anchors(const mbedtls_x509_crt *bundle, mbedtls_x509_crt *anchors, bool *refused);

#endif
