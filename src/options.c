#include "options.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>

#include "value.h"

#define WEEK_MS INT64_C(604800000)

/* What is known while the command line is read. */
typedef struct {
    options_t *options;
    const char *source; /* the payload source given first; NULL: none yet */
    char *error;
    size_t error_size;
} parse_t;

/* Takes a value, or says why not in a static string. */
typedef const char *setter_t(options_t *options, const char *value);

typedef struct {
    const char *name;
    int letter;           /* 0: none */
    const char *argument; /* NULL: the option takes none */
    const char *help;     /* lines after the first are indented by the printer */
    setter_t *set;        /* NULL: --help and --version, which end the parsing */
    const char *source;   /* the payload source that it is, for messages; NULL: none */
    bool repeats;         /* may be given more than once */
} option_t;

static const char *set_server(options_t *options, const char *value)
{
    const char *host = NULL, *port = NULL;
    size_t length = 0;
    uint64_t number = 0;
    if (!value_server(value, &host, &length, &port))
        return "must be HOST, HOST:PORT or [IPV6]:PORT";
    if (length == 0)
        return "has no host";
    if (length >= sizeof options->host)
        return "has a host name of more than 255 characters";
    if (port != NULL && !value_number(port, 1, 65535, &number))
        return "must have a port from 1 to 65535 after its colon";
    memcpy(options->host, host, length);
    options->host[length] = '\0';
    if (port != NULL)
        snprintf(options->port, sizeof options->port, "%u", (unsigned)number);
    return NULL;
}

static const char *set_server_name(options_t *options, const char *value)
{
    if (*value == '\0' || strlen(value) > 255)
        return "must have 1 to 255 characters";
    options->server_name = value;
    return NULL;
}

static const char *set_family(options_t *options, int family)
{
    if (options->family != AF_UNSPEC)
        return "--ipv4 and --ipv6 exclude each other";
    options->family = family;
    return NULL;
}

static const char *set_ipv4(options_t *options, const char *value)
{
    (void)value;
    return set_family(options, AF_INET);
}

static const char *set_ipv6(options_t *options, const char *value)
{
    (void)value;
    return set_family(options, AF_INET6);
}

static const char *set_path(const char **path, const char *value)
{
    if (*value == '\0')
        return "must name a file";
    *path = value;
    return NULL;
}

static const char *set_cert(options_t *options, const char *value)
{
    return set_path(&options->cert_file, value);
}

static const char *set_key(options_t *options, const char *value)
{
    return set_path(&options->key_file, value);
}

static const char *set_passphrase_file(options_t *options, const char *value)
{
    return set_path(&options->passphrase_file, value);
}

static const char *set_ca(options_t *options, const char *value)
{
    return set_path(&options->ca, value);
}

static const char *set_file(options_t *options, const char *value)
{
    options->payload.kind = PAYLOAD_FILE;
    return set_path(&options->payload.text, value);
}

static const char *set_lines(options_t *options, const char *value)
{
    (void)value;
    options->payload.kind = PAYLOAD_LINES;
    return NULL;
}

static const char *set_hex(options_t *options, const char *value)
{
    (void)value;
    options->payload.hex = true;
    return NULL;
}

static const char *set_confirm(options_t *options, const char *value)
{
    (void)value;
    options->confirm = true;
    return NULL;
}

static const char *set_session(options_t *options, const char *value)
{
    return set_path(&options->session, value);
}

static const char *set_lease(options_t *options, const char *value)
{
    return value_seconds(value, 0, WEEK_MS, &options->lease_ms)
               ? NULL
               : "must be seconds from 0 to 604800, such as 600";
}

static const char *set_queue(options_t *options, const char *value)
{
    return set_path(&options->queue, value) == NULL ? NULL : "must name a directory";
}

static const char *set_queue_limit(options_t *options, const char *value)
{
    return value_number(value, 1, 1000000000, &options->queue_limit)
               ? NULL
               : "must be a whole number from 1 to 1000000000";
}

static const char *set_flush(options_t *options, const char *value)
{
    (void)options;
    (void)value; /* that it is the payload source says it all */
    return NULL;
}

static const char *set_splay(options_t *options, const char *value)
{
    return value_seconds(value, 0, WEEK_MS, &options->splay_ms)
               ? NULL
               : "must be seconds from 0 to 604800, such as 300";
}

static const char *set_wait(options_t *options, const char *value)
{
    return value_seconds(value, 0, WEEK_MS, &options->wait_ms)
               ? NULL
               : "must be seconds from 0 to 604800, such as 2 or 0.25";
}

static const char *set_count(options_t *options, const char *value)
{
    return value_number(value, 1, 1000000000, &options->count)
               ? NULL
               : "must be a whole number from 1 to 1000000000";
}

static const char *set_output(options_t *options, const char *value)
{
    for (int i = 0; output_format_names[i] != NULL; i++) {
        if (strcmp(value, output_format_names[i]) == 0) {
            options->format = (output_format_t)i;
            return NULL;
        }
    }
    return "must be text, raw, hex, base64 or json";
}

static const char *set_timeout(options_t *options, const char *value)
{
    return value_seconds(value, 1, WEEK_MS, &options->timeout_ms)
               ? NULL
               : "must be seconds from 0.001 to 604800, such as 60 or 2.5";
}

static const char *set_mtu(options_t *options, const char *value)
{
    uint64_t mtu = 0;
    if (!value_number(value, 256, 16384, &mtu))
        return "must be a whole number of bytes from 256 to 16384";
    options->mtu = (uint16_t)mtu;
    return NULL;
}

static const char *set_verbose(options_t *options, const char *value)
{
    (void)value;
    if (options->verbosity < 0)
        return "--quiet and --verbose exclude each other";
    options->verbosity += options->verbosity < 2;
    return NULL;
}

static const char *set_quiet(options_t *options, const char *value)
{
    (void)value;
    if (options->verbosity > 0)
        return "--quiet and --verbose exclude each other";
    options->verbosity = -1;
    return NULL;
}

/* The one table. A row without a name starts a section of --help. */
static const option_t option_table[] = {
    {.help = "Server:"},
    {"server", 's', "HOST[:PORT]", "server; [IPV6]:PORT too\n(default data.lab5e.com:1234)", set_server, NULL,
     false},
    {"server-name", 0, "NAME", "name that its certificate must carry\n(default HOST)", set_server_name, NULL,
     false},
    {"ipv4", '4', NULL, "IPv4 addresses only", set_ipv4, NULL, false},
    {"ipv6", '6', NULL, "IPv6 addresses only", set_ipv6, NULL, false},

    {.help = "Credentials:"},
    {"cert", 'c', "FILE",
     "this device's certificate, intermediates\nand roots, PEM or DER (default cert.crt)", set_cert, NULL,
     false},
    {"key", 'k', "FILE", "its private key (default key.pem)", set_key, NULL, false},
    {"passphrase-file", 0, "FILE", "file whose first line decrypts the key", set_passphrase_file, NULL,
     false},
    {"ca", 'C', "FILE|DIR", "trust anchors, instead of the CA\ncertificates in --cert", set_ca, NULL, false},

    {.help = "Payload (one of PAYLOAD, --file, --lines, --flush; at most 16384 bytes):"},
    {"file", 'f', "FILE", "the bytes of FILE; - is standard input", set_file, "--file", false},
    {"lines", 'l', NULL, "each line of standard input is a payload", set_lines, "--lines", false},
    {"flush", 0, NULL, "none: only what waits in the --queue", set_flush, "--flush", false},
    {"hex", 'x', NULL, "the payload is written as hex digits", set_hex, NULL, false},

    {.help = "Delivery:"},
    {"confirm", 0, NULL, "resend until a downlink answers", set_confirm, NULL, false},
    {"session", 0, "FILE", "keep the DTLS session here between runs", set_session, NULL, false},
    {"lease", 0, "SECONDS",
     "without --confirm, trust a kept association\nso long after the server was heard (default 0)", set_lease,
     NULL, false},

    {"queue", 0, "DIR", "payloads wait here until they are sent", set_queue, NULL, false},
    {"queue-limit", 0, "N", "refuse a payload when N wait\n(default 10000)", set_queue_limit, NULL, false},

    {.help = "Downlinks, printed on standard output:"},
    {"wait", 'w', "SECONDS", "end after so much silence (default 1)", set_wait, NULL, false},
    {"count", 'n', "N", "end after N downlinks (default: no limit)", set_count, NULL, false},
    {"output", 'o', "FORMAT", "text, raw, hex, base64 or json\n(default text)", set_output, NULL, false},

    {.help = "The run:"},
    {"timeout", 't', "SECONDS", "end by then, whatever hangs (default 60)", set_timeout, NULL, false},
    {"splay", 0, "SECONDS", "wait a random time up to this before\nconnecting, beside --timeout (default 0)",
     set_splay, NULL, false},
    {"mtu", 0, "BYTES", "largest handshake datagram (default 1232)", set_mtu, NULL, false},
    {"verbose", 'v', NULL, "a line a step on standard error;\n-vv adds the log of mbed TLS", set_verbose,
     NULL, true},
    {"quiet", 'q', NULL, "nothing on standard error", set_quiet, NULL, false},
    {"help", 'h', NULL, "print this, and end", NULL, NULL, false},
    {"version", 'V', NULL, "print the versions, and end", NULL, NULL, false},
};

enum { ROWS = sizeof option_table / sizeof option_table[0], LONG_ONLY = 256 };

/* The statuses are an interface: scripts depend on them. */
static const struct {
    int status;
    const char *meaning;
} status_table[] = {
    {EX_OK, "every payload was sent (--confirm: confirmed)"},
    {EX_USAGE, "bad option, value or combination on the command line"},
    {EX_DATAERR, "payload refused: larger than one record, or bad hex"},
    {EX_NOINPUT, "payload file missing or unreadable"},
    {EX_NOHOST, "host name unknown"},
    {EX_UNAVAILABLE, "server unavailable: every address refused"},
    {EX_SOFTWARE, "internal error (a bug)"},
    {EX_OSERR, "operating system error (socket, memory, entropy)"},
    {EX_CANTCREAT, "the queue cannot be written, or is full"},
    {EX_IOERR, "a downlink could not be written to standard output"},
    {EX_TEMPFAIL, "temporary: timeout, no answer, no confirmation; try later"},
    {EX_PROTOCOL, "protocol: handshake failed, server too old, alert"},
    {EX_NOPERM, "trust: server's certificate refused, or it refused ours"},
    {EX_CONFIG, "credentials unusable: missing, expired, key mismatch"},
};

static options_t defaults(void)
{
    return (options_t){.host = "data.lab5e.com",
                       .port = "1234",
                       .family = AF_UNSPEC,
                       .cert_file = "cert.crt",
                       .key_file = "key.pem",
                       .queue_limit = 10000,
                       .wait_ms = 1000,
                       .format = OUTPUT_TEXT,
                       .timeout_ms = 60000,
                       .mtu = 1232};
}

static options_outcome_t bad(parse_t *parse, const char *format, ...) __attribute__((format(printf, 2, 3)));

static options_outcome_t bad(parse_t *parse, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(parse->error, parse->error_size, format, arguments);
    va_end(arguments);
    return OPTIONS_BAD;
}

/* getopt_long's two notations of the table. */
static void describe_to_getopt(struct option longs[static ROWS + 1], char shorts[static 3 * ROWS + 2])
{
    char *next = shorts;
    *next++ = ':'; /* report a missing value apart from an unknown option, and print nothing */
    for (int i = 0; i < ROWS; i++) {
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
    for (int i = 0; i < ROWS; i++) {
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

static options_outcome_t note_source(parse_t *parse, const char *source)
{
    if (parse->source != NULL && strcmp(parse->source, source) == 0)
        return bad(parse, "%s: given twice; a payload with spaces needs quotes", source);
    if (parse->source != NULL)
        return bad(parse, "%s and %s: only one payload source can be given", parse->source, source);
    parse->source = source;
    return OPTIONS_RUN;
}

static options_outcome_t take_option(parse_t *parse, const option_t *row, bool *seen)
{
    char name[32];
    snprintf(name, sizeof name, "--%s", row->name);
    if (*seen && !row->repeats)
        return bad(parse, "%s: given twice", name);
    *seen = true;
    if (row->source != NULL && note_source(parse, row->source) == OPTIONS_BAD)
        return OPTIONS_BAD;
    const char *problem = row->set(parse->options, optarg);
    if (problem != NULL && row->argument != NULL)
        return bad(parse, "%s '%s': %s", name, optarg, problem);
    if (problem != NULL)
        return bad(parse, "%s", problem);
    return OPTIONS_RUN;
}

static options_outcome_t take_positionals(parse_t *parse, int argc, char **argv)
{
    for (int i = optind; i < argc; i++) {
        if (note_source(parse, "PAYLOAD") == OPTIONS_BAD)
            return OPTIONS_BAD;
        parse->options->payload.kind = PAYLOAD_ARGUMENT;
        parse->options->payload.text = argv[i];
    }
    if (parse->source == NULL)
        return bad(parse, "no payload: give PAYLOAD, --file, --lines or --flush; standard input is read only "
                          "when asked for");
    if (strcmp(parse->source, "--flush") == 0 && parse->options->queue == NULL)
        return bad(parse, "--flush: needs --queue, which names what to flush");
    return OPTIONS_RUN;
}

options_outcome_t options_parse(int argc, char **argv, options_t *options, char *error, size_t size)
{
    parse_t parse = {.options = options, .error = error, .error_size = size};
    struct option longs[ROWS + 1];
    char shorts[3 * ROWS + 2];
    bool seen[ROWS] = {false};

    *options = defaults();
    describe_to_getopt(longs, shorts);
    optind = 0; /* start afresh: this may not be the first call */
    opterr = 0;
    for (int code; (code = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (code == '?' || code == ':')
            return explain_unknown(&parse, code, argv[optind - 1]);
        int i = find_row(code);
        if (option_table[i].set == NULL)
            return option_table[i].letter == 'h' ? OPTIONS_HELP : OPTIONS_VERSION;
        if (take_option(&parse, &option_table[i], &seen[i]) == OPTIONS_BAD)
            return OPTIONS_BAD;
    }
    return take_positionals(&parse, argc, argv);
}

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
    for (int i = 0; i < ROWS; i++) {
        if (option_table[i].name == NULL)
            fprintf(stream, "\n%s\n", option_table[i].help);
        else
            print_row(stream, &option_table[i]);
    }
    fputs("\nExit status:\n", stream);
    for (size_t i = 0; i < sizeof status_table / sizeof status_table[0]; i++)
        fprintf(stream, "  %2d  %s\n", status_table[i].status, status_table[i].meaning);
    fputs("\nExamples:\n"
          "  dtls-send \"temperature=21.5\"\n"
          "  dtls-send --server localhost:1234 --hex --output json \"01 a0 ff\"\n",
          stream);
}
