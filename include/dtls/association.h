/* An association in the form in which it outlasts its process: keys and record counters, the addresses of
 * both ends, and the round trip, as bytes. */
#ifndef ASSOCIATION_H
#define ASSOCIATION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/ssl.h>

/* Bytes that only the DTLS modules understand: keys and counters, so they are secret. */
typedef struct {
    unsigned char *bytes; /* owned, from malloc(3); NULL: nothing is held */
    size_t length;
} dtls_blob_t;

/* Wipes and frees; harmless when repeated. */
void dtls_blob_free(dtls_blob_t *blob);

/* What a suspended association needs beside the library's context. */
typedef struct {
    struct sockaddr_storage peer, local;
    socklen_t peer_length, local_length;
    int64_t round_trip_us; /* 0: not known */
    /* The server knows us by a connection id (RFC 9146), so that any local port will do. Not a bool, which
     * cannot hold just anything that a file may hold. */
    uint32_t any_port;
} association_ends_t;

/* Packs the association of `ssl`, which talks over the connected socket `fd`. False: not possible just now
 * (see dtls_suspend()), or no memory; `*blob` is empty then, else the caller's to free. */
bool association_pack(mbedtls_ssl_context *ssl, int fd, int64_t round_trip_us, dtls_blob_t *blob);

/* Reads its ends. False: the blob is damaged. */
bool association_read_ends(const dtls_blob_t *blob, association_ends_t *ends);

/* Loads it into `ssl`, which has been set up, and whose blob has readable ends. Returns 0, or an mbed TLS
 * error after which the context can only be freed. */
int association_load(mbedtls_ssl_context *ssl, const dtls_blob_t *blob);

/* Packs what an abbreviated handshake needs (RFC 5246 section 7.3). False: the server offered neither a
 * session id nor a ticket, or no memory; `*blob` is empty then, else the caller's to free. */
bool association_pack_session(mbedtls_ssl_context *ssl, dtls_blob_t *blob);

/* Makes the coming handshake of `ssl` ask for an abbreviated one by a packed session, and puts the session's
 * master secret into `master`. Returns its cipher suite; 0: it cannot be used, and a full handshake is
 * needed. */
int association_offer_session(mbedtls_ssl_context *ssl, const dtls_blob_t *blob,
                              unsigned char master[static 48]);

#endif
