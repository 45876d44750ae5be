#include "run/link.h"

#include "system/log.h"
#include "system/random.h"

enum {
    FIRST_WAIT_MS = 2000, /* RFC 7252's ACK_TIMEOUT, while nobody knows how long an answer takes */
    FIRST_WAIT_LEAST_MS = 250,
    WAIT_MOST_MS = 8000, /* leaves room for many tries where much is lost */
    DRAIN_MS = 100,      /* a flood of records that decide nothing does not outlast a wait by more */
    RENEWAL_PAUSE_MS = 200,
    RENEWAL_DOUBLINGS = 4
};

static void begin_association(link_t *link)
{
    link->transmissions = link->answers = 0;
    link->unanswered = 0;
    link->heard_ms = link->quiet_ms = wait_now_ms();
}

/* Member by member: the buffers, most of it, need no setting. */
void link_init(link_t *link, connection_t *connection, output_t *output, wait_limit_t limit)
{
    link->connection = connection;
    link->output = output;
    link->limit = limit;
    link->coaps = link->measured = link->ever_answered = false;
    link->exchange.waiting = false;
    link->exchange.body_length = 0;
    link->backed_off_ms = 0;
    link->downlinks = 0;
    link_take_in_hand(link, NULL, 0);
    begin_association(link);
}

void link_use_coap(link_t *link, const exchange_config_t *exchange)
{
    exchange_config_t config = *exchange;
    config.message_id = &link->connection->saved.message_id;
    config.token = &link->connection->saved.token;
    link->coaps = true;
    exchange_init(&link->exchange, &config);
}

void link_take_in_hand(link_t *link, const unsigned char *payload, size_t length)
{
    link->payload = payload;
    link->length = length;
    link->renewals = 0;
    link_begin_message(link);
}

void link_begin_message(link_t *link)
{
    link->transmissions = link->answers = 0;
}

/* --- Out and in --- */

dtls_outcome_t link_transmit(link_t *link)
{
    const exchange_t *exchange = &link->exchange;
    const unsigned char *bytes = link->coaps ? exchange->message : link->payload;
    size_t length = link->coaps ? exchange->message_length : link->length;
    dtls_outcome_t outcome = dtls_send(&link->connection->dtls, bytes, length);
    if (outcome != DTLS_OK)
        return outcome;
    link->quiet_ms = wait_now_ms(); /* or the kernel would have handed out the refusal instead */
    link->last_us = wait_now_us();
    if (link->transmissions++ == 0) {
        link->first_us = link->last_us;
        link->measured = false;
    }
    if (!link->coaps)
        link->unanswered++;
    log_step("%s of %zu bytes sent%s", link->coaps ? "message" : "payload", length,
             link->transmissions > 1 ? " again" : "");
    return DTLS_OK;
}

dtls_outcome_t link_receive(link_t *link, int64_t until_ms)
{
    int64_t now_ms = wait_now_ms();
    if (until_ms > link->limit.deadline_ms)
        until_ms = link->limit.deadline_ms;
    if (now_ms > until_ms + DRAIN_MS)
        return DTLS_TIMEOUT;
    if (wait_is_cancelled(link->limit)) /* which a flood of records would hide */
        return DTLS_INTERRUPTED;
    dtls_outcome_t outcome = dtls_receive(&link->connection->dtls, link->record, sizeof link->record,
                                          &link->record_length, until_ms > now_ms ? until_ms - now_ms : 0);
    now_ms = wait_now_ms();
    if (outcome == DTLS_TIMEOUT)
        link->quiet_ms = now_ms;
    if (outcome != DTLS_OK)
        return outcome;
    link->heard_ms = now_ms;
    link->unanswered -= link->unanswered > 0;
    connection_note_heard(link->connection);
    return DTLS_OK;
}

static exchange_step_t take_message(link_t *link)
{
    exchange_t *exchange = &link->exchange;
    exchange_step_t step = exchange_take(exchange, link->record, link->record_length);
    if (exchange->reply_length > 0) /* one that cannot be sent is one that is lost on the way */
        (void)dtls_send(&link->connection->dtls, exchange->reply, exchange->reply_length);
    return step;
}

/* With CoAP, where nobody counts what comes twice, an answer has taken at least as long as since the last
 * transmission. To take more for true would make the waits longer with every loss. */
static int64_t elapsed_us(const link_t *link)
{
    int64_t elapsed = wait_now_us() - (link->coaps ? link->last_us : link->first_us);
    return elapsed > 0 ? elapsed : 1;
}

/* Karn's rule: an answer to what was sent twice measures nothing. */
static void measure(link_t *link)
{
    link->ever_answered = true;
    link->answers += !link->coaps; /* there the token tells answers apart, and nobody has to count them */
    if (link->measured)
        return;
    link->measured = true;
    link->answered_us = elapsed_us(link);
    if (link->transmissions != 1)
        return;
    link->backed_off_ms = 0;
    connection_note_answer(link->connection, link->answered_us);
}

exchange_step_t link_take_answer(link_t *link)
{
    exchange_step_t step = link->coaps ? take_message(link) : EXCHANGE_ANSWERED;
    if (step != EXCHANGE_WAITING)
        measure(link);
    return step;
}

bool link_take_stray(link_t *link)
{
    if (link->coaps) {
        take_message(link);
        return true;
    }
    link->answers++;
    return link_print(link, link->record, link->record_length);
}

bool link_print(link_t *link, const unsigned char *bytes, size_t length)
{
    log_step("downlink of %zu bytes", length);
    log_clear_progress(); /* stdout may be the same terminal */
    link->downlinks++;
    return output_write(link->output, bytes, length);
}

/* --- The association --- */

dtls_outcome_t link_renew(link_t *link, bool persist)
{
    int renewals = link->renewals++;
    int doublings = renewals - 1 < RENEWAL_DOUBLINGS ? renewals - 1 : RENEWAL_DOUBLINGS;
    if (renewals > 0 &&
        wait_for(-1, 0, wait_at_most(link->limit, RENEWAL_PAUSE_MS << doublings)) == WAIT_INTERRUPTED)
        return DTLS_INTERRUPTED;
    link->connection->config.dtls.persist = persist;
    dtls_outcome_t outcome = connection_renew(link->connection, link->limit);
    begin_association(link);
    return outcome;
}

bool link_is_ambiguous(const link_t *link)
{
    return link->unanswered > 0;
}

/* --- Times --- */

/* Random, so that devices that lost the same answer do not all come back at once. */
int64_t link_first_wait_ms(const link_t *link)
{
    bool known = connection_answer_us(link->connection) != 0;
    int64_t least_ms = known ? FIRST_WAIT_LEAST_MS : FIRST_WAIT_MS;
    /* An answer takes the path's round trip too; a handshake's may have been measured across a loss. */
    int64_t latency_us =
        known ? connection_answer_us(link->connection) : connection_latency_us(link->connection);
    int64_t latency_ms = latency_us / 1000;
    int64_t most_ms = latency_ms * 3 / 2 > WAIT_MOST_MS ? latency_ms * 3 / 2 : WAIT_MOST_MS;
    int64_t wait_ms = 3 * latency_ms < most_ms ? 3 * latency_ms : most_ms;
    wait_ms = wait_ms > least_ms ? wait_ms : least_ms;
    wait_ms += (int64_t)random_up_to((uint64_t)wait_ms / 2);
    return wait_ms > link->backed_off_ms ? wait_ms : link->backed_off_ms;
}

int64_t link_next_wait_ms(int64_t wait_ms)
{
    int64_t next_ms = 2 * wait_ms < WAIT_MOST_MS ? 2 * wait_ms : WAIT_MOST_MS;
    return next_ms > wait_ms ? next_ms : wait_ms; /* an answer may take longer than that */
}

void link_back_off(link_t *link, int64_t wait_ms)
{
    if (link->transmissions > 1 && !link->coaps)
        link->backed_off_ms = wait_ms;
}

void link_learn_slowness(link_t *link, bool guess)
{
    bool all_came = link->coaps || link->answers >= link->transmissions;
    if (!link->measured || link->transmissions < 2 || !(all_came || guess))
        return;
    if (link->answered_us > connection_answer_us(link->connection))
        connection_note_answer(link->connection, link->answered_us);
    link->backed_off_ms = 0;
}
