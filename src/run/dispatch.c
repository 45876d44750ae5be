#include "run/dispatch.h"

#include <stdio.h>
#include <sysexits.h>

#include "system/log.h"
#include "system/wait.h"

/* Takes the next payload in hand; what cannot be sent is reported and passed over. False: there is none. */
static bool next(dispatch_t *dispatch)
{
    supply_outcome_t outcome;
    while ((outcome = supply_next(dispatch->supply, &dispatch->payload)) != SUPPLY_OK &&
           outcome != SUPPLY_END)
        report_supply(dispatch->report, outcome);
    return outcome == SUPPLY_OK;
}

bool dispatch_accept(dispatch_t *dispatch, const supply_config_t *config)
{
    supply_outcome_t outcome = supply_open(dispatch->supply, config);
    bool goes_on = outcome == SUPPLY_OK;
    for (; outcome != SUPPLY_END; outcome = supply_accept(dispatch->supply)) {
        if (outcome == SUPPLY_OK)
            continue;
        report_supply(dispatch->report, outcome);
        goes_on = goes_on && outcome != SUPPLY_TIMEOUT && outcome != SUPPLY_INTERRUPTED &&
                  wait_now_ms() < config->limit.deadline_ms;
    }
    if (goes_on && config->queue == NULL && config->source.kind != PAYLOAD_NONE)
        goes_on = dispatch->in_hand = next(dispatch);
    return goes_on;
}

bool dispatch_begin(dispatch_t *dispatch)
{
    supply_outcome_t outcome = supply_begin(dispatch->supply);
    if (outcome != SUPPLY_OK)
        report_supply(dispatch->report, outcome);
    return outcome == SUPPLY_OK && (dispatch->in_hand || next(dispatch));
}

/* How the supply took a verdict. False: the run cannot go on. */
static bool is_settled(dispatch_t *dispatch, supply_outcome_t outcome)
{
    if (outcome != SUPPLY_OK)
        report_supply(dispatch->report, outcome);
    return outcome != SUPPLY_FAILED;
}

/* Tells the supply what has become settled. False: the run cannot go on. */
static bool settle(dispatch_t *dispatch)
{
    return is_settled(dispatch, supply_settle(dispatch->supply, delivery_settled(dispatch->delivery)));
}

/* It was sent, or refused with those before it; nothing confirms it. False: the run cannot go on. */
static bool keep_until_settled(dispatch_t *dispatch)
{
    if (supply_sent(dispatch->supply))
        return true;
    report_failure(dispatch->report, EX_OSERR, "out of memory");
    return false;
}

static void note_unconfirmed(dispatch_t *dispatch)
{
    dispatch->unconfirmed++;
    snprintf(dispatch->reason, sizeof dispatch->reason, "%s", dispatch->delivery->error);
}

/* Passes the verdict on the payload in hand to the supply. False: the run cannot go on. */
static bool judge(dispatch_t *dispatch, delivery_outcome_t outcome)
{
    supply_t *supply = dispatch->supply;
    switch (outcome) {
    case DELIVERY_OK:
        return keep_until_settled(dispatch);
    case DELIVERY_LOST:
        if (!keep_until_settled(dispatch))
            return false;
        supply_rewind(supply);
        return true;
    case DELIVERY_CONFIRMED:
        return is_settled(dispatch, supply_delivered(supply));
    case DELIVERY_REFUSED:
        return is_settled(dispatch, supply_refused(supply, dispatch->delivery->error));
    case DELIVERY_BODY_LOST:
        report_delivery(dispatch->report, outcome, dispatch->delivery);
        return is_settled(dispatch, supply_delivered(supply));
    case DELIVERY_UNCONFIRMED:
        supply_unconfirmed(supply);
        if (dispatch->payload.doubted)
            note_unconfirmed(dispatch);
        else
            report_delivery(dispatch->report, outcome, dispatch->delivery);
        return dispatch->payload.doubted;
    default:
        supply_kept(supply);
        report_delivery(dispatch->report, outcome, dispatch->delivery);
        return false;
    }
}

/* Sends the payload in hand. False: the run cannot go on. */
static bool deliver(dispatch_t *dispatch)
{
    const supply_payload_t *payload = &dispatch->payload;
    delivery_outcome_t outcome = delivery_send(dispatch->delivery, payload->bytes, payload->length,
                                               payload->confirm, payload->doubted);
    /* Those before it first: then judge() can tell truly what became of them. */
    bool goes_on = settle(dispatch);
    goes_on = judge(dispatch, outcome) && goes_on;
    log_progress(dispatch->supply->delivered + supply_unsettled(dispatch->supply),
                 supply_total(dispatch->supply));
    return goes_on;
}

/* False: the run cannot go on. */
static bool can_go_on(dispatch_t *dispatch, delivery_outcome_t outcome)
{
    if (outcome == DELIVERY_LOST) {
        if (!settle(dispatch))
            return false;
        supply_rewind(dispatch->supply);
    } else if (outcome != DELIVERY_OK) {
        report_delivery(dispatch->report, outcome, dispatch->delivery);
    }
    return outcome == DELIVERY_OK || outcome == DELIVERY_LOST;
}

bool dispatch_all(dispatch_t *dispatch, int64_t wait_ms, uint64_t count)
{
    for (;;) {
        if (!deliver(dispatch))
            return false;
        int input = supply_fd(dispatch->supply);
        if (input >= 0 && !can_go_on(dispatch, delivery_await_input(dispatch->delivery, input)))
            return false;
        if (next(dispatch))
            continue;
        if (!can_go_on(dispatch, delivery_finish(dispatch->delivery, wait_ms, count)))
            return false;
        if (!next(dispatch)) /* else what was refused comes again */
            return is_settled(dispatch, supply_settle(dispatch->supply, supply_unsettled(dispatch->supply)));
    }
}

bool dispatch_ask(dispatch_t *dispatch, uint64_t count)
{
    uint64_t most = count != 0 ? count : 1;
    delivery_outcome_t outcome = DELIVERY_CONFIRMED;
    for (uint64_t asked = 0; asked < most && outcome == DELIVERY_CONFIRMED; asked++) {
        outcome = delivery_send(dispatch->delivery, NULL, 0, true, false);
        if (dispatch->delivery->link.exchange.body_length == 0)
            break;
    }
    if (outcome != DELIVERY_CONFIRMED)
        report_delivery(dispatch->report, outcome, dispatch->delivery);
    return outcome == DELIVERY_CONFIRMED;
}

void dispatch_finish(dispatch_t *dispatch)
{
    supply_outcome_t outcome = supply_settle(dispatch->supply, delivery_settled(dispatch->delivery));
    if (outcome != SUPPLY_OK)
        report_supply(dispatch->report, outcome);
    while ((outcome = supply_finish(dispatch->supply)) != SUPPLY_END) {
        report_supply(dispatch->report, outcome);
        dispatch->unconfirmed--;
    }
    if (dispatch->unconfirmed > 0)
        report_failure(dispatch->report, EX_TEMPFAIL, dispatch->reason);
}
