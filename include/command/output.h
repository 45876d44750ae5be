/* Downlinks on standard output, and nothing else on it. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "system/wait.h"

/* Bytes in one write: what a pipe that polls as writable takes without blocking (PIPE_BUF). */
#define OUTPUT_CHUNK 4096

typedef enum { OUTPUT_TEXT, OUTPUT_RAW, OUTPUT_HEX, OUTPUT_BASE64, OUTPUT_JSON } output_format_t;

/* Their names, in the order of the enum, NULL at the end. */
extern const char *const output_format_names[];

typedef struct {
    int fd;
    output_format_t format;
    bool terminal;      /* control characters in text are escaped */
    const char *server; /* for json: "host:port"; the caller's */
    wait_limit_t limit; /* how long a full pipe is waited for */
    /* For json, of a CoAP response: its code ("2.05"), the caller's, and its Content-Format; NULL and -1:
     * none. */
    const char *code;
    int content_format;
    char chunk[OUTPUT_CHUNK];
    size_t used; /* of chunk */
    bool failed; /* and error says why */
    char error[256];
} output_t;

/* Prepares for writing downlinks to `fd`, and finds out whether they can be: false, with output->error set,
 * for one that is closed, read-only, a pipe without reader, or a full device. To be called before anything is
 * sent. */
bool output_open(output_t *output, int fd, output_format_t format, const char *server, wait_limit_t limit);

/* Writes one downlink, whole, in the format chosen:
 *
 *     text    the bytes and a newline; on a terminal, control characters and what is not UTF-8 as \xHH
 *     raw     the bytes
 *     hex     lower case digits and a newline
 *     base64  RFC 4648, and a newline
 *     json    {"payload":BASE64,"text":STRING,"size":N,"server":STRING,"received_at":RFC 3339} and a newline
 *
 * In json, text is there only if it is UTF-8; "code":STRING and "content_format":N follow the size where they
 * are set.
 *
 * False: output->error says why; a part of it may have been written. Waits while a pipe is full, until the
 * limit. */
bool output_write(output_t *output, const unsigned char *bytes, size_t length);

#endif
