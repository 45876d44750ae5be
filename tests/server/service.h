/* The service: many devices at one UDP socket. What a device sends goes into its inbox, and is answered with
 * all that waits in its outbox. Prints one line an event on standard output:
 *
 *     handshake DEVICE full|resumed SUITE
 *     uplink DEVICE BYTES        stored in the inbox
 *     dropped DEVICE BYTES       not stored, since drop_uplinks asks for it
 *     downlink DEVICE BYTES      sent
 *     closed DEVICE              by a close_notify, the device's or ours
 *     failed ADDRESS:PORT REASON
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tls.h"

enum { SERVICE_PEERS_MAX = 1024, SERVICE_DATAGRAM_MAX = 65536 };

typedef struct {
    struct sockaddr_storage storage; /* zeroed before it is filled in, so that it compares by memcmp(3) */
    socklen_t length;
} address_t;

/* The strings stay the caller's. */
typedef struct {
    const char *state_dir;      /* inboxes and outboxes, see boxes.h */
    const char *reply;          /* answers an uplink that finds the outbox empty; NULL: nothing does */
    bool close;                 /* close_notify after the answer */
    unsigned long drop_uplinks; /* so many are ignored first */
    tls_settings_t tls;
} service_settings_t;

typedef struct peer peer_t;

typedef struct {
    const service_settings_t *settings;
    const tls_t *tls;
    int fd;        /* the UDP socket, non-blocking. Not owned */
    FILE *records; /* where to log records; NULL: nowhere. Not owned */
    peer_t *peers[SERVICE_PEERS_MAX];
    size_t peer_count;
    unsigned long associations;   /* begun so far: each has a number */
    unsigned long uplinks;        /* received so far */
    unsigned long long datagrams; /* the same */
    address_t from;               /* who sent the datagram at hand */
    unsigned char datagram[SERVICE_DATAGRAM_MAX];
    unsigned char uplink[MBEDTLS_SSL_IN_CONTENT_LEN];
} service_t;

/* Handles datagrams that have arrived, all or many. Never blocks for the network. */
void service_receive(service_t *service);

/* When service_tick() is due, on wait_now_ms()'s clock; INT64_MAX: not before the next datagram. */
int64_t service_deadline_ms(const service_t *service);

/* Sends again what handshakes are waiting for an answer to; gives up those that wait too long. */
void service_tick(service_t *service);

/* Drops all associations without a word to anyone, as a restart would. Cached sessions stay. */
void service_forget(service_t *service);

#endif
