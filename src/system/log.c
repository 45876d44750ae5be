#include "system/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "system/wait.h"

/* Work that is done sooner needs no word, and no eye follows more. */
enum { PROGRESS_FIRST_MS = 500, PROGRESS_EVERY_MS = 200 };

static log_level_t current_level = LOG_ERROR;
static int progress_width;       /* of the line that stands there; 0: none does */
static int64_t progress_next_ms; /* when it is to be written again; 0: never was asked for */

void log_set_level(log_level_t level)
{
    current_level = level;
}

log_level_t log_level(void)
{
    return current_level;
}

static void print_progress(uint64_t done, uint64_t total)
{
    char line[80], of[24] = "";
    if (total > 0)
        snprintf(of, sizeof of, "/%llu", (unsigned long long)total);
    /* A carriage return alone: every terminal knows it. */
    int width = snprintf(line, sizeof line, "\rdtls-send: %llu%s sent", (unsigned long long)done, of);
    if (write(STDERR_FILENO, line, (size_t)width) == width)
        progress_width = width - 1;
}

void log_progress(uint64_t done, uint64_t total)
{
    int64_t now_ms = wait_now_ms();
    if (progress_next_ms == 0)
        progress_next_ms = now_ms + PROGRESS_FIRST_MS;
    if (now_ms < progress_next_ms || current_level != LOG_ERROR || !isatty(STDERR_FILENO))
        return;
    progress_next_ms = now_ms + PROGRESS_EVERY_MS;
    print_progress(done, total);
}

void log_clear_progress(void)
{
    char blanks[96];
    if (progress_width == 0)
        return;
    int length = snprintf(blanks, sizeof blanks, "\r%*s\r", progress_width, "");
    progress_width = 0;
    if (write(STDERR_FILENO, blanks, (size_t)length) < 0)
        return;
}

/* One write a line keeps lines of concurrent runs whole in a shared log. */
static void write_line(const char *message)
{
    char line[1200] = "dtls-send: ";
    size_t used = sizeof "dtls-send: " - 1;
    for (const char *c = message; *c != '\0' && used < sizeof line - 5; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            used += (size_t)snprintf(line + used, 5, "\\x%02x", (unsigned)(unsigned char)*c);
        else
            line[used++] = *c;
    }
    line[used++] = '\n';
    log_clear_progress();
    /* There is no one left to tell where stderr itself fails. */
    if (write(STDERR_FILENO, line, used) < 0)
        return;
}

void log_print(log_level_t level, const char *format, ...)
{
    if (level > current_level)
        return;
    int kept_errno = errno;
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    write_line(message);
    errno = kept_errno;
}
