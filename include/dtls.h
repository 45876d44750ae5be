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
 * One state is one connection at a time and belongs to one thread at a time. Link with mbedtls, mbedx509 and
 * mbedcrypto, 2.28 or 3.6. */
#ifndef DTLS_H
#define DTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/ssl.h>

#include "credentials/credentials.h"
#include "dtls/association.h"
#include "dtls/attempts.h"
#include "dtls/callbacks.h"
#include "dtls/outcome.h"
#include "dtls/transport.h"
#include "dtls/verification.h"
#include "system/wait.h"

#define DTLS_PAYLOAD_MAX 16384 /* bytes in one record (RFC 5246 section 6.2.1) */
#define DTLS_MTU_DEFAULT 1232  /* IPv6's least MTU, 1280, less the IPv6 and UDP headers */

/* All strings stay the caller's and must outlive the connection. */
typedef struct {
    const char *host;        /* name, or IPv4 or IPv6 address without brackets */
    const char *port;        /* decimal */
    const char *server_name; /* DNS name or IP address that the server's certificate must carry; NULL: host */
    int family;              /* AF_UNSPEC, AF_INET or AF_INET6 */
    uint16_t mtu;            /* largest handshake datagram, in bytes; 0: DTLS_MTU_DEFAULT */
    bool persist;            /* a server that refuses is tried again until the limit: it may be restarting */
    dtls_blob_t session;     /* from dtls_save_session(), to ask for an abbreviated handshake; empty: none */
    bool want_ticket;        /* ask for a session ticket (RFC 5077) */
    bool offer_connection_id; /* RFC 9146, where the library can; it makes records larger */
    int64_t round_trip_us;    /* as an earlier run measured it; 0: not known */
    wait_limit_t limit;       /* bounds dtls_connect(), dtls_send() and dtls_receive() */
} dtls_config_t;

/* Members are for dtls.c, but `credentials`, which the caller loads before connecting. */
typedef struct {
    credentials_t credentials; /* x509 chain and anchors, pk */
    transport_t transport;     /* net, and the timer */
    mbedtls_ssl_context ssl;
    mbedtls_ssl_config ssl_config;
    callbacks_t callbacks; /* ctr_drbg */
    dtls_config_t config;
    verification_t verification;
    bool has_stalled;          /* an attempt of this connection got no answer, or not the whole handshake */
    bool session_refused;      /* an attempt failed that offered the session */
    int offered_suite[2];      /* the session's cipher suite, and a zero */
    unsigned char offered[48]; /* its master secret; zero: none was offered */
    bool connected;            /* the handshake is complete: a close_notify would be understood */
    bool said_goodbye;         /* the connection before was ended by us */
    char error[ATTEMPTS_TEXT_SIZE];
} dtls_state_t;

/* Makes every member safe to free. First call on a state; never blocks, cannot fail. */
void dtls_init(dtls_state_t *state);

/* Resolves the host, tries its addresses in turn (each its share of the time; one that says nothing is passed
 * over soon), performs a handshake and verifies the server: chain to an anchor, dates, extended key usage,
 * and name. state->credentials must have been loaded, and serve any number of calls. On a state that is
 * connected it ends that connection first, with a close_notify, and connects from a fresh source port. A
 * refusal or an alert is believed when a second attempt brings the same; a refusal never, with
 * config->persist. `config` is copied. Blocks until config->limit. DTLS_OK: connected. Else dtls_error_text()
 * says why. */
dtls_outcome_t dtls_connect(dtls_state_t *state, const dtls_config_t *config);

/* The largest payload that dtls_send() takes on this connection: DTLS_PAYLOAD_MAX, or less where the server
 * negotiated less; 0 where there is no connection. */
size_t dtls_payload_maximum(const dtls_state_t *state);

/* Sends `payload` as one record in one datagram, once; length 0 is a payload too. DTLS_OK says that the
 * datagram was given to the network: DTLS acknowledges nothing. DTLS_TOO_LARGE: nothing was sent, and the
 * connection lives on. DTLS_CLOSED: there is no connection. After any other outcome there is none any more.
 * Blocks only while the socket's buffer is full. */
dtls_outcome_t dtls_send(dtls_state_t *state, const void *payload, size_t length);

/* Receives the next downlink, whole, into `buffer`, and sets `*length` (0 for an empty downlink). Waits at
 * most `timeout_ms` (0: takes only what has already arrived) and never beyond the limit. DTLS_TIMEOUT: none
 * came. DTLS_TOO_LARGE: `size` is too small; the downlink waits, and `*length` says how large it is.
 * DTLS_CLOSED: none will come. After any other outcome there is no connection any more. */
dtls_outcome_t dtls_receive(dtls_state_t *state, void *buffer, size_t size, size_t *length,
                            int64_t timeout_ms);

/* One line on why the last call did not return DTLS_OK: what failed, with which address, and what to do.
 * Without prefix or newline; belongs to the state. */
const char *dtls_error_text(const dtls_state_t *state);

/* Readable when something from the server waits; for poll(2) beside other descriptors. -1: not open. */
int dtls_fd(const dtls_state_t *state);

/* "mbed TLS 2.28.3": the library that runs, which may be newer than the headers were. */
const char *dtls_library(void);

/* Whether the last handshake was abbreviated. */
bool dtls_was_resumed(const dtls_state_t *state);

/* When the first certificate in the server's chain expires, in Unix time; 0: none was seen, after an
 * abbreviated handshake or none. */
int64_t dtls_expiry(const dtls_state_t *state);

/* The round trip in microseconds, as handshakes measured it, smoothed; 0: not known. */
int64_t dtls_round_trip_us(const dtls_state_t *state);

/* Saves what an abbreviated handshake needs (RFC 5246 section 7.3): once, and before dtls_suspend(). False:
 * the server offered neither a session id nor a ticket; `*blob` is empty then, else the caller's to free. */
bool dtls_save_session(dtls_state_t *state, dtls_blob_t *blob);

/* Takes the association out of the state, keys and record counters, so that another process can go on with
 * it; the server is not told. The state can only be closed then. Whoever resumes from one blob twice repeats
 * nonces, which breaks the encryption (RFC 7905 section 2): it is the caller's duty that none can. False: not
 * possible just now (data waits to be read, an abbreviated handshake was not yet followed by data, or there
 * is no connection); `*blob` is empty. */
bool dtls_suspend(dtls_state_t *state, dtls_blob_t *blob);

/* Goes on with an association that dtls_suspend() took out, without a datagram: instead of dtls_connect(),
 * and without credentials. Binds the local address and port again, by which the server knows us. Where it
 * gave us a connection id (RFC 9146) any other port will do if that one is taken; it is tried first all the
 * same, since a server may have connected its socket to it. Proves nothing about the server, which may have
 * forgotten. Not DTLS_OK: there is no connection. */
dtls_outcome_t dtls_resume(dtls_state_t *state, const dtls_config_t *config, const dtls_blob_t *blob);

/* Says goodbye (close_notify, RFC 5246 section 7.2.1) where connected, closes the socket, wipes and frees
 * everything, credentials too. May be called at any time after dtls_init(), and again. Never blocks. */
void dtls_close(dtls_state_t *state);

#endif
