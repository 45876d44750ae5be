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

#define NUMBER_MAX UINT64_C(9999999999999999)

enum { NAME_DIGITS = 16, NAME_SIZE = NAME_DIGITS + 1 };

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
        return strerror(errno);
    queue->directory = open(queue->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (queue->directory < 0 || fstat(queue->directory, &status) != 0)
        return strerror(errno);
    if (status.st_uid != geteuid())
        return "belongs to another user";
    if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return "can be written by other users";
    return NULL;
}

static const char *open_counter(queue_t *queue)
{
    struct stat status;
    queue->counter = openat(queue->directory, counter_name,
                            O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, S_IRUSR | S_IWUSR);
    if (queue->counter < 0 || fstat(queue->counter, &status) != 0)
        return strerror(errno);
    if (!S_ISREG(status.st_mode))
        return "is not a regular file";
    return status.st_size > 0 || sync_name(queue->directory) ? NULL : strerror(errno);
}

bool queue_open(queue_t *queue, const char *path, uint64_t maximum)
{
    memset(queue, 0, sizeof *queue);
    queue_init(queue);
    queue->maximum = maximum;
    const char *reason = note_path(queue, path) ? open_directory(queue) : strerror(ENAMETOOLONG);
    if (reason != NULL) {
        fail(queue, QUEUE_FAILED, ": the queue cannot be used: %s", reason);
    } else if ((reason = open_counter(queue)) != NULL) {
        fail(queue, QUEUE_FAILED, "/%s: the queue cannot be used: %s", counter_name, reason);
    }
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

static void format_name(uint64_t number, char name[static NAME_SIZE])
{
    snprintf(name, NAME_SIZE, "%0*llu", NAME_DIGITS, (unsigned long long)(number % (NUMBER_MAX + 1)));
}

/* 0: no payload has this name. */
static uint64_t number_of(const char *name)
{
    uint64_t number = 0;
    if (strlen(name) != NAME_DIGITS || strspn(name, "0123456789") != NAME_DIGITS)
        return 0;
    for (; *name != '\0'; name++)
        number = number * 10 + (uint64_t)(*name - '0');
    return number;
}

/* Keeps the batch to the smallest numbers, in order. */
static void put_in_batch(queue_t *queue, uint64_t number)
{
    size_t place = queue->batched;
    if (queue->batched < QUEUE_BATCH)
        queue->batched++;
    else if (queue->complete = false, number > queue->batch[--place])
        return;
    for (; place > 0 && queue->batch[place - 1] > number; place--)
        queue->batch[place] = queue->batch[place - 1];
    queue->batch[place] = number;
}

static void note_entry(queue_t *queue, const char *name)
{
    uint64_t number = number_of(name);
    if (number == 0) {
        if (name[0] != '.' && strcmp(name, failed_name) != 0 && queue->foreign++ == 0)
            snprintf(queue->foreign_name, sizeof queue->foreign_name, "%s", name);
        return;
    }
    queue->waiting++;
    if (number > queue->last)
        queue->last = number;
    if (number > queue->current && number <= queue->until)
        put_in_batch(queue, number);
}

/* Counts what waits, and fills the batch with what comes after the current number. */
static queue_outcome_t look_around(queue_t *queue)
{
    int fd = openat(queue->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (entries == NULL) {
        fail(queue, QUEUE_FAILED, ": cannot be read: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return QUEUE_FAILED;
    }
    queue->waiting = queue->foreign = 0;
    queue->batched = queue->next = 0;
    queue->complete = true;
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(entries)) != NULL)
        note_entry(queue, entry->d_name);
    int error = errno;
    closedir(entries);
    return error == 0 ? QUEUE_OK : fail(queue, QUEUE_FAILED, ": cannot be read: %s", strerror(error));
}

/* --- Adding --- */

/* Gives the next number. The counter remembers it beyond the payload's removal; where that was lost in a
 * power cut, nothing waits that was not there when we look. So we look where others have given numbers since
 * we did, and where it is full. */
static queue_outcome_t give_number(queue_t *queue)
{
    uint64_t counted = 0;
    if (pread(queue->counter, &counted, sizeof counted, 0) != (ssize_t)sizeof counted ||
        counted > NUMBER_MAX / 2)
        counted = 0; /* damaged: nobody counts that far */
    if (queue->own == 0 || counted != queue->last || queue->waiting >= queue->maximum) {
        queue->last = counted;
        if (look_around(queue) != QUEUE_OK)
            return QUEUE_FAILED;
    }
    if (queue->waiting >= queue->maximum)
        return fail(queue, QUEUE_FULL, ": the queue is full: %llu payloads wait",
                    (unsigned long long)queue->waiting);
    if (queue->last >= NUMBER_MAX)
        return fail(queue, QUEUE_FAILED, ": the queue has no numbers left");
    uint64_t number = queue->last + 1;
    if (pwrite(queue->counter, &number, sizeof number, 0) != (ssize_t)sizeof number)
        return fail(queue, QUEUE_FAILED, "/%s: the payload is not queued: %s", counter_name, strerror(errno));
    queue->last = number;
    return QUEUE_OK;
}

static queue_outcome_t add_locked(queue_t *queue, const void *payload, size_t length)
{
    char name[NAME_SIZE];
    const char *reason = NULL;
    queue_outcome_t outcome = give_number(queue);
    if (outcome != QUEUE_OK)
        return outcome;
    format_name(queue->last, name);
    if (!file_put_synced(queue->directory, name, temporary_name, payload, length, &reason))
        return fail(queue, QUEUE_FAILED, ": the payload is not queued: %s", reason);
    queue->own = queue->last;
    if (queue->first_own == 0)
        queue->first_own = queue->own;
    queue->waiting++;
    return QUEUE_OK;
}

queue_outcome_t queue_add(queue_t *queue, const void *payload, size_t length, wait_limit_t limit)
{
    /* Many lines on a slow disk may take longer than there is time. */
    if (wait_now_ms() > limit.deadline_ms)
        return fail(queue, QUEUE_TIMEOUT, ": the payload is not queued: --timeout has passed");
    queue_outcome_t outcome =
        lock(queue, queue->counter, limit, "the payload is not queued: another run adds");
    if (outcome != QUEUE_OK)
        return outcome;
    outcome = add_locked(queue, payload, length);
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
    queue->until = queue->own != 0 ? queue->own : NUMBER_MAX;
    outcome = look_around(queue);
    if (queue->own == 0)
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

/* A run that had its turn before us may have found that what we added can never be sent. Told once. */
static bool finds_own_failed(queue_t *queue)
{
    char name[NAME_SIZE], moved[sizeof failed_name + NAME_SIZE];
    struct stat status;
    if (queue->own_looked_for)
        return false;
    queue->own_looked_for = true;
    for (uint64_t number = queue->first_own; number != 0 && number <= queue->own; number++) {
        format_name(number, name);
        snprintf(moved, sizeof moved, "%s/%s", failed_name, name);
        if (fstatat(queue->directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0 &&
            fstatat(queue->directory, moved, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            fail(queue, QUEUE_UNSENDABLE, "/%s: was moved there by another run, since it can never be sent",
                 moved);
            return true;
        }
    }
    return false;
}

static queue_outcome_t read_current(queue_t *queue, unsigned char payload[static PAYLOAD_MAX], size_t *length)
{
    char name[NAME_SIZE];
    const char *reason = NULL;
    file_content_t content;
    format_name(queue->current, name);
    switch (file_read_private(queue->directory, name, PAYLOAD_MAX, &content, &reason)) {
    case FILE_OK:
        memcpy(payload, content.bytes, content.length);
        *length = content.length;
        file_content_free(&content);
        return QUEUE_OK;
    case FILE_ABSENT: /* someone has removed it by hand */
        return QUEUE_END;
    case FILE_UNFIT:
        queue_set_aside(queue, reason);
        return QUEUE_UNSENDABLE;
    case FILE_DAMAGED: /* a card that fails for a moment must not cost the whole queue */
        return fail(queue, QUEUE_UNSENDABLE, "/%s: left in the queue: %s", name, reason);
    default:
        return fail(queue, QUEUE_FAILED, "/%s: %s", name, reason);
    }
}

queue_outcome_t queue_next(queue_t *queue, unsigned char payload[static PAYLOAD_MAX], size_t *length)
{
    if (finds_foreign(queue) || finds_own_failed(queue))
        return QUEUE_UNSENDABLE;
    while (queue_has_more(queue)) {
        if (queue->next == queue->batched && look_around(queue) != QUEUE_OK)
            return QUEUE_FAILED;
        if (queue->next == queue->batched)
            break;
        queue->current = queue->batch[queue->next++];
        queue_outcome_t outcome = read_current(queue, payload, length);
        if (outcome != QUEUE_END)
            return outcome;
    }
    return QUEUE_END;
}

bool queue_has_more(const queue_t *queue)
{
    return queue->next < queue->batched || !queue->complete;
}

bool queue_remove(queue_t *queue)
{
    char name[NAME_SIZE];
    format_name(queue->current, name);
    if (unlinkat(queue->directory, name, 0) == 0 || errno == ENOENT)
        return true;
    fail(queue, QUEUE_FAILED, "/%s: was sent, but cannot be removed and will be sent again: %s", name,
         strerror(errno));
    return false;
}

/* Moves it under its own name, or one made of it where an older one has that. False: errno says why. */
static bool move_to(queue_t *queue, int failed, const char *name)
{
    char free_name[NAME_SIZE + 12];
    struct stat status;
    snprintf(free_name, sizeof free_name, "%s", name);
    for (unsigned i = 1; fstatat(failed, free_name, &status, AT_SYMLINK_NOFOLLOW) == 0; i++)
        snprintf(free_name, sizeof free_name, "%s-%u", name, i);
    return renameat(queue->directory, name, failed, free_name) == 0;
}

void queue_set_aside(queue_t *queue, const char *reason)
{
    char name[NAME_SIZE];
    format_name(queue->current, name);
    mkdirat(queue->directory, failed_name, S_IRWXU);
    int failed = openat(queue->directory, failed_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (failed >= 0 && move_to(queue, failed, name))
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
