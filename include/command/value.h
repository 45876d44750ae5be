/* Values as people write them, read strictly: what is not wholly and exactly one is refused. */
#ifndef VALUE_H
#define VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A whole number in decimal digits, without sign or space, from `least` to `most`. False: it is not. */
bool value_number(const char *text, uint64_t least, uint64_t most, uint64_t *number);

/* Seconds, "12" or "0.25", to milliseconds from `least_ms` to `most_ms`; what is finer is cut off. False:
 * they are not. */
bool value_seconds(const char *text, int64_t least_ms, int64_t most_ms, int64_t *milliseconds);

/* The value of a hex digit, of either case; -1: it is none. */
int value_hex_digit(char digit);

#endif
