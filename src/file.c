#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

void file_content_free(file_content_t *content)
{
    if (content->bytes != NULL)
        mbedtls_platform_zeroize(content->bytes, content->length);
    free(content->bytes);
    *content = (file_content_t){0};
}
