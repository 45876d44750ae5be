#include "command/option_table.h"

#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>

#include "command/value.h"

#define WEEK_MS INT64_C(604800000)

static const char *set_server(options_t *options, const char *value)
{
    uri_t uri;
    const char *problem = uri_parse(value, &uri);
    if (problem != NULL)
        return problem;
    options->coaps = uri.coaps;
    memcpy(options->host, uri.host, sizeof uri.host);
    memcpy(options->port, uri.port, sizeof uri.port);
    memcpy(options->uri_options, uri.options, sizeof uri.options);
    options->uri_options_length = uri.options_length;
    return NULL;
}

static const char *set_server_name(options_t *options, const char *value)
{
    if (*value == '\0' || strlen(value) > 255)
        return "must have 1 to 255 characters";
    options->server_name = value;
    return NULL;
}

static const char *set_ipv4(options_t *options, const char *value)
{
    (void)value;
    options->family = AF_INET;
    return NULL;
}

static const char *set_ipv6(options_t *options, const char *value)
{
    (void)value;
    options->family = AF_INET6;
    return NULL;
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

static const char *set_psk(options_t *options, const char *value)
{
    return set_path(&options->psk_file, value);
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

static const char *set_method(options_t *options, const char *value)
{
    static const char *const names[] = {"post", "put", "get"}; /* in the order of method_t */
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(value, names[i]) == 0) {
            options->method = (method_t)i;
            return NULL;
        }
    }
    return "must be post, put or get";
}

static const char *set_content_format(options_t *options, const char *value)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {{"text", 0}, {"octets", 42}, {"json", 50}, {"cbor", 60}};
    uint64_t number = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(value, known[i].name) == 0) {
            options->content_format = known[i].number;
            return NULL;
        }
    }
    if (!value_number(value, 0, UINT16_MAX, &number))
        return "must be text, json, cbor, octets or a number from 0 to 65535";
    options->content_format = (int)number;
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

static const char *set_check(options_t *options, const char *value)
{
    (void)value;
    options->check = true;
    return NULL;
}

static const char *set_renew_days(options_t *options, const char *value)
{
    return value_number(value, 0, 36500, &options->renew_days) ? NULL
                                                               : "must be a whole number from 0 to 36500";
}

static const char *set_mtu(options_t *options, const char *value)
{
    uint64_t mtu = 0;
    if (!value_number(value, 256, 16384, &mtu))
        return "must be a whole number of bytes from 256 to 16384";
    options->mtu = (uint16_t)mtu;
    return NULL;
}

static const char *set_config(options_t *options, const char *value)
{
    return set_path(&options->config_file, value);
}

static const char *set_verbose(options_t *options, const char *value)
{
    (void)value;
    options->verbosity += options->verbosity < 2;
    return NULL;
}

static const char *set_quiet(options_t *options, const char *value)
{
    (void)value;
    options->verbosity = -1;
    return NULL;
}

#define CERTIFICATES GROUP_CREDENTIALS, "certificates"

const option_t option_table[OPTION_ROWS] = {
    {.help = "Server:"},
    {"server", 's', "SERVER", "HOST[:PORT], or coaps://HOST[:PORT]/PATH?QUERY\n(default data.lab5e.com:1234)",
     set_server, GROUP_NONE, NULL},
    {"server-name", 0, "NAME", "name in its certificate (default HOST)", set_server_name, GROUP_NONE, NULL},
    {"ipv4", '4', NULL, "IPv4 addresses only", set_ipv4, GROUP_FAMILY, NULL},
    {"ipv6", '6', NULL, "IPv6 addresses only", set_ipv6, GROUP_FAMILY, NULL},

    {.help = "Credentials:"},
    {"cert", 'c', "FILE",
     "this device's certificate, intermediates\nand roots, PEM or DER (default cert.crt)", set_cert,
     CERTIFICATES},
    {"key", 'k', "FILE", "its private key (default key.pem)", set_key, CERTIFICATES},
    {"passphrase-file", 0, "FILE", "file whose first line decrypts the key", set_passphrase_file,
     CERTIFICATES},
    {"ca", 'C', "FILE|DIR", "trust anchors instead of those in --cert", set_ca, CERTIFICATES},
    {"psk", 0, "FILE", "instead of these: one line, identity:hexkey", set_psk, GROUP_CREDENTIALS, NULL},

    {.help = "Payload (one of PAYLOAD, --file, --lines, --flush, --method get):"},
    {"file", 'f', "FILE", "the bytes of FILE; - is standard input", set_file, GROUP_SOURCE, NULL},
    {"lines", 'l', NULL, "each line of standard input is a payload", set_lines, GROUP_SOURCE, NULL},
    {"flush", 0, NULL, "none: only what waits in the --queue", set_flush, GROUP_SOURCE, NULL},
    {"hex", 'x', NULL, "the payload is written as hex digits", set_hex, GROUP_NONE, NULL},
    {"method", 'm', "METHOD", "coaps: post, put, get (default post)", set_method, GROUP_NONE, NULL},
    {"content-format", 0, "FORMAT", "coaps: text, json, cbor, octets or a number", set_content_format,
     GROUP_NONE, NULL},

    {.help = "Delivery:"},
    {"confirm", 0, NULL, "resend until a downlink answers", set_confirm, GROUP_NONE, NULL},
    {"session", 0, "FILE", "keep the DTLS session here between runs", set_session, GROUP_NONE, NULL},
    {"lease", 0, "SECONDS",
     "without --confirm, trust a kept association\nso long after the server was heard (default 0)", set_lease,
     GROUP_NONE, NULL},
    {"queue", 0, "DIR", "payloads wait here until they are delivered", set_queue, GROUP_NONE, NULL},
    {"queue-limit", 0, "N", "refuse a payload when N wait (default 10000)", set_queue_limit, GROUP_NONE,
     NULL},

    {.help = "Downlinks, printed on standard output:"},
    {"wait", 'w', "SECONDS",
     "end after so much silence (default: 1, or two\nround trips and 0.5 if that is more; coaps: 0)",
     set_wait, GROUP_NONE, NULL},
    {"count", 'n', "N", "end after N downlinks (default: no limit)", set_count, GROUP_NONE, NULL},
    {"output", 'o', "FORMAT", "text, raw, hex, base64, json (default text)", set_output, GROUP_NONE, NULL},

    {.help = "The run:"},
    {"timeout", 't', "SECONDS", "end by then, whatever hangs (default 60)", set_timeout, GROUP_NONE, NULL},
    {"splay", 0, "SECONDS", "random delay before connecting (default 0)", set_splay, GROUP_NONE, NULL},
    {"mtu", 0, "BYTES", "largest handshake datagram (default 1232)", set_mtu, GROUP_NONE, NULL},
    {"check", 0, NULL, "send nothing: report on the credentials", set_check, GROUP_SOURCE, NULL},
    {"renew-days", 0, "N", "--check: 78 if fewer are left (default 3)", set_renew_days, GROUP_NONE, NULL},
    {"config", 0, "FILE", "read options from FILE, one a line", set_config, GROUP_NONE, NULL},
    {"verbose", 'v', NULL, "a line a step on standard error;\n-vv adds the log of mbed TLS", set_verbose,
     GROUP_VERBOSITY, NULL},
    {"quiet", 'q', NULL, "nothing on standard error", set_quiet, GROUP_VERBOSITY, NULL},
    {"help", 'h', NULL, "print this, and end", NULL, GROUP_NONE, NULL},
    {"version", 'V', NULL, "print the versions, and end", NULL, GROUP_NONE, NULL},
};

/* --- What gives an option its meaning --- */

static bool is_coaps(const options_t *options)
{
    return options->coaps;
}

static bool is_plain(const options_t *options)
{
    return !options->coaps;
}

static bool has_session(const options_t *options)
{
    return options->session != NULL;
}

static bool has_queue(const options_t *options)
{
    return options->queue != NULL;
}

static bool has_no_queue(const options_t *options)
{
    return options->queue == NULL;
}

static bool is_unconfirmed(const options_t *options)
{
    return !options->confirm;
}

static bool is_no_get(const options_t *options)
{
    return options->method != METHOD_GET;
}

static bool has_text(const options_t *options)
{
    return options->payload.kind != PAYLOAD_NONE;
}

static bool is_check(const options_t *options)
{
    return options->check;
}

const option_rule_t option_rules[OPTION_RULES] = {
    {"method", "server", is_coaps, "needs --server coaps://..., the only form that has methods", false},
    {"content-format", "server", is_coaps, "needs --server coaps://..., the only form that sends it", false},
    {"content-format", NULL, is_no_get, "has no meaning with --method get, which has no payload", false},
    {"hex", NULL, has_text, "needs a payload: there is none with --flush, --check or --method get", false},
    {"confirm", NULL, is_no_get, "has no meaning with --method get, which is always answered", false},
    {"lease", "session", has_session, "needs --session, the file of what it trusts", false},
    {"lease", "queue", has_no_queue, "cannot be given with --queue, whose promise it would break", false},
    {"lease", "confirm", is_unconfirmed, "has no meaning with --confirm, which trusts answers alone", false},
    {"lease", "server", is_plain, "has no meaning with --server coaps://..., where all is answered", false},
    {"queue", NULL, is_no_get, "has no meaning with --method get, which has no payload", false},
    {"queue-limit", "queue", has_queue, "needs --queue, which it limits", false},
    {"flush", "queue", has_queue, "needs --queue, which names what to flush", false},
    {"renew-days", NULL, is_check, "needs --check, which counts them", true},
};

const status_t status_table[STATUS_ROWS] = {
    {EX_OK, "every payload was sent (--confirm, coaps: confirmed)"},
    {EX_USAGE, "bad option, value or combination on the command line"},
    {EX_DATAERR, "payload refused: over 16384 bytes, bad hex, or by the server"},
    {EX_NOINPUT, "payload file missing, unreadable or empty"},
    {EX_NOHOST, "host name unknown"},
    {EX_UNAVAILABLE, "server unavailable: every address refused"},
    {EX_SOFTWARE, "internal error (a bug)"},
    {EX_OSERR, "operating system error (socket, memory, entropy)"},
    {EX_CANTCREAT, "the queue cannot be written, or is full"},
    {EX_IOERR, "a downlink could not be written to standard output"},
    {EX_TEMPFAIL, "temporary: timeout, no answer, no confirmation; try later"},
    {EX_PROTOCOL, "protocol: handshake failed, server too old, alert, bad answer"},
    {EX_NOPERM, "trust: server's certificate refused, or it refuses this device"},
    {EX_CONFIG, "credentials or config file unusable"},
};
