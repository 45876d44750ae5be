#include "run/delivery.h"

#include "system/log.h"
#include "system/random.h"

enum {
    CONFIRM_WAIT_MS =
        2000, /* RFC 7252's ACK_TIMEOUT; three round trips where these are known, but not less than */
    CONFIRM_WAIT_LEAST_MS = 250,
    CONFIRM_WAIT_MOST_MS = 8000, /* leaves room for many tries where much is lost */
    REUSED_TRANSMISSIONS = 2,    /* without an answer to these a reused association is given up */
    PACE_MS = 1 /* between payloads: no server's socket buffer takes thousands of datagrams at once */
};

static delivery_outcome_t fail(delivery_t *delivery, delivery_outcome_t outcome, const char *error)
{
    delivery->error = error;
    return outcome;
}

/* What a failure of the connection means to a payload. */
static delivery_outcome_t explain(delivery_t *delivery, dtls_outcome_t outcome)
{
    delivery->broken = outcome;
    delivery->error = connection_error_text(delivery->connection);
    return outcome == DTLS_OK          ? DELIVERY_OK
           : outcome == DTLS_TOO_LARGE ? DELIVERY_TOO_LARGE
                                       : DELIVERY_BROKEN;
}

static delivery_outcome_t print_downlink(delivery_t *delivery, size_t length)
{
    log_step("downlink of %zu bytes", length);
    log_clear_progress(); /* stdout may be the same terminal */
    delivery->downlinks++;
    connection_note_heard(delivery->connection);
    if (output_write(delivery->output, delivery->downlink, length))
        return DELIVERY_OK;
    return fail(delivery, DELIVERY_UNWRITABLE, delivery->output->error);
}

static dtls_outcome_t take_downlink(delivery_t *delivery, size_t *length, int64_t wait_ms)
{
    return dtls_receive(&delivery->connection->dtls, delivery->downlink, sizeof delivery->downlink, length,
                        wait_ms);
}

static dtls_outcome_t transmit(delivery_t *delivery)
{
    dtls_outcome_t outcome = dtls_send(&delivery->connection->dtls, delivery->payload, delivery->length);
    if (outcome == DTLS_OK)
        log_step("payload of %zu bytes sent", delivery->length);
    return outcome;
}

/* By a new handshake, since the reused association was of no use. */
static dtls_outcome_t transmit_anew(delivery_t *delivery)
{
    dtls_outcome_t outcome = connection_renew(delivery->connection);
    return outcome == DTLS_OK ? transmit(delivery) : outcome;
}

static delivery_outcome_t send_once(delivery_t *delivery)
{
    dtls_outcome_t outcome = transmit(delivery);
    if (delivery->connection->reused && outcome != DTLS_OK && outcome != DTLS_TOO_LARGE)
        outcome = transmit_anew(delivery);
    return explain(delivery, outcome);
}

/* The wait after a first transmission (RFC 7252 section 4.2): random, so that devices that lost the same
 * answer do not all come back at once. */
static int64_t first_wait_ms(const delivery_t *delivery)
{
    uint16_t random = 0;
    int64_t round_trip_us = dtls_round_trip_us(&delivery->connection->dtls);
    int64_t wait_ms = 3 * round_trip_us / 1000;
    if (round_trip_us == 0)
        wait_ms = CONFIRM_WAIT_MS;
    else if (wait_ms < CONFIRM_WAIT_LEAST_MS)
        wait_ms = CONFIRM_WAIT_LEAST_MS;
    random_bytes(NULL, (unsigned char *)&random, sizeof random);
    return wait_ms + wait_ms * random / UINT16_MAX / 2;
}

/* Whether a reused association got no answer, or trouble, that a new handshake may cure. */
static bool is_useless(const delivery_t *delivery, dtls_outcome_t outcome, int transmissions)
{
    return delivery->connection->reused && outcome != DTLS_INTERRUPTED &&
           (outcome != DTLS_TIMEOUT || transmissions == REUSED_TRANSMISSIONS);
}

static delivery_outcome_t send_until_confirmed(delivery_t *delivery)
{
    int64_t wait_ms = first_wait_ms(delivery);
    dtls_outcome_t outcome = transmit(delivery);
    for (int transmissions = 1;; transmissions++) {
        size_t length = 0;
        if (outcome == DTLS_OK)
            outcome = take_downlink(delivery, &length, wait_ms);
        if (outcome == DTLS_OK)
            return print_downlink(delivery, length);
        if (outcome == DTLS_TIMEOUT && wait_now_ms() >= delivery->limit.deadline_ms)
            return fail(delivery, DELIVERY_UNCONFIRMED,
                        "not confirmed: no downlink answered the payload before --timeout");
        if (outcome != DTLS_TOO_LARGE && is_useless(delivery, outcome, transmissions)) {
            outcome = transmit_anew(delivery);
            transmissions = 0;
            wait_ms = first_wait_ms(delivery);
        } else if (outcome == DTLS_TIMEOUT) {
            wait_ms = wait_ms < CONFIRM_WAIT_MOST_MS / 2 ? 2 * wait_ms : CONFIRM_WAIT_MOST_MS;
            outcome = transmit(delivery);
        } else {
            return explain(delivery, outcome);
        }
    }
}

delivery_outcome_t delivery_send(delivery_t *delivery, const unsigned char *payload, size_t length)
{
    delivery->payload = payload;
    delivery->length = length;
    return delivery->confirm ? send_until_confirmed(delivery) : send_once(delivery);
}

delivery_outcome_t delivery_receive(delivery_t *delivery, int64_t wait_ms, uint64_t enough, bool may_close)
{
    while (enough == 0 || delivery->downlinks < enough) {
        size_t length = 0;
        delivery_outcome_t result = DELIVERY_OK;
        dtls_outcome_t outcome = take_downlink(delivery, &length, wait_ms);
        if (outcome == DTLS_TIMEOUT || (outcome == DTLS_CLOSED && may_close))
            return DELIVERY_OK;
        if (outcome == DTLS_OK)
            result = print_downlink(delivery, length);
        else if (outcome == DTLS_REFUSED && delivery->connection->reused)
            result = explain(delivery, transmit_anew(delivery)); /* it has certainly not arrived */
        else
            result = explain(delivery, outcome);
        if (result != DELIVERY_OK)
            return result;
    }
    return DELIVERY_OK;
}

delivery_outcome_t delivery_pause(delivery_t *delivery)
{
    /* A downlink that comes late would pass for the next payload's confirmation. */
    int64_t late_ms = delivery->confirm ? dtls_round_trip_us(&delivery->connection->dtls) / 1000 : 0;
    return delivery_receive(delivery, late_ms > PACE_MS ? late_ms : PACE_MS, 0, false);
}
