#include "boxes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/file.h"

enum { MESSAGE_MAX = 16384 }; /* bytes in one record */

static const char pending_suffix[] = ".pending", sent_suffix[] = ".sent", refused_suffix[] = ".refused";
static const char temporary_name[] = ".incoming"; /* one server a state directory, one write at a time */

static bool make_directory(const char *path)
{
    return mkdir(path, 0777) == 0 || errno == EEXIST;
}

static bool make_path(char path[static PATH_MAX], const char *state_dir, const char *box, const char *device)
{
    int length = snprintf(path, PATH_MAX, "%s/%s%s%s", state_dir, box, *device != '\0' ? "/" : "", device);
    if (length < PATH_MAX)
        return true;
    errno = ENAMETOOLONG;
    return false;
}

bool boxes_open(const char *state_dir)
{
    char inbox[PATH_MAX], outbox[PATH_MAX];
    return make_path(inbox, state_dir, "inbox", "") && make_path(outbox, state_dir, "outbox", "") &&
           make_directory(state_dir) && make_directory(inbox) && make_directory(outbox);
}

/* --- Inboxes --- */

/* The highest number in use; 0: none. */
static unsigned long last_number(int directory)
{
    unsigned long last = 0;
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (entries == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        char *end;
        unsigned long number = strtoul(entry->d_name, &end, 10);
        if (*end == '\0' && number > last)
            last = number;
    }
    closedir(entries);
    return last;
}

static bool write_all(int fd, const unsigned char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

static bool write_temporary(int directory, const void *bytes, size_t length)
{
    int fd = openat(directory, temporary_name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0)
        return false;
    bool written = write_all(fd, bytes, length);
    return close(fd) == 0 && written;
}

/* Another association of the same device may have taken the number. */
static bool name_it(int directory, unsigned long *last)
{
    if (*last == 0)
        *last = last_number(directory);
    do {
        char name[32];
        snprintf(name, sizeof name, "%06lu", ++*last);
        if (renameat2(directory, temporary_name, directory, name, RENAME_NOREPLACE) == 0)
            return true;
    } while (errno == EEXIST);
    return false;
}

bool boxes_store(const char *state_dir, const char *device, unsigned long *last, const void *bytes,
                 size_t length)
{
    char path[PATH_MAX];
    if (!make_path(path, state_dir, "inbox", device) || !make_directory(path))
        return false;
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return false;
    bool stored = write_temporary(directory, bytes, length) && name_it(directory, last);
    close(directory);
    return stored;
}

/* --- Outboxes --- */

static int is_pending(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name), suffix = strlen(pending_suffix);
    return entry->d_name[0] != '.' && length > suffix &&
           strcmp(entry->d_name + length - suffix, pending_suffix) == 0;
}

/* In no locale's order. */
static int by_name(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

static void rename_message(const char *stem, const char *old_suffix, const char *new_suffix)
{
    char old_path[PATH_MAX + 16], new_path[PATH_MAX + 16];
    snprintf(old_path, sizeof old_path, "%s%s", stem, old_suffix);
    snprintf(new_path, sizeof new_path, "%s%s", stem, new_suffix);
    if (rename(old_path, new_path) != 0)
        fprintf(stderr, "inboxd: %s: %s\n", old_path, strerror(errno));
}

/* Sends one message. It is renamed before, so that whoever sees it arrive finds the outbox up to date. */
static void deliver(char path[static PATH_MAX], boxes_send_t *send, void *context)
{
    file_content_t message;
    const char *reason;
    bool readable = file_read(path, MESSAGE_MAX, &message, &reason);
    if (!readable)
        fprintf(stderr, "inboxd: %s: %s\n", path, reason);

    path[strlen(path) - strlen(pending_suffix)] = '\0';
    rename_message(path, pending_suffix, readable ? sent_suffix : refused_suffix);
    if (readable && !send(context, message.bytes, message.length))
        rename_message(path, sent_suffix, refused_suffix);
    file_content_free(&message);
}

size_t boxes_deliver(const char *state_dir, const char *device, size_t most, boxes_send_t *send,
                     void *context)
{
    char directory[PATH_MAX];
    struct dirent **messages;
    size_t delivered = 0;
    if (!make_path(directory, state_dir, "outbox", device))
        return 0;
    int count = scandir(directory, &messages, is_pending, by_name);
    if (count < 0)
        return 0;
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        if (delivered < most && make_path(path, directory, messages[i]->d_name, "")) {
            deliver(path, send, context);
            delivered++;
        }
        free(messages[i]);
    }
    free(messages);
    return delivered;
}
