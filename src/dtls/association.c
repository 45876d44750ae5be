/* What a connection leaves for later runs: its session, and the association itself. Part of dtls.h. */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <mbedtls/platform_util.h>

#include "dtls/compat.h"
#include "dtls/policy.h"
#include "dtls_internal.h"

/* Bytes of the library's context, most of which is the server's certificate. */
enum { ASSOCIATION_MAX = 32768 };

/* What a suspended association needs beside the library's context. Kept by the run that reads it on the same
 * machine and from the same build, so its memory is its format. */
typedef struct {
    struct sockaddr_storage peer, local;
    socklen_t peer_length, local_length;
    int64_t round_trip_us;
    uint32_t
        any_port; /* the server knows us by a connection id; not a bool, which cannot hold just anything */
} endpoints_t;

void dtls_blob_free(dtls_blob_t *blob)
{
    if (blob->bytes != NULL)
        mbedtls_platform_zeroize(blob->bytes, blob->length);
    free(blob->bytes);
    *blob = (dtls_blob_t){0};
}

bool dtls_save_session(dtls_state_t *state, dtls_blob_t *blob)
{
    mbedtls_ssl_session session;
    size_t size = 0;
    *blob = (dtls_blob_t){0};
    mbedtls_ssl_session_init(&session);
    if (mbedtls_ssl_get_session(&state->ssl, &session) == 0 && compat_can_resume(&session) &&
        mbedtls_ssl_session_save(&session, NULL, 0, &size) == MBEDTLS_ERR_SSL_BUFFER_TOO_SMALL)
        blob->bytes = malloc(size);
    if (blob->bytes != NULL && mbedtls_ssl_session_save(&session, blob->bytes, size, &blob->length) != 0)
        dtls_blob_free(blob);
    mbedtls_ssl_session_free(&session);
    return blob->bytes != NULL;
}

bool dtls_suspend(dtls_state_t *state, dtls_blob_t *blob)
{
    endpoints_t ends;
    size_t size = 0;
    *blob = (dtls_blob_t){0};
    memset(&ends, 0, sizeof ends);
    ends.peer_length = ends.local_length = sizeof ends.peer;
    ends.round_trip_us = state->transport.round_trip_us;
    ends.any_port = compat_has_connection_id(&state->ssl);
    if (state->server_closed ||
        getpeername(state->transport.net.fd, (struct sockaddr *)&ends.peer, &ends.peer_length) != 0 ||
        getsockname(state->transport.net.fd, (struct sockaddr *)&ends.local, &ends.local_length) != 0)
        return false;
    blob->bytes = malloc(sizeof ends + ASSOCIATION_MAX);
    if (blob->bytes == NULL)
        return false;
    memcpy(blob->bytes, &ends, sizeof ends);
    int status = mbedtls_ssl_context_save(&state->ssl, blob->bytes + sizeof ends, ASSOCIATION_MAX, &size);
    blob->length = sizeof ends + size;
    if (status != 0) {
        dtls_blob_free(blob);
        return false;
    }
    dtls_log_traffic(state);
    state->connected = false; /* a close_notify would end what is kept */
    return true;
}

static bool is_internet_address(const struct sockaddr_storage *address, socklen_t length)
{
    return (address->ss_family == AF_INET && length == sizeof(struct sockaddr_in)) ||
           (address->ss_family == AF_INET6 && length == sizeof(struct sockaddr_in6));
}

/* False: they are damaged. */
static bool read_endpoints(const dtls_blob_t *blob, endpoints_t *ends)
{
    if (blob->length <= sizeof *ends)
        return false;
    memcpy(ends, blob->bytes, sizeof *ends);
    return is_internet_address(&ends->peer, ends->peer_length) &&
           is_internet_address(&ends->local, ends->local_length);
}

bool dtls_is_known_by_address(const dtls_blob_t *blob)
{
    endpoints_t ends;
    return read_endpoints(blob, &ends) && !ends.any_port;
}

dtls_outcome_t dtls_resume(dtls_state_t *state, const dtls_config_t *config, const dtls_blob_t *blob)
{
    endpoints_t ends;
    state->config = *config;
    if (!read_endpoints(blob, &ends))
        return dtls_fail(state, DTLS_PROTOCOL, "the saved association is damaged");
    struct addrinfo peer = {.ai_family = ends.peer.ss_family,
                            .ai_addr = (struct sockaddr *)&ends.peer,
                            .ai_addrlen = ends.peer_length};
    struct addrinfo local = {.ai_addr = (struct sockaddr *)&ends.local, .ai_addrlen = ends.local_length};
    if (!transport_open(&state->transport, &peer, ends.any_port ? NULL : &local))
        return dtls_explain(state, 0);
    int status = policy_apply_to_resumed(&state->ssl_config);
    dtls_add_callbacks(state);
    if (status == 0)
        status = dtls_prepare(state);
    if (status == 0)
        status = mbedtls_ssl_context_load(&state->ssl, blob->bytes + sizeof ends, blob->length - sizeof ends);
    if (status != 0)
        return dtls_explain(state, status);
    policy_limit_forgeries(&state->ssl_config, compat_suite(compat_session(&state->ssl)));
    state->transport.round_trip_us = ends.round_trip_us;
    state->connected = true;
    return DTLS_OK;
}
