/* One payload as one CoAP exchange (RFC 7252): the request, in blocks where it is large (RFC 7959), and the
 * response, whichever way it comes. Pure: no socket and no clock. The caller transmits `message`, again and
 * unchanged until something comes, and hands in what comes. */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "run/coap.h"

enum {
    EXCHANGE_MESSAGE_MAX = 3072, /* bytes: a block of 1024, and at most 1024 of path and query */
    EXCHANGE_REPLY_MAX = 4,      /* bytes: an empty message */
    EXCHANGE_BODY_MAX = 65536,   /* bytes: a larger response is lost, and told */
    EXCHANGE_TEXT_SIZE = 600
};

/* What every request has in common. All pointers stay the caller's. */
typedef struct {
    uint8_t method; /* COAP_POST, COAP_PUT or COAP_GET */
    /* Uri-Path and Uri-Query options in order: each a byte of number, one of length, then its value. */
    const unsigned char *uri_options;
    size_t uri_options_length;
    int content_format; /* -1: none is sent */
    /* Counters of the association: every message has its own id, every exchange its own token (RFC 9175
     * section 4.2). */
    uint16_t *message_id, *token;
} exchange_config_t;

/* What was handed in means to the exchange. In all cases, where exchange->reply_length is not 0, `reply` is
 * to be sent, once. */
typedef enum {
    EXCHANGE_WAITING,      /* nothing yet */
    EXCHANGE_ACKNOWLEDGED, /* the server has the message, and answers later: resend no more */
    EXCHANGE_NEXT,         /* `message` is another one, to be transmitted now */
    EXCHANGE_ANSWERED      /* it is over: `verdict` */
} exchange_step_t;

typedef enum {
    EXCHANGE_CONFIRMED,  /* 2.xx */
    EXCHANGE_REFUSED,    /* this payload will never be accepted */
    EXCHANGE_FORBIDDEN,  /* this device is not allowed to */
    EXCHANGE_BUSY,       /* the server has trouble: later */
    EXCHANGE_UNEXPECTED, /* another error, or what no server should answer */
} exchange_verdict_t;

typedef struct {
    exchange_config_t config;
    const unsigned char *payload; /* the caller's */
    size_t length;

    unsigned char message[EXCHANGE_MESSAGE_MAX];
    size_t message_length;
    unsigned char reply[EXCHANGE_REPLY_MAX];
    size_t reply_length; /* 0: there is none */

    bool waiting;          /* for a response */
    uint16_t id, token;    /* of the message that is under way */
    bool has_acknowledged; /* a confirmable response, the last one with this id and token */
    uint16_t acknowledged, acknowledged_token;
    bool blockwise;          /* the payload goes in blocks */
    unsigned size_exponent;  /* of the block under way */
    size_t offset;           /* where that begins in the payload */
    bool restarted, resized; /* once each: after a 4.08, after a 4.13 */
    unsigned char echo[COAP_ECHO_MAX];
    size_t echo_length;

    bool confirmed; /* the server has the whole payload; what may still be fetched is the rest of the body */
    uint32_t body_block;
    unsigned char tag[8]; /* the body's ETag */
    size_t tag_length;

    exchange_verdict_t verdict;
    uint8_t code;    /* of the response; 0: a reset */
    int body_format; /* its Content-Format; -1: none */
    bool body_lost;  /* there was a body that could not be had whole; `text` says why */
    unsigned char body[EXCHANGE_BODY_MAX];
    size_t body_length;
    /* For all but EXCHANGE_CONFIRMED, and for a lost body: "4.04 Not Found: what the server says". */
    char text[EXCHANGE_TEXT_SIZE];
} exchange_t;

/* No exchange is under way. */
void exchange_init(exchange_t *exchange, const exchange_config_t *config);

/* Starts an exchange for a payload, which stays the caller's until it is over; NULL: none, for COAP_GET. The
 * first message is in `message`. False: path, query and payload do not fit a message. */
bool exchange_begin(exchange_t *exchange, const unsigned char *payload, size_t length);

/* Starts it again, under the keys of a new association. False: the payload was confirmed already, and must
 * not be sent twice; the exchange is over, its body lost. */
bool exchange_restart(exchange_t *exchange);

/* Ends it without a response: none came in time, and what comes later gets a reset. */
void exchange_abandon(exchange_t *exchange);

/* Takes a datagram's payload, whoever wants it. What is no CoAP message, or belongs to nothing here, decides
 * nothing; it is rejected with a reset where it asks for an answer. */
exchange_step_t exchange_take(exchange_t *exchange, const unsigned char *bytes, size_t length);

#endif
