/* The datagrams of one connection attempt: a connected UDP socket and a retransmission timer, in the shape
 * that mbed TLS calls them back in (mbedtls_ssl_set_bio, mbedtls_ssl_set_timer_cb). Knows nothing of DTLS. */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/net_sockets.h>

#include "system/wait.h"

typedef struct {
    mbedtls_net_context net;
    char peer[80];    /* numeric address and port, for messages */
    int error;        /* errno of the socket call that failed; 0: none did */
    bool may_receive; /* see transport_receive() */
    bool measures;    /* round trips are measured: what is sent is answered at once, as in a handshake */
    bool heard;       /* a datagram came from this address */
    int64_t heard_ms; /* when the last one came; before that, when the socket was opened */
    /* The timer's two delays end then, on wait_now_ms()'s clock; final_ms 0 says that it does not run. */
    int64_t intermediate_ms, final_ms;
    int64_t pace_ms;   /* what a second of the library's timer lasts */
    int64_t flight_us; /* when the first datagram since the last answer left; 0: none did */
    bool flight_was_resent;
    /* The flight that was sent last: its first datagram, for transport_send(). */
    int64_t sent_us;
    size_t sent_length;
    bool may_begin;        /* the next datagram begins a flight: something came, or the timer expired */
    bool is_due;           /* the latter */
    bool is_untimely;      /* the datagrams of this flight are not sent */
    int64_t round_trip_us; /* smoothed (RFC 6298 section 2); 0: not known */
    unsigned long datagrams_sent, datagrams_received;
    unsigned long long bytes_sent, bytes_received; /* UDP payload */
} transport_t;

/* Nothing is open, nothing counted. */
void transport_init(transport_t *transport);

/* Opens a socket that talks to `address` alone, from `local`, or from a fresh source port where that is NULL,
 * and closes the one before. Datagrams leave it without "don't fragment": a path that silently drops large
 * ones must not swallow a payload. False: transport->error says why. Never blocks. The counters and the round
 * trip stay. */
bool transport_open(transport_t *transport, const struct addrinfo *address, const struct addrinfo *local);

/* Notes the round trip that an earlier run measured, in microseconds; 0: not known. The first retransmission
 * comes after three round trips, but after 0.25 s at the least, and after 1 s at the most where the path is
 * not slower than that; on an unknown path after 1.5 s. Every answer to a flight that was sent once measures
 * it anew (Karn's rule). */
void transport_expect_round_trip(transport_t *transport, int64_t round_trip_us);

/* An f_send: sends one datagram. But in a handshake a flight that the library repeats before a round trip has
 * passed, since the server repeats its own, is not sent: the server's timer was faster than the path, and
 * what it waits for is under way. If it is not, our own timer finds out. Returns the datagram's length,
 * MBEDTLS_ERR_SSL_WANT_WRITE where the socket's buffer is full, or MBEDTLS_ERR_NET_SEND_FAILED with
 * transport->error set. `context` is the transport, here and below. */
int transport_send(void *context, const unsigned char *bytes, size_t length);

/* An f_recv: receives one datagram where may_receive is set, and clears it: so that neither a flood of them
 * keeps the library from returning to our deadline, nor an empty record goes unnoticed before the next one
 * comes. Returns its length, MBEDTLS_ERR_SSL_WANT_READ for none, or MBEDTLS_ERR_NET_RECV_FAILED with
 * transport->error set. */
int transport_receive(void *context, unsigned char *buffer, size_t size);

/* An f_set_timer: starts the timer; final_ms 0 stops it. Its seconds last as long as the pace says, and a
 * delay is never much longer than 2 s: a lossy path needs many tries. The clock is ours, since the library's
 * follows the wall clock, which a Pi sets by network in the middle of a run. */
void transport_set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms);

/* An f_get_timer: -1: not running; 0, 1, 2: neither, the intermediate, the final delay has passed. */
int transport_get_timer(void *context);

/* Waits until the socket is ready for `events`, or the timer's final delay has passed: both WAIT_READY. */
wait_outcome_t transport_wait(const transport_t *transport, short events, wait_limit_t limit);

/* Bounds `limit` by how long an attempt is still worth waiting for: `patience_ms` after the socket was opened
 * for the server's first word, then as long after each word as the server, or its path, may need for the
 * next. */
wait_limit_t transport_bound(const transport_t *transport, int64_t patience_ms, wait_limit_t limit);

/* Logs, with -v, how much went over the network since the last time, if anything did. */
void transport_log_traffic(transport_t *transport);

/* Closes the socket; harmless when repeated. */
void transport_close(transport_t *transport);

#endif
