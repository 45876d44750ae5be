#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
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

/* NULL: it is ours alone, and still there. A second name would let the content be taken again. */
static const char *why_not_private(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return strerror(errno);
    if (!S_ISREG(status.st_mode))
        return "is not a regular file";
    if (status.st_uid != geteuid())
        return "belongs to another user";
    if ((status.st_mode & 07777) != (S_IRUSR | S_IWUSR))
        return "has another mode than 0600";
    if (status.st_nlink != 1)
        return status.st_nlink == 0 ? "was taken by another process" : "has several names";
    return NULL;
}

bool file_take(const char *path, size_t maximum, file_content_t *content, const char **reason)
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
    else if ((*reason = why_not_private(fd)) == NULL && (*reason = read_all(fd, maximum, content)) == NULL &&
             unlink(path) != 0)
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

bool file_put(const char *path, const void *bytes, size_t length, const char **reason)
{
    char name[PATH_MAX];
    struct stat status;
    *reason = NULL;
    if (!temporary_name(path, name)) {
        *reason = strerror(ENAMETOOLONG);
        return false;
    }
    /* A rename would put our file in the place of a device, root's /dev/null for one. A symbolic link may go.
     */
    if (lstat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
        *reason = "is not a regular file";
        return false;
    }
    unlink(name); /* of a process that had our number and died */
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (fd < 0) {
        *reason = strerror(errno);
        return false;
    }
    ssize_t written = write(fd, bytes, length);
    if (written != (ssize_t)length)
        *reason = written < 0 ? strerror(errno) : strerror(ENOSPC);
    if (fchmod(fd, S_IRUSR | S_IWUSR) != 0 && *reason == NULL) /* whatever the umask was */
        *reason = strerror(errno);
    if (close(fd) != 0 && *reason == NULL)
        *reason = strerror(errno);
    if (*reason == NULL && rename(name, path) != 0)
        *reason = strerror(errno);
    if (*reason != NULL)
        unlink(name);
    return *reason == NULL;
}

void file_content_free(file_content_t *content)
{
    if (content->bytes != NULL)
        mbedtls_platform_zeroize(content->bytes, content->length);
    free(content->bytes);
    *content = (file_content_t){0};
}
