#include "system/wait.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <time.h>

int64_t wait_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t wait_now_ms(void)
{
    return wait_now_us() / 1000;
}

wait_limit_t wait_limit_in(int64_t delay_ms)
{
    return (wait_limit_t){.deadline_ms = wait_now_ms() + delay_ms, .cancel_fd = -1};
}

wait_limit_t wait_at_most(wait_limit_t limit, int64_t delay_ms)
{
    int64_t end_ms = wait_now_ms() + delay_ms;
    if (end_ms < limit.deadline_ms)
        limit.deadline_ms = end_ms;
    return limit;
}

/* The time left, as ppoll(2) wants it; a 32-bit time_t holds no more than INT_MAX seconds. */
static struct timespec time_left(int64_t deadline_ms)
{
    int64_t now_us = wait_now_us();
    if (deadline_ms / 1000 - now_us / 1000000 > INT_MAX)
        return (struct timespec){.tv_sec = INT_MAX};
    int64_t left_us = deadline_ms * 1000 - now_us;
    if (left_us <= 0)
        return (struct timespec){0};
    return (struct timespec){.tv_sec = (time_t)(left_us / 1000000),
                             .tv_nsec = (long)(left_us % 1000000 * 1000)};
}

/* polled[0] is the one that cancels. */
static wait_outcome_t wait_for_any(struct pollfd *polled, nfds_t count, wait_limit_t limit)
{
    for (;;) {
        struct timespec left = time_left(limit.deadline_ms);
        int ready = ppoll(polled, count, &left, NULL);
        if (ready < 0 && errno != EINTR)
            return WAIT_FAILED;
        if (ready > 0)
            return polled[0].revents != 0 ? WAIT_INTERRUPTED : WAIT_READY;
        if (ready == 0 && left.tv_sec < INT_MAX)
            return WAIT_TIMEOUT;
    }
}

bool wait_is_cancelled(wait_limit_t limit)
{
    limit.deadline_ms = 0;
    return wait_for(-1, 0, limit) == WAIT_INTERRUPTED;
}

wait_outcome_t wait_for(int fd, short events, wait_limit_t limit)
{
    struct pollfd polled[] = {{.fd = limit.cancel_fd, .events = POLLIN}, {.fd = fd, .events = events}};
    return wait_for_any(polled, 2, limit);
}

wait_outcome_t wait_for_input(int fd, int other_fd, wait_limit_t limit, bool *first)
{
    struct pollfd polled[] = {{.fd = limit.cancel_fd, .events = POLLIN},
                              {.fd = fd, .events = POLLIN},
                              {.fd = other_fd, .events = POLLIN}};
    wait_outcome_t outcome = wait_for_any(polled, 3, limit);
    *first = outcome == WAIT_READY && polled[1].revents != 0;
    return outcome;
}
