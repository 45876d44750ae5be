#include "address.h"

#include <stdio.h>
#include <string.h>

void address_format(const address_t *address, char text[static ADDRESS_TEXT])
{
    char host[NI_MAXHOST], port[8];
    if (getnameinfo((const struct sockaddr *)&address->storage, address->length, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(text, ADDRESS_TEXT, "unknown");
    else
        snprintf(text, ADDRESS_TEXT, strchr(host, ':') != NULL ? "[%s]:%s" : "%s:%s", host, port);
}

bool address_is_same(const address_t *left, const address_t *right)
{
    return left->length == right->length && memcmp(&left->storage, &right->storage, left->length) == 0;
}
