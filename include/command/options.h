/* What a run is asked to do: read from the command line and the configuration file. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stddef.h>
#include <stdio.h>

#include "command/option_table.h"

typedef enum {
    OPTIONS_RUN,       /* `options` is complete */
    OPTIONS_HELP,      /* --help was asked for */
    OPTIONS_VERSION,   /* --version was asked for */
    OPTIONS_BAD,       /* `error` says in one line what is wrong, and with which option */
    OPTIONS_BAD_CONFIG /* the same, with which file and line: the configuration file is at fault */
} options_outcome_t;

/* Fills `options` from the command line, then, where that is silent, from the configuration file (config.h),
 * then from defaults. argv may be reordered (getopt_long). `error`, of `size` bytes, is written only for
 * OPTIONS_BAD and OPTIONS_BAD_CONFIG and never quotes a payload. options_free() must follow. */
options_outcome_t options_parse(int argc, char **argv, options_t *options, char *error, size_t size);

/* Frees what the strings point into; harmless when repeated. */
void options_free(options_t *options);

/* Writes --help. */
void options_print_help(FILE *stream);

#endif
