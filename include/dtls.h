/* A DTLS 1.2 client (RFC 6347): connect, send, receive, close. Knows nothing of options, files or standard
 * output.
 *
 *     dtls_state_t dtls;
 *     dtls_init(&dtls);
 *     if (credentials_load(&dtls.credentials, &source) && dtls_connect(&dtls, &config) == DTLS_OK &&
 *         dtls_send(&dtls, "hello", 5) == DTLS_OK &&
 *         dtls_receive(&dtls, buffer, sizeof buffer, &length, 1000) == DTLS_OK)
 *         fwrite(buffer, 1, length, stdout);
 *     dtls_close(&dtls);
 *
 * One state is one connection and belongs to one thread at a time. Link with mbedtls, mbedx509 and
 * mbedcrypto, 2.28 or 3.6.
 */
#ifndef DTLS_H
#define DTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ssl.h>

#include "credentials/credentials.h"
#include "dtls/identity.h"
#include "dtls/transport.h"
#include "system/wait.h"

#define DTLS_PAYLOAD_MAX 16384 /* bytes in one record (RFC 5246 section 6.2.1) */
#define DTLS_MTU_DEFAULT 1232  /* IPv6's least MTU, 1280, less the IPv6 and UDP headers */

typedef enum {
    DTLS_OK,
    DTLS_TIMEOUT,      /* nothing came in time */
    DTLS_CLOSED,       /* the server closed the connection (close_notify) */
    DTLS_INTERRUPTED,  /* limit.cancel_fd became readable */
    DTLS_NAME_UNKNOWN, /* no such host */
    DTLS_REFUSED,     /* every address refused, or none can be reached; or, once connected, nobody listens any
                         more */
    DTLS_UNTRUSTED,   /* the server's certificate is not acceptable */
    DTLS_REJECTED,    /* the server does not accept ours */
    DTLS_CREDENTIALS, /* ours cannot be used */
    DTLS_PROTOCOL,    /* the handshake failed for another reason, or a fatal alert came */
    DTLS_TOO_LARGE,   /* more than one record, or the caller's buffer, can hold */
    DTLS_SYSTEM       /* no memory, no socket, no entropy */
} dtls_outcome_t;

/* Bytes that only this module understands: keys and counters, so they are secret. */
typedef struct {
    unsigned char *bytes; /* owned, from malloc(3); NULL: nothing is held */
    size_t length;
} dtls_blob_t;

/* Wipes and frees; harmless when repeated. */
void dtls_blob_free(dtls_blob_t *blob);

/* All strings stay the caller's and must outlive the connection. */
typedef struct {
    const char *host;        /* name, or IPv4 or IPv6 address without brackets */
    const char *port;        /* decimal */
    const char *server_name; /* DNS name or IP address that the server's certificate must carry; NULL: host */
    int family;              /* AF_UNSPEC, AF_INET or AF_INET6 */
    uint16_t mtu;            /* largest handshake datagram, in bytes; 0: DTLS_MTU_DEFAULT */
    dtls_blob_t session;     /* from dtls_save_session(), to ask for an abbreviated handshake; empty: none */
    bool want_ticket;        /* ask for a session ticket (RFC 5077) */
    bool offer_connection_id; /* RFC 9146, where the library can; it makes records larger */
    int64_t round_trip_us;    /* as last seen, for the first retransmission; 0: not known */
    wait_limit_t limit;       /* bounds dtls_connect(), dtls_send() and dtls_receive() */
} dtls_config_t;

/* Members are for dtls.c, but `credentials`, which the caller loads before connecting. */
typedef struct {
    credentials_t credentials; /* x509 chain and anchors, pk */
    transport_t transport;     /* net, and the timer */
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config ssl_config;
    mbedtls_ctr_drbg_context drbg; /* seeded when first asked for a number */
    bool drbg_seeded;
    dtls_config_t config;
    identity_t identity; /* who the server must be */
    int64_t
        expiry; /* of the first certificate to expire in the server's chain, Unix time; 0: none was seen */
    char bad_date[CREDENTIALS_DATE_SIZE]; /* of the certificate that is expired or not yet valid, for messages
                                           */
    bool has_stalled;          /* an attempt of this connection got no answer, or not the whole handshake */
    int offered_suite[2];      /* its cipher suite, and a zero */
    unsigned char offered[48]; /* the master secret of the session that was offered; zero: none was */
    bool connected;            /* the handshake is complete: a close_notify would be understood */
    bool server_closed;        /* a close_notify came */
    char error[512];
} dtls_state_t;

/* Makes every member safe to free. First call on a state; never blocks, cannot fail. */
void dtls_init(dtls_state_t *state);

/* Resolves the host, tries its addresses in turn (each its share of the time; one that says nothing is passed
 * over soon), performs a full handshake and verifies the server: chain to an anchor, dates, extended key
 * usage, and name. state->credentials must have been loaded. `config` is copied. Blocks until config->limit.
 * DTLS_OK: connected. Else dtls_error_text() says why; state can only be closed. */
dtls_outcome_t dtls_connect(dtls_state_t *state, const dtls_config_t *config);

/* The largest payload that dtls_send() takes on this connection: DTLS_PAYLOAD_MAX, or less where the server
 * negotiated less. Only after DTLS_OK from dtls_connect(). */
size_t dtls_payload_maximum(const dtls_state_t *state);

/* Sends `payload` as one record in one datagram, once; length 0 is a payload too. DTLS_OK says that the
 * datagram was given to the network: DTLS acknowledges nothing. DTLS_TOO_LARGE: nothing was sent, and the
 * connection lives on. Blocks only while the socket's buffer is full. */
dtls_outcome_t dtls_send(dtls_state_t *state, const void *payload, size_t length);

/* Receives the next downlink, whole, into `buffer`, and sets `*length` (0 for an empty downlink). Waits at
 * most `timeout_ms` (0: takes only what has already arrived) and never beyond the limit. DTLS_TIMEOUT: none
 * came. DTLS_CLOSED: none will. DTLS_TOO_LARGE: `size` is too small; the downlink waits, and
 * `*length` says how large it is. */
dtls_outcome_t dtls_receive(dtls_state_t *state, void *buffer, size_t size, size_t *length,
                            int64_t timeout_ms);

/* One line on why the last call did not return DTLS_OK: what failed, with which address, and what to do.
 * Without prefix or newline; belongs to the state. */
const char *dtls_error_text(const dtls_state_t *state);

/* Readable when something from the server waits; for poll(2) beside other descriptors. Only while connected.
 */
int dtls_fd(const dtls_state_t *state);

/* "mbed TLS 2.28.3": the library that runs, which may be newer than the headers were. */
const char *dtls_library(void);

/* When the first certificate in the server's chain expires, in Unix time; 0: none was seen, after an
 * abbreviated handshake or none. */
int64_t dtls_expiry(const dtls_state_t *state);

/* The round trip in microseconds, as seen at the start of the handshake; 0: not known. */
int64_t dtls_round_trip_us(const dtls_state_t *state);

/* Saves what an abbreviated handshake needs (RFC 5246 section 7.3): once, and before dtls_suspend(). False:
 * the server offered neither a session id nor a ticket; `*blob` is empty then, else the caller's to free. */
bool dtls_save_session(dtls_state_t *state, dtls_blob_t *blob);

/* Takes the association out of the state, keys and record counters, so that another process can go on with
 * it; the server is not told. The state can only be closed then. Whoever resumes from one blob twice repeats
 * nonces, which breaks the encryption (RFC 7905 section 2): it is the caller's duty that none can. False: not
 * possible just now (data waits to be read, or an abbreviated handshake was not yet followed by data);
 * `*blob` is empty, and the connection lives on. */
bool dtls_suspend(dtls_state_t *state, dtls_blob_t *blob);

/* Whether the server knows a suspended association by our address alone, for want of a connection id. A
 * server that serves one such client at a time listens to no other handshake until it has been told goodbye.
 */
bool dtls_is_known_by_address(const dtls_blob_t *blob);

/* Goes on with an association that dtls_suspend() took out, without a datagram: instead of dtls_connect(),
 * and without credentials. Binds the local address and port again, by which the server knows us, unless it
 * gave us a connection id (RFC 9146). Proves nothing about the server, which may have forgotten. Not DTLS_OK:
 * the state can only be closed. */
dtls_outcome_t dtls_resume(dtls_state_t *state, const dtls_config_t *config, const dtls_blob_t *blob);

/* Says goodbye (close_notify, RFC 5246 section 7.2.1) where connected, closes the socket, wipes and frees
 * everything, credentials too. May be called at any time after dtls_init(), and again. Never blocks. */
void dtls_close(dtls_state_t *state);

#endif
