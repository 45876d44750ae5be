/* The store-and-forward directory: payloads that were accepted wait in it, each a file, until they are sent.
 *
 * One directory is one destination's queue. A payload is a private file (0600) that holds its bytes and
 * nothing else. Its name is a number that is never given twice, so that who has sent one payload cannot
 * remove another, and what must be remembered between runs (store/entry.h).
 *
 * Beside them: ".new", a payload that is being written; ".last", the number given last, locked by whoever
 * adds; "failed", a directory of what could not be sent. The directory itself is locked by the one run that
 * sends. Both locks end with the process that holds them. */
#ifndef QUEUE_H
#define QUEUE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/entry.h"
#include "system/wait.h"

enum {
    QUEUE_BATCH = 256,
    QUEUE_RANGES = 32,
    QUEUE_TRIES_MAX = 10 /* runs in which a payload may stay unconfirmed while another is confirmed */
};

typedef enum {
    QUEUE_OK,
    QUEUE_END,        /* nothing more waits */
    QUEUE_FULL,       /* as many payloads wait as may */
    QUEUE_UNSENDABLE, /* something that can never be sent is out of the way; go on */
    QUEUE_TIMEOUT,    /* another run held the lock until the limit */
    QUEUE_INTERRUPTED,
    QUEUE_FAILED /* the system failed: disk full, not permitted… */
} queue_outcome_t;

typedef struct {
    uint64_t first, last;
} queue_range_t;

typedef struct {
    char path[PATH_MAX]; /* for messages */
    uint64_t maximum;    /* payloads that may wait */
    int directory;       /* descriptors; -1: not open */
    int counter;
    int counter_error;               /* why the counter could not be made (errno): nothing can be added */
    bool copies;                     /* marks are set by copies (entry_needs_copy()) */
    uint64_t last;                   /* the number given last, when we looked, or gave it */
    uint64_t waiting, ahead;         /* payloads seen waiting then; of them, those that we have yet to send */
    queue_range_t own[QUEUE_RANGES]; /* the numbers that this run gave, in order */
    size_t ranges;

    uint64_t until;             /* our turn goes up to this number */
    uint64_t total;             /* payloads that waited up to there when the turn came */
    uint64_t standing;          /* what queue_standing() has counted */
    uint64_t current;           /* the payload that queue_next() gave; before the first: 0 */
    entry_t batch[QUEUE_BATCH]; /* the next, in order; a queue of any size costs no more memory */
    size_t batched, next;
    bool complete; /* there are no more up to `until` than those in the batch */
    uint64_t foreign;
    char foreign_name[NAME_MAX + 1]; /* one of them */
    bool foreign_told, own_looked_for;
    char error[PATH_MAX + 512];
} queue_t;

/* Makes the queue safe to close. */
void queue_init(queue_t *queue);

/* Opens the queue in the directory `path`, whose last component is made (0700, less the umask) if it is
 * missing. It must be ours and not writable by others, and is not followed if it is a symbolic link. At most
 * `maximum` payloads will wait in it. A full disk is no failure, since what waits can be sent. False:
 * queue->error says in one line why. */
bool queue_open(queue_t *queue, const char *path, uint64_t maximum);

/* Adds a payload of at most ENTRY_PAYLOAD_MAX bytes, to leave the queue only when confirmed if `confirm`.
 * QUEUE_OK: it is on the disk, name and all, and will survive a crash or a power cut. QUEUE_FULL, TIMEOUT,
 * INTERRUPTED, FAILED: it was not added, nothing of it is left, and queue->error says why. Waits for other
 * runs that add, until `limit`. */
queue_outcome_t queue_add(queue_t *queue, const void *payload, size_t length, bool confirm,
                          wait_limit_t limit);

/* Waits, until `limit`, for the turn to send; it ends with queue_close(). QUEUE_OK, TIMEOUT, INTERRUPTED or
 * FAILED, also where the directory cannot be written: what waits would be sent by every run. */
queue_outcome_t queue_take_turn(queue_t *queue, wait_limit_t limit);

/* Reads the next payload, oldest first, up to the last that this run added, or, where it added none, the last
 * that waited when its turn came. QUEUE_OK: it is in `payload`, `*length` and `*entry`, and stays in the
 * queue until queue_remove(). QUEUE_END: that was all. QUEUE_UNSENDABLE: an entry was set aside, now or while
 * this run waited for its turn, or could not be read, or is not ours and left alone: queue->error tells.
 * QUEUE_FAILED. */
queue_outcome_t queue_next(queue_t *queue, unsigned char payload[static ENTRY_PAYLOAD_MAX], size_t *length,
                           entry_t *entry);

/* Reads the payload of an entry again. QUEUE_END: somebody has removed it. Otherwise as queue_next(). */
queue_outcome_t queue_read(queue_t *queue, const entry_t *entry,
                           unsigned char payload[static ENTRY_PAYLOAD_MAX], size_t *length);

/* Whether queue_next() might give another one. */
bool queue_has_more(const queue_t *queue);

/* Removes an entry: it was delivered. False: queue->error says why it stays. */
bool queue_remove(queue_t *queue, const entry_t *entry);

/* Marks an entry that was not confirmed, if it has no mark yet. False: it has none, and queue->error says
 * why; it stays in the queue all the same. */
bool queue_doubt(queue_t *queue, entry_t *entry);

/* Counts a run in which an entry was not confirmed while another was, with its mark. QUEUE_UNSENDABLE: it was
 * the tenth (QUEUE_TRIES_MAX), so the entry was moved to "failed", and queue->error tells. QUEUE_FAILED: it
 * is not counted. */
queue_outcome_t queue_count(queue_t *queue, entry_t *entry);

/* Moves an entry to "failed": it can never be sent, for the reason given. queue->error tells all that. */
void queue_set_aside(queue_t *queue, const entry_t *entry, const char *reason);

/* How many payloads wait now: of those that this run added, or, where it added none, of those that it sends.
 * 0 too where the directory cannot be read. */
uint64_t queue_standing(queue_t *queue);

/* Ends the turn, and closes everything; harmless when repeated. */
void queue_close(queue_t *queue);

#endif
