/* What a run is asked to do, by the command line and the configuration file. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "command/config.h"
#include "command/output.h"
#include "command/payload.h"

#define OPTIONS_HOST_SIZE                                                                                    \
    256 /* a DNS name has at most 253 characters (RFC 1035 section 2.3.4), and a NUL                         \
         */

/* Strings point into argv or `config`, but host and port. */
typedef struct {
    char host[OPTIONS_HOST_SIZE];
    char port[6];
    const char *server_name; /* NULL: host */
    int family;              /* AF_UNSPEC, AF_INET, AF_INET6 */
    const char *cert_file;   /* NULL: the certificates that were built in; likewise the key */
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
    int64_t wait_ms;
    uint64_t count; /* 0: no limit */
    output_format_t format;
    int64_t timeout_ms;
    uint16_t mtu;
    bool check;
    uint64_t renew_days;
    const char *config_file; /* --config; NULL: the usual places */
    config_t config;
    int verbosity; /* a log_level_t */
} options_t;

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
