/* A directory of a test program's own, and what goes in it. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <ftw.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The directory; empty: none was made. */
static char scratch_directory[200];

/* Makes the directory; a cmocka group's setup. */
static inline int scratch_make(void **state)
{
    (void)state;
    const char *parent = getenv("TMPDIR");
    int length = snprintf(scratch_directory, sizeof scratch_directory, "%s/dtls-send.XXXXXX",
                          parent != NULL && *parent != '\0' ? parent : "/tmp");
    if (length < 0 || (size_t)length >= sizeof scratch_directory || mkdtemp(scratch_directory) == NULL) {
        scratch_directory[0] = '\0';
        return -1;
    }
    return 0;
}

static inline int scratch_unlink(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Removes the directory with all that is in it; a cmocka group's teardown. */
static inline int scratch_remove(void **state)
{
    (void)state;
    return scratch_directory[0] == '\0' ? 0
                                        : nftw(scratch_directory, scratch_unlink, 8, FTW_DEPTH | FTW_PHYS);
}

/* The path of `name` in the directory, for good: the same for the same name. */
static inline const char *scratch_path(const char *name)
{
    static char paths[64][300];
    char path[sizeof paths[0]];
    snprintf(path, sizeof path, "%s/%s", scratch_directory, name);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (paths[i][0] == '\0')
            memcpy(paths[i], path, sizeof path);
        if (strcmp(paths[i], path) == 0)
            return paths[i];
    }
    abort();
}

/* Writes a file and returns its path. Aborts where that fails. */
static inline const char *scratch_write(const char *name, const void *bytes, size_t length)
{
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "we");
    if (file == NULL || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        abort();
    return path;
}

#endif
