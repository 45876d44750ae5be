#include "command/option_table.h"

#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>

#include "command/value.h"

#define WEEK_MS INT64_C(604800000)

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
    {"server", 's', "HOST[:PORT]", "server (default data.lab5e.com:1234)", set_server, GROUP_NONE, NULL},
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

    {.help = "Payload (one of PAYLOAD, --file, --lines, --flush; at most 16384 bytes):"},
    {"file", 'f', "FILE", "the bytes of FILE; - is standard input", set_file, GROUP_SOURCE, NULL},
    {"lines", 'l', NULL, "each line of standard input is a payload", set_lines, GROUP_SOURCE, NULL},
    {"flush", 0, NULL, "none: only what waits in the --queue", set_flush, GROUP_SOURCE, NULL},
    {"hex", 'x', NULL, "the payload is written as hex digits", set_hex, GROUP_NONE, NULL},

    {.help = "Delivery:"},
    {"confirm", 0, NULL, "resend until a downlink answers", set_confirm, GROUP_NONE, NULL},
    {"session", 0, "FILE", "keep the DTLS session here between runs", set_session, GROUP_NONE, NULL},
    {"lease", 0, "SECONDS",
     "without --confirm, trust a kept association\nso long after the server was heard (default 0)", set_lease,
     GROUP_NONE, NULL},
    {"queue", 0, "DIR", "payloads wait here until they are sent", set_queue, GROUP_NONE, NULL},
    {"queue-limit", 0, "N", "refuse a payload when N wait (default 10000)", set_queue_limit, GROUP_NONE,
     NULL},

    {.help = "Downlinks, printed on standard output:"},
    {"wait", 'w', "SECONDS", "end after so much silence (default 1)", set_wait, GROUP_NONE, NULL},
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

const status_t status_table[STATUS_ROWS] = {
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
    {EX_CONFIG, "credentials or config file unusable"},
};
