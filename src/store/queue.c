#include "store/queue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/file.h"

static const char temporary_name[] = ".new";
static const char counter_name[] = ".last";
static const char failed_name[] = "failed";

static queue_outcome_t fail(queue_t *queue, queue_outcome_t outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Notes the reason behind "DIR". */
static queue_outcome_t fail(queue_t *queue, queue_outcome_t outcome, const char *format, ...)
{
    int used = snprintf(queue->error, sizeof queue->error, "%s", queue->path);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(queue->error + used, sizeof queue->error - (size_t)used, format, arguments);
    va_end(arguments);
    return outcome;
}

void queue_init(queue_t *queue)
{
    queue->directory = queue->counter = -1;
}

/* --- Opening --- */

/* Without a slash at its end, which would lead open(2) through a symbolic link. */
static bool note_path(queue_t *queue, const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    bool fits = length < sizeof queue->path;
    if (!fits)
        length = sizeof queue->path - 1;
    memcpy(queue->path, path, length);
    queue->path[length] = '\0';
    return fits;
}

/* A new directory is on the disk when its parent is. Who made it may have died before that, or be slower than
 * we are, so everybody sees to it until a payload was added. */
static bool sync_name(int directory)
{
    int parent = openat(directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return syncfs(directory) == 0; /* a parent that we may not read */
    bool synced = file_sync(parent);
    close(parent);
    return synced;
}

/* NULL, or why not. */
static const char *open_directory(queue_t *queue)
{
    struct stat status;
    if (mkdir(queue->path, S_IRWXU) != 0 && errno != EEXIST)
        return errno == ENOENT ? "No such file or directory; make its parent first" : strerror(errno);
    queue->directory = open(queue->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (queue->directory < 0 || fstat(queue->directory, &status) != 0)
        return strerror(errno);
    if (status.st_uid != geteuid())
        return "belongs to another user";
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return "can be written by other users";
    queue->copies = entry_needs_copy(queue->directory);
    return NULL;
}

/* On a full disk it may be missing: nothing can be added then, but what waits can be sent. */
static const char *open_counter(queue_t *queue)
{
    struct stat status;
    queue->counter = openat(queue->directory, counter_name,
                            O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
    if (queue->counter < 0 && (errno == ENOSPC || errno == EDQUOT)) {
        queue->counter_error = errno;
        return NULL;
    }
    if (queue->counter < 0 || fstat(queue->counter, &status) != 0)
        return strerror(errno);
    return S_ISREG(status.st_mode) ? NULL : "is not a regular file";
}

bool queue_open(queue_t *queue, const char *path, uint64_t maximum)
{
    memset(queue, 0, sizeof *queue);
    queue_init(queue);
    queue->maximum = maximum;
    const char *reason = note_path(queue, path) ? open_directory(queue) : strerror(ENAMETOOLONG);
    if (reason != NULL)
        fail(queue, QUEUE_FAILED, ": the queue cannot be used: %s", reason);
    else if ((reason = open_counter(queue)) != NULL)
        fail(queue, QUEUE_FAILED, "/%s: the queue cannot be used: %s", counter_name, reason);
    return reason == NULL;
}

static queue_outcome_t lock(queue_t *queue, int fd, wait_limit_t limit, const char *what_others_do)
{
    switch (file_lock(fd, limit)) {
    case WAIT_READY:
        return QUEUE_OK;
    case WAIT_TIMEOUT:
        return fail(queue, QUEUE_TIMEOUT, ": %s, and was not done before --timeout", what_others_do);
    case WAIT_INTERRUPTED:
        return fail(queue, QUEUE_INTERRUPTED, ": interrupted");
    default:
        return fail(queue, QUEUE_FAILED, ": cannot be locked: %s", strerror(errno));
    }
}

/* --- Looking around --- */

static bool is_own(const queue_t *queue, uint64_t number)
{
    size_t i = 0;
    while (i < queue->ranges && number > queue->own[i].last)
        i++;
    return i < queue->ranges && number >= queue->own[i].first;
}

/* Keeps the batch to the smallest numbers, in order. */
static void put_in_batch(queue_t *queue, const entry_t *entry)
{
    size_t place = queue->batched;
    if (queue->batched < QUEUE_BATCH)
        queue->batched++;
    else if (queue->complete = false, entry->number > queue->batch[--place].number)
        return;
    for (; place > 0 && queue->batch[place - 1].number > entry->number; place--)
        queue->batch[place] = queue->batch[place - 1];
    queue->batch[place] = *entry;
}

static void note_standing(queue_t *queue, const char *name)
{
    entry_t entry;
    if (entry_parse(name, &entry) &&
        (queue->ranges > 0 ? is_own(queue, entry.number) : entry.number <= queue->until))
        queue->standing++;
}

static void note_entry(queue_t *queue, const char *name)
{
    entry_t entry;
    if (!entry_parse(name, &entry)) {
        if (name[0] != '.' && strcmp(name, failed_name) != 0 && queue->foreign++ == 0)
            snprintf(queue->foreign_name, sizeof queue->foreign_name, "%s", name);
        return;
    }
    queue->waiting++;
    if (entry.number > queue->last)
        queue->last = entry.number;
    if (entry.number <= queue->current || entry.number > queue->until)
        return;
    queue->ahead++;
    put_in_batch(queue, &entry);
}

/* Shows every name in `directory` to `note`. */
static queue_outcome_t scan(queue_t *queue, const char *directory, void (*note)(queue_t *, const char *))
{
    int fd = openat(queue->directory, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (entries == NULL) {
        fail(queue, QUEUE_FAILED, ": cannot be read: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return QUEUE_FAILED;
    }
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(entries)) != NULL)
        note(queue, entry->d_name);
    int error = errno;
    closedir(entries);
    return error == 0 ? QUEUE_OK : fail(queue, QUEUE_FAILED, ": cannot be read: %s", strerror(error));
}

/* Counts what waits, and fills the batch with what comes after the current number. */
static queue_outcome_t look_around(queue_t *queue)
{
    queue->waiting = queue->ahead = queue->foreign = 0;
    queue->batched = queue->next = 0;
    queue->complete = true;
    return scan(queue, ".", note_entry);
}

uint64_t queue_standing(queue_t *queue)
{
    queue->standing = 0;
    return scan(queue, ".", note_standing) == QUEUE_OK ? queue->standing : 0;
}

/* --- Adding --- */

/* Gives the next number. The counter remembers it beyond the payload's removal; where that was lost in a
 * power cut, nothing waits that was not there when we look. So we look where others have given numbers since
 * we did, and where it is full. */
static queue_outcome_t give_number(queue_t *queue)
{
    uint64_t counted = 0;
    ssize_t got = pread(queue->counter, &counted, sizeof counted, 0);
    if (got == 0 && !sync_name(queue->directory))
        return fail(queue, QUEUE_FAILED, ": the payload is not queued: %s", strerror(errno));
    if (got != (ssize_t)sizeof counted || counted > ENTRY_NUMBER_MAX / 2)
        counted = 0; /* damaged: nobody counts that far */
    if (queue->ranges == 0 || counted != queue->last || queue->waiting >= queue->maximum) {
        queue->last = counted;
        if (look_around(queue) != QUEUE_OK)
            return QUEUE_FAILED;
    }
    if (queue->waiting >= queue->maximum)
        return fail(queue, QUEUE_FULL, ": the queue is full: %llu payloads wait",
                    (unsigned long long)queue->waiting);
    if (queue->last >= ENTRY_NUMBER_MAX)
        return fail(queue, QUEUE_FAILED, ": the queue has no numbers left");
    uint64_t number = queue->last + 1;
    ssize_t put = pwrite(queue->counter, &number, sizeof number, 0);
    if (put != (ssize_t)sizeof number)
        return fail(queue, QUEUE_FAILED, "/%s: the payload is not queued: %s", counter_name,
                    strerror(put < 0 ? errno : ENOSPC));
    queue->last = number;
    return QUEUE_OK;
}

/* Beyond so many ranges, what others added between is taken for ours: it serves messages alone. */
static void note_own(queue_t *queue, uint64_t number)
{
    if (queue->ranges > 0 &&
        (queue->ranges == QUEUE_RANGES || queue->own[queue->ranges - 1].last + 1 == number))
        queue->own[queue->ranges - 1].last = number;
    else
        queue->own[queue->ranges++] = (queue_range_t){number, number};
}

static queue_outcome_t add_locked(queue_t *queue, const void *payload, size_t length, bool confirm)
{
    char name[ENTRY_NAME_SIZE];
    const char *reason = NULL;
    queue_outcome_t outcome = give_number(queue);
    if (outcome != QUEUE_OK)
        return outcome;
    entry_format(&(entry_t){queue->last, confirm, ENTRY_UNMARKED}, name);
    if (!file_put_synced(queue->directory, name, temporary_name, payload, length, &reason))
        return fail(queue, QUEUE_FAILED, ": the payload is not queued: %s", reason);
    note_own(queue, queue->last);
    queue->waiting++;
    return QUEUE_OK;
}

queue_outcome_t queue_add(queue_t *queue, const void *payload, size_t length, bool confirm,
                          wait_limit_t limit)
{
    if (queue->counter < 0)
        return fail(queue, QUEUE_FAILED, "/%s: the payload is not queued: %s", counter_name,
                    strerror(queue->counter_error));
    /* Many lines on a slow disk may take longer than there is time. */
    if (wait_now_ms() > limit.deadline_ms)
        return fail(queue, QUEUE_TIMEOUT, ": the payload is not queued: --timeout has passed");
    queue_outcome_t outcome =
        lock(queue, queue->counter, limit, "the payload is not queued: another run adds");
    if (outcome != QUEUE_OK)
        return outcome;
    outcome = add_locked(queue, payload, length, confirm);
    flock(queue->counter, LOCK_UN);
    return outcome;
}

/* --- Sending --- */

queue_outcome_t queue_take_turn(queue_t *queue, wait_limit_t limit)
{
    queue_outcome_t outcome =
        lock(queue, queue->directory, limit, "what is queued still waits: another run is sending");
    if (outcome != QUEUE_OK)
        return outcome;
    if (faccessat(queue->directory, ".", W_OK | X_OK, AT_EACCESS) != 0)
        return fail(queue, QUEUE_FAILED, ": nothing is sent, since nothing could be removed then: %s",
                    strerror(errno));
    queue->until = queue->ranges > 0 ? queue->own[queue->ranges - 1].last : ENTRY_NUMBER_MAX;
    outcome = look_around(queue);
    queue->total = queue->ahead;
    if (queue->ranges == 0)
        queue->until = queue->last; /* or it might never end where others go on adding */
    return outcome;
}

/* What lies there and is none of ours is told once. */
static bool finds_foreign(queue_t *queue)
{
    if (queue->foreign == 0 || queue->foreign_told)
        return false;
    queue->foreign_told = true;
    fail(queue, QUEUE_UNSENDABLE, "/%s: is no queued payload, and left alone%s", queue->foreign_name,
         queue->foreign > 1 ? ", as are others" : "");
    return true;
}

static void note_own_failed(queue_t *queue, const char *name)
{
    entry_t entry;
    if (entry_parse(name, &entry) && is_own(queue, entry.number))
        fail(queue, QUEUE_UNSENDABLE, "/%s/%s: was moved there by another run, since it could not be sent",
             failed_name, name);
}

/* A run that had its turn before us may have found that what we added can never be sent. Told once. */
static bool finds_own_failed(queue_t *queue)
{
    uint64_t added = 0;
    if (queue->own_looked_for)
        return false;
    queue->own_looked_for = true;
    for (size_t i = 0; i < queue->ranges; i++)
        added += queue->own[i].last - queue->own[i].first + 1;
    if (added == 0 || queue_standing(queue) == added)
        return false;
    queue->error[0] = '\0';
    return scan(queue, failed_name, note_own_failed) == QUEUE_OK && queue->error[0] != '\0';
}

queue_outcome_t queue_read(queue_t *queue, const entry_t *entry,
                           unsigned char payload[static ENTRY_PAYLOAD_MAX], size_t *length)
{
    char name[ENTRY_NAME_SIZE];
    const char *reason = NULL;
    file_content_t content;
    entry_format(entry, name);
    switch (file_read_private(queue->directory, name, ENTRY_PAYLOAD_MAX, &content, &reason)) {
    case FILE_OK:
        memcpy(payload, content.bytes, content.length);
        *length = content.length;
        file_content_free(&content);
        return QUEUE_OK;
    case FILE_ABSENT: /* someone has removed it by hand */
        return QUEUE_END;
    case FILE_UNFIT:
        queue_set_aside(queue, entry, reason);
        return QUEUE_UNSENDABLE;
    case FILE_DAMAGED: /* a card that fails for a moment must not cost the whole queue */
        return fail(queue, QUEUE_UNSENDABLE, "/%s: left in the queue: %s", name, reason);
    default:
        return fail(queue, QUEUE_FAILED, "/%s: %s", name, reason);
    }
}

queue_outcome_t queue_next(queue_t *queue, unsigned char payload[static ENTRY_PAYLOAD_MAX], size_t *length,
                           entry_t *entry)
{
    if (finds_foreign(queue) || finds_own_failed(queue))
        return QUEUE_UNSENDABLE;
    while (queue_has_more(queue)) {
        if (queue->next == queue->batched && look_around(queue) != QUEUE_OK)
            return QUEUE_FAILED;
        if (queue->next == queue->batched)
            break;
        *entry = queue->batch[queue->next++];
        queue->current = entry->number;
        queue_outcome_t outcome = queue_read(queue, entry, payload, length);
        if (outcome != QUEUE_END)
            return outcome;
    }
    return QUEUE_END;
}

bool queue_has_more(const queue_t *queue)
{
    return queue->next < queue->batched || !queue->complete;
}

bool queue_remove(queue_t *queue, const entry_t *entry)
{
    char name[ENTRY_NAME_SIZE];
    entry_format(entry, name);
    if (unlinkat(queue->directory, name, 0) == 0 || errno == ENOENT)
        return true;
    fail(queue, QUEUE_FAILED, "/%s: was sent, but cannot be removed and will be sent again: %s", name,
         strerror(errno));
    return false;
}

/* --- What was not confirmed --- */

static bool mark(queue_t *queue, entry_t *entry, int tries)
{
    char name[ENTRY_NAME_SIZE];
    const char *reason = NULL;
    entry_format(entry, name);
    if (entry_mark(queue->directory, entry, tries, queue->copies, &reason))
        return true;
    fail(queue, QUEUE_FAILED, "/%s: cannot be marked as not confirmed: %s", name, reason);
    return false;
}

bool queue_doubt(queue_t *queue, entry_t *entry)
{
    return entry->tries != ENTRY_UNMARKED || mark(queue, entry, 0);
}

queue_outcome_t queue_count(queue_t *queue, entry_t *entry)
{
    char reason[64];
    int tries = entry->tries == ENTRY_UNMARKED ? 1 : entry->tries + 1;
    if (entry->tries < ENTRY_TRIES_MAX && !mark(queue, entry, tries))
        return QUEUE_FAILED;
    if (entry->tries < QUEUE_TRIES_MAX)
        return QUEUE_OK;
    snprintf(reason, sizeof reason, "not confirmed in %d runs in which others were", entry->tries);
    queue_set_aside(queue, entry, reason);
    return QUEUE_UNSENDABLE;
}

/* --- What cannot be sent --- */

void queue_set_aside(queue_t *queue, const entry_t *entry, const char *reason)
{
    char name[ENTRY_NAME_SIZE];
    entry_format(entry, name);
    mkdirat(queue->directory, failed_name, S_IRWXU);
    int failed = openat(queue->directory, failed_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (failed >= 0 && entry_move(queue->directory, entry, failed))
        fail(queue, QUEUE_UNSENDABLE, "/%s: moved to %s: %s", name, failed_name, reason);
    else
        fail(queue, QUEUE_UNSENDABLE, "/%s: cannot be sent: %s; nor moved to %s: %s", name, reason,
             failed_name, strerror(errno));
    if (failed >= 0)
        close(failed);
}

void queue_close(queue_t *queue)
{
    if (queue->directory >= 0)
        close(queue->directory);
    if (queue->counter >= 0)
        close(queue->counter);
    queue->directory = queue->counter = -1;
}
