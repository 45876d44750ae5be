/* Waiting, bounded. Everything in a run that can block waits here, under one deadline and one way to be
 * cancelled. */
#ifndef WAIT_H
#define WAIT_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    WAIT_READY,       /* the descriptor is ready, or in error: the next read or write will say which */
    WAIT_TIMEOUT,     /* the deadline came first */
    WAIT_INTERRUPTED, /* the cancel descriptor became readable */
    WAIT_FAILED       /* poll(2) failed; errno says how */
} wait_outcome_t;

/* What bounds a wait. */
typedef struct {
    int64_t deadline_ms; /* on wait_now_ms()'s clock; INT64_MAX: no deadline */
    int cancel_fd;       /* when it becomes readable, every wait ends; -1: none. Not owned */
} wait_limit_t;

/* Milliseconds, and microseconds, on a clock that nobody can set (CLOCK_MONOTONIC). */
int64_t wait_now_ms(void);
int64_t wait_now_us(void);

/* The limit that ends `delay_ms` from now and cannot be cancelled. */
wait_limit_t wait_limit_in(int64_t delay_ms);

/* The limit that is `delay_ms` from now, or `limit` itself if that is sooner. */
wait_limit_t wait_at_most(wait_limit_t limit, int64_t delay_ms);

/* Whether the cancel descriptor is readable now. */
bool wait_is_cancelled(wait_limit_t limit);

/* Waits until `fd` is ready for `events` (POLLIN, POLLOUT). A ready descriptor wins over a deadline that has
 * passed, a cancellation over both. fd -1: waits for the deadline or the cancellation alone. */
wait_outcome_t wait_for(int fd, short events, wait_limit_t limit);

/* The same for two descriptors to become readable; `*first` tells whether `fd` is one that did. */
wait_outcome_t wait_for_input(int fd, int other_fd, wait_limit_t limit, bool *first);

#endif
