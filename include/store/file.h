/* Small files, whole and safely: read, taken, put, locked. */
#ifndef FILE_H
#define FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "system/wait.h"

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

typedef enum {
    FILE_OK,
    FILE_ABSENT,  /* there is none of that name */
    FILE_UNFIT,   /* it is not such a file, or not ours to read: that will not change by itself */
    FILE_DAMAGED, /* the disk failed on it; that may be the disk's state, and not the file's */
    FILE_FAILED   /* the system failed (no memory, no descriptor); a later try may do */
} file_outcome_t;

/* Reads the private file `name` in `directory`: regular, our own, mode 0600, and not by a symbolic link. It
 * may have other names, such as a backup's. Otherwise as file_read(). `*reason` is set unless FILE_OK. */
file_outcome_t file_read_private(int directory, const char *name, size_t maximum, file_content_t *content,
                                 const char **reason);

/* Where a file lies. */
typedef struct {
    uint64_t device, inode;
    bool in_memory; /* on tmpfs or ramfs: it cannot be carried away, and does not survive the boot */
} file_place_t;

/* Takes a private file: reads it, empties it and removes its name, so that of any number of processes one
 * alone gets the content, once, and no descriptor or name that somebody kept brings it back. Only a regular
 * file of our own with mode 0600 and a single name is taken, never by a symbolic link. `place` is where it
 * lay. False, with the reason in `*reason`: somebody else has it, it is not such a file, or it could not be
 * emptied or removed, and then its content must not be used. */
bool file_take(const char *path, size_t maximum, file_content_t *content, file_place_t *place,
               const char **reason);

/* A private file (0600) that is being made, under a temporary name beside the path where it will be. */
typedef struct {
    file_place_t place; /* where it will lie: what is written into it may depend on that */
    int fd;
    char name[PATH_MAX];
} file_draft_t;

/* Begins such a file; file_finish() must follow. A device or directory at `path` is left alone. False:
 * `*reason` says why and what to do, and nothing is left behind. */
bool file_begin(file_draft_t *draft, const char *path, const char **reason);

/* Writes the file and puts it in place at once: others see the old content or the new, never a part. A
 * symbolic link is replaced, and not followed. Not synced to the disk. False: `*reason` says why, and nothing
 * is left behind. */
bool file_finish(file_draft_t *draft, const char *path, const void *bytes, size_t length,
                 const char **reason);

/* Whether a file that is put at `path` lies in memory alone, on tmpfs or ramfs. False also where its
 * directory does not exist. */
bool file_is_in_memory(const char *path);

/* Puts the private file `name` into `directory`, by way of the name `temporary` there, which is the caller's
 * to use alone. True: the file and its name are on the disk. False: `*reason` says why, and nothing is left
 * behind. */
bool file_put_synced(int directory, const char *name, const char *temporary, const void *bytes, size_t length,
                     const char **reason);

/* Syncs what is written, or a directory's names, to the disk (fsync(2)). False: errno says why not. */
bool file_sync(int fd);

/* Locks `fd` (flock(2)) against all other processes, waiting for it until `limit`. WAIT_READY: it is ours
 * until it is closed or the process ends, however it ends. */
wait_outcome_t file_lock(int fd, wait_limit_t limit);

/* Whether both paths lead to one existing file; `other` may be NULL, which none is. */
bool file_is_same(const char *path, const char *other);

/* Wipes and frees: what was read may be a key. Harmless on a zeroed or freed content. */
void file_content_free(file_content_t *content);

#endif
