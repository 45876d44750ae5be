/* Payloads as text or hex: from an argument, a file, standard input or its lines. The first byte of an input
 * says which, and the rest is what is read, perhaps many times over. Held against the plainest decoder that
 * there can be. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "command/payload.h"
#include "fuzz.h"

enum { HEX = 4, PIPE = 8, REPEATED = 16, TEXT_MAX = 3 * PAYLOAD_MAX };

/* What one payload must come to. */
typedef struct {
    bool refused;
    unsigned char bytes[PAYLOAD_MAX];
    size_t length;
} expected_t;

static int digit_of(int c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c == '\0' ? NULL : strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c);
    return found != NULL ? (int)(found - digits) : -1;
}

/* By the pair, after the white space is gone; where the payload decodes it. */
static void decode_hex(input_t text, expected_t *expected)
{
    char *digits = malloc(text.length + 1);
    size_t count = 0;
    REQUIRE(digits != NULL);
    for (size_t i = 0; i < text.length; i++) {
        if (text.bytes[i] == '\0' || strchr(" \t\n\v\f\r", text.bytes[i]) == NULL)
            digits[count++] = (char)text.bytes[i];
    }
    expected->refused = count % 2 != 0 || count / 2 > PAYLOAD_MAX;
    for (size_t i = 0; i < count && !expected->refused; i++)
        expected->refused = digit_of(digits[i]) < 0;
    expected->length = expected->refused ? 0 : count / 2;
    for (size_t i = 0; i < expected->length; i++)
        expected->bytes[i] = (unsigned char)(digit_of(digits[2 * i]) * 16 + digit_of(digits[2 * i + 1]));
    free(digits);
}

static void decode(input_t text, bool hex, expected_t *expected)
{
    if (hex) {
        decode_hex(text, expected);
        return;
    }
    expected->refused = text.length > PAYLOAD_MAX;
    expected->length = expected->refused ? 0 : text.length;
    if (expected->length > 0)
        memcpy(expected->bytes, text.bytes, expected->length);
}

static void require_next(payload_reader_t *reader, input_t text)
{
    static expected_t expected;
    decode(text, reader->source.hex, &expected);
    bool empty = reader->source.kind == PAYLOAD_FILE && expected.length == 0;
    payload_outcome_t outcome = payload_next(reader);
    REQUIRE(outcome == (expected.refused ? PAYLOAD_REFUSED : empty ? PAYLOAD_UNREADABLE : PAYLOAD_OK));
    if (outcome != PAYLOAD_OK)
        require_message(reader->error, sizeof reader->error);
    else
        REQUIRE(reader->length == expected.length &&
                memcmp(reader->bytes, expected.bytes, expected.length) == 0);
}

static void require_lines(payload_reader_t *reader, input_t text)
{
    if (text.length == 0)
        REQUIRE(payload_next(reader) == PAYLOAD_UNREADABLE);
    while (text.length > 0) {
        const unsigned char *newline = memchr(text.bytes, '\n', text.length);
        require_next(reader,
                     input_take(&text, newline != NULL ? (size_t)(newline - text.bytes) : text.length));
        input_take(&text, newline != NULL);
    }
}

/* Standard input becomes a file, or a pipe for what fits in one, that holds `text`. */
static void feed(input_t text, bool by_pipe)
{
    int ends[2];
    if (by_pipe && text.length <= 4096) {
        REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    } else {
        ends[0] = ends[1] = memfd_create("payload", MFD_CLOEXEC);
        REQUIRE(ends[0] >= 0);
    }
    REQUIRE(write(ends[1], text.bytes, text.length) == (ssize_t)text.length);
    if (ends[0] == ends[1])
        REQUIRE(lseek(ends[0], 0, SEEK_SET) == 0);
    else
        close(ends[1]);
    REQUIRE(dup2(ends[0], STDIN_FILENO) == STDIN_FILENO);
    close(ends[0]);
}

/* What is as large as a payload may be, and larger, the fuzzer would hardly ever write out. */
static input_t repeat(input_t text, size_t length)
{
    static unsigned char bytes[TEXT_MAX];
    if (text.length == 0 || text.length > sizeof bytes)
        return text;
    for (size_t i = 0; i < length && i < sizeof bytes; i++)
        bytes[i] = text.bytes[i % text.length];
    return (input_t){bytes, length < sizeof bytes ? length : sizeof bytes};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t text = {data, size};
    unsigned how = input_number(&text, 1);
    if ((how & REPEATED) != 0) {
        size_t length = input_number(&text, 2);
        text = repeat(text, length);
    }
    char *argument = input_string(text);
    payload_source_t source = {.kind = PAYLOAD_LINES, .hex = (how & HEX) != 0};
    payload_reader_t *reader = malloc(sizeof *reader); /* on the heap its ends are watched */
    REQUIRE(reader != NULL);
    if (how % 4 == 0) {
        source.kind = PAYLOAD_ARGUMENT;
        source.text = argument;
        text.length = strlen(argument);
    } else if (how % 4 == 1) {
        source.kind = PAYLOAD_FILE;
        source.text = (how & PIPE) != 0 ? "-" : "/dev/stdin";
    }
    if (source.kind != PAYLOAD_ARGUMENT)
        feed(text, (how & PIPE) != 0);
    payload_open(reader, source, wait_limit_in(60000));
    if (source.kind == PAYLOAD_LINES)
        require_lines(reader, text);
    else
        require_next(reader, text);
    REQUIRE(payload_next(reader) == PAYLOAD_END);
    REQUIRE(payload_next(reader) == PAYLOAD_END);
    payload_close(reader);
    free(reader);
    free(argument);
    return 0;
}
