/* Delivering payloads over a connection, one after the other, each sent once or until it is confirmed, and
 * printing the downlinks that come meanwhile. Here is the only retransmission loop, for both forms: plain,
 * where a payload is a record and any downlink answers it, and CoAP (exchange.h says what answers what). */
#ifndef DELIVERY_H
#define DELIVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/output.h"
#include "run/connection.h"
#include "run/exchange.h"
#include "run/link.h"
#include "run/window.h"
#include "system/wait.h"

typedef enum {
    DELIVERY_OK,          /* it was sent once, or nothing went wrong while waiting */
    DELIVERY_CONFIRMED,   /* the server has it */
    DELIVERY_BODY_LOST,   /* the same, but the response's body could not be had */
    DELIVERY_REFUSED,     /* it can never be delivered to this server; the next payload may be */
    DELIVERY_FORBIDDEN,   /* the server does not let this device do that */
    DELIVERY_BUSY,        /* the server has trouble: later */
    DELIVERY_UNEXPECTED,  /* the server answers what nobody can act on */
    DELIVERY_UNCONFIRMED, /* no answer came in time */
    DELIVERY_LOST, /* the server refused what was sent lately; there is a new connection to send it again */
    DELIVERY_UNWRITABLE, /* a downlink could not be printed */
    DELIVERY_BROKEN      /* the connection is; delivery->broken says by what */
} delivery_outcome_t;

typedef struct {
    connection_t *connection; /* open; not owned, nor is the output */
    output_t *output;
    bool coaps;                 /* every payload is a CoAP exchange, and confirmed by its response */
    exchange_config_t exchange; /* for that, all but its counters */
    bool settles;               /* unconfirmed payloads can be kept, or sent again, until they are settled */
    wait_limit_t limit;         /* bounds every call */
} delivery_config_t;

/* Large: it holds a record and a response. */
typedef struct {
    delivery_config_t config;
    link_t link;
    bool confirm;                       /* the payload in hand, or the last one, is to be confirmed */
    window_t unsettled;                 /* unconfirmed payloads that were sent, and may still be refused */
    size_t settled;                     /* those that are not in there any more, and not yet asked for */
    int losses;                         /* in a row, without a payload settled between them */
    dtls_outcome_t broken;              /* for DELIVERY_BROKEN */
    char error[2 * ATTEMPTS_TEXT_SIZE]; /* one line on why the last call did not succeed */
} delivery_t;

void delivery_init(delivery_t *delivery, const delivery_config_t *config);

/* Sends a payload, which must stay where it is until the next; NULL: the request of COAP_GET, which has none.
 *
 * Without `confirm`, and not with CoAP: once. DELIVERY_OK: it is given to the network; it counts as settled
 * when two round trips have passed without a refusal (delivery_settled()). DELIVERY_LOST: it was not sent,
 * and the unsettled ones before it were refused.
 *
 * Else until an answer confirms it (RFC 7252 section 4.8), through refusals and over new connections, until
 * the limit; where it is `doubted`, since earlier runs could not get it confirmed, for a quarter of the time
 * that is left. In the plain form nothing may confirm it that answers another payload. So where less
 * downlinks came over the association than payloads were sent, this one or others, sent again or not, the
 * association is given up first. */
delivery_outcome_t delivery_send(delivery_t *delivery, const unsigned char *payload, size_t length,
                                 bool confirm, bool doubted);

/* How many unconfirmed payloads have become settled since the last call, oldest first: their time has passed,
 * and the network was asked since then. */
size_t delivery_settled(delivery_t *delivery);

/* Prints what comes until `fd` is readable. DELIVERY_OK, LOST, UNWRITABLE or BROKEN. At the limit or with a
 * signal it ends with DELIVERY_OK. */
delivery_outcome_t delivery_await_input(delivery_t *delivery, int fd);

/* Prints downlinks until `wait_ms` pass in silence (negative: the form's own wait), `enough` were printed in
 * the whole run (0: no limit), or the server closes; and until everything is settled. As above. */
delivery_outcome_t delivery_finish(delivery_t *delivery, int64_t wait_ms, uint64_t enough);

/* Whether the server answered the last payload, though not with success: the connection is still good. */
bool delivery_was_answered(const delivery_t *delivery);

/* Whether a late answer may still come that would confirm a payload of the next run: the association must not
 * be kept. One that a lease keeps for unconfirmed payloads may be. */
bool delivery_is_ambiguous(const delivery_t *delivery);

#endif
