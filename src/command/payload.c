#include "command/payload.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/value.h"

static const char too_large[] = "larger than 16384 bytes, which is all that one DTLS record can carry";
static const char empty[] = "is empty; give '' as PAYLOAD if an empty payload is meant";

/* Takes a payload's text byte by byte, so that any amount of white space costs no memory. */
typedef struct {
    payload_reader_t *reader;
    int high;            /* the first digit of a byte; -1: none is pending */
    const char *problem; /* NULL: none so far */
} collector_t;

static void add_byte(collector_t *collector, unsigned char byte)
{
    payload_reader_t *reader = collector->reader;
    if (reader->length < PAYLOAD_MAX)
        reader->bytes[reader->length++] = byte;
    else
        collector->problem = too_large;
}

static void add_digit(collector_t *collector, unsigned char digit)
{
    int value = value_hex_digit((char)digit);
    if (digit == ' ' || (digit >= '\t' && digit <= '\r'))
        return;
    if (value < 0) {
        collector->problem = "not hex: only digits 0-9, a-f and white space are allowed";
    } else if (collector->high < 0) {
        collector->high = value;
    } else {
        add_byte(collector, (unsigned char)(collector->high << 4 | value));
        collector->high = -1;
    }
}

static void collect(collector_t *collector, const unsigned char *text, size_t length)
{
    bool hex = collector->reader->source.hex;
    for (size_t i = 0; i < length && collector->problem == NULL; i++) {
        if (hex)
            add_digit(collector, text[i]);
        else
            add_byte(collector, text[i]);
    }
}

/* The source's name, for a message; the payload itself may be confidential. */
static void describe(const payload_reader_t *reader, char name[static 300])
{
    if (reader->source.kind == PAYLOAD_ARGUMENT)
        snprintf(name, 300, "PAYLOAD");
    else if (reader->source.kind == PAYLOAD_LINES && reader->line > 0)
        snprintf(name, 300, "standard input, line %zu", reader->line);
    else if (reader->source.kind == PAYLOAD_LINES || strcmp(reader->source.text, "-") == 0)
        snprintf(name, 300, "standard input");
    else
        snprintf(name, 300, "%s", reader->source.text);
}

static payload_outcome_t fail(payload_reader_t *reader, payload_outcome_t outcome, const char *reason)
{
    char name[300];
    describe(reader, name);
    snprintf(reader->error, sizeof reader->error, "%s: %s", name, reason);
    return outcome;
}

static payload_outcome_t finish(collector_t *collector)
{
    if (collector->problem == NULL && collector->high >= 0)
        collector->problem = "an odd number of hex digits";
    if (collector->problem != NULL)
        return fail(collector->reader, PAYLOAD_REFUSED, collector->problem);
    return PAYLOAD_OK;
}

void payload_open(payload_reader_t *reader, payload_source_t source, wait_limit_t limit)
{
    reader->source = source;
    reader->limit = limit;
    reader->fd = -1;
    reader->finished = false;
    reader->line = 0;
    reader->start = reader->end = 0;
    reader->length = 0;
    reader->error[0] = '\0';
}

static payload_outcome_t open_source(payload_reader_t *reader)
{
    if (reader->source.kind == PAYLOAD_LINES || strcmp(reader->source.text, "-") == 0)
        reader->fd = STDIN_FILENO;
    else
        /* Non-blocking, so that a FIFO without a writer is waited for under the deadline too. */
        reader->fd = open(reader->source.text, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (reader->fd >= 0)
        return PAYLOAD_OK;
    return fail(reader, PAYLOAD_UNREADABLE, strerror(errno));
}

/* Reads on where all that was read is used up. start == end afterwards: the input is at its end. */
static payload_outcome_t fill(payload_reader_t *reader)
{
    if (reader->start < reader->end)
        return PAYLOAD_OK;
    for (;;) {
        switch (wait_for(reader->fd, POLLIN, reader->limit)) {
        case WAIT_READY:
            break;
        case WAIT_TIMEOUT:
            return fail(reader, PAYLOAD_TIMEOUT, "nothing more came before --timeout");
        case WAIT_INTERRUPTED:
            return fail(reader, PAYLOAD_INTERRUPTED, "interrupted");
        case WAIT_FAILED:
            return fail(reader, PAYLOAD_UNREADABLE, strerror(errno));
        }
        ssize_t got = read(reader->fd, reader->input, sizeof reader->input);
        /* Ctrl-C ends the writer of a pipe too: what came until then is not the whole payload. */
        if (got == 0 && wait_is_cancelled(reader->limit))
            return fail(reader, PAYLOAD_INTERRUPTED, "interrupted");
        if (got >= 0) {
            reader->start = 0;
            reader->end = (size_t)got;
            return PAYLOAD_OK;
        }
        /* EAGAIN: another reader of the same pipe was quicker. */
        if (errno != EINTR && errno != EAGAIN)
            return fail(reader, PAYLOAD_UNREADABLE, strerror(errno));
    }
}

static payload_outcome_t next_argument(payload_reader_t *reader)
{
    collector_t collector = {.reader = reader, .high = -1};
    collect(&collector, (const unsigned char *)reader->source.text, strlen(reader->source.text));
    reader->finished = true;
    return finish(&collector);
}

static payload_outcome_t next_file(payload_reader_t *reader)
{
    collector_t collector = {.reader = reader, .high = -1};
    reader->finished = true;
    do {
        payload_outcome_t outcome = fill(reader);
        if (outcome != PAYLOAD_OK)
            return outcome;
        if (reader->start == reader->end)
            break;
        collect(&collector, reader->input + reader->start, reader->end - reader->start);
        reader->start = reader->end;
    } while (collector.problem == NULL);
    payload_outcome_t outcome = finish(&collector);
    /* Nobody means an empty file: it is what a broken sensor writes. */
    return outcome == PAYLOAD_OK && reader->length == 0 ? fail(reader, PAYLOAD_UNREADABLE, empty) : outcome;
}

/* Standard input is at its end, before a line began. */
static payload_outcome_t end_lines(payload_reader_t *reader)
{
    if (--reader->line > 0)
        return PAYLOAD_END;
    return fail(reader, PAYLOAD_UNREADABLE, empty);
}

static payload_outcome_t next_line(payload_reader_t *reader)
{
    collector_t collector = {.reader = reader, .high = -1};
    reader->line++;
    for (bool begun = false;; begun = true) {
        payload_outcome_t outcome = fill(reader);
        if (outcome != PAYLOAD_OK)
            return outcome;
        if (reader->start == reader->end) {
            reader->finished = true;
            return begun ? finish(&collector) : end_lines(reader);
        }
        /* Input that never ends is always ready, and no wait would find that the time is over. */
        if (wait_now_ms() >= reader->limit.deadline_ms)
            return fail(reader, PAYLOAD_TIMEOUT, "more came than --timeout leaves time for");
        const unsigned char *text = reader->input + reader->start;
        const unsigned char *newline = memchr(text, '\n', reader->end - reader->start);
        size_t length = newline != NULL ? (size_t)(newline - text) : reader->end - reader->start;
        collect(&collector, text, length);
        reader->start += newline != NULL ? length + 1 : length;
        if (newline != NULL)
            return finish(&collector);
    }
}

payload_outcome_t payload_next(payload_reader_t *reader)
{
    reader->length = 0;
    if (reader->finished || reader->source.kind == PAYLOAD_NONE)
        return PAYLOAD_END;
    if (reader->source.kind == PAYLOAD_ARGUMENT)
        return next_argument(reader);
    if (reader->fd < 0) {
        payload_outcome_t outcome = open_source(reader);
        if (outcome != PAYLOAD_OK) {
            reader->finished = true;
            return outcome;
        }
    }
    return reader->source.kind == PAYLOAD_FILE ? next_file(reader) : next_line(reader);
}

int payload_fd(const payload_reader_t *reader)
{
    bool line_waits = memchr(reader->input + reader->start, '\n', reader->end - reader->start) != NULL;
    return reader->finished || line_waits ? -1 : reader->fd;
}

void payload_close(payload_reader_t *reader)
{
    if (reader->fd >= 0 && reader->fd != STDIN_FILENO)
        close(reader->fd);
    reader->fd = -1;
}
