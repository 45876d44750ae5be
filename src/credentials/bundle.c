#include "credentials/bundle.h"

#include <string.h>

#include "credentials/compat.h"

enum {
    PUBLIC_KEY_MAX = 4200, /* bytes: an RSA key of 16384 bits, twice over */
    CHAIN_MAX = 8          /* certificates sent: mbed TLS itself verifies no longer chain */
};

static bool same_name(const mbedtls_x509_buf *a, const mbedtls_x509_buf *b)
{
    return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

static bool is_self_issued(const mbedtls_x509_crt *certificate)
{
    return same_name(&certificate->issuer_raw, &certificate->subject_raw);
}

static bool is_valid_now(const mbedtls_x509_crt *certificate)
{
    return !mbedtls_x509_time_is_past(&certificate->valid_to) &&
           !mbedtls_x509_time_is_future(&certificate->valid_from);
}

/* Whether the key's public half is the certificate's. mbedtls_pk_check_pair() would compute that half anew as
 * well, at the price of a signature, to find what only a damaged file has: two halves of a key that do not
 * belong together. */
static bool fits(const mbedtls_x509_crt *certificate, const mbedtls_pk_context *key)
{
    unsigned char own[PUBLIC_KEY_MAX], theirs[PUBLIC_KEY_MAX];               /* filled from the end */
    mbedtls_pk_context *public_key = (mbedtls_pk_context *)&certificate->pk; /* 2.28 asks for a mutable one */
    int length = mbedtls_pk_write_pubkey_der((mbedtls_pk_context *)key, own, sizeof own);
    return length > 0 && mbedtls_pk_write_pubkey_der(public_key, theirs, sizeof theirs) == length &&
           memcmp(own + sizeof own - length, theirs + sizeof theirs - length, (size_t)length) == 0;
}

const mbedtls_x509_crt *bundle_find_own(const mbedtls_x509_crt *bundle, const mbedtls_pk_context *key)
{
    const mbedtls_x509_crt *own = NULL;
    for (const mbedtls_x509_crt *next = bundle; next != NULL; next = next->next) {
        if (!fits(next, key))
            continue;
        if (is_valid_now(next))
            return next;
        if (own == NULL)
            own = next;
    }
    return own;
}

static int add(mbedtls_x509_crt *list, const mbedtls_x509_crt *certificate)
{
    return mbedtls_x509_crt_parse_der(list, certificate->raw.p, certificate->raw.len);
}

/* Whether `issuer` alone makes `certificate` trustworthy, dates aside. */
static bool has_signed(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *certificate)
{
    mbedtls_x509_crt alone;
    uint32_t flags = MBEDTLS_X509_BADCERT_NOT_TRUSTED;
    mbedtls_x509_crt_init(&alone);
    if (add(&alone, issuer) == 0)
        mbedtls_x509_crt_verify((mbedtls_x509_crt *)certificate, &alone, NULL, NULL, &flags, NULL, NULL);
    mbedtls_x509_crt_free(&alone);
    return (flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) == 0;
}

/* Names settle it but where a CA has changed its key and kept its name; only then is a signature worth its
 * price. */
static const mbedtls_x509_crt *find_issuer(const mbedtls_x509_crt *bundle,
                                           const mbedtls_x509_crt *certificate)
{
    const mbedtls_x509_crt *found = NULL;
    for (; bundle != NULL; bundle = bundle->next) {
        if (!compat_is_ca(bundle) || !same_name(&bundle->subject_raw, &certificate->issuer_raw))
            continue;
        if (found == NULL || !has_signed(found, certificate))
            found = bundle;
    }
    return found;
}

static bool holds(const mbedtls_x509_crt *list, const mbedtls_x509_crt *certificate)
{
    for (; list != NULL; list = list->next) {
        if (list->raw.len == certificate->raw.len &&
            memcmp(list->raw.p, certificate->raw.p, certificate->raw.len) == 0)
            return true;
    }
    return false;
}

int bundle_build_chain(const mbedtls_x509_crt *bundle, const mbedtls_x509_crt *own, mbedtls_x509_crt *chain)
{
    int status = add(chain, own);
    const mbedtls_x509_crt *last = own;
    for (int count = 1; status == 0 && count < CHAIN_MAX && !is_self_issued(last); count++) {
        last = find_issuer(bundle, last);
        /* CAs that have certified each other make no circle of it. */
        if (last == NULL || is_self_issued(last) || holds(chain, last))
            break;
        status = add(chain, last);
    }
    return status;
}

/* Version 1 is no sign of a CA: "openssl x509 -req" makes a device's certificate so where it is not told of
 * any extensions, and one such beside the device's own would let its owner pass for any server. */
int bundle_add_anchors(const mbedtls_x509_crt *bundle, const mbedtls_pk_context *key,
                       mbedtls_x509_crt *anchors)
{
    int status = 0;
    for (; bundle != NULL && status == 0; bundle = bundle->next) {
        if (compat_is_ca(bundle) && !fits(bundle, key))
            status = add(anchors, bundle);
    }
    return status;
}

int bundle_add_named_anchors(const mbedtls_x509_crt *bundle, mbedtls_x509_crt *anchors, bool *refused)
{
    int status = 0;
    for (; bundle != NULL && status == 0; bundle = bundle->next) {
        if (compat_is_ca(bundle) || (bundle->version < 3 && is_self_issued(bundle)))
            status = add(anchors, bundle);
        else
            *refused = true;
    }
    return status;
}
