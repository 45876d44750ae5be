#include "run/supply.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "system/log.h"

_Static_assert(sizeof((payload_reader_t *)NULL)->bytes == ENTRY_PAYLOAD_MAX,
               "the reader's buffer takes what the queue gives, and the queue what the reader gives");

static bool is_queued(const supply_t *supply)
{
    return supply->config.queue != NULL;
}

static bool is_given(const supply_t *supply)
{
    return supply->config.source.kind != PAYLOAD_NONE;
}

static bool is_of_lines(const supply_t *supply)
{
    return supply->config.source.kind == PAYLOAD_LINES;
}

/* --- Outcomes --- */

static supply_outcome_t from_reader(supply_t *supply, payload_outcome_t outcome)
{
    supply->error = supply->reader.error;
    switch (outcome) {
    case PAYLOAD_OK:
        return SUPPLY_OK;
    case PAYLOAD_END:
        return SUPPLY_END;
    case PAYLOAD_REFUSED:
        return SUPPLY_REFUSED;
    case PAYLOAD_UNREADABLE:
        return SUPPLY_UNREADABLE;
    case PAYLOAD_TIMEOUT:
        return SUPPLY_TIMEOUT;
    case PAYLOAD_INTERRUPTED:
        return SUPPLY_INTERRUPTED;
    }
    return SUPPLY_FAILED;
}

static supply_outcome_t from_queue(supply_t *supply, queue_outcome_t outcome)
{
    supply->error = supply->queue.error;
    switch (outcome) {
    case QUEUE_OK:
        return SUPPLY_OK;
    case QUEUE_END:
        return SUPPLY_END;
    case QUEUE_FULL:
        return SUPPLY_UNWRITABLE;
    case QUEUE_UNSENDABLE:
        return SUPPLY_UNSENDABLE;
    case QUEUE_TIMEOUT:
        return SUPPLY_TIMEOUT;
    case QUEUE_INTERRUPTED:
        return SUPPLY_INTERRUPTED;
    case QUEUE_FAILED:
        break;
    }
    return SUPPLY_FAILED;
}

/* --- Before anything is sent --- */

/* Member by member: most of it is buffers, whose memory a run without a queue need never touch. */
void supply_init(supply_t *supply)
{
    supply->config = (supply_config_t){0};
    supply->reader.fd = -1;
    queue_init(&supply->queue);
    supply->reading = supply->cut = supply->begun = supply->ended = supply->confirmed = false;
    supply->accepting = SUPPLY_OK;
    supply->hand = (entry_t){0};
    supply->again = supply->unsettled = supply->doubted = supply->counted = 0;
    supply->given = supply->accepted = supply->delivered = 0;
    supply->error = "";
}

supply_outcome_t supply_open(supply_t *supply, const supply_config_t *config)
{
    supply_init(supply);
    supply->config = *config;
    payload_open(&supply->reader, config->source, config->limit);
    if (!is_queued(supply) || queue_open(&supply->queue, config->queue, config->queue_limit)) {
        supply->reading = is_queued(supply) && is_given(supply);
        return SUPPLY_OK;
    }
    supply->cut = supply->ended = true;
    supply->error = supply->queue.error;
    return SUPPLY_UNWRITABLE;
}

static supply_outcome_t accept_one(supply_t *supply)
{
    payload_reader_t *reader = &supply->reader;
    supply_outcome_t outcome = from_reader(supply, payload_next(reader));
    if (outcome != SUPPLY_OK)
        return outcome;
    outcome = from_queue(supply, queue_add(&supply->queue, reader->bytes, reader->length,
                                           supply->config.confirm, supply->config.limit));
    /* Also where others add until the deadline: 75 would say that the payload waits. */
    return outcome == SUPPLY_FAILED || outcome == SUPPLY_TIMEOUT ? SUPPLY_UNWRITABLE : outcome;
}

supply_outcome_t supply_accept(supply_t *supply)
{
    if (!supply->reading)
        return SUPPLY_END;
    supply->accepting = accept_one(supply);
    supply->given += supply->accepting != SUPPLY_END;
    supply->accepted += supply->accepting == SUPPLY_OK;
    /* Another line may be good, unless it would fail for the same reason. */
    supply->reading = supply->accepting == SUPPLY_OK || supply->accepting == SUPPLY_REFUSED;
    supply->cut = !supply->reading && supply->accepting != SUPPLY_END;
    return supply->accepting;
}

void supply_set_limit(supply_t *supply, wait_limit_t limit)
{
    supply->config.limit = supply->reader.limit = limit;
}

supply_outcome_t supply_begin(supply_t *supply)
{
    if (!is_queued(supply) || supply->queue.directory < 0)
        return SUPPLY_OK;
    supply_outcome_t outcome = from_queue(supply, queue_take_turn(&supply->queue, supply->config.limit));
    supply->begun = outcome == SUPPLY_OK;
    return outcome;
}

uint64_t supply_total(const supply_t *supply)
{
    if (is_queued(supply))
        return supply->begun ? supply->queue.total : 0;
    return is_given(supply) && !is_of_lines(supply) ? 1 : 0;
}

/* --- The next payload --- */

/* The oldest of those that come again. */
static supply_item_t take_again(supply_t *supply)
{
    supply_item_t item = supply->window[0];
    supply->again--;
    memmove(&supply->window[0], &supply->window[1],
            (supply->again + supply->unsettled) * sizeof supply->window[0]);
    return item;
}

static supply_outcome_t next_queued(supply_t *supply)
{
    payload_reader_t *reader = &supply->reader;
    while (supply->again > 0) {
        supply->hand = take_again(supply).entry;
        queue_outcome_t outcome = queue_read(&supply->queue, &supply->hand, reader->bytes, &reader->length);
        if (outcome != QUEUE_END) /* or somebody has removed it */
            return from_queue(supply, outcome);
    }
    return from_queue(supply, queue_next(&supply->queue, reader->bytes, &reader->length, &supply->hand));
}

static supply_outcome_t next_given(supply_t *supply)
{
    payload_reader_t *reader = &supply->reader;
    if (supply->again > 0) {
        supply_item_t item = take_again(supply);
        memcpy(reader->bytes, item.bytes, item.length);
        reader->length = item.length;
        free(item.bytes);
        return SUPPLY_OK;
    }
    if (!is_given(supply))
        return SUPPLY_END;
    supply_outcome_t outcome = from_reader(supply, payload_next(reader));
    supply->given += outcome != SUPPLY_END;
    return outcome;
}

supply_outcome_t supply_next(supply_t *supply, supply_payload_t *payload)
{
    if (supply->ended && supply->again == 0)
        return SUPPLY_END;
    supply_outcome_t outcome = is_queued(supply) ? next_queued(supply) : next_given(supply);
    bool goes_on = outcome == SUPPLY_OK || outcome == SUPPLY_REFUSED || outcome == SUPPLY_UNSENDABLE;
    supply->ended = supply->ended || !goes_on;
    *payload =
        (supply_payload_t){.bytes = supply->reader.bytes,
                           .length = supply->reader.length,
                           .confirm = supply->config.confirm || (is_queued(supply) && supply->hand.confirm),
                           .doubted = is_queued(supply) && supply->hand.tries != ENTRY_UNMARKED};
    return outcome;
}

int supply_fd(const supply_t *supply)
{
    bool waits = !is_queued(supply) && is_of_lines(supply) && !supply->ended && supply->again == 0;
    return waits ? payload_fd(&supply->reader) : -1;
}

/* --- Verdicts --- */

supply_outcome_t supply_delivered(supply_t *supply)
{
    supply->delivered++;
    supply->confirmed = supply->confirmed || supply->config.confirm || supply->hand.confirm;
    if (!is_queued(supply) || queue_remove(&supply->queue, &supply->hand))
        return SUPPLY_OK;
    return from_queue(supply, QUEUE_FAILED);
}

bool supply_sent(supply_t *supply)
{
    supply_item_t item = {.entry = supply->hand, .length = supply->reader.length};
    if (supply->again + supply->unsettled == SUPPLY_WINDOW)
        return false;
    if (!is_queued(supply)) {
        item.bytes = malloc(item.length + 1); /* of an empty payload too: NULL is no memory */
        if (item.bytes == NULL)
            return false;
        memcpy(item.bytes, supply->reader.bytes, item.length);
    }
    supply->window[supply->again + supply->unsettled++] = item;
    return true;
}

supply_outcome_t supply_refused(supply_t *supply, const char *reason)
{
    if (is_queued(supply)) {
        queue_set_aside(&supply->queue, &supply->hand, reason);
        return from_queue(supply, QUEUE_UNSENDABLE);
    }
    supply->error = reason;
    return SUPPLY_REFUSED;
}

void supply_unconfirmed(supply_t *supply)
{
    if (!is_queued(supply))
        return;
    if (!queue_doubt(&supply->queue, &supply->hand))
        log_step("%s", supply->queue.error);
    if (supply->doubted < SUPPLY_DOUBTS)
        supply->doubts[supply->doubted++] = supply->hand;
}

void supply_kept(supply_t *supply)
{
    supply->hand = (entry_t){0};
}

/* --- The unsettled --- */

size_t supply_unsettled(const supply_t *supply)
{
    return supply->unsettled;
}

supply_outcome_t supply_settle(supply_t *supply, size_t count)
{
    supply_outcome_t outcome = SUPPLY_OK;
    supply_item_t *first = &supply->window[supply->again];
    count = count < supply->unsettled ? count : supply->unsettled;
    for (size_t i = 0; i < count; i++) {
        if (is_queued(supply) && !queue_remove(&supply->queue, &first[i].entry))
            outcome = from_queue(supply, QUEUE_FAILED);
        free(first[i].bytes);
    }
    supply->delivered += count;
    supply->unsettled -= count;
    memmove(first, first + count, supply->unsettled * sizeof *first);
    return outcome;
}

/* Those that still come again from the last time are younger than what was sent again since. */
void supply_rewind(supply_t *supply)
{
    supply_item_t younger[SUPPLY_WINDOW];
    memcpy(younger, supply->window, supply->again * sizeof younger[0]);
    memmove(supply->window, supply->window + supply->again, supply->unsettled * sizeof younger[0]);
    memcpy(supply->window + supply->unsettled, younger, supply->again * sizeof younger[0]);
    supply->again += supply->unsettled;
    supply->unsettled = 0;
}

/* --- The end --- */

supply_outcome_t supply_finish(supply_t *supply)
{
    while (supply->confirmed && supply->counted < supply->doubted) {
        queue_outcome_t outcome = queue_count(&supply->queue, &supply->doubts[supply->counted++]);
        if (outcome == QUEUE_UNSENDABLE)
            return from_queue(supply, outcome);
        if (outcome != QUEUE_OK) /* it is counted some other time */
            log_step("%s", supply->queue.error);
    }
    return SUPPLY_END;
}

static void say(supply_t *supply, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(supply_t *supply, const char *format, ...)
{
    size_t used = strlen(supply->fate);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(supply->fate + used, sizeof supply->fate - used, format, arguments);
    va_end(arguments);
}

/* "; the payload waits in the queue", or "; 2 of 3 payloads wait in the queue"; of none nothing. */
static void say_part(supply_t *supply, uint64_t part, uint64_t all, const char *singular, const char *plural)
{
    if (part > 0 && all == 1)
        say(supply, "; the payload %s", singular);
    else if (part > 0)
        say(supply, "; %" PRIu64 " of %" PRIu64 " payloads %s", part, all, part == 1 ? singular : plural);
}

/* Of lines, where it is not known how many there are. */
static void say_of_lines_begun(supply_t *supply, uint64_t waiting)
{
    if (supply->reading &&
        supply->accepting == SUPPLY_REFUSED) /* the failure is about one line, and names it */
        say(supply, "; the payload was not accepted");
    else if (supply->accepted == 0)
        say(supply, "; no payload was accepted");
    else if (waiting == 0)
        say(supply, "; the rest was not accepted");
    else
        say(supply, "; %" PRIu64 " payload%s in the queue, and the rest was not accepted", waiting,
            waiting == 1 ? " waits" : "s wait");
}

/* What became of the payloads that this run was given; if it was given none, of those that it sends. */
static void say_what_waits(supply_t *supply)
{
    bool sends_alone =
        !is_given(supply) || (is_of_lines(supply) && !supply->reading && !supply->cut && supply->given == 0);
    uint64_t all = sends_alone ? supply_total(supply) : supply->given;
    uint64_t waiting = sends_alone || supply->accepted > 0 ? queue_standing(&supply->queue) : 0;
    if (is_of_lines(supply) && (supply->reading || supply->cut)) {
        say_of_lines_begun(supply, waiting);
        return;
    }
    if (!sends_alone && !is_of_lines(supply))
        all = 1;
    say_part(supply, waiting, all, "waits in the queue", "wait in the queue");
    if (!sends_alone)
        say_part(supply, all - supply->accepted, all, "was not accepted", "were not accepted");
}

static void say_what_was_delivered(supply_t *supply)
{
    uint64_t all = is_queued(supply) ? supply_total(supply) : supply->given;
    const char *which = is_queued(supply) || supply->ended ? "" : " read so far";
    if (all <= 1)
        return;
    if (supply->delivered == 0)
        say(supply, "; none of %" PRIu64 " payloads%s was delivered", all, which);
    else
        say(supply, "; %" PRIu64 " of %" PRIu64 " payloads%s %s delivered", supply->delivered, all, which,
            supply->delivered == 1 ? "was" : "were");
}

const char *supply_fate(supply_t *supply)
{
    supply->fate[0] = '\0';
    if (is_queued(supply))
        say_what_waits(supply);
    say_what_was_delivered(supply);
    return supply->fate;
}

void supply_close(supply_t *supply)
{
    for (size_t i = 0; i < supply->again + supply->unsettled; i++)
        free(supply->window[i].bytes);
    supply->again = supply->unsettled = 0;
    supply->begun = false;
    supply->ended = true;
    queue_close(&supply->queue);
    payload_close(&supply->reader);
}
