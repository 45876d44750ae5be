/* options.h: what a command line is understood as, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "command/option_table.h"
#include "command/options.h"
#include "scratch.h"
#include "system/log.h"

static options_t options;
static char error[256];

static options_outcome_t parse(char **argv)
{
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    options_free(&options);
    memset(&options, 0x5a, sizeof options);
    snprintf(error, sizeof error, "untouched");
    return options_parse(argc, argv, &options, error, sizeof error);
}

#define PARSE(...) parse((char *[]){"dtls-send", __VA_ARGS__, NULL})

#define ACCEPT(...)                                                                                          \
    do {                                                                                                     \
        options_outcome_t outcome = PARSE(__VA_ARGS__);                                                      \
        if (outcome != OPTIONS_RUN)                                                                          \
            fail_msg("outcome %d: %s", (int)outcome, error);                                                 \
    } while (0)

/* Refused, with one line that has `mention` in it. */
#define REFUSE(mention, ...)                                                                                 \
    do {                                                                                                     \
        options_outcome_t outcome = PARSE(__VA_ARGS__);                                                      \
        if (outcome != OPTIONS_BAD)                                                                          \
            fail_msg("outcome %d, not OPTIONS_BAD", (int)outcome);                                           \
        if (strstr(error, mention) == NULL || strchr(error, '\n') != NULL)                                   \
            fail_msg("'%s' in one line is missing from: %s", mention, error);                                \
    } while (0)

static bool same_string(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_options(const options_t *a, const options_t *b)
{
    return a->coaps == b->coaps && same_string(a->host, b->host) && same_string(a->port, b->port) &&
           a->uri_options_length == b->uri_options_length &&
           memcmp(a->uri_options, b->uri_options, a->uri_options_length) == 0 && a->method == b->method &&
           a->content_format == b->content_format && same_string(a->server_name, b->server_name) &&
           a->family == b->family && same_string(a->cert_file, b->cert_file) &&
           same_string(a->key_file, b->key_file) && same_string(a->passphrase_file, b->passphrase_file) &&
           same_string(a->ca, b->ca) && a->payload.kind == b->payload.kind &&
           (a->payload.kind == PAYLOAD_LINES || same_string(a->payload.text, b->payload.text)) &&
           a->payload.hex == b->payload.hex && a->wait_ms == b->wait_ms && a->count == b->count &&
           a->confirm == b->confirm && same_string(a->session, b->session) && a->lease_ms == b->lease_ms &&
           same_string(a->queue, b->queue) && a->queue_limit == b->queue_limit &&
           a->splay_ms == b->splay_ms && a->format == b->format && a->timeout_ms == b->timeout_ms &&
           a->mtu == b->mtu && a->verbosity == b->verbosity;
}

static void a_payload_alone_is_sent_with_the_documented_defaults(void **state)
{
    (void)state;
    ACCEPT("hello");
    assert_string_equal(options.host, "data.lab5e.com");
    assert_string_equal(options.port, "1234");
    assert_false(options.coaps);
    assert_int_equal(options.uri_options_length, 0);
    assert_int_equal(options.method, METHOD_POST);
    assert_int_equal(options.content_format, -1);
    assert_null(options.server_name);
    assert_int_equal(options.family, AF_UNSPEC);
    assert_null(options.cert_file);
    assert_null(options.key_file);
    assert_null(options.passphrase_file);
    assert_null(options.ca);
    assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
    assert_string_equal(options.payload.text, "hello");
    assert_false(options.payload.hex);
    assert_false(options.confirm);
    assert_null(options.session);
    assert_int_equal(options.lease_ms, 0);
    assert_null(options.queue);
    assert_int_equal(options.queue_limit, 10000);
    assert_int_equal(options.splay_ms, 0);
    assert_int_equal(options.wait_ms, -1);
    assert_int_equal(options.count, 0);
    assert_int_equal(options.format, OUTPUT_TEXT);
    assert_int_equal(options.timeout_ms, 60000);
    assert_int_equal(options.mtu, 1232);
    assert_int_equal(options.verbosity, LOG_ERROR);
}

static void long_options_set_their_own_members(void **state)
{
    (void)state;
    ACCEPT("--server", "example.org:5684", "--server-name", "inbox", "--ipv4", "--cert", "me.crt", "--key",
           "me.key", "--passphrase-file", "secret", "--ca", "roots", "--file", "data.bin", "--hex", "--wait",
           "2.5", "--count", "3", "--output", "json", "--timeout", "30", "--mtu", "1024", "--verbose",
           "--confirm", "--session", "kept", "--queue", "spool", "--queue-limit", "7", "--splay", "1.5");
    assert_string_equal(options.host, "example.org");
    assert_string_equal(options.port, "5684");
    assert_string_equal(options.server_name, "inbox");
    assert_int_equal(options.family, AF_INET);
    assert_string_equal(options.cert_file, "me.crt");
    assert_string_equal(options.key_file, "me.key");
    assert_string_equal(options.passphrase_file, "secret");
    assert_string_equal(options.ca, "roots");
    assert_int_equal(options.payload.kind, PAYLOAD_FILE);
    assert_string_equal(options.payload.text, "data.bin");
    assert_true(options.payload.hex);
    assert_true(options.confirm);
    assert_string_equal(options.session, "kept");
    assert_string_equal(options.queue, "spool");
    assert_int_equal(options.queue_limit, 7);
    assert_int_equal(options.splay_ms, 1500);
    assert_int_equal(options.wait_ms, 2500);
    assert_int_equal(options.count, 3);
    assert_int_equal(options.format, OUTPUT_JSON);
    assert_int_equal(options.timeout_ms, 30000);
    assert_int_equal(options.mtu, 1024);
    assert_int_equal(options.verbosity, LOG_STEPS);
    ACCEPT("--session", "kept", "--lease", "600", "payload");
    assert_int_equal(options.lease_ms, 600000);
    ACCEPT("--server", "coaps://h", "--method", "put", "--content-format", "cbor", "payload");
    assert_int_equal(options.method, METHOD_PUT);
    assert_int_equal(options.content_format, 60);
}

static void short_options_set_their_own_members(void **state)
{
    (void)state;
    ACCEPT("-s", "[2001:db8::1]:1", "-6", "-c", "a", "-k", "b", "-C", "c", "-l", "-x", "-w", "0", "-n", "1",
           "-o", "raw", "-t", "0.5", "-q");
    assert_string_equal(options.host, "2001:db8::1");
    assert_string_equal(options.port, "1");
    assert_int_equal(options.family, AF_INET6);
    assert_string_equal(options.cert_file, "a");
    assert_string_equal(options.key_file, "b");
    assert_string_equal(options.ca, "c");
    assert_int_equal(options.payload.kind, PAYLOAD_LINES);
    assert_true(options.payload.hex);
    assert_int_equal(options.wait_ms, 0);
    assert_int_equal(options.count, 1);
    assert_int_equal(options.format, OUTPUT_RAW);
    assert_int_equal(options.timeout_ms, 500);
    assert_int_equal(options.verbosity, LOG_QUIET);
}

/* Every option, with a value that is not the default. */
static const struct row {
    const char *letter; /* NULL: none */
    const char *name;
    const char *value; /* NULL: takes none */
    bool source;       /* is a payload source itself */
    char *partner;     /* an option that it needs; NULL: none */
} rows[] = {
    {"s", "server", "example.org:99", false, NULL},
    {NULL, "server-name", "inbox", false, NULL},
    {"4", "ipv4", NULL, false, NULL},
    {"6", "ipv6", NULL, false, NULL},
    {"c", "cert", "me.crt", false, NULL},
    {"k", "key", "me.key", false, NULL},
    {NULL, "passphrase-file", "pw", false, NULL},
    {"C", "ca", "roots", false, NULL},
    {"f", "file", "data.bin", true, NULL},
    {"l", "lines", NULL, true, NULL},
    {"x", "hex", NULL, false, NULL},
    {"m", "method", "put", false, "--server=coaps://host"},
    {NULL, "content-format", "json", false, "--server=coaps://host"},
    {NULL, "confirm", NULL, false, NULL},
    {NULL, "session", "kept", false, NULL},
    {NULL, "lease", "600", false, "--session=kept"},
    {NULL, "queue", "spool", false, NULL},
    {NULL, "queue-limit", "7", false, "--queue=spool"},
    {NULL, "splay", "0.5", false, NULL},
    {"w", "wait", "7.125", false, NULL},
    {"n", "count", "5", false, NULL},
    {"o", "output", "hex", false, NULL},
    {"t", "timeout", "9", false, NULL},
    {NULL, "mtu", "512", false, NULL},
    {"v", "verbose", NULL, false, NULL},
    {"q", "quiet", NULL, false, NULL},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

/* The ways to write an option: --name value, --name=value, -x value, -xvalue. */
enum { APART, WITH_EQUALS, LETTER_APART, LETTER_TOGETHER, NOTATIONS };

/* Writes `row` in a notation to one or two arguments; returns how many, 0: it cannot be written so. */
static int write_option(const struct row *row, int notation, char first[static 64], char **arguments)
{
    bool letter = notation == LETTER_APART || notation == LETTER_TOGETHER;
    bool together = notation == WITH_EQUALS || notation == LETTER_TOGETHER;
    if ((letter && row->letter == NULL) || (together && row->value == NULL))
        return 0;
    snprintf(first, 64, "%s%s%s%s", letter ? "-" : "--", letter ? row->letter : row->name,
             notation == WITH_EQUALS ? "=" : "", together ? row->value : "");
    arguments[0] = first;
    if (row->value == NULL || together)
        return 1;
    arguments[1] = (char *)row->value;
    return 2;
}

static void every_notation_of_an_option_means_the_same(void **state)
{
    (void)state;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        options_t reference = {.mtu = 0};
        for (int notation = APART; notation < NOTATIONS; notation++) {
            char first[64];
            char *argv[6] = {"dtls-send"};
            int argc = 1 + write_option(row, notation, first, argv + 1);
            if (argc == 1)
                continue;
            if (!row->source)
                argv[argc++] = "payload";
            argv[argc] = row->partner;
            if (parse(argv) != OPTIONS_RUN)
                fail_msg("%s: %s", first, error);
            if (notation == APART)
                reference = options;
            else if (!same_options(&options, &reference))
                fail_msg("%s means something else than --%s", first, row->name);
        }
        ACCEPT("payload", row->partner);
        if (same_options(&options, &reference))
            fail_msg("--%s changed nothing", row->name);
    }
}

static void an_option_given_twice_is_refused_and_named(void **state)
{
    (void)state;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        for (int notation = APART; notation < NOTATIONS; notation++) {
            char first[64], again[64], name[40];
            char *argv[7] = {"dtls-send"};
            int argc = 1 + write_option(row, APART, first, argv + 1);
            int more = write_option(row, notation, again, argv + argc);
            if (more == 0 || strcmp(row->name, "verbose") == 0)
                continue;
            if (!row->source)
                argv[argc + more] = "payload";
            snprintf(name, sizeof name, "--%s", row->name);
            if (parse(argv) != OPTIONS_BAD || strstr(error, name) == NULL)
                fail_msg("%s %s: %s", first, again, error);
        }
    }
}

static void an_option_without_its_value_is_refused_and_named(void **state)
{
    (void)state;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        char first[64], name[40];
        if (row->value == NULL)
            continue;
        snprintf(name, sizeof name, "--%s", row->name);
        snprintf(first, sizeof first, "--%s", row->name);
        if (parse((char *[]){"dtls-send", "payload", first, NULL}) != OPTIONS_BAD ||
            strstr(error, name) == NULL)
            fail_msg("%s: %s", first, error);
        if (row->letter == NULL)
            continue;
        snprintf(first, sizeof first, "-%s", row->letter);
        if (parse((char *[]){"dtls-send", "payload", first, NULL}) != OPTIONS_BAD ||
            strstr(error, name) == NULL)
            fail_msg("%s: %s", first, error);
    }
}

static void a_value_for_an_option_that_takes_none_is_refused(void **state)
{
    (void)state;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        char first[64], name[40];
        if (row->value != NULL)
            continue;
        snprintf(first, sizeof first, "--%s=yes", row->name);
        snprintf(name, sizeof name, "--%s", row->name);
        if (parse((char *[]){"dtls-send", first, "payload", NULL}) != OPTIONS_BAD ||
            strstr(error, name) == NULL)
            fail_msg("%s: %s", first, error);
    }
}

static void servers_are_split_into_host_and_port(void **state)
{
    (void)state;
    static const struct {
        const char *value, *host, *port;
    } servers[] = {
        {"example.org", "example.org", "1234"},
        {"example.org:1", "example.org", "1"},
        {"example.org:65535", "example.org", "65535"},
        {"dtls://example.org", "example.org", "1234"},
        {"coaps://example.org", "example.org", "5684"},
        {"coaps://example.org:1/a?b", "example.org", "1"},
        {"192.0.2.7", "192.0.2.7", "1234"},
        {"192.0.2.7:5684", "192.0.2.7", "5684"},
        {"[2001:db8::1]:5684", "2001:db8::1", "5684"},
        {"[2001:db8::1]", "2001:db8::1", "1234"},
        {"2001:db8::1", "2001:db8::1", "1234"},
        {"::1", "::1", "1234"},
        {"::", "::", "1234"},
        {"[::ffff:192.0.2.7]:80", "::ffff:192.0.2.7", "80"},
        {"[fe80::1%eth0]:80", "fe80::1%eth0", "80"},
    };
    for (size_t i = 0; i < sizeof servers / sizeof servers[0]; i++) {
        ACCEPT("--server", (char *)servers[i].value, "payload");
        assert_string_equal(options.host, servers[i].host);
        assert_string_equal(options.port, servers[i].port);
    }
}

static void malformed_servers_are_refused(void **state)
{
    (void)state;
    static const char *const servers[] = {
        "",         "host:",   "host:0",      "host:65536", "host:12x",  "host:-1",
        "host:+1",  "host: 1", "host:1 ",     "host:0x10",  "host:1e3",  "host:4294967376",
        ":1234",    ":",       "[::1",        "[::1]x",     "[::1]1234", "[::1]:",
        "[::1]:0",  "[::1]:x", "[::1]:65536", "[]",         "[]:1234",   "host:99999999999999999999",
        "host:1.5",
    };
    for (size_t i = 0; i < sizeof servers / sizeof servers[0]; i++) {
        char *value = strdup(servers[i]); /* so that the sanitizers watch its end */
        assert_non_null(value);
        if (PARSE("--server", value, "payload") != OPTIONS_BAD || strstr(error, "--server") == NULL)
            fail_msg("'%s': %s", value, error);
        free(value);
    }
}

static void a_host_may_have_255_characters_and_no_more(void **state)
{
    (void)state;
    char host[300];
    memset(host, 'a', sizeof host);
    snprintf(host + 255, 4, ":80");
    ACCEPT("-s", host, "payload");
    assert_int_equal(strlen(options.host), 255);
    assert_string_equal(options.port, "80");
    memset(host, 'a', sizeof host);
    host[256] = '\0';
    REFUSE("--server", "-s", host, "payload");
    snprintf(host + 256, 4, ":80");
    REFUSE("--server", "-s", host, "payload");
    memset(host, '1', sizeof host);
    host[0] = '[';
    snprintf(host + 257, 5, "]:80");
    REFUSE("--server", "-s", host, "payload");
    memset(host, ':', sizeof host);
    host[256] = '\0';
    REFUSE("--server", "-s", host, "payload");
}

static void what_is_not_a_plain_number_is_refused_and_its_option_named(void **state)
{
    (void)state;
    static const char *const names[] = {"--wait",  "--timeout",     "--count", "--mtu",
                                        "--lease", "--queue-limit", "--splay"};
    static const char *const values[] = {
        "1e9", "-1",   "0x10",  "999999999999",
        "",    " 1",   "1 ",    "+1",
        "1.",  ".",    "nan",   "inf",
        "1,5", "1..5", "--1",   "18446744073709552640",
        "1s",  "1h",   "1.5.5", "18446744073709551617",
        "-0",  "1.-5", "1.x",   "0.5e1",
        "\t1", "1\n",  "1.5 ",  "99999999999999999999",
        "½",
    };
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
            char joined[64];
            snprintf(joined, sizeof joined, "%s=%s", names[n], values[i]);
            if (PARSE((char *)names[n], (char *)values[i], "payload") != OPTIONS_BAD ||
                strstr(error, names[n]) == NULL)
                fail_msg("%s '%s': %s", names[n], values[i], error);
            if (PARSE(joined, "payload") != OPTIONS_BAD || strstr(error, names[n]) == NULL)
                fail_msg("%s: %s", joined, error);
        }
    }
}

static void seconds_are_decimal_to_the_millisecond(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int64_t milliseconds;
    } seconds[] = {
        {"1", 1000},
        {"0.25", 250},
        {"0.5", 500},
        {"2.75", 2750},
        {"1.001", 1001},
        {"10.0", 10000},
        {"0.1234567", 123},
        {"3.00099", 3000},
        {"007", 7000},
        {"0.001", 1},
        {"86400", 86400000},
        {"1.50", 1500},
        {"4.0000000000000000000000000000000001", 4000},
    };
    for (size_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++) {
        char *value = (char *)seconds[i].value;
        ACCEPT("--wait", value, "--timeout", value, "payload");
        assert_int_equal(options.wait_ms, seconds[i].milliseconds);
        assert_int_equal(options.timeout_ms, seconds[i].milliseconds);
    }
}

static void no_wait_is_allowed_but_no_timeout_is_not(void **state)
{
    (void)state;
    ACCEPT("--wait", "0", "payload");
    assert_int_equal(options.wait_ms, 0);
    ACCEPT("--wait", "0.0", "payload");
    assert_int_equal(options.wait_ms, 0);
    REFUSE("--timeout", "--timeout", "0", "payload");
    REFUSE("--timeout", "--timeout", "0.0", "payload");
    REFUSE("--timeout", "--timeout", "0.0009", "payload");
}

static void a_count_is_a_whole_number_from_one(void **state)
{
    (void)state;
    ACCEPT("--count", "1", "payload");
    assert_int_equal(options.count, 1);
    ACCEPT("--count", "1000000", "payload");
    assert_int_equal(options.count, 1000000);
    REFUSE("--count", "--count", "0", "payload");
    REFUSE("--count", "--count", "1.5", "payload");
}

static void an_mtu_is_from_256_to_16384(void **state)
{
    (void)state;
    ACCEPT("--mtu", "256", "payload");
    assert_int_equal(options.mtu, 256);
    ACCEPT("--mtu", "16384", "payload");
    assert_int_equal(options.mtu, 16384);
    REFUSE("--mtu", "--mtu", "255", "payload");
    REFUSE("--mtu", "--mtu", "16385", "payload");
    REFUSE("--mtu", "--mtu", "66768", "payload"); /* 1232 in 16 bits */
    REFUSE("--mtu", "--mtu", "0", "payload");
    REFUSE("--mtu", "--mtu", "1232.5", "payload");
}

static void a_queue_limit_is_a_whole_number_from_one(void **state)
{
    (void)state;
    ACCEPT("--queue", "q", "--queue-limit", "1", "payload");
    assert_int_equal(options.queue_limit, 1);
    ACCEPT("--queue", "q", "--queue-limit", "1000000000", "payload");
    assert_int_equal(options.queue_limit, 1000000000);
    REFUSE("--queue-limit", "--queue-limit", "0", "payload");
    REFUSE("--queue-limit", "--queue-limit", "1000000001", "payload");
    REFUSE("--queue-limit", "--queue-limit", "1.5", "payload");
}

static void a_splay_is_seconds_from_none_to_a_week(void **state)
{
    (void)state;
    ACCEPT("--splay", "0", "payload");
    assert_int_equal(options.splay_ms, 0);
    ACCEPT("--splay", "0.25", "payload");
    assert_int_equal(options.splay_ms, 250);
    ACCEPT("--splay", "604800", "payload");
    assert_int_equal(options.splay_ms, 604800000);
    REFUSE("--splay", "--splay", "604801", "payload");
    REFUSE("--splay", "--splay", "604800.001", "payload");
}

static void a_flush_needs_a_queue_and_is_the_only_payload_source(void **state)
{
    (void)state;
    ACCEPT("--flush", "--queue", "spool");
    assert_int_equal(options.payload.kind, PAYLOAD_NONE);
    assert_string_equal(options.queue, "spool");
    ACCEPT("--queue=spool", "--flush");
    assert_int_equal(options.payload.kind, PAYLOAD_NONE);
    REFUSE("--queue", "--flush");
    REFUSE("--flush", "--flush");
    REFUSE("--queue", "--flush", "--queue-limit", "5"); /* also no abbreviation of that */
    static char *const sources[][3] = {{"--lines"}, {"--file", "a"}, {"secret-payload"}, {"--", ""}};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        char *argv[] = {"dtls-send", "--queue", "spool", "--flush", sources[i][0], sources[i][1], NULL};
        if (parse(argv) != OPTIONS_BAD || strstr(error, "--flush") == NULL || strstr(error, "secret") != NULL)
            fail_msg("%s: %s", sources[i][0], error);
    }
    REFUSE("--flush", "--queue", "spool", "--flush", "--flush");
    REFUSE("no payload", "--queue", "spool");
}

static void each_output_format_is_known_by_its_name_alone(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        output_format_t format;
    } formats[] = {{"text", OUTPUT_TEXT},
                   {"raw", OUTPUT_RAW},
                   {"hex", OUTPUT_HEX},
                   {"base64", OUTPUT_BASE64},
                   {"json", OUTPUT_JSON}};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        ACCEPT("--output", (char *)formats[i].name, "payload");
        assert_int_equal(options.format, formats[i].format);
    }
    static const char *const wrong[] = {"", "JSON", "js", "jsonl", "text ", "binary", "0"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        REFUSE("--output", "--output", (char *)wrong[i], "payload");
}

static void verbosity_grows_with_each_v_up_to_the_debug_log(void **state)
{
    (void)state;
    ACCEPT("-v", "payload");
    assert_int_equal(options.verbosity, LOG_STEPS);
    ACCEPT("-vv", "payload");
    assert_int_equal(options.verbosity, LOG_DEBUG);
    ACCEPT("--verbose", "payload", "-v");
    assert_int_equal(options.verbosity, LOG_DEBUG);
    ACCEPT("-vvvv", "payload");
    assert_int_equal(options.verbosity, LOG_DEBUG);
}

static void options_that_exclude_each_other_are_refused_and_both_named(void **state)
{
    (void)state;
    REFUSE("--ipv4", "-4", "-6", "payload");
    REFUSE("--ipv6", "-4", "-6", "payload");
    REFUSE("--ipv4", "-64", "payload");
    REFUSE("--ipv6", "-64", "payload");
    REFUSE("--verbose", "-v", "-q", "payload");
    REFUSE("--quiet", "-v", "-q", "payload");
    REFUSE("--verbose", "-q", "--verbose", "payload");
    REFUSE("--quiet", "-q", "--verbose", "payload");
}

static void unknown_options_are_refused_and_named(void **state)
{
    (void)state;
    REFUSE("--frobnicate", "--frobnicate", "payload");
    REFUSE("--frobnicate", "--frobnicate=3", "payload");
    REFUSE("--frobnicate", "payload", "--frobnicate");
    REFUSE("-Z", "-Z", "payload");
    REFUSE("-Z", "-lZ");
    REFUSE("-?", "-?", "payload");
    REFUSE("-:", "-:", "payload");
    REFUSE("--ver", "--ver", "payload"); /* --verbose or --version? */
}

static void empty_names_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"--server", "--server-name",     "--cert",
                                        "--key",    "--passphrase-file", "--ca"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        REFUSE(names[i], (char *)names[i], "", "payload");
    REFUSE("--file", "--file", "");
    REFUSE("--session", "--session", "", "payload");
    REFUSE("--queue", "--queue", "", "payload");
}

static void a_run_without_a_payload_source_is_refused(void **state)
{
    (void)state;
    static char *const sources[] = {"PAYLOAD", "--file", "--lines", "--flush", "--method get"};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        assert_int_equal(parse((char *[]){"dtls-send", NULL}), OPTIONS_BAD);
        assert_non_null(strstr(error, sources[i]));
        REFUSE(sources[i], "-v");
        REFUSE(sources[i], "--");
    }
}

static void two_payload_sources_are_refused_and_both_named(void **state)
{
    (void)state;
    REFUSE("--file", "--file", "a", "secret-payload");
    REFUSE("PAYLOAD", "--file", "a", "secret-payload");
    REFUSE("--lines", "--lines", "secret-payload");
    REFUSE("PAYLOAD", "--lines", "secret-payload");
    REFUSE("--lines", "-l", "-f", "a");
    REFUSE("--file", "-l", "-f", "a");
    REFUSE("--lines", "-f", "a", "-l");
    REFUSE("--file", "-f", "a", "-l");
    REFUSE("PAYLOAD", "secret-payload", "another");
    REFUSE("PAYLOAD", "", "another");
    REFUSE("PAYLOAD", "--lines", "--", "");
}

static void an_empty_payload_is_a_payload(void **state)
{
    (void)state;
    ACCEPT("");
    assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
    assert_string_equal(options.payload.text, "");
    ACCEPT("--", "");
    assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
    assert_string_equal(options.payload.text, "");
}

static void after_two_dashes_everything_is_payload(void **state)
{
    (void)state;
    static char *const payloads[] = {"-12.5", "--help", "--", "-", "-h", "--no-such-option"};
    for (size_t i = 0; i < sizeof payloads / sizeof payloads[0]; i++) {
        ACCEPT("-s", "host", "--", payloads[i]);
        assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
        assert_string_equal(options.payload.text, payloads[i]);
        assert_string_equal(options.host, "host");
    }
}

static void a_dash_is_standard_input_only_after_file(void **state)
{
    (void)state;
    ACCEPT("-f", "-");
    assert_int_equal(options.payload.kind, PAYLOAD_FILE);
    assert_string_equal(options.payload.text, "-");
    ACCEPT("-");
    assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
    assert_string_equal(options.payload.text, "-");
}

static void the_payload_may_stand_before_between_and_after_options(void **state)
{
    (void)state;
    char payload[] = "hello";
    ACCEPT(payload, "-s", "host:9", "-x");
    assert_ptr_equal(options.payload.text, payload);
    assert_string_equal(options.port, "9");
    ACCEPT("-s", "host:9", payload, "-x");
    assert_ptr_equal(options.payload.text, payload);
    assert_true(options.payload.hex);
    ACCEPT("-xs", "host:9", payload);
    assert_ptr_equal(options.payload.text, payload);
    assert_string_equal(options.port, "9");
}

static void help_and_version_need_no_payload(void **state)
{
    (void)state;
    assert_int_equal(PARSE("-h"), OPTIONS_HELP);
    assert_int_equal(PARSE("--help"), OPTIONS_HELP);
    assert_int_equal(PARSE("-V"), OPTIONS_VERSION);
    assert_int_equal(PARSE("--version"), OPTIONS_VERSION);
    assert_int_equal(PARSE("-s", "host", "-vh", "payload"), OPTIONS_HELP);
    assert_int_equal(PARSE("payload", "-V", "-h"), OPTIONS_VERSION);
}

static void an_error_never_quotes_the_payload(void **state)
{
    (void)state;
    static char secret[] = "correct-horse-battery";
    char *lines[][6] = {
        {"dtls-send", "-l", secret, NULL},
        {"dtls-send", secret, "-f", "file", NULL},
        {"dtls-send", secret, secret, NULL},
        {"dtls-send", secret, "-Z", NULL},
        {"dtls-send", secret, "--frobnicate", NULL},
        {"dtls-send", secret, "--wait", "x", NULL},
        {"dtls-send", "--count", "0", "--", secret, NULL},
        {"dtls-send", secret, "--server", NULL},
        {"dtls-send", secret, "--lines=3", NULL},
        {"dtls-send", "--frobnicate=correct-horse-battery", NULL},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        if (parse(lines[i]) != OPTIONS_BAD || strstr(error, "horse") != NULL)
            fail_msg("line %zu: %s", i, error);
    }
}

static void an_error_is_written_for_a_refusal_only_and_never_beyond_its_buffer(void **state)
{
    (void)state;
    char small[9] = "12345678";
    char *bad[] = {"dtls-send", "--wait", "soon", "payload", NULL};
    assert_int_equal(options_parse(4, bad, &options, small, 6), OPTIONS_BAD);
    assert_int_equal(strlen(small), 5);
    assert_string_equal(small + 6, "78");
    ACCEPT("payload");
    assert_string_equal(error, "untouched");
    assert_int_equal(PARSE("--help"), OPTIONS_HELP);
    assert_string_equal(error, "untouched");
    assert_int_equal(PARSE("--version"), OPTIONS_VERSION);
    assert_string_equal(error, "untouched");
}

static void a_call_depends_on_none_before_it(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(PARSE("-hlxv"), OPTIONS_HELP); /* getopt stops amid an argument */
        ACCEPT("-x", "hello", "-v");
        assert_string_equal(options.payload.text, "hello");
        assert_true(options.payload.hex);
        assert_int_equal(options.verbosity, LOG_STEPS);
        REFUSE("-Z", "-Zv", "hello");
        ACCEPT("hello");
        assert_false(options.payload.hex);
        assert_int_equal(options.verbosity, LOG_ERROR);
    }
}

static void parsing_prints_nothing(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    options_outcome_t unknown = PARSE("--frobnicate", "payload");
    options_outcome_t missing = PARSE("payload", "-s");
    options_outcome_t surplus = PARSE("--lines=x");
    dup2(saved, STDERR_FILENO);
    close(saved);
    char text[64];
    assert_int_equal(read(ends[0], text, sizeof text), 0);
    close(ends[0]);
    assert_int_equal(unknown, OPTIONS_BAD);
    assert_int_equal(missing, OPTIONS_BAD);
    assert_int_equal(surplus, OPTIONS_BAD);
}

static void help_tells_every_option_with_its_letter(void **state)
{
    (void)state;
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    assert_non_null(stream);
    options_print_help(stream);
    assert_int_equal(fclose(stream), 0);
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        char forms[64];
        snprintf(forms, sizeof forms, "%s%s%s--%s", row->letter != NULL ? "-" : "",
                 row->letter != NULL ? row->letter : "", row->letter != NULL ? ", " : "", row->name);
        if (strstr(text, forms) == NULL)
            fail_msg("--help does not tell %s", forms);
    }
    assert_non_null(strstr(text, "-h, --help"));
    assert_non_null(strstr(text, "-V, --version"));
    free(text);
}

/* --- --psk, --check, --renew-days --- */

static void a_pre_shared_key_is_none_by_default_and_excludes_certificates(void **state)
{
    (void)state;
    ACCEPT("payload");
    assert_null(options.psk_file);
    ACCEPT("--psk", "file", "payload");
    assert_string_equal(options.psk_file, "file");
    REFUSE("--psk", "--psk", "", "payload");
    REFUSE("--psk", "--psk", "a", "--psk", "a", "payload");
    static char *const others[] = {"--cert", "--key", "--ca", "--passphrase-file"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        REFUSE("--psk", "--psk", "a", others[i], "b", "payload");
        REFUSE(others[i], others[i], "b", "--psk", "a", "payload");
    }
    ACCEPT("--cert", "a", "--key", "b", "--ca", "c", "--passphrase-file", "d", "payload");
}

static void a_check_stands_in_the_place_of_a_payload(void **state)
{
    (void)state;
    ACCEPT("payload");
    assert_false(options.check);
    ACCEPT("--check");
    assert_true(options.check);
    REFUSE("--check", "--check", "payload");
    REFUSE("--check", "--check", "--lines");
    REFUSE("--check", "--file", "f", "--check");
    REFUSE("--check", "--check", "--flush", "--queue", "q");
    REFUSE("--check", "--check", "--check");
}

static void days_to_renewal_are_a_whole_number_from_0_to_36500(void **state)
{
    (void)state;
    ACCEPT("--check");
    assert_int_equal(options.renew_days, 3);
    ACCEPT("--check", "--renew-days", "0");
    assert_int_equal(options.renew_days, 0);
    ACCEPT("--check", "--renew-days", "36500");
    assert_int_equal(options.renew_days, 36500);
    static char *const bad[] = {"36501", "-1", "1.5", "", "x", "1d", " 1", "18446744073709551617"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        REFUSE("--renew-days", "--check", "--renew-days", bad[i]);
}

/* --- The configuration file --- */

static char *write_config(const char *text)
{
    return (char *)scratch_write("conf", text, strlen(text));
}

/* As ACCEPT and REFUSE, with a configuration file of this content. */
#define ACCEPT_WITH(text, ...) ACCEPT("--config", write_config(text), __VA_ARGS__)

/* The file is at fault, in that line. */
#define REFUSE_FILE(text, number, mention, ...)                                                              \
    do {                                                                                                     \
        char place[320];                                                                                     \
        snprintf(place, sizeof place, "%s:%d: ", write_config(text), number);                                \
        if (PARSE("--config", (char *)scratch_path("conf"), __VA_ARGS__) != OPTIONS_BAD_CONFIG)              \
            fail_msg("not OPTIONS_BAD_CONFIG: %s", text);                                                    \
        if (strncmp(error, place, strlen(place)) != 0 || strstr(error, mention) == NULL ||                   \
            strchr(error, '\n') != NULL)                                                                     \
            fail_msg("'%s' and '%s' in one line are missing from: %s", place, mention, error);               \
    } while (0)

/* A value that the row takes, and that is not its default; NULL: it takes none. There are two. */
static const char *example_of(const option_t *row, bool other)
{
    static const struct {
        const char *argument, *values[2];
    } examples[] = {
        {"SERVER", {"example.org:99", "coaps://[::1]:98/a"}},
        {"METHOD", {"put", "post"}},
        {"NAME", {"inbox", "outbox"}},
        {"FILE", {"a", "b"}},
        {"FILE|DIR", {"a", "b"}},
        {"DIR", {"a", "b"}},
        {"SECONDS", {"7.125", "8"}},
        {"FORMAT", {"hex", "json"}},
        {"N", {"5", "6"}},
        {"BYTES", {"512", "513"}},
    };
    if (strcmp(row->name, "content-format") == 0)
        return other ? "json" : "65535";
    for (size_t i = 0; row->argument != NULL && i < sizeof examples / sizeof examples[0]; i++) {
        if (strcmp(row->argument, examples[i].argument) == 0)
            return examples[i].values[other];
    }
    return NULL;
}

/* Out of the next call's way. The caller's to free. */
static options_t keep_options(void)
{
    options_t kept = options;
    memset(&options, 0, sizeof options);
    return kept;
}

/* All that a run can be told, apart from where it was told. */
static bool same_run(const options_t *a, const options_t *b)
{
    return same_options(a, b) && same_string(a->psk_file, b->psk_file) && a->confirm == b->confirm &&
           same_string(a->session, b->session) && a->lease_ms == b->lease_ms &&
           same_string(a->queue, b->queue) && a->queue_limit == b->queue_limit &&
           a->splay_ms == b->splay_ms && a->check == b->check && a->renew_days == b->renew_days;
}

/* The row after this one (NULL: the first) that the file may hold; NULL: there is none. */
static const option_t *next_row(const option_t *row)
{
    for (row = row == NULL ? option_table : row + 1; row < option_table + OPTION_ROWS; row++) {
        if (row->name != NULL && row->set != NULL && strcmp(row->name, "config") != 0)
            return row;
    }
    return NULL;
}

/* The flag without which the option has no meaning; NULL: it has one. */
static char *partner_of(const option_t *row)
{
    static const struct {
        const char *name;
        char *flag;
    } partners[] = {{"flush", "--queue=q"},
                    {"queue-limit", "--queue=q"},
                    {"lease", "--session=s"},
                    {"method", "--server=coaps://h"},
                    {"content-format", "--server=coaps://h"}};
    for (size_t i = 0; i < sizeof partners / sizeof partners[0]; i++) {
        if (strcmp(row->name, partners[i].name) == 0)
            return partners[i].flag;
    }
    return NULL;
}

/* Parses a line of the file (NULL: none) and a flag (NULL: none), with its partner, and with a payload where
 * the row is no source of one; `renew-days` goes with a check. */
static options_outcome_t parse_both(const option_t *row, const char *line, char *flag, const char *value)
{
    char *argv[9] = {"dtls-send", "--config", write_config(line != NULL ? line : "")};
    int argc = 3;
    if (flag != NULL)
        argv[argc++] = flag;
    if (flag != NULL && value != NULL)
        argv[argc++] = (char *)value;
    if (row->group != GROUP_SOURCE)
        argv[argc++] = strcmp(row->name, "renew-days") == 0 ? "--check" : "payload";
    argv[argc] = partner_of(row);
    return parse(argv);
}

static void a_line_means_the_same_as_the_flag(void **state)
{
    (void)state;
    for (const option_t *row = next_row(NULL); row != NULL; row = next_row(row)) {
        char line[64], flag[40];
        const char *value = example_of(row, false);
        snprintf(line, sizeof line, "%s %s\n", row->name, value != NULL ? value : "");
        snprintf(flag, sizeof flag, "--%s", row->name);
        if (parse_both(row, NULL, flag, value) != OPTIONS_RUN)
            fail_msg("%s: %s", flag, error);
        options_t by_flag = keep_options();
        if (parse_both(row, line, NULL, NULL) != OPTIONS_RUN)
            fail_msg("%s: %s", line, error);
        if (!same_run(&options, &by_flag))
            fail_msg("the line means something else than %s", flag);
        options_outcome_t without = parse_both(row, NULL, NULL, NULL);
        if (without == OPTIONS_RUN && same_run(&options, &by_flag))
            fail_msg("%s changed nothing", flag);
        options_free(&by_flag);
    }
}

static void a_flag_beats_the_line(void **state)
{
    (void)state;
    for (const option_t *row = next_row(NULL); row != NULL; row = next_row(row)) {
        char line[64], flag[40];
        const char *value = example_of(row, false);
        snprintf(line, sizeof line, "%s %s\n", row->name, value != NULL ? example_of(row, true) : "");
        snprintf(flag, sizeof flag, "--%s", row->name);
        if (parse_both(row, line, flag, value) != OPTIONS_RUN)
            fail_msg("%s: %s", line, error);
        options_t both = keep_options();
        if (parse_both(row, NULL, flag, value) != OPTIONS_RUN || !same_run(&options, &both))
            fail_msg("%s does not beat the line", flag);
        options_free(&both);
    }
}

static void a_line_twice_or_without_its_value_or_with_one_too_many_is_refused(void **state)
{
    (void)state;
    for (const option_t *row = next_row(NULL); row != NULL; row = next_row(row)) {
        char text[160];
        const char *value = example_of(row, false);
        if (value != NULL) {
            snprintf(text, sizeof text, "\n%s\n", row->name);
            REFUSE_FILE(text, 2, "needs a value", "payload");
        } else {
            snprintf(text, sizeof text, "\n%s yes\n", row->name);
            REFUSE_FILE(text, 2, "takes no value", "payload");
        }
        if (row->letter == 'v' || row->group == GROUP_SOURCE)
            continue;
        snprintf(text, sizeof text, "%s %s\n\n%s %s\n", row->name, value != NULL ? value : "", row->name,
                 value != NULL ? value : "");
        REFUSE_FILE(text, 3, "given twice", strcmp(row->name, "renew-days") == 0 ? "--check" : "payload");
    }
}

static void a_flag_beats_what_it_excludes(void **state)
{
    (void)state;
    ACCEPT_WITH("ipv4\n", "-6", "payload");
    assert_int_equal(options.family, AF_INET6);
    ACCEPT_WITH("quiet\n", "-v", "payload");
    assert_int_equal(options.verbosity, LOG_STEPS);
    ACCEPT_WITH("verbose\n", "-q", "payload");
    assert_int_equal(options.verbosity, LOG_QUIET);
    ACCEPT_WITH("verbose\nverbose\n", "-v", "payload");
    assert_int_equal(options.verbosity, LOG_STEPS);
    ACCEPT_WITH("cert a\nkey b\nca c\npassphrase-file d\n", "--psk", "e", "payload");
    assert_string_equal(options.psk_file, "e");
    assert_null(options.ca);
    assert_null(options.passphrase_file);
    ACCEPT_WITH("psk a\n", "--ca", "b", "payload");
    assert_null(options.psk_file);
    ACCEPT_WITH("cert a\nkey b\n", "--cert", "c", "payload");
    assert_string_equal(options.cert_file, "c");
    assert_string_equal(options.key_file, "b");
}

static void a_payload_source_beats_that_of_the_file(void **state)
{
    (void)state;
    static const char *const lines[] = {"file a\n", "lines\n", "flush\n", "check\n"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        ACCEPT_WITH(lines[i], "payload");
        assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
        assert_string_equal(options.payload.text, "payload");
        assert_false(options.check);
        ACCEPT_WITH(lines[i], "--file", "b");
        assert_int_equal(options.payload.kind, PAYLOAD_FILE);
        assert_string_equal(options.payload.text, "b");
        ACCEPT_WITH(lines[i], "--check");
        assert_true(options.check);
    }
}

static void what_excludes_each_other_is_refused_within_the_file_too(void **state)
{
    (void)state;
    REFUSE_FILE("ipv4\nipv6\n", 2, "ipv4", "payload");
    REFUSE_FILE("quiet\n\nverbose\n", 3, "quiet", "payload");
    REFUSE_FILE("psk a\nkey b\n", 2, "psk", "payload");
    REFUSE_FILE("key b\nca c\npsk a\n", 3, "psk", "payload");
    assert_int_equal(PARSE("--config", write_config("lines\nfile a\n"), "-v"), OPTIONS_BAD_CONFIG);
    ACCEPT_WITH("cert a\nkey b\nca c\npassphrase-file d\n", "payload");
}

static void some_options_cannot_stand_in_the_file(void **state)
{
    (void)state;
    REFUSE_FILE("config other\n", 1, "config", "payload");
    REFUSE_FILE("help\n", 1, "help", "payload");
    REFUSE_FILE("version\n", 1, "version", "payload");
    REFUSE_FILE("PAYLOAD x\n", 1, "unknown", "payload");
}

static void a_bad_value_is_refused_with_its_line(void **state)
{
    (void)state;
    REFUSE_FILE("# one\nwait soon\n", 2, "wait", "payload");
    REFUSE_FILE("server host:0\n", 1, "server", "payload");
    REFUSE_FILE("renew-days -1\n", 1, "renew-days", "--check");
    REFUSE_FILE("count 0\n", 1, "count", "payload");
}

static void help_and_version_do_not_look_at_the_file(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--config", write_config("frobnicate\n"), "--help"), OPTIONS_HELP);
    assert_int_equal(PARSE("--config", "/nonexistent/file", "-V"), OPTIONS_VERSION);
}

static void a_mistake_on_the_command_line_is_told_first(void **state)
{
    (void)state;
    REFUSE("--wait", "--config", write_config("frobnicate\n"), "--wait", "soon", "payload");
    REFUSE("payload", "--config", write_config("wait 1\n"), "-v");
}

static void a_file_that_was_named_and_is_missing_is_at_fault(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--config", "/nonexistent/file", "payload"), OPTIONS_BAD_CONFIG);
    assert_non_null(strstr(error, "/nonexistent/file: No such file"));
}

static void strings_from_the_file_last_until_they_are_freed(void **state)
{
    (void)state;
    ACCEPT_WITH("server example.org\nserver-name inbox\ncert me.crt\nfile data.bin\n", "-v");
    write_config("overwritten\n");
    remove(scratch_path("conf"));
    assert_string_equal(options.host, "example.org");
    assert_string_equal(options.server_name, "inbox");
    assert_string_equal(options.cert_file, "me.crt");
    assert_string_equal(options.payload.text, "data.bin");
    options_free(&options);
    options_free(&options);
}

static void an_error_in_the_file_never_goes_beyond_its_buffer(void **state)
{
    (void)state;
    char *argv[] = {"dtls-send", "--config", write_config("wait soon\n"), "payload", NULL};
    for (size_t size = 1; size < 100; size++) {
        char small[101];
        memset(small, '!', sizeof small);
        assert_int_equal(options_parse(4, argv, &options, small, size), OPTIONS_BAD_CONFIG);
        assert_true(strnlen(small, size) < size);
        assert_int_equal(small[size], '!');
        options_free(&options);
    }
}

/* --- The form of the server, and what it brings --- */

static void a_coaps_server_brings_path_and_query(void **state)
{
    (void)state;
    ACCEPT("--server", "coaps://EXAMPLE.org/a?b", "payload");
    assert_true(options.coaps);
    assert_string_equal(options.host, "example.org");
    assert_string_equal(options.port, "5684");
    assert_int_equal(options.uri_options_length, 6);
    assert_memory_equal(options.uri_options,
                        "\x0b\x01"
                        "a"
                        "\x0f\x01"
                        "b",
                        6);
    ACCEPT("--server", "dtls://example.org", "payload");
    assert_false(options.coaps);
    ACCEPT_WITH("server coaps://a/b\n", "payload");
    assert_true(options.coaps);
    ACCEPT_WITH("server coaps://a/b\n", "--server", "c", "payload");
    assert_false(options.coaps);
    assert_int_equal(options.uri_options_length, 0);
    assert_string_equal(options.port, "1234");
}

static void a_long_server_leaves_room_for_what_is_wrong_with_it(void **state)
{
    (void)state;
    char server[4000] = "coaps://host/";
    memset(server + strlen(server), 'x', sizeof server - strlen(server) - 1);
    REFUSE("path segment of more than 255 bytes", "--server", server, "payload");
}

static void a_method_is_post_put_or_get(void **state)
{
    (void)state;
    ACCEPT("-s", "coaps://h", "--method", "post", "payload");
    assert_int_equal(options.method, METHOD_POST);
    ACCEPT("-s", "coaps://h", "-m", "put", "payload");
    assert_int_equal(options.method, METHOD_PUT);
    ACCEPT("-s", "coaps://h", "-m", "get");
    assert_int_equal(options.method, METHOD_GET);
    assert_int_equal(options.payload.kind, PAYLOAD_NONE);
    static char *const wrong[] = {"", "GET", "delete", "ge", "get "};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        REFUSE("--method", "-s", "coaps://h", "--method", wrong[i], "payload");
}

static void a_get_is_the_only_payload_source(void **state)
{
    (void)state;
    static char *const sources[][3] = {{"secret"}, {"--lines"}, {"--file", "a"}, {"--flush"}, {"--check"}};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        char *argv[] = {"dtls-send", "-s", "coaps://h", "-m", "get", sources[i][0], sources[i][1], NULL};
        if (parse(argv) != OPTIONS_BAD || strstr(error, "--method get and ") == NULL ||
            strstr(error, "only one payload source") == NULL || strstr(error, "secret") != NULL)
            fail_msg("%s: %s", sources[i][0], error);
    }
    REFUSE("no payload", "-s", "coaps://h", "-m", "put");
}

static void a_content_format_is_a_name_or_a_number(void **state)
{
    (void)state;
    static const struct {
        char *value;
        int number;
    } formats[] = {{"text", 0}, {"octets", 42}, {"json", 50},    {"cbor", 60},
                   {"0", 0},    {"110", 110},   {"65535", 65535}};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        ACCEPT("-s", "coaps://h", "--content-format", formats[i].value, "payload");
        assert_int_equal(options.content_format, formats[i].number);
    }
    static char *const wrong[] = {"", "65536", "-1", "JSON", "application/json", "1.5", "0x10", " 1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        REFUSE("--content-format", "-s", "coaps://h", "--content-format", wrong[i], "payload");
}

/* --- Options that have no meaning --- */

/* As words, up to six of them; the rest is NULL. */
static const struct combination {
    char *words[7];
    const char *names[2]; /* of which the error speaks */
} meaningless[] = {
    {{"--lease", "9", "x"}, {"--lease", "--session"}},
    {{"--lease", "9", "--session", "s", "--queue", "q", "x"}, {"--lease", "--queue"}},
    {{"--lease", "9", "--session", "s", "--confirm", "x"}, {"--lease", "--confirm"}},
    {{"--lease", "9", "--session", "s", "-s", "coaps://h", "x"}, {"--lease", "coaps://"}},
    {{"--queue-limit", "9", "x"}, {"--queue-limit", "--queue"}},
    {{"--flush"}, {"--flush", "--queue"}},
    {{"--renew-days", "9", "x"}, {"--renew-days", "--check"}},
    {{"--content-format", "json", "x"}, {"--content-format", "coaps://"}},
    {{"--content-format", "json", "-s", "dtls://h", "x"}, {"--content-format", "coaps://"}},
    {{"--content-format", "json", "-s", "coaps://h", "-m", "get"}, {"--content-format", "get"}},
    {{"--method", "put", "x"}, {"--method", "coaps://"}},
    {{"--method", "post", "-s", "h", "x"}, {"--method", "coaps://"}},
    {{"--method", "get"}, {"--method", "coaps://"}},
    {{"--queue", "q", "-s", "coaps://h", "-m", "get"}, {"--queue", "get"}},
    {{"--confirm", "-s", "coaps://h", "-m", "get"}, {"--confirm", "get"}},
    {{"--hex", "-s", "coaps://h", "-m", "get"}, {"--hex", "payload"}},
    {{"--hex", "--check"}, {"--hex", "--check"}},
    {{"--hex", "--flush", "--queue", "q"}, {"--hex", "--flush"}},
};

static void an_option_without_meaning_is_refused_and_both_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof meaningless / sizeof meaningless[0]; i++) {
        const struct combination *row = &meaningless[i];
        char *argv[9] = {"dtls-send"};
        for (int j = 0; j < 7; j++)
            argv[j + 1] = row->words[j];
        if (parse(argv) != OPTIONS_BAD || strstr(error, row->names[0]) == NULL ||
            strstr(error, row->names[1]) == NULL || strchr(error, '\n') != NULL)
            fail_msg("row %zu, %s: %s", i, row->names[0], error);
    }
}

static void what_a_flag_needs_may_stand_in_the_file(void **state)
{
    (void)state;
    ACCEPT_WITH("session s\n", "--lease", "9", "payload");
    ACCEPT_WITH("queue q\n", "--queue-limit", "9", "payload");
    ACCEPT_WITH("queue q\n", "--flush");
    ACCEPT_WITH("check\n", "--renew-days", "9");
    ACCEPT_WITH("server coaps://h\n", "--method", "get");
    ACCEPT_WITH("server coaps://h\n", "--content-format", "json", "payload");
    REFUSE("--lease", "--config", write_config("session s\nqueue q\n"), "--lease", "9", "payload");
    REFUSE("--lease", "--config", write_config("session s\nconfirm\n"), "--lease", "9", "payload");
    REFUSE("--hex", "--config", write_config("queue q\nflush\n"), "--hex");
}

static void what_the_file_needs_may_be_a_flag(void **state)
{
    (void)state;
    ACCEPT_WITH("lease 9\n", "--session", "s", "payload");
    assert_int_equal(options.lease_ms, 9000);
    ACCEPT_WITH("queue-limit 9\n", "--queue", "q", "payload");
    ACCEPT_WITH("flush\n", "--queue", "q");
    ACCEPT_WITH("method put\ncontent-format json\n", "--server", "coaps://h", "payload");
    assert_int_equal(options.method, METHOD_PUT);
    assert_int_equal(options.content_format, 50);
}

static void what_has_no_meaning_in_file_and_flags_is_the_files_fault(void **state)
{
    (void)state;
    REFUSE_FILE("wait 1\nlease 9\n", 2, "--session", "payload");
    REFUSE_FILE("lease 9\nsession s\nqueue q\n", 1, "--queue", "payload");
    REFUSE_FILE("session s\nlease 9\nconfirm\n", 2, "--confirm", "payload");
    REFUSE_FILE("session s\nlease 9\nserver coaps://h\n", 2, "coaps", "payload");
    REFUSE_FILE("queue-limit 9\n", 1, "--queue", "payload");
    REFUSE_FILE("method put\n", 1, "coaps", "payload");
    REFUSE_FILE("server h\ncontent-format json\n", 2, "coaps", "payload");
    REFUSE_FILE("queue q\nflush\nhex\n", 3, "payload", "-v");
    REFUSE_FILE("server coaps://h\nmethod get\nqueue q\n", 3, "get", "-v");
    REFUSE_FILE("server coaps://h\nmethod get\nlines\n", 3, "only one payload source", "-v");
    assert_int_equal(PARSE("--config", write_config("flush\n"), "-v"), OPTIONS_BAD_CONFIG);
}

static void what_a_flag_makes_meaningless_in_the_file_is_passed_over(void **state)
{
    (void)state;
    ACCEPT_WITH("session s\nlease 9\n", "--confirm", "payload");
    assert_int_equal(options.lease_ms, 0);
    ACCEPT_WITH("session s\nlease 9\n", "--queue", "q", "payload");
    assert_int_equal(options.lease_ms, 0);
    ACCEPT_WITH("session s\nlease 9\n", "--server", "coaps://h", "payload");
    assert_int_equal(options.lease_ms, 0);
    ACCEPT_WITH("server coaps://h\nmethod put\ncontent-format json\n", "--server", "h", "payload");
    assert_int_equal(options.method, METHOD_POST);
    assert_int_equal(options.content_format, -1);
    ACCEPT_WITH("server coaps://h\ncontent-format json\nqueue q\nqueue-limit 9\nconfirm\nhex\nlines\n",
                "--method", "get");
    assert_int_equal(options.method, METHOD_GET);
    assert_int_equal(options.payload.kind, PAYLOAD_NONE);
    assert_null(options.queue);
    assert_int_equal(options.content_format, -1);
    ACCEPT_WITH("server coaps://h\nmethod get\n", "payload");
    assert_int_equal(options.method, METHOD_POST);
    assert_int_equal(options.payload.kind, PAYLOAD_ARGUMENT);
    ACCEPT_WITH("server coaps://h\nmethod get\n", "--method", "put", "payload");
    assert_int_equal(options.method, METHOD_PUT);
    ACCEPT_WITH("hex\n", "--queue", "q", "--flush");
}

static void days_to_renewal_in_the_file_are_for_its_checks(void **state)
{
    (void)state;
    ACCEPT_WITH("renew-days 9\n", "payload");
    ACCEPT_WITH("renew-days 9\nfile f\n", "-v");
    ACCEPT_WITH("renew-days 9\n", "--check");
    assert_int_equal(options.renew_days, 9);
}

static void a_check_may_use_the_file_of_any_run(void **state)
{
    (void)state;
    ACCEPT_WITH("server coaps://h\nmethod get\n", "--check");
    ACCEPT_WITH("hex\nlease 9\nqueue-limit 9\nmethod put\ncontent-format json\nsplay 9\nconfirm\n",
                "--check");
    ACCEPT("--check", "--splay", "9", "--wait", "9", "--count", "9", "--session", "s", "--queue", "q");
}

static void a_confirm_with_coaps_changes_nothing(void **state)
{
    (void)state;
    ACCEPT("-s", "coaps://h", "--confirm", "payload");
    ACCEPT("-s", "coaps://h", "--confirm", "-m", "put", "--queue", "q", "payload");
}

static void the_session_is_not_the_payload(void **state)
{
    (void)state;
    char *file = (char *)scratch_write("payload", "21.5", 4);
    char other[400];
    snprintf(other, sizeof other, "%s/./payload", scratch_directory);
    REFUSE("--session", "--session", file, "--file", file);
    REFUSE("payload", "--session", other, "--file", file);
    REFUSE("--session", "--session", "/nonexistent/file", "--file", "/nonexistent/file");
    REFUSE("--session", "--config", write_config("session /nonexistent/f\n"), "-f", "/nonexistent/f");
    ACCEPT("--session", "/nonexistent/file", "--file", file);
    ACCEPT("--session", file, "--", file); /* its name alone */
    int kept = dup(STDIN_FILENO);
    assert_non_null(freopen(file, "r", stdin));
    options_outcome_t lines = PARSE("--session", file, "--lines");
    options_outcome_t whole = PARSE("--session", file, "--file", "-");
    options_outcome_t neither = PARSE("--session", file, "x");
    assert_int_equal(dup2(kept, STDIN_FILENO), STDIN_FILENO);
    close(kept);
    assert_int_equal(lines, OPTIONS_BAD);
    assert_int_equal(whole, OPTIONS_BAD);
    assert_int_equal(neither, OPTIONS_RUN);
}

static void the_file_may_have_equals_signs(void **state)
{
    (void)state;
    ACCEPT_WITH("server = example.org:7\nwait=2\ncert =a=b\nkey= c\n", "payload");
    assert_string_equal(options.host, "example.org");
    assert_string_equal(options.port, "7");
    assert_int_equal(options.wait_ms, 2000);
    assert_string_equal(options.cert_file, "a=b");
    assert_string_equal(options.key_file, "c");
    REFUSE_FILE("server =\n", 1, "needs a value", "payload");
    REFUSE_FILE("confirm =\n", 1, "takes no value", "payload");
    REFUSE_FILE("confirm=yes\n", 1, "takes no value", "payload");
    REFUSE_FILE("= example.org\n", 1, "unknown", "payload");
    REFUSE_FILE("server example.org # ours\n", 1, "comment", "payload");
}

static int plain_environment(void **state)
{
    /* It would end the options at the first payload. */
    if (unsetenv("POSIXLY_CORRECT") != 0 || scratch_make(state) != 0)
        return -1;
    /* A file without options, so that no other is looked for: the machine may have its own in /etc. */
    return setenv("DTLS_SEND_CONFIG", scratch_write("none.conf", "", 0), 1);
}

static int clean_up(void **state)
{
    options_free(&options);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_payload_alone_is_sent_with_the_documented_defaults),
        cmocka_unit_test(long_options_set_their_own_members),
        cmocka_unit_test(short_options_set_their_own_members),
        cmocka_unit_test(every_notation_of_an_option_means_the_same),
        cmocka_unit_test(an_option_given_twice_is_refused_and_named),
        cmocka_unit_test(an_option_without_its_value_is_refused_and_named),
        cmocka_unit_test(a_value_for_an_option_that_takes_none_is_refused),
        cmocka_unit_test(servers_are_split_into_host_and_port),
        cmocka_unit_test(malformed_servers_are_refused),
        cmocka_unit_test(a_host_may_have_255_characters_and_no_more),
        cmocka_unit_test(what_is_not_a_plain_number_is_refused_and_its_option_named),
        cmocka_unit_test(seconds_are_decimal_to_the_millisecond),
        cmocka_unit_test(no_wait_is_allowed_but_no_timeout_is_not),
        cmocka_unit_test(a_count_is_a_whole_number_from_one),
        cmocka_unit_test(an_mtu_is_from_256_to_16384),
        cmocka_unit_test(a_queue_limit_is_a_whole_number_from_one),
        cmocka_unit_test(a_splay_is_seconds_from_none_to_a_week),
        cmocka_unit_test(a_flush_needs_a_queue_and_is_the_only_payload_source),
        cmocka_unit_test(each_output_format_is_known_by_its_name_alone),
        cmocka_unit_test(verbosity_grows_with_each_v_up_to_the_debug_log),
        cmocka_unit_test(options_that_exclude_each_other_are_refused_and_both_named),
        cmocka_unit_test(unknown_options_are_refused_and_named),
        cmocka_unit_test(empty_names_are_refused),
        cmocka_unit_test(a_run_without_a_payload_source_is_refused),
        cmocka_unit_test(two_payload_sources_are_refused_and_both_named),
        cmocka_unit_test(an_empty_payload_is_a_payload),
        cmocka_unit_test(after_two_dashes_everything_is_payload),
        cmocka_unit_test(a_dash_is_standard_input_only_after_file),
        cmocka_unit_test(the_payload_may_stand_before_between_and_after_options),
        cmocka_unit_test(help_and_version_need_no_payload),
        cmocka_unit_test(an_error_never_quotes_the_payload),
        cmocka_unit_test(an_error_is_written_for_a_refusal_only_and_never_beyond_its_buffer),
        cmocka_unit_test(a_call_depends_on_none_before_it),
        cmocka_unit_test(parsing_prints_nothing),
        cmocka_unit_test(help_tells_every_option_with_its_letter),
        cmocka_unit_test(a_pre_shared_key_is_none_by_default_and_excludes_certificates),
        cmocka_unit_test(a_check_stands_in_the_place_of_a_payload),
        cmocka_unit_test(days_to_renewal_are_a_whole_number_from_0_to_36500),
        cmocka_unit_test(a_line_means_the_same_as_the_flag),
        cmocka_unit_test(a_flag_beats_the_line),
        cmocka_unit_test(a_line_twice_or_without_its_value_or_with_one_too_many_is_refused),
        cmocka_unit_test(a_flag_beats_what_it_excludes),
        cmocka_unit_test(a_payload_source_beats_that_of_the_file),
        cmocka_unit_test(what_excludes_each_other_is_refused_within_the_file_too),
        cmocka_unit_test(some_options_cannot_stand_in_the_file),
        cmocka_unit_test(a_bad_value_is_refused_with_its_line),
        cmocka_unit_test(help_and_version_do_not_look_at_the_file),
        cmocka_unit_test(a_mistake_on_the_command_line_is_told_first),
        cmocka_unit_test(a_file_that_was_named_and_is_missing_is_at_fault),
        cmocka_unit_test(strings_from_the_file_last_until_they_are_freed),
        cmocka_unit_test(an_error_in_the_file_never_goes_beyond_its_buffer),
        cmocka_unit_test(a_coaps_server_brings_path_and_query),
        cmocka_unit_test(a_long_server_leaves_room_for_what_is_wrong_with_it),
        cmocka_unit_test(a_method_is_post_put_or_get),
        cmocka_unit_test(a_get_is_the_only_payload_source),
        cmocka_unit_test(a_content_format_is_a_name_or_a_number),
        cmocka_unit_test(an_option_without_meaning_is_refused_and_both_named),
        cmocka_unit_test(what_a_flag_needs_may_stand_in_the_file),
        cmocka_unit_test(what_the_file_needs_may_be_a_flag),
        cmocka_unit_test(what_has_no_meaning_in_file_and_flags_is_the_files_fault),
        cmocka_unit_test(what_a_flag_makes_meaningless_in_the_file_is_passed_over),
        cmocka_unit_test(days_to_renewal_in_the_file_are_for_its_checks),
        cmocka_unit_test(a_check_may_use_the_file_of_any_run),
        cmocka_unit_test(a_confirm_with_coaps_changes_nothing),
        cmocka_unit_test(the_session_is_not_the_payload),
        cmocka_unit_test(the_file_may_have_equals_signs),
    };
    return cmocka_run_group_tests_name("options", tests, plain_environment, clean_up);
}
