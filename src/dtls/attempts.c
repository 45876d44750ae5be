#include "dtls/attempts.h"

#include <stdio.h>

#include "system/log.h"

enum {
    ADDRESSES_MAX = 16,
    SILENT_MS = 2000,     /* a first try of an address that says nothing ends then, if there are others */
    PAUSE_FIRST_MS = 100, /* before a server that refused is tried again; doubled each time */
    PAUSE_LAST_MS = 2000
};

typedef struct {
    const struct addrinfo *addresses;
    bool persist;
    wait_limit_t limit;
    attempts_make_t *make;
    void *context;
    dtls_outcome_t last[ADDRESSES_MAX]; /* what the latest attempt at each address brought */
    bool believed[ADDRESSES_MAX];       /* and the one before */
    /* What says most so far, and how much. */
    dtls_outcome_t outcome;
    int weight;
    char *text;
    const char *latest; /* words of the latest attempt */
} attempts_t;

static int weigh(const attempt_t *attempt, bool twice)
{
    switch (attempt->outcome) {
    case DTLS_REFUSED:
        return 1;
    case DTLS_TIMEOUT:
        return attempt->heard ? 4 : 2;
    default:
        return twice ? 5 : 3;
    }
}

static void note(attempts_t *attempts, size_t address, const attempt_t *attempt)
{
    bool twice = attempt->outcome != DTLS_TIMEOUT && attempts->last[address] == attempt->outcome;
    int weight = weigh(attempt, twice);
    attempts->last[address] = attempt->outcome;
    attempts->believed[address] = twice;
    if (weight < attempts->weight)
        return;
    attempts->weight = weight;
    attempts->outcome = attempt->outcome;
    snprintf(attempts->text, ATTEMPTS_TEXT_SIZE, "%s", attempt->text);
}

/* Whether another attempt may end otherwise. */
static bool may_pass(dtls_outcome_t outcome)
{
    return outcome == DTLS_TIMEOUT || outcome == DTLS_REFUSED || outcome == DTLS_REJECTED ||
           outcome == DTLS_PROTOCOL;
}

/* For the first word. In the first round an address that says nothing is left soon for the next: after
 * SILENT_MS, or half the time that is left if that is less. Later rounds leave room for slower paths. */
static int64_t patience_in(const attempts_t *attempts, int round, bool last)
{
    int64_t half_ms = (attempts->limit.deadline_ms - wait_now_ms()) / 2;
    if (round == 0 && !last)
        return half_ms < SILENT_MS ? half_ms : SILENT_MS;
    return (int64_t)ATTEMPTS_PATIENCE_MS << (round < 3 ? round : 3);
}

/* One round over all addresses about which there is something to learn. DTLS_TIMEOUT: another may help. */
static dtls_outcome_t try_each(attempts_t *attempts, int round)
{
    const struct addrinfo *address = attempts->addresses;
    for (size_t i = 0; address != NULL && i < ADDRESSES_MAX; address = address->ai_next, i++) {
        bool last = address->ai_next == NULL;
        if (attempts->believed[i] && !attempts->persist)
            continue;
        if (attempts->latest != NULL)
            log_step("%s", attempts->latest); /* the last one is the caller's to tell */
        attempt_t attempt = attempts->make(attempts->context, address, patience_in(attempts, round, last));
        attempts->latest = attempt.text;
        if (!may_pass(attempt.outcome)) {
            snprintf(attempts->text, ATTEMPTS_TEXT_SIZE, "%s", attempt.text);
            return attempt.outcome;
        }
        note(attempts, i, &attempt);
    }
    return DTLS_TIMEOUT;
}

static bool is_final(const attempts_t *attempts)
{
    const struct addrinfo *address = attempts->addresses;
    for (size_t i = 0; address != NULL && i < ADDRESSES_MAX; address = address->ai_next, i++) {
        if (!attempts->believed[i])
            return false;
    }
    return true;
}

/* False: interrupted. */
static bool rest(const attempts_t *attempts, int round)
{
    int64_t pause_ms = round < 5 ? PAUSE_FIRST_MS << round : PAUSE_LAST_MS;
    return wait_for(-1, 0, wait_at_most(attempts->limit, pause_ms)) != WAIT_INTERRUPTED;
}

dtls_outcome_t attempts_run(const struct addrinfo *addresses, bool persist, wait_limit_t limit,
                            attempts_make_t *make, void *context, char text[static ATTEMPTS_TEXT_SIZE])
{
    attempts_t attempts = {.addresses = addresses,
                           .persist = persist,
                           .limit = limit,
                           .make = make,
                           .context = context,
                           .text = text};
    for (int round = 0;; round++) {
        dtls_outcome_t outcome = try_each(&attempts, round);
        if (outcome != DTLS_TIMEOUT)
            return outcome;
        bool restarting = persist && attempts.outcome == DTLS_REFUSED;
        if (restarting && !rest(&attempts, round)) {
            snprintf(text, ATTEMPTS_TEXT_SIZE, "interrupted");
            return DTLS_INTERRUPTED;
        }
        if ((is_final(&attempts) && !restarting) || wait_now_ms() >= limit.deadline_ms)
            return attempts.outcome;
    }
}
