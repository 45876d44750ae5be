/* One device at one address: its handshake, its association, and what is to be sent to it now or later. */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stdint.h>

#include <mbedtls/ssl.h>

#include "address.h"
#include "service.h"
#include "tls.h"

enum { PEER_DEVICE_MAX = 64 };

typedef struct peer peer_t;

/* The form of what devices send, and what is done with it: plain.h, coap_service.h. */
struct form {
    /* Handles a message that was just decrypted. */
    void (*take)(peer_t *peer, const unsigned char *bytes, size_t length);
};

/* A message that waits for its time. */
typedef struct outgoing outgoing_t;

struct peer {
    service_t *service;
    mbedtls_ssl_context ssl;
    address_t address;
    unsigned char cid[TLS_CID_LENGTH];
    unsigned long association; /* its number; 0: none yet, the address is not proved */
    unsigned long long heard;  /* the service's count of datagrams at the last one from here */
    int64_t intermediate_ms;   /* the handshake's timer, on wait_now_ms()'s clock */
    int64_t final_ms;          /* 0: not running */
    bool connected;
    bool full;                   /* the handshake was not abbreviated */
    bool closing;                /* once everything is sent */
    const unsigned char *record; /* what the library may read next; NULL: nothing */
    size_t record_length;
    unsigned long last_stored; /* number of the last uplink in its inbox; 0: not known */
    char device[PEER_DEVICE_MAX + 1];
    outgoing_t *outgoing; /* in the order in which it is due */
    void
        *form_state; /* what the form keeps with an association, in one piece from malloc(3); NULL: nothing */
};

/* For whoever sent the service's datagram at hand. NULL: no memory, or what peer_take_datagram() would print
 * as "failed". */
peer_t *peer_new(service_t *service);

/* Drops it without a word to the device. */
void peer_free(peer_t *peer);

/* Gives the association a number: the address is proved, by a cookie. */
void peer_begin_association(peer_t *peer);

/* Takes in the service's datagram at hand, and answers it. False: the association has ended, or there is none
 * yet, since a ClientHello bore no cookie. */
bool peer_take_datagram(peer_t *peer, size_t length);

/* When peer_tick() is due, on wait_now_ms()'s clock; INT64_MAX: not before the next datagram. */
int64_t peer_deadline_ms(const peer_t *peer);

/* Sends what is due, and again what a handshake waits for an answer to. False: the association has ended. */
bool peer_tick(peer_t *peer);

/* When and how often something is sent. */
typedef struct {
    unsigned long delay_ms; /* from now; that of --delay comes on top */
    bool confirmable;       /* again, after 2 s that double, until peer_acknowledged(); 5 times in all */
    uint16_t id;            /* by which that finds it */
    bool downlink;          /* to be told of as one */
    size_t size;            /* with that size */
} sending_t;

/* Sends a message, or puts a copy of it aside until its time. False: it is too large to be sent, now or
 * later. */
bool peer_send(peer_t *peer, const unsigned char *bytes, size_t length, sending_t sending);

/* Stops sending a confirmable message. False: there is none of that id. */
bool peer_acknowledged(peer_t *peer, uint16_t id);

#endif
