/* Where payloads come from: the command line, a file, standard input, or standard input's lines; perhaps in
 * hex. */
#ifndef PAYLOAD_H
#define PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "system/wait.h"

#define PAYLOAD_MAX 16384 /* bytes: what one DTLS record can carry */

typedef enum { PAYLOAD_NONE, PAYLOAD_ARGUMENT, PAYLOAD_FILE, PAYLOAD_LINES } payload_kind_t;

typedef struct {
    payload_kind_t kind;
    const char *text; /* PAYLOAD_ARGUMENT: the payload. PAYLOAD_FILE: the path; "-" is standard input */
    bool hex;         /* what is read are hex digits; white space between them is allowed */
} payload_source_t;

typedef enum {
    PAYLOAD_OK,
    PAYLOAD_END,        /* there are no more */
    PAYLOAD_REFUSED,    /* too large, or bad hex; the next one may be good */
    PAYLOAD_UNREADABLE, /* the file is missing, cannot be read, or is empty */
    PAYLOAD_TIMEOUT,    /* the deadline came before the payload, or before the end of the lines */
    PAYLOAD_INTERRUPTED
} payload_outcome_t;

/* A source being read. Holds its own buffers, so it is large: about 33 kB. */
typedef struct {
    payload_source_t source;
    wait_limit_t limit;
    int fd;        /* what is read; -1: nothing, or not opened yet. Owned unless standard input */
    bool finished; /* the only payload was given, or the end of input seen */
    size_t line;   /* number of the line given last, from 1 */
    unsigned char input[16384]; /* read ahead: input[start..end) */
    size_t start, end;
    unsigned char bytes[PAYLOAD_MAX]; /* the payload that payload_next() gave */
    size_t length;
    char error[512];
} payload_reader_t;

/* Starts reading `source`, whose text must outlive the reader. Blocks for nothing, opens nothing. */
void payload_open(payload_reader_t *reader, payload_source_t source, wait_limit_t limit);

/* Puts the next payload into reader->bytes and reader->length, where it stays until the next call. NONE gives
 * none, ARGUMENT and FILE one, LINES one a line without its newline; the last line needs none. An argument
 * and a line may be empty; a file, or standard input without any line, is unreadable then. Waits for standard
 * input and pipes until the limit, and gives no line after it. For all but OK and END reader->error says in
 * one line why. */
payload_outcome_t payload_next(payload_reader_t *reader);

/* For PAYLOAD_LINES: the descriptor that payload_next() would have to wait for; -1: a line, or the end, is
 * there. */
int payload_fd(const payload_reader_t *reader);

/* Closes what was opened. */
void payload_close(payload_reader_t *reader);

#endif
