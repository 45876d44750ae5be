#include "command/options.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "store/file.h"

enum { LONG_ONLY = 256, QUOTED_MAX = 100 };

/* What one place, the command line or the configuration file, has set. */
typedef struct {
    size_t seen[OPTION_ROWS]; /* in which line, on the command line 1; 0: not at all */
    const option_t *taken[GROUPS];
} origin_t;

/* What is known while options are read. */
typedef struct {
    options_t *options;
    origin_t flags, file;
    bool meaningless[OPTION_ROWS]; /* in the file: the flags have taken its meaning from it */
    bool in_file;                  /* what is being read */
    char *error;
    size_t error_size;
} parse_t;

/* Payload sources without a row of their own. */
static const option_t positional = {.name = "PAYLOAD", .group = GROUP_SOURCE};
static const option_t method_get = {.name = "method get", .group = GROUP_SOURCE};

static options_t defaults(void)
{
    return (options_t){.host = "data.lab5e.com",
                       .port = "1234",
                       .content_format = -1,
                       .family = AF_UNSPEC,
                       .queue_limit = 10000,
                       .wait_ms = -1,
                       .format = OUTPUT_TEXT,
                       .timeout_ms = 60000,
                       .renew_days = 3,
                       .mtu = 1232};
}

/* NULL: no option that the file may set has this name. */
static const option_t *find_named(const char *name)
{
    for (const option_t *row = option_table; row < option_table + OPTION_ROWS; row++) {
        /* Few share their first letter, and the calls of strcmp(3) would be 1 % of a repeat run. */
        if (row->name != NULL && row->set != NULL && row->name[0] == name[0] && strcmp(row->name, name) == 0)
            return strcmp(name, "config") == 0 ? NULL : row;
    }
    return NULL;
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

/* The row whose group an option with this value belongs to; the value may be NULL. */
static const option_t *claimant(const option_t *row, const char *value)
{
    bool is_get = strcmp(row->name, "method") == 0 && value != NULL && strcmp(value, "get") == 0;
    return is_get ? &method_get : row;
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
    size_t *seen = &(parse->in_file ? &parse->file : &parse->flags)->seen[row - option_table];
    if (*seen > 0 && row->letter != 'v')
        return bad(parse, "%s%s: given twice", dashes(parse, row), row->name);
    *seen = parse->in_file ? parse->options->config.line : 1;
    options_outcome_t outcome = claim_group(parse, claimant(row, value));
    if (outcome != OPTIONS_RUN)
        return outcome;
    const char *problem = row->set(parse->options, value);
    if (problem == NULL)
        return OPTIONS_RUN;
    if (parse->in_file) /* the value may be a secret in the wrong line, and its line is named */
        return bad(parse, "%s: %s", row->name, problem);
    int length = (int)strnlen(value, QUOTED_MAX); /* so that there is room for the problem */
    return bad(parse, "--%s '%.*s%s': %s", row->name, length, value, value[length] != '\0' ? "..." : "",
               problem);
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

/* A flag beats the file, and so does one that excludes what the file says, or takes its meaning from it. */
static bool is_beaten(const parse_t *parse, const option_t *row, const char *value)
{
    const option_t *claiming = claimant(row, value);
    const option_t *flag = parse->flags.taken[claiming->group];
    return parse->flags.seen[row - option_table] > 0 || parse->meaningless[row - option_table] ||
           (claiming->group != GROUP_NONE && flag != NULL && (flag->side == NULL || claiming->side == NULL));
}

/* The name is not quoted where it may be a secret in the wrong place. */
static options_outcome_t explain_unknown_line(parse_t *parse, const char *name)
{
    bool is_word =
        *name != '\0' && strlen(name) < 24 && strspn(name, "abcdefghijklmnopqrstuvwxyz-") == strlen(name);
    return bad(parse,
               "%s%sunknown option; a line is a long option of --help without its dashes, and its value",
               is_word ? name : "", is_word ? ": " : "");
}

static options_outcome_t take_line(parse_t *parse, const char *name, const char *value)
{
    const option_t *row = find_named(name);
    if (row == NULL)
        return explain_unknown_line(parse, name);
    if (row->argument != NULL && (value == NULL || *value == '\0'))
        return bad(parse, "%s: needs a value, %s", name, row->argument);
    if (row->argument == NULL && value != NULL)
        return bad(parse, "%s: takes no value", name);
    return is_beaten(parse, row, value) ? OPTIONS_RUN : take_option(parse, row, value);
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

static size_t index_of(const char *name)
{
    return (size_t)(find_named(name) - option_table);
}

/* Whether what decides on the meaning of an option stands on the command line. */
static bool is_decided(const parse_t *parse, const option_rule_t *rule)
{
    return rule->decider == NULL ? parse->flags.taken[GROUP_SOURCE] != NULL
                                 : parse->flags.seen[index_of(rule->decider)] > 0;
}

/* After the command line: what the file says in vain is passed over in it, since the file's defaults never
 * break a command line. */
static void note_meaningless(parse_t *parse)
{
    for (const option_rule_t *rule = option_rules; rule < option_rules + OPTION_RULES; rule++) {
        if (!rule->has_meaning(parse->options) && is_decided(parse, rule))
            parse->meaningless[index_of(rule->option)] = true;
    }
}

/* What was typed needs a meaning. */
static options_outcome_t check_flags(parse_t *parse)
{
    for (const option_rule_t *rule = option_rules; rule < option_rules + OPTION_RULES; rule++) {
        if (!rule->has_meaning(parse->options) && parse->flags.seen[index_of(rule->option)] > 0)
            return bad(parse, "--%s: %s", rule->option, rule->problem);
    }
    return OPTIONS_RUN;
}

/* So does what the file says, but where a flag took it away. A check may use the file of any run. */
static options_outcome_t check_file(parse_t *parse)
{
    for (const option_rule_t *rule = option_rules; rule < option_rules + OPTION_RULES; rule++) {
        if (rule->has_meaning(parse->options))
            continue;
        size_t line = parse->file.seen[index_of(rule->option)];
        bool excused = rule->is_default || parse->options->check ||
                       (rule->decider != NULL && parse->meaningless[index_of(rule->decider)]);
        if (line == 0 || excused)
            continue;
        parse->in_file = true;
        parse->options->config.line = line;
        return bad(parse, "%s: %s", rule->option, rule->problem);
    }
    return OPTIONS_RUN;
}

/* The session is taken from its file and put back there: a second run would send it, keys and all. */
static bool session_is_payload(const options_t *options)
{
    const payload_source_t *payload = &options->payload;
    if (options->session == NULL || (payload->kind != PAYLOAD_FILE && payload->kind != PAYLOAD_LINES))
        return false;
    if (payload->kind == PAYLOAD_LINES || strcmp(payload->text, "-") == 0)
        return file_is_same(options->session, "/dev/stdin");
    return strcmp(options->session, payload->text) == 0 || file_is_same(options->session, payload->text);
}

/* What can be known only when all is read. */
static options_outcome_t check_whole(parse_t *parse)
{
    parse->in_file = false;
    if (parse->flags.taken[GROUP_SOURCE] == NULL && parse->file.taken[GROUP_SOURCE] == NULL)
        return bad(parse, "no payload: give PAYLOAD, --file, --lines, --flush or --method get; standard "
                          "input is read only when asked for");
    options_outcome_t outcome = check_flags(parse);
    if (outcome == OPTIONS_RUN)
        outcome = check_file(parse);
    if (outcome == OPTIONS_RUN && session_is_payload(parse->options))
        return bad(parse, "--session: names the file of the payload, which it would replace");
    return outcome;
}

options_outcome_t options_parse(int argc, char **argv, options_t *options, char *error, size_t size)
{
    parse_t parse = {.options = options, .error = error, .error_size = size};
    *options = defaults();
    options_outcome_t outcome = parse_flags(&parse, argc, argv);
    if (outcome != OPTIONS_RUN)
        return outcome;
    note_meaningless(&parse);
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
          "  dtls-send --server coaps://data.lab5e.com/sensor --hex -o json \"01 a0 ff\"\n",
          stream);
}
