#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static log_level_t current_level = LOG_ERROR;

void log_set_level(log_level_t level)
{
    current_level = level;
}

log_level_t log_level(void)
{
    return current_level;
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
