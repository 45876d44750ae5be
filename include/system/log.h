/* What the program says on stderr, and how much of it. */
#ifndef LOG_H
#define LOG_H

#include <stdint.h>

typedef enum {
    LOG_QUIET = -1, /* nothing at all; the exit status speaks */
    LOG_ERROR = 0,  /* one line a failure: the default, so that cron mails only what went wrong */
    LOG_STEPS = 1,  /* one line a step (-v) */
    LOG_DEBUG = 2   /* mbed TLS's own log too (-vv) */
} log_level_t;

/* Sets how much is printed from now on. */
void log_set_level(log_level_t level);

/* The level in force. */
log_level_t log_level(void);

/* Prints "dtls-send: MESSAGE\n" on stderr where `level` is in force, in one write, control characters
 * escaped: a message may quote what a server or a file said. Keeps errno. Never give it a secret. */
void log_print(log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Tells how far long work has got, in a line that the next message, or progress, replaces: only where stderr
 * is a terminal, nothing else was asked for, and the work lasts. `total` 0: not known. */
void log_progress(uint64_t done, uint64_t total);

/* Takes that line away, before something else is written to the terminal. */
void log_clear_progress(void);

#define log_error(...) log_print(LOG_ERROR, __VA_ARGS__)
#define log_step(...)  log_print(LOG_STEPS, __VA_ARGS__)

#endif
