/* A payload that waits in a queue's directory: what its file's name says, and what may happen to that file.
 *
 *     0000000000000042      a number of 16 digits; they sort in order of arrival
 *     0000000000000042c     c: it was accepted to be confirmed, and leaves the queue only then
 *     0000000000000042c-3   -N: an earlier run could not get it confirmed
 *
 * N is the number of runs in which it stayed unconfirmed while another payload was confirmed. */
#ifndef ENTRY_H
#define ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENTRY_NUMBER_MAX  UINT64_C(9999999999999999)
#define ENTRY_PAYLOAD_MAX 16384 /* bytes: what one DTLS record can carry */

enum {
    ENTRY_DIGITS = 16,
    ENTRY_UNMARKED = -1,
    ENTRY_TRIES_MAX = 99, /* that a name can say */
    ENTRY_NAME_SIZE = ENTRY_DIGITS + sizeof "c-99"
};

typedef struct {
    uint64_t number; /* 1 to ENTRY_NUMBER_MAX */
    bool confirm;
    int tries; /* N, or ENTRY_UNMARKED */
} entry_t;

void entry_format(const entry_t *entry, char name[static ENTRY_NAME_SIZE]);

/* False: no payload has this name. Strict, so that no two names say the same. */
bool entry_parse(const char *name, entry_t *entry);

/* Whether a power cut during a rename in `directory` may leave neither name: so it is on FAT, and in user
 * space nobody knows. Where a file system has a journal or a log, one of them is left. */
bool entry_needs_copy(int directory);

/* Marks the entry with `tries`, by a rename or, if `by_copy`, by a synced copy that replaces it. The rename
 * is not synced, since to lose a mark is harmless. False: the entry is as it was, and `*reason` says why. */
bool entry_mark(int directory, entry_t *entry, int tries, bool by_copy, const char **reason);

/* Moves the entry into the directory `failed`, under its own name or one made of it where that is taken.
 * False: errno says why it was not moved. */
bool entry_move(int directory, const entry_t *entry, int failed);

#endif
