/* What can be set, and the one table of options that set it: flags, configuration file, --help and completion
 * all come from it, or are held to it. */
#ifndef OPTION_TABLE_H
#define OPTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/config.h"
#include "command/output.h"
#include "command/payload.h"
#include "command/uri.h"

#define OPTIONS_HOST_SIZE URI_HOST_SIZE

/* What a CoAP request asks for (RFC 7252 section 5.8). */
typedef enum { METHOD_POST, METHOD_PUT, METHOD_GET } method_t;

/* What all options set. Strings point into argv or `config`, but host and port. */
typedef struct {
    bool coaps; /* CoAP over DTLS; false: the payload is the record */
    char host[OPTIONS_HOST_SIZE];
    char port[6];
    unsigned char uri_options[URI_OPTIONS_SIZE]; /* path and query, in the form that uri.h describes */
    size_t uri_options_length;
    method_t method;         /* METHOD_GET: there is no payload, and payload.kind is PAYLOAD_NONE */
    int content_format;      /* of the payload, 0 to 65535 (RFC 7252 section 12.3); -1: none is sent */
    const char *server_name; /* NULL: host */
    int family;              /* AF_UNSPEC, AF_INET, AF_INET6 */
    const char *cert_file;   /* NULL: not given; likewise the key */
    const char *key_file;
    const char *passphrase_file; /* NULL: none */
    const char *ca;              /* NULL: none */
    const char *psk_file;        /* instead of all these; NULL: none */
    payload_source_t payload;
    bool confirm;
    const char *session; /* NULL: none */
    int64_t lease_ms;
    const char *queue; /* NULL: none */
    uint64_t queue_limit;
    int64_t splay_ms;
    int64_t wait_ms; /* -1: not given, and the run decides */
    uint64_t count;  /* 0: no limit */
    output_format_t format;
    int64_t timeout_ms;
    uint16_t mtu;
    bool check;
    uint64_t renew_days;
    const char *config_file; /* --config; NULL: the usual places */
    config_t config;
    int verbosity; /* a log_level_t */
} options_t;

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

/* What gives an option its meaning. */
typedef struct {
    const char *option;
    const char *decider; /* the option that decides whether it has one; NULL: the payload source does */
    bool (*has_meaning)(const options_t *options);
    const char *problem; /* follows the option's name where it has none */
    bool is_default;     /* in the configuration file it is for the runs where it has one, and no mistake */
} option_rule_t;

typedef struct {
    int status;
    const char *meaning;
} status_t;

enum { OPTION_ROWS = 39, OPTION_RULES = 13, STATUS_ROWS = 14 };

extern const option_t option_table[OPTION_ROWS];

extern const option_rule_t option_rules[OPTION_RULES];

/* The exit statuses are an interface: scripts depend on them. */
extern const status_t status_table[STATUS_ROWS];

#endif
