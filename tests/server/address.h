/* Where a device is. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>

enum { ADDRESS_TEXT = NI_MAXHOST + 8 };

typedef struct {
    struct sockaddr_storage storage; /* zeroed before it is filled in, so that it compares by memcmp(3) */
    socklen_t length;
} address_t;

/* "127.0.0.1:1234", "[::1]:1234". */
void address_format(const address_t *address, char text[static ADDRESS_TEXT]);

bool address_is_same(const address_t *left, const address_t *right);

#endif
