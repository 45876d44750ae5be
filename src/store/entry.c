#include "store/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/file.h"

static const char temporary_name[] = ".mark";

void entry_format(const entry_t *entry, char name[static ENTRY_NAME_SIZE])
{
    int used =
        snprintf(name, ENTRY_NAME_SIZE, "%0*llu%s", ENTRY_DIGITS,
                 (unsigned long long)(entry->number % (ENTRY_NUMBER_MAX + 1)), entry->confirm ? "c" : "");
    if (entry->tries != ENTRY_UNMARKED)
        snprintf(name + used, ENTRY_NAME_SIZE - (size_t)used, "-%u",
                 (unsigned)entry->tries % (ENTRY_TRIES_MAX + 1));
}

static bool is_digit(char character)
{
    return character >= '0' && character <= '9';
}

bool entry_parse(const char *name, entry_t *entry)
{
    char strict[ENTRY_NAME_SIZE];
    const char *rest = name;
    *entry = (entry_t){.tries = ENTRY_UNMARKED};
    for (; rest < name + ENTRY_DIGITS && is_digit(*rest); rest++)
        entry->number = entry->number * 10 + (uint64_t)(*rest - '0');
    if (*rest == 'c') {
        entry->confirm = true;
        rest++;
    }
    if (*rest == '-')
        for (entry->tries = 0, rest++; is_digit(*rest) && entry->tries < 10; rest++)
            entry->tries = entry->tries * 10 + (*rest - '0');
    /* What the name has too much, or too little, is missing from this one, or too much in it. */
    entry_format(entry, strict);
    return entry->number != 0 && strcmp(name, strict) == 0;
}

bool entry_needs_copy(int directory)
{
    struct statfs status;
    return fstatfs(directory, &status) == 0 &&
           (status.f_type == MSDOS_SUPER_MAGIC || status.f_type == EXFAT_SUPER_MAGIC ||
            status.f_type == FUSE_SUPER_MAGIC);
}

/* NULL, or why not. */
static const char *replace_by_copy(int directory, const char *name, const char *marked)
{
    const char *reason = NULL;
    file_content_t content;
    if (file_read_private(directory, name, ENTRY_PAYLOAD_MAX, &content, &reason) != FILE_OK)
        return reason;
    if (file_put_synced(directory, marked, temporary_name, content.bytes, content.length, &reason) &&
        unlinkat(directory, name, 0) != 0)
        reason = strerror(errno);
    file_content_free(&content);
    return reason;
}

bool entry_mark(int directory, entry_t *entry, int tries, bool by_copy, const char **reason)
{
    char name[ENTRY_NAME_SIZE], marked[ENTRY_NAME_SIZE];
    struct stat status;
    entry_t with_mark = {entry->number, entry->confirm, tries};
    entry_format(entry, name);
    entry_format(&with_mark, marked);
    *reason = NULL;
    if (fstatat(directory, marked, &status, AT_SYMLINK_NOFOLLOW) == 0)
        *reason = strerror(EEXIST); /* a rename would replace another payload */
    else if (by_copy)
        *reason = replace_by_copy(directory, name, marked);
    else if (renameat(directory, name, directory, marked) != 0)
        *reason = strerror(errno);
    if (*reason == NULL)
        *entry = with_mark;
    return *reason == NULL;
}

bool entry_move(int directory, const entry_t *entry, int failed)
{
    char name[ENTRY_NAME_SIZE], free_name[ENTRY_NAME_SIZE + 12];
    struct stat status;
    entry_format(entry, name);
    snprintf(free_name, sizeof free_name, "%s", name);
    for (unsigned i = 1; fstatat(failed, free_name, &status, AT_SYMLINK_NOFOLLOW) == 0; i++)
        snprintf(free_name, sizeof free_name, "%s.%u", name, i); /* -N would be a mark */
    return renameat(directory, name, failed, free_name) == 0;
}
