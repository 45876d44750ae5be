/* The one table of options: flags, configuration file, --help and completion all come from it, or are held to
 * it. Internal to options.h. */
#ifndef OPTION_TABLE_H
#define OPTION_TABLE_H

#include "command/options.h"

/* Options of one group exclude each other, but those of the same side. */
typedef enum {
    GROUP_NONE,
    GROUP_SOURCE, /* where the payload comes from, or that there is none */
    GROUP_FAMILY,
    GROUP_CREDENTIALS,
    GROUP_VERBOSITY,
    GROUPS
} option_group_t;

/* Takes a value, or says why not in a static string. */
typedef const char *option_setter_t(options_t *options, const char *value);

typedef struct {
    const char *name;     /* NULL: the row starts a section of --help, titled `help` */
    int letter;           /* 0: none */
    const char *argument; /* NULL: the option takes none */
    const char *help;     /* lines after the first are indented by the printer */
    option_setter_t *set; /* NULL: --help and --version, which end the parsing */
    option_group_t group;
    const char *side; /* within the group; NULL: one of its own */
} option_t;

typedef struct {
    int status;
    const char *meaning;
} status_t;

enum { OPTION_ROWS = 37, STATUS_ROWS = 14 };

extern const option_t option_table[OPTION_ROWS];

/* The exit statuses are an interface: scripts depend on them. */
extern const status_t status_table[STATUS_ROWS];

#endif
