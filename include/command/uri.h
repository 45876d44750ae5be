/* The server as people write it, HOST[:PORT] or a URI, taken apart. */
#ifndef URI_H
#define URI_H

#include <stdbool.h>
#include <stddef.h>

/* A DNS name has at most 253 characters (RFC 1035 section 2.3.4); and a NUL. */
#define URI_HOST_SIZE    256
#define URI_OPTIONS_SIZE 1024

/* Path and query are a flat list, in the order in which CoAP sends them: the option's number in one byte (11:
 * Uri-Path, 15: Uri-Query), its length in one byte, its bytes. No part is longer than 255 bytes, and no byte
 * is percent-encoded any more. */
typedef struct {
    bool coaps;               /* CoAP over DTLS; false: the payload is the record */
    char host[URI_HOST_SIZE]; /* a name or an address, without brackets */
    char port[6];             /* from 1 to 65535, in decimal digits */
    unsigned char options[URI_OPTIONS_SIZE];
    size_t options_length;
} uri_t;

/* Takes `text` apart: "HOST", "HOST:PORT", "IPV6", "[IPV6]", "[IPV6]:PORT", "dtls://HOST[:PORT]" or
 * "coaps://HOST[:PORT][/PATH][?QUERY]" (RFC 3986; RFC 7252 section 6.4). The port is 1234 where none is
 * given, with coaps 5684. NULL; or in a static string what is wrong, and then `uri` is undefined. */
const char *uri_parse(const char *text, uri_t *uri);

#endif
