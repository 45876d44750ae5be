/* What lies below the retransmission loop of delivery.h: the payload in hand, out as a record, and records
 * in; how often it was sent over this association, what may still be answered, and how long answers take.
 * Knows both forms: plain, where a payload is a record, and CoAP, where exchange.h makes messages of it. */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/output.h"
#include "run/connection.h"
#include "run/exchange.h"
#include "system/wait.h"

typedef struct {
    connection_t *connection; /* open; not owned, nor is the output */
    output_t *output;
    wait_limit_t limit; /* bounds every call */
    bool coaps;
    exchange_t exchange; /* with CoAP, of the payload in hand */
    const unsigned char *payload;
    size_t length;

    /* Of the payload in hand, or its CoAP message, over this association. */
    int transmissions, answers;
    int64_t first_us, last_us; /* when it was sent first, and last */
    bool measured;             /* how long its answer takes */
    int64_t answered_us; /* the same where it was sent more than once: at the most; with CoAP, at least */
    int renewals;        /* of the association, for this payload */

    uint64_t unanswered;   /* plain records that were sent over this association, less the downlinks */
    int64_t heard_ms;      /* when anything came over it, or the handshake was complete */
    int64_t quiet_ms;      /* when the network had no refusal for us, lately */
    int64_t backed_off_ms; /* the first wait, at least, until an answer is measured; 0: no matter */
    bool ever_answered;    /* by this server, in this run */
    uint64_t downlinks;    /* printed so far */
    unsigned char record[DTLS_PAYLOAD_MAX]; /* that came last */
    size_t record_length;
} link_t;

/* No payload is in hand. `exchange` is for CoAP, all but its counters, which are the connection's. */
void link_init(link_t *link, connection_t *connection, output_t *output, wait_limit_t limit);
void link_use_coap(link_t *link, const exchange_config_t *exchange);

/* Takes a payload in hand, which stays the caller's. Sends nothing. */
void link_take_in_hand(link_t *link, const unsigned char *payload, size_t length);

/* Another message of the same exchange takes its place. */
void link_begin_message(link_t *link);

/* Sends it, or its CoAP message, once more. As dtls_send(). */
dtls_outcome_t link_transmit(link_t *link);

/* Receives the next record, at the latest at `until_ms`; where that has passed, what has already arrived, but
 * a flood of records does not hold it much longer. As dtls_receive(). */
dtls_outcome_t link_receive(link_t *link, int64_t until_ms);

/* What the record that was just received means to the payload in hand; measures how long it took. With CoAP
 * acknowledges or rejects it where that is due. */
exchange_step_t link_take_answer(link_t *link);

/* The same record where nothing is waited for: prints it, or handles its CoAP message. False: it could not be
 * printed; link->output->error says why. */
bool link_take_stray(link_t *link);

/* Prints a downlink. False as above. */
bool link_print(link_t *link, const unsigned char *bytes, size_t length);

/* Gives the association up for a new one: the more often for one payload, the slower, since some servers
 * accept and close again and again. With `persist` refusals are waited through. As connection_renew(). */
dtls_outcome_t link_renew(link_t *link, bool persist);

/* Whether a late answer to what was sent may still come over this association. */
bool link_is_ambiguous(const link_t *link);

/* How long to wait for an answer after a first transmission (RFC 7252 section 4.2), and after the next. */
int64_t link_first_wait_ms(const link_t *link);
int64_t link_next_wait_ms(int64_t wait_ms);

/* The payload in hand was sent more than once, and answered; notes how long the next wait should be: this one
 * (RFC 6298 section 5.7). Not with CoAP, where a second message costs nothing but itself. */
void link_back_off(link_t *link, int64_t wait_ms);

/* Notes the time of an answer to what was sent more than once, if it was longer than known: where as many
 * answers came as it was sent times, since then the first one was only slow; and as a `guess`, at the end of
 * a run, since the next one had better wait longer than send everything twice for ever. */
void link_learn_slowness(link_t *link, bool guess);

#endif
