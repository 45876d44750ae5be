#include "dtls/identity.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

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

bool identity_has_address(const identity_t *identity, const mbedtls_x509_crt *certificate)
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
