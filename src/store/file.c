#include "store/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <mbedtls/platform_util.h>

/* Grows by copying and wiping, never by realloc(3), which would leave a copy of a key behind. */
static bool grow(file_content_t *content, size_t *capacity)
{
    size_t larger = *capacity == 0 ? 4096 : *capacity * 4;
    unsigned char *bytes = malloc(larger);
    if (bytes == NULL)
        return false;
    if (content->bytes != NULL) {
        memcpy(bytes, content->bytes, content->length);
        mbedtls_platform_zeroize(content->bytes, *capacity);
        free(content->bytes);
    }
    content->bytes = bytes;
    *capacity = larger;
    return true;
}

/* NULL, or why not. */
static const char *read_all(int fd, size_t maximum, file_content_t *content)
{
    static char too_large[64];
    size_t capacity = 0;
    for (;;) {
        if (content->length + 1 >= capacity && !grow(content, &capacity))
            return "out of memory";
        ssize_t got = read(fd, content->bytes + content->length, capacity - 1 - content->length);
        if (got < 0)
            return strerror(errno);
        content->length += (size_t)got;
        if (content->length > maximum) {
            snprintf(too_large, sizeof too_large, "larger than %zu bytes", maximum);
            return too_large;
        }
        if (got == 0)
            break;
    }
    content->bytes[content->length] = '\0';
    return NULL;
}

bool file_read(const char *path, size_t maximum, file_content_t *content, const char **reason)
{
    *content = (file_content_t){0};
    *reason = NULL;
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) != 0)
        *reason = strerror(errno);
    else if (S_ISDIR(status.st_mode))
        *reason = "is a directory";
    else
        *reason = read_all(fd, maximum, content);
    if (fd >= 0)
        close(fd);
    if (*reason == NULL)
        return true;
    file_content_free(content);
    return false;
}

/* NULL: it is ours alone. Fills in `status`. */
static const char *why_not_private(int fd, struct stat *status)
{
    if (fstat(fd, status) != 0)
        return strerror(errno);
    if (!S_ISREG(status->st_mode))
        return "is not a regular file";
    if (status->st_uid != geteuid())
        return "belongs to another user";
    if ((status->st_mode & 07777) != (S_IRUSR | S_IWUSR))
        return "has another mode than 0600";
    return NULL;
}

static bool is_memory(const struct statfs *system)
{
    uint32_t type = (uint32_t)system->f_type; /* signed on some machines */
    return type == TMPFS_MAGIC || type == RAMFS_MAGIC;
}

/* False: errno says why it is not known. */
static bool locate(int fd, const struct stat *status, file_place_t *place)
{
    struct statfs system;
    if (fstatfs(fd, &system) != 0)
        return false;
    *place = (file_place_t){status->st_dev, status->st_ino, is_memory(&system)};
    return true;
}

bool file_is_in_memory(const char *path)
{
    char directory[PATH_MAX];
    struct statfs system;
    const char *slash = strrchr(path, '/');
    int length = slash == NULL ? snprintf(directory, sizeof directory, ".")
                               : snprintf(directory, sizeof directory, "%.*s", (int)(slash - path) + 1, path);
    return length > 0 && length < PATH_MAX && statfs(directory, &system) == 0 && is_memory(&system);
}

/* What it means that a file could not be opened or read. */
static file_outcome_t explain(int error)
{
    switch (error) {
    case ENOENT:
        return FILE_ABSENT;
    case EACCES:
    case EPERM:
    case ELOOP:
    case ENXIO:
        return FILE_UNFIT;
    case EIO:
        return FILE_DAMAGED;
    default:
        return FILE_FAILED;
    }
}

file_outcome_t file_read_private(int directory, const char *name, size_t maximum, file_content_t *content,
                                 const char **reason)
{
    *content = (file_content_t){0};
    /* Non-blocking: it might be a FIFO. */
    struct stat status;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        *reason = strerror(errno);
        return explain(errno);
    }
    file_outcome_t outcome = FILE_OK;
    errno = EPERM; /* where the reason is our own, it is the file's fault */
    if ((*reason = why_not_private(fd, &status)) != NULL ||
        (*reason = read_all(fd, maximum, content)) != NULL)
        outcome = explain(errno);
    close(fd);
    if (outcome != FILE_OK)
        file_content_free(content);
    return outcome;
}

/* Reads the locked file and empties it. NULL, or why not. */
static const char *take_content(int fd, size_t maximum, file_content_t *content, file_place_t *place)
{
    struct stat status;
    const char *reason = why_not_private(fd, &status);
    if (reason != NULL)
        return reason;
    if (status.st_nlink != 1)
        return status.st_nlink == 0 ? "was taken by another process" : "has several names";
    if (!locate(fd, &status, place))
        return strerror(errno);
    reason = read_all(fd, maximum, content);
    if (reason != NULL)
        return reason;
    return ftruncate(fd, 0) == 0 ? NULL : strerror(errno);
}

bool file_take(const char *path, size_t maximum, file_content_t *content, file_place_t *place,
               const char **reason)
{
    *content = (file_content_t){0};
    *reason = NULL;
    /* Non-blocking: it might be a FIFO. */
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        *reason = strerror(errno);
        return false;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        *reason = "is being taken by another process";
    else if ((*reason = take_content(fd, maximum, content, place)) == NULL && unlink(path) != 0)
        *reason = strerror(errno);
    close(fd); /* and with it the lock: whoever comes next finds a file without a name */
    if (*reason != NULL)
        file_content_free(content);
    return *reason == NULL;
}

/* The directory's part of `path`, then ".NAME.PID" in place of NAME. */
static bool temporary_name(const char *path, char name[static PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int directory = slash != NULL ? (int)(slash - path) + 1 : 0;
    return snprintf(name, PATH_MAX, "%.*s.%s.%ld", directory, path, path + directory, (long)getpid()) <
           PATH_MAX;
}

/* NULL, or why not. */
static const char *write_all(int fd, const unsigned char *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t written = write(fd, bytes + done, length - done);
        if (written < 0 && errno != EINTR)
            return strerror(errno);
        done += written > 0 ? (size_t)written : 0;
    }
    return NULL;
}

bool file_sync(int fd)
{
    int status;
    do
        status = fsync(fd);
    while (status != 0 && errno == EINTR);
    return status == 0;
}

static int create_private(int directory, const char *name)
{
    return openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
}

/* Writes a new private file, syncs it where that is asked for, and closes it. NULL, or why not. */
static const char *complete(int fd, const void *bytes, size_t length, bool synced)
{
    const char *reason = write_all(fd, bytes, length);
    if (reason == NULL && fchmod(fd, S_IRUSR | S_IWUSR) != 0) /* whatever the umask was */
        reason = strerror(errno);
    if (reason == NULL && synced && !file_sync(fd))
        reason = strerror(errno);
    /* On Linux it is closed all the same where a signal came. */
    if (close(fd) != 0 && errno != EINTR && reason == NULL)
        reason = strerror(errno);
    return reason;
}

bool file_begin(file_draft_t *draft, const char *path, const char **reason)
{
    struct stat status;
    *reason = NULL;
    if (!temporary_name(path, draft->name)) {
        *reason = strerror(ENAMETOOLONG);
        return false;
    }
    /* A rename would replace a device by our file, root's /dev/null for one. A symbolic link may go. */
    if (lstat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
        *reason = "is not a regular file";
        return false;
    }
    unlink(draft->name); /* of a process that had our number and died */
    draft->fd = create_private(AT_FDCWD, draft->name);
    if (draft->fd < 0) {
        *reason = errno == ENOENT ? "No such file or directory; make its directory first" : strerror(errno);
        return false;
    }
    if (fstat(draft->fd, &status) == 0 && locate(draft->fd, &status, &draft->place))
        return true;
    *reason = strerror(errno);
    close(draft->fd);
    unlink(draft->name);
    return false;
}

bool file_finish(file_draft_t *draft, const char *path, const void *bytes, size_t length, const char **reason)
{
    *reason = complete(draft->fd, bytes, length, false);
    if (*reason == NULL && rename(draft->name, path) != 0)
        *reason = strerror(errno);
    if (*reason != NULL)
        unlink(draft->name);
    return *reason == NULL;
}

bool file_put_synced(int directory, const char *name, const char *temporary, const void *bytes, size_t length,
                     const char **reason)
{
    unlinkat(directory, temporary, 0); /* of a process that died */
    int fd = create_private(directory, temporary);
    *reason = fd >= 0 ? complete(fd, bytes, length, true) : strerror(errno);
    if (*reason == NULL && renameat(directory, temporary, directory, name) != 0)
        *reason = strerror(errno);
    if (*reason == NULL && !file_sync(directory)) {
        *reason = strerror(errno);
        unlinkat(directory, name, 0);
    }
    if (*reason != NULL)
        unlinkat(directory, temporary, 0);
    return *reason == NULL;
}

/* flock(2) itself can wait, but not until a deadline. */
wait_outcome_t file_lock(int fd, wait_limit_t limit)
{
    enum { FIRST_PAUSE_MS = 1, LAST_PAUSE_MS = 20 };
    for (int64_t pause_ms = FIRST_PAUSE_MS;; pause_ms = pause_ms < LAST_PAUSE_MS ? 2 * pause_ms : pause_ms) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return WAIT_READY;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return WAIT_FAILED;
        wait_outcome_t outcome = wait_for(-1, 0, wait_at_most(limit, pause_ms));
        if (outcome != WAIT_TIMEOUT || wait_now_ms() >= limit.deadline_ms)
            return outcome;
    }
}

bool file_is_same(const char *path, const char *other)
{
    struct stat status, other_status;
    return other != NULL && stat(path, &status) == 0 && stat(other, &other_status) == 0 &&
           status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino;
}

void file_content_free(file_content_t *content)
{
    if (content->bytes != NULL)
        mbedtls_platform_zeroize(content->bytes, content->length);
    free(content->bytes);
    *content = (file_content_t){0};
}
