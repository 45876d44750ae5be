#include "command/options.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "command/option_table.h"
#include "credentials/embedded.h"

enum { LONG_ONLY = 256 };

/* What one place, the command line or the configuration file, has set. */
typedef struct {
    bool seen[OPTION_ROWS];
    const option_t *taken[GROUPS];
} origin_t;

/* What is known while options are read. */
typedef struct {
    options_t *options;
    origin_t flags, file;
    bool in_file; /* what is being read */
    char *error;
    size_t error_size;
} parse_t;

/* PAYLOAD, which stands for itself. */
static const option_t positional = {.name = "PAYLOAD", .group = GROUP_SOURCE};

static options_t defaults(void)
{
    return (options_t){.host = "data.lab5e.com",
                       .port = "1234",
                       .family = AF_UNSPEC,
                       .cert_file = embedded_is_present() ? NULL : "cert.crt",
                       .key_file = embedded_is_present() ? NULL : "key.pem",
                       .queue_limit = 10000,
                       .wait_ms = 1000,
                       .format = OUTPUT_TEXT,
                       .timeout_ms = 60000,
                       .renew_days = 3,
                       .mtu = 1232};
}

static options_outcome_t bad(parse_t *parse, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Notes what is wrong, in the file behind its name and line. */
static options_outcome_t bad(parse_t *parse, const char *format, ...)
{
    const config_t *config = &parse->options->config;
    int used = 0;
    if (parse->in_file)
        used = snprintf(parse->error, parse->error_size, config->line > 0 ? "%s:%zu: " : "%s: ", config->path,
                        config->line);
    va_list arguments;
    va_start(arguments, format);
    if ((size_t)used < parse->error_size)
        vsnprintf(parse->error + used, parse->error_size - (size_t)used, format, arguments);
    va_end(arguments);
    return parse->in_file ? OPTIONS_BAD_CONFIG : OPTIONS_BAD;
}

/* What goes before an option's name, in messages. */
static const char *dashes(const parse_t *parse, const option_t *row)
{
    return parse->in_file || row == &positional ? "" : "--";
}

/* Two options that exclude each other are a mistake where both stand in one place. */
static options_outcome_t claim_group(parse_t *parse, const option_t *row)
{
    const option_t **taken = &(parse->in_file ? &parse->file : &parse->flags)->taken[row->group];
    const option_t *before = *taken;
    *taken = row;
    if (row->group == GROUP_NONE || before == NULL || before == row ||
        (before->side != NULL && row->side != NULL))
        return OPTIONS_RUN;
    return bad(parse, "%s%s and %s%s: %s", dashes(parse, before), before->name, dashes(parse, row), row->name,
               row->group == GROUP_SOURCE ? "only one payload source can be given"
                                          : "they exclude each other");
}

static options_outcome_t take_option(parse_t *parse, const option_t *row, const char *value)
{
    bool *seen = &(parse->in_file ? &parse->file : &parse->flags)->seen[row - option_table];
    if (*seen && row->letter != 'v')
        return bad(parse, "%s%s: given twice", dashes(parse, row), row->name);
    *seen = true;
    options_outcome_t outcome = claim_group(parse, row);
    if (outcome != OPTIONS_RUN)
        return outcome;
    const char *problem = row->set(parse->options, value);
    if (problem == NULL)
        return OPTIONS_RUN;
    if (parse->in_file) /* the value may be a secret in the wrong line, and its line is named */
        return bad(parse, "%s: %s", row->name, problem);
    return bad(parse, "--%s '%s': %s", row->name, value, problem);
}

/* --- The command line --- */

/* getopt_long's two notations of the table. */
static void describe_to_getopt(struct option longs[static OPTION_ROWS + 1],
                               char shorts[static 3 * OPTION_ROWS + 2])
{
    char *next = shorts;
    *next++ = ':'; /* report a missing value apart from an unknown option, and print nothing */
    for (int i = 0; i < OPTION_ROWS; i++) {
        const option_t *row = &option_table[i];
        if (row->name == NULL)
            continue;
        *longs++ = (struct option){row->name, row->argument != NULL ? required_argument : no_argument, NULL,
                                   LONG_ONLY + i};
        if (row->letter != 0)
            *next++ = (char)row->letter;
        if (row->letter != 0 && row->argument != NULL)
            *next++ = ':';
    }
    *longs = (struct option){0};
    *next = '\0';
}

/* The row that getopt_long's return value, or optopt, stands for; -1: none. */
static int find_row(int code)
{
    if (code >= LONG_ONLY)
        return code - LONG_ONLY;
    for (int i = 0; i < OPTION_ROWS; i++) {
        if (code != 0 && option_table[i].letter == code)
            return i;
    }
    return -1;
}

static options_outcome_t explain_unknown(parse_t *parse, int code, const char *argument)
{
    int row = find_row(optopt);
    if (code == ':')
        return bad(parse, "--%s: needs a value, %s", option_table[row].name, option_table[row].argument);
    if (row >= 0)
        return bad(parse, "--%s: takes no value", option_table[row].name);
    static const char advice[] = "see --help; -- goes before a payload that begins with a dash";
    if (optopt != 0)
        return bad(parse, "-%c: unknown option; %s", optopt, advice);
    return bad(parse, "%.*s: unknown or ambiguous option; %s", (int)strcspn(argument, "="), argument, advice);
}

static options_outcome_t take_positionals(parse_t *parse, int argc, char **argv)
{
    for (int i = optind; i < argc; i++) {
        if (i > optind)
            return bad(parse, "PAYLOAD: given twice; a payload with spaces needs quotes");
        if (claim_group(parse, &positional) != OPTIONS_RUN)
            return OPTIONS_BAD;
        parse->options->payload.kind = PAYLOAD_ARGUMENT;
        parse->options->payload.text = argv[i];
    }
    return OPTIONS_RUN;
}

static options_outcome_t parse_flags(parse_t *parse, int argc, char **argv)
{
    struct option longs[OPTION_ROWS + 1];
    char shorts[3 * OPTION_ROWS + 2];
    describe_to_getopt(longs, shorts);
    optind = 0; /* start afresh: this may not be the first call */
    opterr = 0;
    for (int code; (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (code == '?' || code == ':')
            return explain_unknown(parse, code, argv[optind - 1]);
        const option_t *row = &option_table[find_row(code)];
        if (row->letter == 'h' || row->letter == 'V')
            return row->letter == 'h' ? OPTIONS_HELP : OPTIONS_VERSION;
        options_outcome_t outcome = take_option(parse, row, optarg);
        if (outcome != OPTIONS_RUN)
            return outcome;
    }
    return take_positionals(parse, argc, argv);
}

/* --- The configuration file --- */

/* NULL: no option that the file may set has this name. */
static const option_t *find_named(const char *name)
{
    for (const option_t *row = option_table; row < option_table + OPTION_ROWS; row++) {
        if (row->name != NULL && row->set != NULL && strcmp(row->name, name) == 0)
            return strcmp(name, "config") == 0 ? NULL : row;
    }
    return NULL;
}

/* A flag beats the file, and so does one that excludes what the file says. */
static bool is_beaten(const parse_t *parse, const option_t *row)
{
    const option_t *flag = parse->flags.taken[row->group];
    return parse->flags.seen[row - option_table] ||
           (row->group != GROUP_NONE && flag != NULL && (flag->side == NULL || row->side == NULL));
}

/* The name is not quoted where it may be a secret in the wrong place. */
static options_outcome_t explain_unknown_line(parse_t *parse, const char *name)
{
    bool is_word = strspn(name, "abcdefghijklmnopqrstuvwxyz-") == strlen(name) && strlen(name) < 24;
    return bad(parse,
               "%s%sunknown option; a line is a long option of --help without its dashes, and its value",
               is_word ? name : "", is_word ? ": " : "");
}

static options_outcome_t take_line(parse_t *parse, const char *name, const char *value)
{
    const option_t *row = find_named(name);
    if (row == NULL)
        return explain_unknown_line(parse, name);
    if (row->argument != NULL && value == NULL)
        return bad(parse, "%s: needs a value, %s", name, row->argument);
    if (row->argument == NULL && value != NULL)
        return bad(parse, "%s: takes no value", name);
    return is_beaten(parse, row) ? OPTIONS_RUN : take_option(parse, row, value);
}

static options_outcome_t parse_file(parse_t *parse)
{
    config_t *config = &parse->options->config;
    const char *reason = NULL, *name = NULL, *value = NULL;
    parse->in_file = true;
    if (!config_open(config, parse->options->config_file, &reason))
        return bad(parse, "%s", reason);
    for (;;) {
        options_outcome_t outcome = OPTIONS_RUN;
        switch (config_next(config, &name, &value)) {
        case CONFIG_LINE:
            outcome = take_line(parse, name, value);
            break;
        case CONFIG_BAD:
            outcome = bad(parse, "%s", name);
            break;
        case CONFIG_END:
            return OPTIONS_RUN;
        }
        if (outcome != OPTIONS_RUN)
            return outcome;
    }
}

/* --- Both --- */

/* What can be known only when all is read. */
static options_outcome_t check_whole(parse_t *parse)
{
    const options_t *options = parse->options;
    const option_t *source = parse->flags.taken[GROUP_SOURCE];
    parse->in_file = false;
    if (source == NULL)
        source = parse->file.taken[GROUP_SOURCE];
    if (source == NULL)
        return bad(parse, "no payload: give PAYLOAD, --file, --lines or --flush; standard input is read only "
                          "when asked for");
    if (strcmp(source->name, "flush") == 0 && options->queue == NULL)
        return bad(parse, "--flush: needs --queue, which names what to flush");
    return OPTIONS_RUN;
}

options_outcome_t options_parse(int argc, char **argv, options_t *options, char *error, size_t size)
{
    parse_t parse = {.options = options, .error = error, .error_size = size};
    *options = defaults();
    options_outcome_t outcome = parse_flags(&parse, argc, argv);
    if (outcome == OPTIONS_RUN)
        outcome = parse_file(&parse);
    return outcome == OPTIONS_RUN ? check_whole(&parse) : outcome;
}

void options_free(options_t *options)
{
    config_close(&options->config);
}

/* --- Help --- */

/* One option: its forms, and its help text from column 30 on. */
static void print_row(FILE *stream, const option_t *row)
{
    char forms[64];
    char letter[5] = "    ";
    if (row->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(forms, sizeof forms, "  %s--%s%s%s", letter, row->name, row->argument != NULL ? " " : "",
             row->argument != NULL ? row->argument : "");
    const char *text = row->help;
    for (const char *start = forms; *text != '\0'; start = "") {
        int length = (int)strcspn(text, "\n");
        fprintf(stream, "%-32s%.*s\n", start, length, text);
        text += length + (text[length] == '\n');
    }
}

void options_print_help(FILE *stream)
{
    fputs("Usage: dtls-send [OPTION]... [PAYLOAD]\n"
          "Send a payload over DTLS, and print the downlinks that the server had queued.\n",
          stream);
    for (int i = 0; i < OPTION_ROWS; i++) {
        if (option_table[i].name == NULL)
            fprintf(stream, "\n%s\n", option_table[i].help);
        else
            print_row(stream, &option_table[i]);
    }
    fputs("\nExit status:\n", stream);
    for (int i = 0; i < STATUS_ROWS; i++)
        fprintf(stream, "  %2d  %s\n", status_table[i].status, status_table[i].meaning);
    fputs("\nExamples:\n"
          "  dtls-send \"temperature=21.5\"\n"
          "  dtls-send --server localhost:1234 --hex --output json \"01 a0 ff\"\n",
          stream);
}
