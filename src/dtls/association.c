#include "dtls/association.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <mbedtls/platform_util.h>

#include "credentials/compat.h"

/* Bytes of the library's context, most of which is the server's certificate. */
enum { CONTEXT_MAX = 32768 };

void dtls_blob_free(dtls_blob_t *blob)
{
    if (blob->bytes != NULL)
        mbedtls_platform_zeroize(blob->bytes, blob->length);
    free(blob->bytes);
    *blob = (dtls_blob_t){0};
}

/* A blob is read on the machine and by the build that made it, so the memory of its ends is their format. */
bool association_pack(mbedtls_ssl_context *ssl, int fd, int64_t round_trip_us, dtls_blob_t *blob)
{
    association_ends_t ends;
    size_t size = 0;
    *blob = (dtls_blob_t){0};
    memset(&ends, 0, sizeof ends); /* padding too */
    ends.peer_length = ends.local_length = sizeof ends.peer;
    ends.round_trip_us = round_trip_us;
    ends.any_port = compat_has_connection_id(ssl);
    if (getpeername(fd, (struct sockaddr *)&ends.peer, &ends.peer_length) != 0 ||
        getsockname(fd, (struct sockaddr *)&ends.local, &ends.local_length) != 0)
        return false;
    blob->bytes = malloc(sizeof ends + CONTEXT_MAX);
    if (blob->bytes == NULL)
        return false;
    memcpy(blob->bytes, &ends, sizeof ends);
    int status = mbedtls_ssl_context_save(ssl, blob->bytes + sizeof ends, CONTEXT_MAX, &size);
    blob->length = sizeof ends + size;
    if (status != 0)
        dtls_blob_free(blob);
    return status == 0;
}

static bool is_internet_address(const struct sockaddr_storage *address, socklen_t length)
{
    return (address->ss_family == AF_INET && length == sizeof(struct sockaddr_in)) ||
           (address->ss_family == AF_INET6 && length == sizeof(struct sockaddr_in6));
}

bool association_read_ends(const dtls_blob_t *blob, association_ends_t *ends)
{
    if (blob->length <= sizeof *ends)
        return false;
    memcpy(ends, blob->bytes, sizeof *ends);
    return is_internet_address(&ends->peer, ends->peer_length) &&
           is_internet_address(&ends->local, ends->local_length);
}

int association_load(mbedtls_ssl_context *ssl, const dtls_blob_t *blob)
{
    size_t skipped = sizeof(association_ends_t);
    return mbedtls_ssl_context_load(ssl, blob->bytes + skipped, blob->length - skipped);
}

bool association_pack_session(mbedtls_ssl_context *ssl, dtls_blob_t *blob)
{
    mbedtls_ssl_session session;
    size_t size = 0;
    *blob = (dtls_blob_t){0};
    mbedtls_ssl_session_init(&session);
    if (mbedtls_ssl_get_session(ssl, &session) == 0 && compat_can_resume(&session) &&
        mbedtls_ssl_session_save(&session, NULL, 0, &size) == MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL)
        blob->bytes = malloc(size);
    if (blob->bytes != NULL && mbedtls_ssl_session_save(&session, blob->bytes, size, &blob->length) != 0)
        dtls_blob_free(blob);
    mbedtls_ssl_session_free(&session);
    return blob->bytes != NULL;
}

int association_offer_session(mbedtls_ssl_context *ssl, const dtls_blob_t *blob,
                              unsigned char master[static 48])
{
    mbedtls_ssl_session session;
    int suite = 0;
    mbedtls_ssl_session_init(&session);
    if (mbedtls_ssl_session_load(&session, blob->bytes, blob->length) == 0 &&
        mbedtls_ssl_set_session(ssl, &session) == 0) {
        suite = compat_suite(&session);
        memcpy(master, compat_master(&session), 48);
    }
    mbedtls_ssl_session_free(&session);
    return suite;
}
