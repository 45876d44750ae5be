/* Reading small files whole, safely. */
#ifndef FILE_H
#define FILE_H

#include <stdbool.h>
#include <stddef.h>

/* A file's content. One NUL, not counted in `length`, follows the last byte, as mbed TLS's PEM parsers want
 * it. */
typedef struct {
    unsigned char *bytes; /* owned; NULL: nothing is held */
    size_t length;
} file_content_t;

/* Reads the whole of the regular file (or pipe) `path`, at most `maximum` bytes, into `content`, which
 * file_content_free() must release. False where that fails, with the reason ("No such file or directory",
 * "is a directory", "larger than 1048576 bytes") in `*reason`, a string that is valid until the next call. */
bool file_read(const char *path, size_t maximum, file_content_t *content, const char **reason);

/* Wipes and frees: what was read may be a key. Harmless on a zeroed or freed content. */
void file_content_free(file_content_t *content);

#endif
