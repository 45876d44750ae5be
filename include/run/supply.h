/* A run's payloads, wherever they come from: next, delivered, refused, kept. Without a queue this hands on
 * what command/payload.h reads; with one, what was accepted into store/queue.h, by this run or by earlier
 * ones. Who sends them sees no difference.
 *
 * Order of calls: open; accept until it returns SUPPLY_END; begin; then next and one verdict on each payload,
 * until SUPPLY_END; finish until SUPPLY_END; close. Where an outcome is neither SUPPLY_OK nor SUPPLY_END,
 * supply->error says in one line why, until the next call. */
#ifndef SUPPLY_H
#define SUPPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/payload.h"
#include "store/queue.h"
#include "system/wait.h"

enum { SUPPLY_WINDOW = 64, SUPPLY_DOUBTS = 256 };

typedef enum {
    SUPPLY_OK,
    SUPPLY_END,
    SUPPLY_REFUSED,    /* the payload is too large, or bad hex */
    SUPPLY_UNREADABLE, /* the payload's file is missing or cannot be read */
    SUPPLY_UNSENDABLE, /* something in the queue can never be sent, and is out of the way */
    SUPPLY_UNWRITABLE, /* the queue cannot be written, or is full */
    SUPPLY_TIMEOUT,
    SUPPLY_INTERRUPTED,
    SUPPLY_FAILED /* the system failed */
} supply_outcome_t;

typedef struct {
    payload_source_t source; /* PAYLOAD_NONE: nothing is given, only what waits is sent */
    const char *queue;       /* directory; NULL: none */
    uint64_t queue_limit;    /* payloads that may wait in it */
    bool confirm; /* --confirm, or coaps: what is given must be confirmed, whichever run sends it */
    wait_limit_t limit;
} supply_config_t;

typedef struct {
    const unsigned char *bytes;
    size_t length;
    bool confirm; /* this run, or the one that accepted it, wants it confirmed */
    bool doubted; /* an earlier run could not get it confirmed: it has only a part of this run's time */
} supply_payload_t;

/* A payload that was sent and may have to be sent again. */
typedef struct {
    entry_t entry;        /* with a queue: where it waits */
    unsigned char *bytes; /* without: a copy, owned */
    size_t length;
} supply_item_t;

/* Large: it holds a reader, and a queue's next entries. */
typedef struct {
    supply_config_t config;
    payload_reader_t reader; /* holds the payload in hand, also where that came from the queue */
    queue_t queue;
    bool reading;               /* more may be accepted */
    bool cut;                   /* reading ended before the end of what is given */
    bool begun;                 /* it is our turn to send */
    bool ended;                 /* nothing more can come */
    supply_outcome_t accepting; /* what supply_accept() returned last */

    entry_t hand;                        /* the payload that supply_next() gave, where it came from a queue */
    supply_item_t window[SUPPLY_WINDOW]; /* first those that come again, then the unsettled, in order */
    size_t again, unsettled;
    /* Not confirmed in this run. Those beyond are left to later runs to count. */
    entry_t doubts[SUPPLY_DOUBTS];
    size_t doubted, counted;
    uint64_t given, accepted, delivered;
    bool confirmed; /* a payload was, in this run */
    const char *error;
    char fate[256];
} supply_t;

/* Makes every member safe to close. */
void supply_init(supply_t *supply);

/* Opens the queue, if there is one, and starts reading. Whatever `config` points at must outlive the supply.
 * Waits for nothing. SUPPLY_OK; or SUPPLY_UNWRITABLE: the queue cannot be opened, and gives nothing. */
supply_outcome_t supply_open(supply_t *supply, const supply_config_t *config);

/* With a queue: puts the next of the payloads that are given safely into it; waits for input, and for other
 * runs that add, until the limit. SUPPLY_OK: one more was accepted, call again. SUPPLY_END: nothing more can
 * be read, or there is no queue. Any other: a payload was not accepted; call again. What waits can be sent
 * all the same. */
supply_outcome_t supply_accept(supply_t *supply);

/* Replaces the limit of everything that follows. */
void supply_set_limit(supply_t *supply, wait_limit_t limit);

/* With a queue: waits for the turn to send, until the limit. SUPPLY_OK, TIMEOUT, INTERRUPTED or FAILED. */
supply_outcome_t supply_begin(supply_t *supply);

/* How many payloads there are to send, once begun; 0: not known. */
uint64_t supply_total(const supply_t *supply);

/* Gives the next payload, which stays where it is until the next call; without a queue it waits for input
 * until the limit. SUPPLY_END: that was all. One incident a call otherwise (all but SUPPLY_UNWRITABLE); then
 * call again: SUPPLY_END follows where nothing more can come. */
supply_outcome_t supply_next(supply_t *supply, supply_payload_t *payload);

/* The descriptor that supply_next() would have to wait for; -1: it would not have to wait. */
int supply_fd(const supply_t *supply);

/* --- Verdicts: exactly one on every payload that supply_next() gave, before the next --- */

/* It is confirmed, or, where it need not be, was sent and not refused for long enough: it leaves the queue.
 * SUPPLY_OK; or SUPPLY_FAILED: it cannot be removed and will be sent again. */
supply_outcome_t supply_delivered(supply_t *supply);

/* It was sent and nothing confirms it: it is unsettled, until supply_settle(). False: there are SUPPLY_WINDOW
 * of them, or there is no memory for a copy. It is still in hand then: wait, and report it as delivered. */
bool supply_sent(supply_t *supply);

/* It can never be sent to this server, for the reason given, which must outlive supply->error.
 * SUPPLY_UNSENDABLE: the queue has set it aside; without a queue SUPPLY_REFUSED, with the reason as error. */
supply_outcome_t supply_refused(supply_t *supply, const char *reason);

/* It was not confirmed in its time. It stays in the queue, and is marked at once, so that later runs know. */
void supply_unconfirmed(supply_t *supply);

/* The run failed over it for another reason. It stays in the queue, as it was. */
void supply_kept(supply_t *supply);

/* --- The unsettled: what was sent and may still be refused --- */

size_t supply_unsettled(const supply_t *supply);

/* The oldest `count` of them count as delivered and leave the queue. SUPPLY_OK; or SUPPLY_FAILED: not all
 * could be removed, and those will be sent again. */
supply_outcome_t supply_settle(supply_t *supply, size_t count);

/* All of them come again from supply_next(), oldest first, before what follows: the server refused. The
 * payload in hand is among them if it was reported as sent. */
void supply_rewind(supply_t *supply);

/* --- The end --- */

/* Counts this run with every payload that was not confirmed in it, if another one was; one that was counted
 * for the tenth time is set aside. SUPPLY_UNSENDABLE: that happened to one, call again. SUPPLY_END: that was
 * all. */
supply_outcome_t supply_finish(supply_t *supply);

/* What became of the payloads, as a clause for the end of a failure's line ("; the payload waits in the
 * queue",
 * "; 3 of 10 payloads were delivered"), or "". Valid until the next call. */
const char *supply_fate(supply_t *supply);

/* Ends the turn, closes and frees. What is unsettled stays in the queue. Harmless when repeated. */
void supply_close(supply_t *supply);

#endif
