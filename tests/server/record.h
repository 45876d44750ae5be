/* DTLS records as anyone on the wire sees them (RFC 6347 section 4.1, RFC 9146 section 4). */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Bytes in the first record of what is left of a datagram, its header included; all of them where that cannot
 * be told. `cid_length` is that of the connection ids that we hand out; 0: we hand out none. */
size_t record_length(const unsigned char *bytes, size_t left, size_t cid_length);

/* The connection id in a datagram's first record; NULL: there is none. */
const unsigned char *record_cid(const unsigned char *bytes, size_t length, size_t cid_length);

/* Whether a datagram begins with a ClientHello in the clear. */
bool record_is_client_hello(const unsigned char *bytes, size_t length);

/* Writes the line that --help describes; nothing where the record is too short to be one. */
void record_log(FILE *file, const char *address, unsigned long association, const unsigned char *record,
                size_t length);

#endif
