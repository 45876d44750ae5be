#include "command/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CONFIG_MAX = 65536, LINE_MAX_LENGTH = 4096 };

static const char file_name[] = "dtls-send.conf";
static const char blanks[] = " \t\r";

/* Whether there is such a file; one that cannot be read is there. */
static bool is_there(config_t *config, const char *directory, const char *subdirectory)
{
    struct stat status;
    int length = snprintf(config->path, sizeof config->path, "%s%s/%s", directory, subdirectory, file_name);
    return length > 0 && (size_t)length < sizeof config->path && stat(config->path, &status) == 0;
}

/* False: there is none. */
static bool find(config_t *config)
{
    const char *named = getenv("DTLS_SEND_CONFIG"), *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (named != NULL && *named != '\0') {
        snprintf(config->path, sizeof config->path, "%s", named);
        return true;
    }
    /* A relative one is to be ignored, as the XDG specification says. */
    bool has_base = base != NULL && *base == '/';
    if (has_base && is_there(config, base, ""))
        return true;
    if (!has_base && home != NULL && *home == '/' && is_there(config, home, "/.config"))
        return true;
    return is_there(config, "/etc", "");
}

bool config_open(config_t *config, const char *path, const char **reason)
{
    *config = (config_t){.line = 0};
    if (path != NULL) {
        snprintf(config->path, sizeof config->path, "%s", path);
    } else if (!find(config)) {
        config->path[0] = '\0';
        return true;
    }
    return file_read(config->path, CONFIG_MAX, &config->content, reason);
}

/* Cuts the white space at both ends off. */
static char *trim(char *text)
{
    text += strspn(text, blanks);
    size_t length = strlen(text);
    while (length > 0 && strchr(blanks, text[length - 1]) != NULL)
        length--;
    text[length] = '\0';
    return text;
}

static bool is_text(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (((unsigned char)line[i] < ' ' && strchr(blanks, line[i]) == NULL) || line[i] == '\0' ||
            line[i] == 0x7f)
            return false;
    }
    return true;
}

/* Whether a comment stands behind the line; a # inside a word is none. */
static bool is_commented(const char *line)
{
    for (const char *sign = strchr(line, '#'); sign != NULL; sign = strchr(sign + 1, '#')) {
        if (sign > line && strchr(blanks, sign[-1]) != NULL)
            return true;
    }
    return false;
}

/* Cuts a line into its name and its value, NULL: there is none. */
static void split(char *line, const char **name, const char **value)
{
    char *end = line + strcspn(line, " \t\r=");
    char *next = end + strspn(end, blanks);
    bool equals = *next == '=';
    *name = line;
    *value = equals ? trim(next + 1) : next;
    if (!equals && *next == '\0')
        *value = NULL;
    *end = '\0';
}

config_outcome_t config_next(config_t *config, const char **name, const char **value)
{
    while (config->position < config->content.length) {
        char *line = (char *)config->content.bytes + config->position;
        size_t left = config->content.length - config->position;
        const char *newline = memchr(line, '\n', left);
        size_t length = newline != NULL ? (size_t)(newline - line) : left;
        config->line++;
        config->position += length + 1;
        bool text = is_text(line, length);
        *name = text ? "line too long" : "not a line of text";
        if (!text || length > LINE_MAX_LENGTH)
            return CONFIG_BAD;
        line[length] = '\0'; /* the newline's place, or that of the NUL behind the content */
        line = trim(line);
        if (*line == '\0' || *line == '#')
            continue;
        if (is_commented(line)) {
            *name = "a comment stands on a line of its own, not behind a value";
            return CONFIG_BAD;
        }
        split(line, name, value);
        return CONFIG_LINE;
    }
    return CONFIG_END;
}

void config_close(config_t *config)
{
    file_content_free(&config->content);
    config->position = 0;
}
