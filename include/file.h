/* Small files, whole and safely: read, taken, put. */
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

/* Takes a private file: reads it and removes its name, so that of any number of processes one alone gets it,
 * once. Only a regular file of our own with mode 0600 and a single name is taken, never by a symbolic link.
 * False, with the reason in `*reason`: somebody else has it, it is not such a file, or its name could not be
 * removed, and then its content must not be used. */
bool file_take(const char *path, size_t maximum, file_content_t *content, const char **reason);

/* Puts a private file (0600) in place at once: others see the old content or the new, never a part. A
 * symbolic link is replaced, and not followed; a device or directory is left alone. Not synced to the disk.
 * False:
 * `*reason` says why, and nothing is left behind. */
bool file_put(const char *path, const void *bytes, size_t length, const char **reason);

/* Wipes and frees: what was read may be a key. Harmless on a zeroed or freed content. */
void file_content_free(file_content_t *content);

#endif
