#include "run/delivery.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>

#include "system/log.h"
#include "system/random.h"

enum {
    CONFIRM_WAIT_MS = 2000, /* RFC 7252's ACK_TIMEOUT, while nobody knows how long an answer takes */
    CONFIRM_WAIT_LEAST_MS = 250,
    CONFIRM_WAIT_MOST_MS = 8000, /* leaves room for many tries where much is lost */
    REUSED_TRANSMISSIONS = 2,    /* without an answer to these an association that nobody heard is given up */
    HEARD_TRANSMISSIONS = 4,     /* to these, and so long a silence, any is */
    HEARD_SILENCE_MS = 8000,
    LOSSES_MAX = 3,
    PACE_MS = 1,    /* between payloads: no server's socket buffer takes thousands of datagrams at once */
    DRAIN_MS = 100, /* a flood of records that decide nothing does not outlast a wait by more */
    PLAIN_WAIT_MS = 1000,
    PLAIN_WAIT_MORE_MS = 500, /* beyond two round trips */
    LINGER_MOST_MS = 50,
    LARGE_PAYLOAD = 8155 /* bytes: larger ones do not fit the buffer of pion/dtls servers */
};

static delivery_outcome_t fail(delivery_t *delivery, delivery_outcome_t outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static delivery_outcome_t fail(delivery_t *delivery, delivery_outcome_t outcome, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(delivery->error, sizeof delivery->error, format, arguments);
    va_end(arguments);
    return outcome;
}

/* What a failure of the connection means to a payload. */
static delivery_outcome_t explain(delivery_t *delivery, dtls_outcome_t outcome)
{
    delivery->broken = outcome;
    return fail(delivery, outcome == DTLS_TOO_LARGE ? DELIVERY_REFUSED : DELIVERY_BROKEN, "%s",
                connection_error_text(delivery->config.connection));
}

static void begin_association(delivery_t *delivery)
{
    delivery->transmissions = delivery->answers = 0;
    delivery->heard_ms = wait_now_ms();
}

void delivery_init(delivery_t *delivery, const delivery_config_t *config)
{
    exchange_config_t exchange = config->exchange;
    delivery->config = *config;
    delivery->unsettled = (window_t){0};
    delivery->settled = 0;
    delivery->losses = 0;
    delivery->downlinks = 0;
    delivery->ever_answered = false;
    exchange.message_id = &config->connection->saved.message_id;
    exchange.token = &config->connection->saved.token;
    exchange_init(&delivery->exchange, &exchange);
    begin_association(delivery);
}

/* --- Sending and receiving --- */

static dtls_outcome_t transmit(delivery_t *delivery)
{
    const exchange_t *exchange = &delivery->exchange;
    bool coaps = delivery->config.coaps;
    const unsigned char *bytes = coaps ? exchange->message : delivery->payload;
    size_t length = coaps ? exchange->message_length : delivery->length;
    dtls_outcome_t outcome = dtls_send(&delivery->config.connection->dtls, bytes, length);
    if (outcome != DTLS_OK)
        return outcome;
    if (delivery->transmissions++ == 0) {
        delivery->first_us = wait_now_us();
        delivery->measured = false;
    }
    log_step("%s of %zu bytes sent%s", coaps ? "message" : "payload", length,
             delivery->transmissions > 1 ? " again" : "");
    return DTLS_OK;
}

static dtls_outcome_t receive(delivery_t *delivery, int64_t until_ms)
{
    int64_t now_ms = wait_now_ms();
    if (now_ms > until_ms + DRAIN_MS)
        return DTLS_TIMEOUT;
    dtls_outcome_t outcome =
        dtls_receive(&delivery->config.connection->dtls, delivery->record, sizeof delivery->record,
                     &delivery->record_length, until_ms > now_ms ? until_ms - now_ms : 0);
    if (outcome != DTLS_OK)
        return outcome;
    delivery->heard_ms = wait_now_ms();
    connection_note_heard(delivery->config.connection);
    return DTLS_OK;
}

static delivery_outcome_t print(delivery_t *delivery, const unsigned char *bytes, size_t length)
{
    log_step("downlink of %zu bytes", length);
    log_clear_progress(); /* stdout may be the same terminal */
    delivery->downlinks++;
    if (output_write(delivery->config.output, bytes, length))
        return DELIVERY_OK;
    return fail(delivery, DELIVERY_UNWRITABLE, "%s", delivery->config.output->error);
}

/* A CoAP message: acknowledges or rejects it where that is due. */
static exchange_step_t take_message(delivery_t *delivery)
{
    exchange_t *exchange = &delivery->exchange;
    exchange_step_t step = exchange_take(exchange, delivery->record, delivery->record_length);
    if (exchange->reply_length > 0) /* one that cannot be sent is one that is lost on the way */
        (void)dtls_send(&delivery->config.connection->dtls, exchange->reply, exchange->reply_length);
    return step;
}

/* What came while nothing was waited for. */
static delivery_outcome_t take_stray(delivery_t *delivery)
{
    if (delivery->config.coaps) {
        take_message(delivery);
        return DELIVERY_OK;
    }
    delivery->answers++;
    return print(delivery, delivery->record, delivery->record_length);
}

/* --- A new connection --- */

/* Through a server that restarts, or accepts and closes again and again: the more often, the slower. */
static dtls_outcome_t renew(delivery_t *delivery)
{
    wait_limit_t limit = delivery->config.limit;
    int renewals = delivery->renewals++;
    int64_t pause_ms = renewals == 0 ? 0 : INT64_C(100) << (renewals < 5 ? renewals : 5);
    if (pause_ms > 0 && wait_for(-1, 0, wait_at_most(limit, pause_ms)) == WAIT_INTERRUPTED)
        return DTLS_INTERRUPTED;
    dtls_outcome_t outcome = connection_renew(delivery->config.connection, limit);
    begin_association(delivery);
    return outcome;
}

/* The server refused: whatever it was sent within the last two round trips may not have arrived. */
static delivery_outcome_t note_loss(delivery_t *delivery, dtls_outcome_t outcome)
{
    delivery->unsettled =
        (window_t){0}; /* a new connection takes time, in which none of them becomes settled */
    if (outcome != DTLS_REFUSED || ++delivery->losses > LOSSES_MAX)
        return explain(delivery, outcome);
    outcome = renew(delivery);
    if (outcome != DTLS_OK)
        return explain(delivery, outcome);
    return DELIVERY_LOST;
}

/* --- Between payloads --- */

/* Prints what comes until `until_ms`, or what has arrived where that is now. `*end`: DTLS_TIMEOUT, or what
 * trouble came. */
static delivery_outcome_t listen_until(delivery_t *delivery, int64_t until_ms, dtls_outcome_t *end)
{
    while ((*end = receive(delivery, until_ms)) == DTLS_OK) {
        delivery_outcome_t outcome = take_stray(delivery);
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    return DELIVERY_OK;
}

bool delivery_is_ambiguous(const delivery_t *delivery)
{
    return !delivery->config.coaps && delivery->confirm && delivery->answers < delivery->transmissions;
}

static int64_t elapsed_us(const delivery_t *delivery)
{
    int64_t elapsed = wait_now_us() - delivery->first_us;
    return elapsed > 0 ? elapsed : 1;
}

/* Karn's rule: an answer to what was sent twice measures nothing. */
static void measure(delivery_t *delivery)
{
    delivery->ever_answered = true;
    if (!delivery->measured && delivery->transmissions == 1)
        connection_note_answer(delivery->config.connection, elapsed_us(delivery));
    else if (!delivery->measured)
        delivery->answered_us = elapsed_us(delivery);
    delivery->measured = true;
}

/* But where as many answers came as it was sent times, the first one was only slow; and where nobody knows,
 * the next run had better wait longer than send everything twice for ever. */
static void learn_slowness(delivery_t *delivery)
{
    bool twice = delivery->measured && delivery->transmissions > 1;
    if (twice && delivery->answered_us > connection_answer_us(delivery->config.connection))
        connection_note_answer(delivery->config.connection, delivery->answered_us);
}

/* Nothing has refused what was due by `now_ms`. */
static void settle(delivery_t *delivery, int64_t now_ms)
{
    size_t count = window_take_settled(&delivery->unsettled, now_ms);
    delivery->settled += count;
    if (count > 0)
        delivery->losses = 0;
}

/* Makes sure that nothing which belongs to the payload before can confirm the next one: prints what has
 * arrived, and gives the association up where more may come. */
static delivery_outcome_t part_from_last(delivery_t *delivery)
{
    dtls_outcome_t end = DTLS_TIMEOUT;
    int64_t until_ms = wait_now_ms() + (delivery->transmissions > 0 ? PACE_MS : 0);
    delivery_outcome_t outcome = listen_until(delivery, until_ms, &end);
    delivery->renewals = 0;
    if (outcome != DELIVERY_OK)
        return outcome;
    if (end != DTLS_TIMEOUT && delivery->unsettled.count > 0)
        return note_loss(delivery, end);
    settle(delivery, until_ms);
    if (delivery_is_ambiguous(delivery))
        log_step("a late answer may still come, and must not confirm another payload");
    else
        learn_slowness(delivery);
    if (end == DTLS_TIMEOUT && !delivery_is_ambiguous(delivery))
        return DELIVERY_OK;
    end = renew(delivery);
    return end == DTLS_OK ? DELIVERY_OK : explain(delivery, end);
}

/* --- Until it is confirmed --- */

/* The wait after a first transmission (RFC 7252 section 4.2): random, so that devices that lost the same
 * answer do not all come back at once. */
static int64_t first_wait_ms(const delivery_t *delivery)
{
    uint16_t random = 0;
    bool known = connection_answer_us(delivery->config.connection) != 0;
    int64_t least_ms = known ? CONFIRM_WAIT_LEAST_MS : CONFIRM_WAIT_MS;
    int64_t wait_ms = 3 * connection_latency_us(delivery->config.connection) / 1000;
    wait_ms = wait_ms > least_ms ? wait_ms : least_ms;
    random_bytes(NULL, (unsigned char *)&random, sizeof random);
    return wait_ms + wait_ms * random / UINT16_MAX / 2;
}

/* Waits for an answer until `until_ms`; once the server has acknowledged, until the deadline. DTLS_OK:
 * `*step` says what it means. */
static dtls_outcome_t await_answer(delivery_t *delivery, int64_t until_ms, int64_t deadline_ms,
                                   exchange_step_t *step)
{
    for (;;) {
        dtls_outcome_t outcome = receive(delivery, until_ms < deadline_ms ? until_ms : deadline_ms);
        if (outcome != DTLS_OK)
            return outcome;
        *step = delivery->config.coaps ? take_message(delivery) : EXCHANGE_ANSWERED;
        if (*step == EXCHANGE_WAITING)
            continue;
        measure(delivery);
        delivery->answers++;
        until_ms = deadline_ms;
        if (*step != EXCHANGE_ACKNOWLEDGED)
            return DTLS_OK;
    }
}

/* Whether the association is of no use any more, and a new one may be. */
static bool is_over(const delivery_t *delivery, dtls_outcome_t outcome)
{
    int64_t silent_ms = wait_now_ms() - delivery->heard_ms;
    if (outcome != DTLS_TIMEOUT)
        return true;
    if (delivery->config.connection->reused)
        return delivery->transmissions >= REUSED_TRANSMISSIONS;
    return delivery->transmissions >= HEARD_TRANSMISSIONS && silent_ms >= HEARD_SILENCE_MS;
}

/* The server may receive the payload twice then, and nobody can tell. Where there is no new association, what
 * became of the old one is told too. */
static dtls_outcome_t renew_for_payload(delivery_t *delivery, dtls_outcome_t trouble)
{
    char before[ATTEMPTS_TEXT_SIZE];
    const char *text = connection_error_text(delivery->config.connection);
    snprintf(before, sizeof before, "%s", trouble == DTLS_TIMEOUT ? "no answer" : text);
    log_step("%s; the payload is sent again over a new connection, and may arrive twice", before);
    dtls_outcome_t outcome = renew(delivery);
    if (outcome == DTLS_OK)
        return DTLS_OK;
    explain(delivery, outcome);
    fail(delivery, DELIVERY_BROKEN, "%s; then %s", before,
         connection_error_text(delivery->config.connection));
    return outcome;
}

static delivery_outcome_t give_up(delivery_t *delivery)
{
    const exchange_t *exchange = &delivery->exchange;
    bool coaps = delivery->config.coaps;
    const char *server = delivery->config.output->server;
    bool over = wait_now_ms() >= delivery->config.limit.deadline_ms;
    const char *when =
        over ? "before --timeout" : "in the part of --timeout that it has, after earlier failures";
    const char *large = delivery->length > LARGE_PAYLOAD
                            ? "; perhaps it is too large: some servers take no more than 8155 bytes at once"
                            : "";
    const char *hint = coaps || delivery->ever_answered
                           ? ""
                           : "; where a server never answers, leave --confirm out, or use coaps";
    if (coaps) {
        exchange_abandon(&delivery->exchange);
        if (exchange->confirmed && exchange->config.method != COAP_GET)
            return fail(delivery, DELIVERY_BODY_LOST, "%s: %s", server, exchange->text);
        return fail(delivery, DELIVERY_UNCONFIRMED, "%s: not confirmed: no response came %s", server, when);
    }
    return fail(delivery, DELIVERY_UNCONFIRMED, "%s: not confirmed: no downlink answered the payload %s%s%s",
                server, when, hint, large);
}

static delivery_outcome_t finish_exchange(delivery_t *delivery)
{
    static const delivery_outcome_t outcomes[] = {[EXCHANGE_CONFIRMED] = DELIVERY_CONFIRMED,
                                                  [EXCHANGE_REFUSED] = DELIVERY_REFUSED,
                                                  [EXCHANGE_FORBIDDEN] = DELIVERY_FORBIDDEN,
                                                  [EXCHANGE_BUSY] = DELIVERY_BUSY,
                                                  [EXCHANGE_UNEXPECTED] = DELIVERY_UNEXPECTED};
    const exchange_t *exchange = &delivery->exchange;
    output_t *output = delivery->config.output;
    char code[COAP_CODE_TEXT];
    if (exchange->verdict != EXCHANGE_CONFIRMED)
        return fail(delivery, outcomes[exchange->verdict], "%s: %s", output->server, exchange->text);
    if (exchange->body_lost)
        return fail(delivery, DELIVERY_BODY_LOST, "%s: %s", output->server, exchange->text);
    coap_format_code(exchange->code, code);
    log_step("answered: %s", code);
    if (exchange->body_length == 0)
        return DELIVERY_CONFIRMED;
    code[sizeof "2.05" - 1] = '\0';
    output->code = code;
    output->content_format = exchange->body_format;
    delivery_outcome_t outcome = print(delivery, exchange->body, exchange->body_length);
    output->code = NULL;
    return outcome == DELIVERY_OK ? DELIVERY_CONFIRMED : outcome;
}

static delivery_outcome_t take_answer(delivery_t *delivery)
{
    if (delivery->config.coaps)
        return finish_exchange(delivery);
    delivery_outcome_t outcome = print(delivery, delivery->record, delivery->record_length);
    return outcome == DELIVERY_OK ? DELIVERY_CONFIRMED : outcome;
}

static delivery_outcome_t send_until_confirmed(delivery_t *delivery, int64_t deadline_ms)
{
    int64_t wait_ms = first_wait_ms(delivery);
    dtls_outcome_t outcome = transmit(delivery);
    for (;;) {
        exchange_step_t step = EXCHANGE_WAITING;
        if (outcome == DTLS_OK)
            outcome = await_answer(delivery, wait_now_ms() + wait_ms, deadline_ms, &step);
        if (outcome == DTLS_OK && step == EXCHANGE_ANSWERED)
            return take_answer(delivery);
        if (outcome == DTLS_INTERRUPTED || outcome == DTLS_SYSTEM || outcome == DTLS_TOO_LARGE)
            return explain(delivery, outcome);
        if (outcome != DTLS_OK && wait_now_ms() >= deadline_ms)
            return give_up(delivery);
        wait_ms = wait_ms < CONFIRM_WAIT_MOST_MS / 2 ? 2 * wait_ms : CONFIRM_WAIT_MOST_MS;
        if (outcome == DTLS_OK) { /* another message */
            delivery->transmissions = delivery->answers = 0;
            wait_ms = first_wait_ms(delivery);
        } else if (is_over(delivery, outcome)) {
            outcome = renew_for_payload(delivery, outcome);
            if (outcome != DTLS_OK)
                return DELIVERY_BROKEN;
            if (delivery->config.coaps && !exchange_restart(&delivery->exchange))
                return finish_exchange(delivery);
            wait_ms = first_wait_ms(delivery);
        }
        outcome = transmit(delivery);
    }
}

/* --- Once --- */

static delivery_outcome_t send_once(delivery_t *delivery)
{
    dtls_outcome_t outcome = transmit(delivery);
    if (outcome != DTLS_OK && outcome != DTLS_TOO_LARGE && delivery->unsettled.count > 0)
        return note_loss(delivery, outcome);
    if (outcome == DTLS_REFUSED || outcome == DTLS_CLOSED) {
        outcome = renew(delivery);
        if (outcome == DTLS_OK)
            outcome = transmit(delivery);
    }
    if (outcome != DTLS_OK)
        return explain(delivery, outcome);
    int64_t latency_ms = connection_latency_us(delivery->config.connection) / 1000;
    if (delivery->config.settles)
        window_add(&delivery->unsettled, wait_now_ms() + 2 * latency_ms + PACE_MS);
    return DELIVERY_OK;
}

/* Waits until there is room for another unsettled payload. */
static delivery_outcome_t make_room(delivery_t *delivery)
{
    dtls_outcome_t end = DTLS_TIMEOUT;
    if (!window_is_full(&delivery->unsettled))
        return DELIVERY_OK;
    int64_t due_ms = delivery->unsettled.due_ms[delivery->unsettled.oldest];
    delivery_outcome_t outcome = listen_until(delivery, due_ms, &end);
    if (outcome != DELIVERY_OK)
        return outcome;
    if (end != DTLS_TIMEOUT)
        return note_loss(delivery, end);
    settle(delivery, due_ms);
    return DELIVERY_OK;
}

delivery_outcome_t delivery_send(delivery_t *delivery, const unsigned char *payload, size_t length,
                                 bool confirm, bool doubted)
{
    confirm = confirm || delivery->config.coaps;
    delivery_outcome_t outcome = make_room(delivery);
    if (outcome == DELIVERY_OK)
        outcome = part_from_last(delivery);
    if (outcome != DELIVERY_OK)
        return outcome;
    delivery->payload = payload;
    delivery->length = length;
    delivery->confirm = confirm;
    delivery->transmissions = delivery->answers = 0;
    if (!confirm)
        return send_once(delivery);
    if (delivery->config.coaps && !exchange_begin(&delivery->exchange, payload, length))
        return fail(delivery, DELIVERY_REFUSED, "path, query and payload do not fit one message");
    int64_t deadline_ms = delivery->config.limit.deadline_ms, now_ms = wait_now_ms();
    return send_until_confirmed(delivery, doubted ? now_ms + (deadline_ms - now_ms) / 4 : deadline_ms);
}

bool delivery_was_answered(const delivery_t *delivery)
{
    return delivery->config.coaps && delivery->measured && !delivery->exchange.waiting;
}

size_t delivery_settled(delivery_t *delivery)
{
    size_t count = delivery->settled;
    delivery->settled = 0;
    return count;
}

/* --- Waiting for something else --- */

/* What trouble means to payloads that were sent: nothing where they are confirmed, and where the next one
 * finds a new connection. */
static delivery_outcome_t judge(delivery_t *delivery, dtls_outcome_t end)
{
    if (end == DTLS_TIMEOUT || (delivery->confirm && end != DTLS_INTERRUPTED && end != DTLS_SYSTEM))
        return DELIVERY_OK;
    return note_loss(delivery, end);
}

delivery_outcome_t delivery_await_input(delivery_t *delivery, int fd)
{
    bool readable = false;
    while (!readable) {
        dtls_outcome_t end = DTLS_TIMEOUT;
        const dtls_state_t *dtls = &delivery->config.connection->dtls;
        int other_fd = dtls->connected ? dtls_fd(dtls) : -1;
        /* supply_next() finds the same deadline or signal, and tells of it. */
        if (wait_for_input(fd, other_fd, delivery->config.limit, &readable) != WAIT_READY)
            return DELIVERY_OK;
        delivery_outcome_t outcome = readable ? DELIVERY_OK : listen_until(delivery, wait_now_ms(), &end);
        if (outcome == DELIVERY_OK)
            outcome = judge(delivery, end);
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    return DELIVERY_OK;
}

static int64_t default_wait_ms(const delivery_t *delivery)
{
    int64_t more_ms = 2 * connection_latency_us(delivery->config.connection) / 1000 + PLAIN_WAIT_MORE_MS;
    if (delivery->config.coaps)
        return 0;
    return more_ms > PLAIN_WAIT_MS ? more_ms : PLAIN_WAIT_MS;
}

/* A server that closes after its answer does so at once: whoever trusts the association next time unheard
 * must know. And what is unsettled is waited for. */
static int64_t last_moment_ms(const delivery_t *delivery)
{
    int64_t until_ms = wait_now_ms();
    int64_t linger_ms = connection_latency_us(delivery->config.connection) / 1000 + PACE_MS;
    if (delivery->config.connection->config.lease_ms > 0)
        until_ms += (linger_ms < LINGER_MOST_MS ? linger_ms : LINGER_MOST_MS);
    int64_t end_ms = window_end_ms(&delivery->unsettled);
    return end_ms > until_ms ? end_ms : until_ms;
}

static bool is_enough(const delivery_t *delivery, uint64_t enough)
{
    return enough != 0 && delivery->downlinks >= enough;
}

delivery_outcome_t delivery_finish(delivery_t *delivery, int64_t wait_ms, uint64_t enough)
{
    dtls_outcome_t end = DTLS_OK;
    int64_t silence_ms = wait_ms >= 0 ? wait_ms : default_wait_ms(delivery);
    while (end == DTLS_OK && !is_enough(delivery, enough)) {
        end = receive(delivery, wait_now_ms() + silence_ms);
        delivery_outcome_t outcome = end == DTLS_OK ? take_stray(delivery) : DELIVERY_OK;
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    /* More than enough is not printed. */
    int64_t until_ms = last_moment_ms(delivery);
    while ((end == DTLS_OK || end == DTLS_TIMEOUT) && (end = receive(delivery, until_ms)) == DTLS_OK) {
        delivery_outcome_t outcome = is_enough(delivery, enough) ? DELIVERY_OK : take_stray(delivery);
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    learn_slowness(delivery);
    return end == DTLS_CLOSED ? DELIVERY_OK : judge(delivery, end);
}
