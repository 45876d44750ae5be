#include "dtls/identity.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/oid.h>

void identity_set(identity_t *identity, const char *name)
{
    snprintf(identity->name, sizeof identity->name, "%s", name);
    size_t length = strlen(identity->name);
    if (length > 1 && identity->name[length - 1] == '.')
        identity->name[length - 1] = '\0';
    if (strchr(identity->name, ':') != NULL)
        identity->name[strcspn(identity->name, "%")] = '\0';
    identity->address_length = 0;
    if (inet_pton(AF_INET, identity->name, identity->address) == 1)
        identity->address_length = 4;
    else if (inet_pton(AF_INET6, identity->name, identity->address) == 1)
        identity->address_length = 16;
}

static bool has_address(const identity_t *identity, const mbedtls_x509_crt *certificate)
{
    for (const mbedtls_x509_sequence *name = &certificate->subject_alt_names; name != NULL;
         name = name->next) {
        if (name->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_IP_ADDRESS) &&
            name->buf.len == identity->address_length &&
            memcmp(name->buf.p, identity->address, name->buf.len) == 0)
            return true;
    }
    return false;
}

/* Not mbedtls_x509_crt_check_extended_key_usage(), which is content where nothing is said, or "any usage". */
static bool says_server(const mbedtls_x509_crt *certificate)
{
    for (const mbedtls_x509_sequence *usage = &certificate->ext_key_usage; usage != NULL;
         usage = usage->next) {
        if (usage->buf.p != NULL && MBEDTLS_OID_CMP(MBEDTLS_OID_SERVER_AUTH, &usage->buf) == 0)
            return true;
    }
    return false;
}

uint32_t identity_find_faults(const identity_t *identity, const mbedtls_x509_crt *certificate)
{
    if (identity->address_length > 0)
        return has_address(identity, certificate) ? 0 : MBEDTLS_X509_BADCERT_CN_MISMATCH;
    bool has_names = certificate->subject_alt_names.buf.p != NULL;
    return has_names || says_server(certificate) ? 0 : MBEDTLS_X509_BADCERT_OTHER;
}
