/* The service: many devices at one UDP socket. What a device sends goes into its inbox, and is answered with
 * all that waits in its outbox; with CoAP, see coap_service.h. Prints one line an event on standard output:
 *
 *     handshake DEVICE full|resumed SUITE
 *     uplink DEVICE BYTES        stored in the inbox
 *     dropped DEVICE BYTES       not stored, since drop_uplinks asks for it
 *     downlink DEVICE BYTES      sent
 *     closed DEVICE              by a close_notify, the device's or ours
 *     failed ADDRESS:PORT REASON
 *
 * and with CoAP those of coap_service.h.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "address.h"
#include "tls.h"

enum { SERVICE_PEERS_MAX = 1024, SERVICE_DATAGRAM_MAX = 65536 };

/* How the CoAP form answers. */
typedef struct {
    bool separate; /* an empty acknowledgement at once, the response later as a message of its own */
    unsigned long separate_delay_ms;
    bool non;                /* responses are non-confirmable */
    unsigned block_exponent; /* of the largest block that it asks for: 16 << block_exponent bytes */
    bool refuse_blocks;      /* 4.13 to larger ones, instead of taking the first */
    unsigned long max_size;  /* bytes in a payload */
} coap_settings_t;

/* The strings stay the caller's. */
typedef struct {
    const char *state_dir;      /* inboxes and outboxes, see boxes.h */
    const char *reply;          /* answers an uplink that finds the outbox empty; NULL: nothing does */
    bool close;                 /* close_notify after the answer */
    unsigned long drop_uplinks; /* so many are ignored first */
    unsigned long delay_ms;     /* everything is answered so much later */
    coap_settings_t coap;
    tls_settings_t tls;
} service_settings_t;

typedef struct {
    const service_settings_t *settings;
    const tls_t *tls;
    const struct form *form; /* what becomes of uplinks */
    int fd;                  /* the UDP socket, non-blocking. Not owned */
    FILE *records;           /* where to log records; NULL: nowhere. Not owned */
    struct peer *peers[SERVICE_PEERS_MAX];
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

/* The length of the connection ids that are handed out; 0: none are. */
size_t service_cid_length(const service_t *service);

/* Logs a record of the datagram at hand, if records are logged. */
void service_log_record(const service_t *service, unsigned long association, const unsigned char *record,
                        size_t length);

/* Drops all associations without a word to anyone, as a restart would. Cached sessions stay. */
void service_forget(service_t *service);

#endif
