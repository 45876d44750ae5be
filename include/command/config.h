/* The configuration file: one long option a line. Where it is, and its lines; what they mean is not known
 * here. */
#ifndef CONFIG_H
#define CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "store/file.h"

typedef struct {
    char path[PATH_MAX];    /* "": there is none */
    size_t line;            /* number of the line that config_next() gave, from 1 */
    file_content_t content; /* what the lines point into */
    size_t position;
} config_t;

typedef enum {
    CONFIG_LINE,
    CONFIG_END,
    CONFIG_BAD /* the line cannot be read; `*name` says why */
} config_outcome_t;

/* Reads the file `path`; where that is NULL, the first that exists of $DTLS_SEND_CONFIG (which must, if set),
 * $XDG_CONFIG_HOME/dtls-send.conf or ~/.config/dtls-send.conf, and /etc/dtls-send.conf. That there is none is
 * no failure. False: config->path cannot be read, and `*reason` says why. */
bool config_open(config_t *config, const char *path, const char **reason);

/* The next line that says something: a name, and the value after blanks or an equals sign. Both belong to the
 * config, without white space around them; the value is NULL where there is none, and "" where there is none
 * behind an equals sign. Passes over blank lines and those that begin with #; a # behind blanks elsewhere is
 * the mistake of a comment in the wrong place. */
config_outcome_t config_next(config_t *config, const char **name, const char **value);

/* Frees what was read, with all names and values; harmless when repeated. */
void config_close(config_t *config);

#endif
