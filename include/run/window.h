/* When the payloads that were sent, and that nothing confirms, count as settled: oldest first. */
#ifndef WINDOW_H
#define WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One less than a supply keeps: the payload that finds out about a refusal comes again too. */
enum { WINDOW_SIZE = 63 };

/* All zero: nothing is unsettled. Times are on wait_now_ms()'s clock. */
typedef struct {
    int64_t due_ms[WINDOW_SIZE];
    size_t oldest, count;
} window_t;

static inline bool window_is_full(const window_t *window)
{
    return window->count == WINDOW_SIZE;
}

/* When the oldest is settled; 0: nothing is unsettled. */
static inline int64_t window_start_ms(const window_t *window)
{
    return window->count == 0 ? 0 : window->due_ms[window->oldest];
}

/* When all are settled; 0: nothing is unsettled. */
static inline int64_t window_end_ms(const window_t *window)
{
    return window->count == 0 ? 0 : window->due_ms[(window->oldest + window->count - 1) % WINDOW_SIZE];
}

/* Adds one, if it is not full, that is settled at `due_ms`, but not before those that were added before. */
static inline void window_add(window_t *window, int64_t due_ms)
{
    int64_t end_ms = window_end_ms(window);
    if (!window_is_full(window))
        window->due_ms[(window->oldest + window->count++) % WINDOW_SIZE] = due_ms > end_ms ? due_ms : end_ms;
}

/* Takes out those that are settled by now. Returns how many. */
static inline size_t window_take_settled(window_t *window, int64_t now_ms)
{
    size_t taken = 0;
    for (; window->count > 0 && window->due_ms[window->oldest] <= now_ms; taken++) {
        window->oldest = (window->oldest + 1) % WINDOW_SIZE;
        window->count--;
    }
    return taken;
}

#endif
