#include "dtls/verification.h"

#include <string.h>

void verification_begin(verification_t *verification, const char *name)
{
    memset(verification, 0, sizeof *verification);
    identity_set(&verification->identity, name);
}

int verification_check(void *context, mbedtls_x509_crt *certificate, int depth, uint32_t *flags)
{
    verification_t *verification = context;
    int64_t expiry = credentials_seconds(&certificate->valid_to);
    if (depth == 0)
        *flags |= identity_find_faults(&verification->identity, certificate);
    if ((*flags & MBEDTLS_X509_BADCERT_EXPIRED) != 0)
        credentials_format_date(&certificate->valid_to, verification->bad_date);
    else if ((*flags & MBEDTLS_X509_BADCERT_FUTURE) != 0)
        credentials_format_date(&certificate->valid_from, verification->bad_date);
    if ((*flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) != 0)
        credentials_format_name(&certificate->issuer, verification->issuer);
    /* The certificates on the way to the anchor may end before the saved session does. */
    if (verification->expiry == 0 || expiry < verification->expiry)
        verification->expiry = expiry;
    return 0;
}
