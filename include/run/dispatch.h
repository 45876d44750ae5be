/* A run's payloads, from the supply to the server: takes each in hand, has it delivered, tells the supply
 * what became of it, and reports what failed. */
#ifndef DISPATCH_H
#define DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "run/delivery.h"
#include "run/report.h"
#include "run/supply.h"

typedef struct {
    supply_t *supply; /* not owned, nor are the others */
    delivery_t *delivery;
    report_t *report;
    supply_payload_t payload;
    bool in_hand; /* the first payload is */
    /* Doubted payloads that were not confirmed once more, and why: reported at the end, when it is known
     * which of them are set aside. */
    size_t unconfirmed;
    char reason[2 * ATTEMPTS_TEXT_SIZE];
} dispatch_t;

/* Opens the supply, and lets it accept what is given; without a queue takes the first payload in hand.
 * Reports what is not accepted. False: there is nothing to send, or the run cannot go on. */
bool dispatch_accept(dispatch_t *dispatch, const supply_config_t *config);

/* Waits for the turn to send, and takes the first payload in hand. False as above. */
bool dispatch_begin(dispatch_t *dispatch);

/* Sends every payload, the first of which is in hand, and prints every downlink; at the end it waits for more
 * of them as delivery_finish() does. False: the run could not go on. */
bool dispatch_all(dispatch_t *dispatch, int64_t wait_ms, uint64_t count);

/* Asks the server what waits (COAP_GET), at most `count` times (0: once), until nothing does. False: as
 * dispatch_all(). */
bool dispatch_ask(dispatch_t *dispatch, uint64_t count);

/* Tells the supply that the run is over, and reports what it has set aside, and what stays unconfirmed. */
void dispatch_finish(dispatch_t *dispatch);

#endif
