#include "run/delivery.h"

#include <stdarg.h>
#include <stdio.h>

#include "system/log.h"

enum {
    REUSED_TRANSMISSIONS = 2, /* without an answer to these an association that nobody heard is given up */
    HEARD_TRANSMISSIONS = 4,  /* to these, and so long a silence, any is */
    HEARD_SILENCE_MS = 8000,
    LOSSES_MAX = 3,
    PACE_MS = 1, /* between payloads: no server's socket buffer takes thousands of datagrams at once */
    PLAIN_WAIT_MS = 1000,
    PLAIN_WAIT_MORE_MS = 500, /* beyond two round trips */
    LINGER_MOST_MS = 50,
    DOUBTED_SHARE = 4,   /* of the time that is left, the fourth part */
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

/* No other connection, and no other time, would change it. */
static bool ends_all(dtls_outcome_t outcome)
{
    return outcome == DTLS_INTERRUPTED || outcome == DTLS_SYSTEM;
}

void delivery_init(delivery_t *delivery, const delivery_config_t *config)
{
    delivery->config = *config;
    delivery->confirm = false;
    delivery->unsettled = (window_t){0};
    delivery->settled = 0;
    delivery->losses = 0;
    link_init(&delivery->link, config->connection, config->output, config->limit);
    if (config->coaps)
        link_use_coap(&delivery->link, &config->exchange);
}

static delivery_outcome_t print_with(delivery_t *delivery, bool printed)
{
    return printed ? DELIVERY_OK : fail(delivery, DELIVERY_UNWRITABLE, "%s", delivery->config.output->error);
}

/* --- What nothing confirms --- */

/* Counts what has become settled: what the network had time to refuse, and, where the server itself ended the
 * connection, what it has answered. Returns whether anything is still unsettled. */
static bool has_unsettled(delivery_t *delivery, dtls_outcome_t end)
{
    bool answered = end == DTLS_CLOSED && !link_is_ambiguous(&delivery->link);
    int64_t until_ms = answered ? INT64_MAX : delivery->link.quiet_ms;
    delivery->settled += window_take_settled(&delivery->unsettled, until_ms);
    return delivery->unsettled.count > 0;
}

/* The server refused: whatever it was sent within the last two round trips may not have arrived. */
static delivery_outcome_t note_loss(delivery_t *delivery, dtls_outcome_t outcome)
{
    has_unsettled(delivery, outcome);
    delivery->unsettled = (window_t){0};
    if (outcome != DTLS_REFUSED || ++delivery->losses > LOSSES_MAX)
        return explain(delivery, outcome);
    outcome = link_renew(&delivery->link, delivery->confirm);
    return outcome == DTLS_OK ? DELIVERY_LOST : explain(delivery, outcome);
}

/* What trouble means to the payloads that were sent: nothing where they are confirmed, or settled, since the
 * next one finds a new connection. */
static delivery_outcome_t judge(delivery_t *delivery, dtls_outcome_t end)
{
    bool settled = delivery->config.settles && !has_unsettled(delivery, end);
    if (end == DTLS_TIMEOUT || (!ends_all(end) && (delivery->confirm || settled)))
        return DELIVERY_OK;
    return note_loss(delivery, end);
}

/* --- Between payloads --- */

/* Prints what comes until `until_ms`, or what has arrived where that is now. `*end`: DTLS_TIMEOUT, or what
 * trouble came. */
static delivery_outcome_t listen_until(delivery_t *delivery, int64_t until_ms, dtls_outcome_t *end)
{
    while ((*end = link_receive(&delivery->link, until_ms)) == DTLS_OK) {
        delivery_outcome_t outcome = print_with(delivery, link_take_stray(&delivery->link));
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    return DELIVERY_OK;
}

bool delivery_is_ambiguous(const delivery_t *delivery)
{
    return link_is_ambiguous(&delivery->link) &&
           (delivery->confirm || delivery->config.connection->config.lease_ms == 0);
}

/* Makes sure that nothing which belongs to the payloads before can confirm the next one: prints what has
 * arrived, and gives the association up where more may come. Unconfirmed ones, which the server need not
 * answer, are settled first. */
static delivery_outcome_t part_from_last(delivery_t *delivery, bool confirm)
{
    dtls_outcome_t end = DTLS_TIMEOUT;
    link_t *link = &delivery->link;
    int64_t until_ms = wait_now_ms() + (link->transmissions > 0 ? PACE_MS : 0);
    if (confirm && window_end_ms(&delivery->unsettled) > until_ms)
        until_ms = window_end_ms(&delivery->unsettled);
    delivery_outcome_t outcome = listen_until(delivery, until_ms, &end);
    if (outcome != DELIVERY_OK)
        return outcome;
    if (ends_all(end))
        return explain(delivery, end);
    if (has_unsettled(delivery, end) && end != DTLS_TIMEOUT)
        return note_loss(delivery, end);
    bool ambiguous = confirm && link_is_ambiguous(link);
    if (delivery->confirm)
        link_learn_slowness(link, false);
    if (end == DTLS_TIMEOUT && !ambiguous)
        return DELIVERY_OK;
    if (ambiguous)
        log_step("a late answer may still come, and must not confirm another payload");
    end = link_renew(link, confirm);
    return end == DTLS_OK ? DELIVERY_OK : explain(delivery, end);
}

/* --- Until it is confirmed --- */

/* Waits for an answer until `until_ms`; once the server has acknowledged, until the deadline. DTLS_OK:
 * `*step` says what it means. */
static dtls_outcome_t await_answer(delivery_t *delivery, int64_t until_ms, int64_t deadline_ms,
                                   exchange_step_t *step)
{
    for (;;) {
        dtls_outcome_t outcome =
            link_receive(&delivery->link, until_ms < deadline_ms ? until_ms : deadline_ms);
        if (outcome != DTLS_OK)
            return outcome;
        *step = link_take_answer(&delivery->link);
        if (*step == EXCHANGE_ACKNOWLEDGED)
            until_ms = deadline_ms;
        else if (*step != EXCHANGE_WAITING)
            return DTLS_OK;
    }
}

/* Whether the association is of no use any more, and a new one may be. */
static bool is_over(const delivery_t *delivery, dtls_outcome_t outcome)
{
    const link_t *link = &delivery->link;
    if (outcome != DTLS_TIMEOUT)
        return true;
    if (link->connection->reused)
        return link->transmissions >= REUSED_TRANSMISSIONS;
    return link->transmissions >= HEARD_TRANSMISSIONS && wait_now_ms() - link->heard_ms >= HEARD_SILENCE_MS;
}

/* The server may receive the payload twice then, and nobody can tell. Where there is no new association, what
 * became of the old one is told too. */
static dtls_outcome_t renew_for_payload(delivery_t *delivery, dtls_outcome_t trouble)
{
    char before[ATTEMPTS_TEXT_SIZE];
    const char *text = connection_error_text(delivery->config.connection);
    snprintf(before, sizeof before, "%s", trouble == DTLS_TIMEOUT ? "no answer" : text);
    log_step("%s; the payload is sent again over a new connection, and may arrive twice", before);
    dtls_outcome_t outcome = link_renew(&delivery->link, true);
    if (outcome == DTLS_OK)
        return DTLS_OK;
    explain(delivery, outcome);
    fail(delivery, DELIVERY_BROKEN, "%s; then %s", before,
         connection_error_text(delivery->config.connection));
    return outcome;
}

static delivery_outcome_t give_up(delivery_t *delivery)
{
    exchange_t *exchange = &delivery->link.exchange;
    const char *server = delivery->config.output->server;
    bool over = wait_now_ms() >= delivery->config.limit.deadline_ms;
    const char *when =
        over ? "before --timeout" : "in the part of --timeout that it has, after earlier failures";
    const char *large = delivery->link.length > LARGE_PAYLOAD
                            ? "; perhaps it is too large: some servers take no more than 8155 bytes at once"
                            : "";
    bool answers = delivery->link.ever_answered || connection_answer_us(delivery->config.connection) != 0;
    const char *hint = answers ? "" : "; where a server never answers, leave --confirm out, or use coaps";
    if (!delivery->config.coaps)
        return fail(delivery, DELIVERY_UNCONFIRMED,
                    "%s: not confirmed: no downlink answered the payload %s%s%s", server, when, hint, large);
    exchange_abandon(exchange);
    if (exchange->confirmed && exchange->config.method != COAP_GET)
        return fail(delivery, DELIVERY_BODY_LOST, "%s: %s", server, exchange->text);
    return fail(delivery, DELIVERY_UNCONFIRMED, "%s: not confirmed: no response came %s", server, when);
}

static delivery_outcome_t finish_exchange(delivery_t *delivery)
{
    static const delivery_outcome_t outcomes[] = {[EXCHANGE_CONFIRMED] = DELIVERY_CONFIRMED,
                                                  [EXCHANGE_REFUSED] = DELIVERY_REFUSED,
                                                  [EXCHANGE_FORBIDDEN] = DELIVERY_FORBIDDEN,
                                                  [EXCHANGE_BUSY] = DELIVERY_BUSY,
                                                  [EXCHANGE_UNEXPECTED] = DELIVERY_UNEXPECTED};
    const exchange_t *exchange = &delivery->link.exchange;
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
    bool printed = link_print(&delivery->link, exchange->body, exchange->body_length);
    output->code = NULL;
    return printed ? DELIVERY_CONFIRMED : print_with(delivery, false);
}

static delivery_outcome_t take_answer(delivery_t *delivery)
{
    if (delivery->config.coaps)
        return finish_exchange(delivery);
    link_t *link = &delivery->link;
    bool printed = link_print(link, link->record, link->record_length);
    return printed ? DELIVERY_CONFIRMED : print_with(delivery, false);
}

static delivery_outcome_t send_until_confirmed(delivery_t *delivery, int64_t deadline_ms)
{
    link_t *link = &delivery->link;
    int64_t wait_ms = link_first_wait_ms(link);
    for (;;) {
        exchange_step_t step = EXCHANGE_WAITING;
        dtls_outcome_t outcome = link_transmit(link);
        if (outcome == DTLS_OK)
            outcome = await_answer(delivery, wait_now_ms() + wait_ms, deadline_ms, &step);
        if (outcome == DTLS_OK)
            link_back_off(link, wait_ms);
        if (outcome == DTLS_OK && step == EXCHANGE_ANSWERED)
            return take_answer(delivery);
        if (ends_all(outcome) || outcome == DTLS_TOO_LARGE)
            return explain(delivery, outcome);
        if (outcome != DTLS_OK && wait_now_ms() >= deadline_ms)
            return give_up(delivery);
        if (outcome == DTLS_OK) {
            link_begin_message(link);
        } else if (is_over(delivery, outcome)) {
            if (renew_for_payload(delivery, outcome) != DTLS_OK)
                return DELIVERY_BROKEN;
            if (delivery->config.coaps && !exchange_restart(&link->exchange))
                return finish_exchange(delivery);
        }
        wait_ms = link->transmissions == 0 ? link_first_wait_ms(link) : link_next_wait_ms(wait_ms);
    }
}

/* --- Once --- */

static delivery_outcome_t send_once(delivery_t *delivery)
{
    link_t *link = &delivery->link;
    dtls_outcome_t outcome = link_transmit(link);
    if (outcome != DTLS_OK && outcome != DTLS_TOO_LARGE && has_unsettled(delivery, outcome))
        return note_loss(delivery, outcome);
    if (outcome == DTLS_REFUSED || outcome == DTLS_CLOSED) {
        outcome = link_renew(link, false);
        if (outcome == DTLS_OK)
            outcome = link_transmit(link);
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
    while (has_unsettled(delivery, end) && window_is_full(&delivery->unsettled)) {
        delivery_outcome_t outcome = listen_until(delivery, window_start_ms(&delivery->unsettled), &end);
        if (outcome != DELIVERY_OK)
            return outcome;
        if (end != DTLS_TIMEOUT)
            return note_loss(delivery, end);
        if (wait_now_ms() >= delivery->config.limit.deadline_ms)
            return explain(delivery, end);
    }
    return DELIVERY_OK;
}

delivery_outcome_t delivery_send(delivery_t *delivery, const unsigned char *payload, size_t length,
                                 bool confirm, bool doubted)
{
    link_t *link = &delivery->link;
    confirm = confirm || delivery->config.coaps;
    delivery_outcome_t outcome = make_room(delivery);
    if (outcome == DELIVERY_OK)
        outcome = part_from_last(delivery, confirm);
    if (outcome != DELIVERY_OK)
        return outcome;
    delivery->confirm = confirm;
    link_take_in_hand(link, payload, length);
    if (!confirm)
        return send_once(delivery);
    if (delivery->config.coaps && !exchange_begin(&link->exchange, payload, length))
        return fail(delivery, DELIVERY_REFUSED, "path, query and payload do not fit one message");
    int64_t deadline_ms = delivery->config.limit.deadline_ms, now_ms = wait_now_ms();
    return send_until_confirmed(delivery,
                                doubted ? now_ms + (deadline_ms - now_ms) / DOUBTED_SHARE : deadline_ms);
}

bool delivery_was_answered(const delivery_t *delivery)
{
    return delivery->config.coaps && delivery->link.measured && !delivery->link.exchange.waiting;
}

size_t delivery_settled(delivery_t *delivery)
{
    has_unsettled(delivery, DTLS_OK);
    size_t count = delivery->settled;
    delivery->settled = 0;
    if (count > 0)
        delivery->losses = 0;
    return count;
}

/* --- Waiting for something else --- */

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
    return enough != 0 && delivery->link.downlinks >= enough;
}

delivery_outcome_t delivery_finish(delivery_t *delivery, int64_t wait_ms, uint64_t enough)
{
    dtls_outcome_t end = DTLS_OK;
    int64_t silence_ms = wait_ms >= 0 ? wait_ms : default_wait_ms(delivery);
    while (end == DTLS_OK && !is_enough(delivery, enough)) {
        end = link_receive(&delivery->link, wait_now_ms() + silence_ms);
        delivery_outcome_t outcome =
            end == DTLS_OK ? print_with(delivery, link_take_stray(&delivery->link)) : DELIVERY_OK;
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    /* More than enough is not printed. */
    int64_t until_ms = last_moment_ms(delivery);
    while ((end == DTLS_OK || end == DTLS_TIMEOUT) &&
           (end = link_receive(&delivery->link, until_ms)) == DTLS_OK) {
        delivery_outcome_t outcome = is_enough(delivery, enough)
                                         ? DELIVERY_OK
                                         : print_with(delivery, link_take_stray(&delivery->link));
        if (outcome != DELIVERY_OK)
            return outcome;
    }
    if (delivery->confirm)
        link_learn_slowness(&delivery->link, true);
    return end == DTLS_CLOSED ? DELIVERY_OK : judge(delivery, end);
}
