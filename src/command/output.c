#include "command/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <mbedtls/base64.h>

const char *const output_format_names[] = {"text", "raw", "hex", "base64", "json", NULL};

static bool fail(output_t *output, const char *reason)
{
    snprintf(output->error, sizeof output->error, "standard output: %s", reason);
    output->failed = true;
    return false;
}

bool output_open(output_t *output, int fd, output_format_t format, const char *server, wait_limit_t limit)
{
    output->fd = fd;
    output->format = format;
    output->server = server;
    output->limit = limit;
    output->code = NULL;
    output->content_format = -1;
    output->used = 0;
    output->failed = false;
    output->error[0] = '\0';

    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return fail(output, strerror(errno));
    if ((flags & O_ACCMODE) == O_RDONLY)
        return fail(output, "not open for writing");
    /* Nothing is written, but a device that takes nothing (/dev/full) already says so. */
    if (write(fd, "", 0) < 0)
        return fail(output, strerror(errno));
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    if (poll(&polled, 1, 0) > 0 && (polled.revents & (POLLERR | POLLNVAL)) != 0)
        return fail(output, strerror(EPIPE));
    output->terminal = isatty(fd) == 1;
    return true;
}

/* Never more than a chunk in one write: a larger one into a pipe would block, deaf to the deadline. */
static void flush(output_t *output)
{
    size_t written = 0;
    while (written < output->used && !output->failed) {
        switch (wait_for(output->fd, POLLOUT, output->limit)) {
        case WAIT_READY:
            break;
        case WAIT_TIMEOUT:
            fail(output, "nobody read it before --timeout");
            return;
        case WAIT_INTERRUPTED:
            fail(output, "interrupted");
            return;
        case WAIT_FAILED:
            fail(output, strerror(errno));
            return;
        }
        ssize_t count = write(output->fd, output->chunk + written, output->used - written);
        if (count >= 0)
            written += (size_t)count;
        else if (errno != EINTR && errno != EAGAIN)
            fail(output, strerror(errno));
    }
    output->used = 0;
}

static void emit(output_t *output, const void *bytes, size_t length)
{
    const char *from = bytes;
    while (length > 0 && !output->failed) {
        size_t room = OUTPUT_CHUNK - output->used;
        size_t part = length < room ? length : room;
        memcpy(output->chunk + output->used, from, part);
        output->used += part;
        from += part;
        length -= part;
        if (output->used == OUTPUT_CHUNK)
            flush(output);
    }
}

static void emit_string(output_t *output, const char *string)
{
    emit(output, string, strlen(string));
}

static void emit_hex(output_t *output, const unsigned char *bytes, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < length; i++) {
        char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
        emit(output, pair, 2);
    }
}

static void emit_base64(output_t *output, const unsigned char *bytes, size_t length)
{
    enum { GROUP = 768 }; /* a multiple of three: no padding but at the end */
    unsigned char text[GROUP / 3 * 4 + 1];
    for (size_t i = 0; i < length; i += GROUP) {
        size_t part = length - i < GROUP ? length - i : GROUP;
        size_t size = 0;
        if (mbedtls_base64_encode(text, sizeof text, &size, bytes + i, part) != 0)
            fail(output, "base64 failed");
        emit(output, text, size);
    }
}

/* The length of the well-formed UTF-8 character (Unicode 15, table 3-7) at the start of `bytes`; 0: there is
 * none. */
static size_t utf8_length(const unsigned char *bytes, size_t left)
{
    unsigned char first = bytes[0];
    if (first < 0x80)
        return 1;
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || left < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
    }
    bool overlong = (first == 0xe0 && bytes[1] < 0xa0) || (first == 0xf0 && bytes[1] < 0x90);
    bool surrogate = first == 0xed && bytes[1] > 0x9f;
    bool beyond = first == 0xf4 && bytes[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : length;
}

static bool is_utf8(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0, step = 0; i < length; i += step) {
        step = utf8_length(bytes + i, length - i);
        if (step == 0)
            return false;
    }
    return true;
}

/* Whether a terminal would act on it: C0 but newline and tab, DEL, and C1, which UTF-8 writes as C2 80 to C2
 * 9F. */
static bool is_control(const unsigned char *character, size_t length)
{
    unsigned char first = character[0];
    if (length == 1)
        return (first < 0x20 && first != '\n' && first != '\t') || first == 0x7f;
    return first == 0xc2 && character[1] < 0xa0;
}

/* A downlink must not be able to drive the terminal of whoever reads it. */
static void emit_for_terminal(output_t *output, const unsigned char *bytes, size_t length)
{
    for (size_t i = 0, step = 0; i < length; i += step) {
        step = utf8_length(bytes + i, length - i);
        if (step > 0 && !is_control(bytes + i, step)) {
            emit(output, bytes + i, step);
            continue;
        }
        step = step == 0 ? 1 : step;
        for (size_t j = i; j < i + step; j++) {
            emit_string(output, "\\x");
            emit_hex(output, bytes + j, 1);
        }
    }
}

/* A JSON string (RFC 8259 section 7). */
static void emit_json_string(output_t *output, const unsigned char *text, size_t length)
{
    emit_string(output, "\"");
    for (size_t i = 0; i < length; i++) {
        char escaped[8];
        if (text[i] == '"' || text[i] == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", text[i]);
        else if (text[i] == 0xc2 && i + 1 < length && text[i + 1] < 0xa0) /* C1: a terminal would act on it */
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)text[++i]);
        else if (text[i] < 0x20 || text[i] == 0x7f)
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)text[i]);
        else
            escaped[0] = '\0';
        if (escaped[0] != '\0')
            emit_string(output, escaped);
        else
            emit(output, text + i, 1);
    }
    emit_string(output, "\"");
}

/* RFC 3339, in UTC, with milliseconds. */
static void emit_time(output_t *output)
{
    struct timespec now;
    struct tm parts;
    char text[80];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t length = strftime(text, sizeof text, "\"%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + length, sizeof text - length, ".%03dZ\"", (int)(now.tv_nsec / 1000000));
    emit_string(output, text);
}

static void emit_response(output_t *output)
{
    if (output->code != NULL) {
        emit_string(output, "\"code\":\"");
        emit_string(output, output->code);
        emit_string(output, "\",");
    }
    if (output->content_format >= 0) {
        char number[40];
        snprintf(number, sizeof number, "\"content_format\":%d,", output->content_format);
        emit_string(output, number);
    }
}

static void emit_json(output_t *output, const unsigned char *bytes, size_t length)
{
    char size[40];
    snprintf(size, sizeof size, "\"size\":%zu,", length);
    emit_string(output, "{\"payload\":\"");
    emit_base64(output, bytes, length);
    emit_string(output, "\",");
    if (is_utf8(bytes, length)) {
        emit_string(output, "\"text\":");
        emit_json_string(output, bytes, length);
        emit_string(output, ",");
    }
    emit_string(output, size);
    emit_response(output);
    emit_string(output, "\"server\":");
    emit_json_string(output, (const unsigned char *)output->server, strlen(output->server));
    emit_string(output, ",\"received_at\":");
    emit_time(output);
    emit_string(output, "}");
}

bool output_write(output_t *output, const unsigned char *bytes, size_t length)
{
    switch (output->format) {
    case OUTPUT_TEXT:
        if (output->terminal)
            emit_for_terminal(output, bytes, length);
        else
            emit(output, bytes, length);
        break;
    case OUTPUT_RAW:
        emit(output, bytes, length);
        break;
    case OUTPUT_HEX:
        emit_hex(output, bytes, length);
        break;
    case OUTPUT_BASE64:
        emit_base64(output, bytes, length);
        break;
    case OUTPUT_JSON:
        emit_json(output, bytes, length);
        break;
    }
    if (output->format != OUTPUT_RAW)
        emit_string(output, "\n");
    flush(output);
    return !output->failed;
}
