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
    char peer[80];           /* numeric address and port, for messages */
    int error;               /* errno of the socket call that failed; 0: none did */
    bool may_receive;        /* see transport_receive() */
    int64_t intermediate_ms; /* the timer's two delays end then, on wait_now_ms()'s clock, */
    int64_t final_ms;        /* and 0 here says that it does not run */
    int64_t retransmit_ms;   /* what a second of the library's timer lasts */
    int64_t sent_us;         /* when the latest datagram before the first answer left; 0: none yet */
    int64_t round_trip_us;   /* from there to that answer; 0: none yet */
    unsigned long datagrams_sent, datagrams_received;
    unsigned long long bytes_sent, bytes_received; /* UDP payload */
} transport_t;

/* Nothing is open, nothing counted. */
void transport_init(transport_t *transport);

/* Opens a socket that talks to `address` alone, from `local`, or from a fresh source port where that is NULL,
 * and closes the one before. False: transport->error says why. Never blocks. The counters go on. */
bool transport_open(transport_t *transport, const struct addrinfo *address, const struct addrinfo *local);

/* Sets the pace of retransmissions by a round trip that was seen earlier; 0: not known, one second (RFC 6347
 * section 4.2.4.1). The first answer sets it anew: three round trips, 0.25 to 1 s. */
void transport_expect_round_trip(transport_t *transport, int64_t round_trip_us);

/* An f_send: sends one datagram. Returns its length, MBEDTLS_ERR_SSL_WANT_WRITE where the socket's buffer is
 * full, or MBEDTLS_ERR_NET_SEND_FAILED with transport->error set. `context` is the transport, here and below.
 */
int transport_send(void *context, const unsigned char *bytes, size_t length);

/* An f_recv: receives one datagram where may_receive is set, and clears it: so that neither a flood of them
 * keeps the library from returning to our deadline, nor an empty record goes unnoticed before the next one
 * comes. Returns its length, MBEDTLS_ERR_SSL_WANT_READ for none, or MBEDTLS_ERR_NET_RECV_FAILED with
 * transport->error set. */
int transport_receive(void *context, unsigned char *buffer, size_t size);

/* An f_set_timer: starts the timer; final_ms 0 stops it. Its seconds are as long as the round trip allows,
 * and on a clock of our own, since the library's follows the wall clock, which a Pi sets by network in the
 * middle of a run. */
void transport_set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms);

/* An f_get_timer: -1: not running; 0, 1, 2: neither, the intermediate, the final delay has passed. */
int transport_get_timer(void *context);

/* Waits until the socket is ready for `events`, or the timer's final delay has passed: WAIT_READY for both.
 */
wait_outcome_t transport_wait(const transport_t *transport, short events, wait_limit_t limit);

/* Closes the socket; harmless when repeated. */
void transport_close(transport_t *transport);

#endif
