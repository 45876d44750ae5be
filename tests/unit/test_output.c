/* output.h: downlinks reach standard output byte-exact in the format chosen, or the failure is told. */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "command/output.h"
#include "scratch.h"

enum { LARGEST = 16384, CAPTURED_MAX = 1 << 18 };

static output_t output;
static const wait_limit_t no_limit = {.deadline_ms = INT64_MAX, .cancel_fd = -1};

/* A pipe that is read to its end while the output is written. */
static struct {
    int ends[2];
    pthread_t thread;
    char bytes[CAPTURED_MAX + 1];
    size_t length;
} captured;

static void *drain(void *unused)
{
    (void)unused;
    ssize_t got = 1;
    while (got > 0 && captured.length < CAPTURED_MAX) {
        got = read(captured.ends[0], captured.bytes + captured.length, CAPTURED_MAX - captured.length);
        captured.length += got > 0 ? (size_t)got : 0;
    }
    return NULL;
}

static void capture_begins(output_format_t format)
{
    captured.length = 0;
    assert_int_equal(pipe(captured.ends), 0);
    assert_int_equal(pthread_create(&captured.thread, NULL, drain, NULL), 0);
    assert_true(output_open(&output, captured.ends[1], format, "example.org:1234", no_limit));
}

static void capture_ends(void)
{
    close(captured.ends[1]);
    pthread_join(captured.thread, NULL);
    close(captured.ends[0]);
    captured.bytes[captured.length] = '\0';
}

/* Writes one downlink and captures what comes out. */
static void capture(output_format_t format, bool terminal, const void *bytes, size_t length)
{
    capture_begins(format);
    output.terminal = terminal;
    bool written = output_write(&output, bytes, length);
    capture_ends();
    assert_true(written);
}

static void comes_out(const void *bytes, size_t length)
{
    assert_int_equal(captured.length, length);
    assert_memory_equal(captured.bytes, bytes, length);
}

static unsigned char *every_byte_many_times(size_t length)
{
    unsigned char *bytes = malloc(length);
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)(i + i / 256);
    return bytes;
}

/* Text and raw. */

static void text_is_the_bytes_and_a_newline(void **state)
{
    (void)state;
    capture(OUTPUT_TEXT, false, "Hello there", 11);
    comes_out("Hello there\n", 12);
    capture(OUTPUT_TEXT, false, "", 0);
    comes_out("\n", 1);
    capture(OUTPUT_TEXT, false, "ends\n", 5);
    comes_out("ends\n\n", 6);
    capture(OUTPUT_TEXT, false, "\0\x1b[2J\x9b\xff\r\\", 9);
    comes_out("\0\x1b[2J\x9b\xff\r\\\n", 10);
}

static void raw_is_the_bytes_alone(void **state)
{
    (void)state;
    capture(OUTPUT_RAW, false, "Hello there", 11);
    comes_out("Hello there", 11);
    capture(OUTPUT_RAW, false, "", 0);
    comes_out("", 0);
    capture(OUTPUT_RAW, true, "\0\x1b[2J\x9b\xff\r\n", 9);
    comes_out("\0\x1b[2J\x9b\xff\r\n", 9);
}

static void downlinks_of_any_size_are_written_whole(void **state)
{
    (void)state;
    static const size_t sizes[] = {1,    2000, OUTPUT_CHUNK - 1,     OUTPUT_CHUNK,
                                   4097, 8192, 2 * OUTPUT_CHUNK + 1, LARGEST};
    unsigned char *bytes = every_byte_many_times(LARGEST);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        capture(OUTPUT_RAW, false, bytes, sizes[i]);
        comes_out(bytes, sizes[i]);
        capture(OUTPUT_TEXT, false, bytes, sizes[i]);
        assert_int_equal(captured.length, sizes[i] + 1);
        assert_memory_equal(captured.bytes, bytes, sizes[i]);
        assert_int_equal(captured.bytes[sizes[i]], '\n');
    }
    free(bytes);
}

static void downlinks_come_out_in_order_and_each_at_once(void **state)
{
    (void)state;
    int ends[2];
    char text[64];
    assert_int_equal(pipe(ends), 0);
    assert_true(output_open(&output, ends[1], OUTPUT_TEXT, "s:1", no_limit));
    assert_true(output_write(&output, (const unsigned char *)"one", 3));
    assert_int_equal(read(ends[0], text, sizeof text), 4);
    assert_memory_equal(text, "one\n", 4);
    assert_true(output_write(&output, (const unsigned char *)"two", 3));
    assert_true(output_write(&output, (const unsigned char *)"three", 5));
    assert_int_equal(read(ends[0], text, sizeof text), 10);
    assert_memory_equal(text, "two\nthree\n", 10);
    close(ends[0]);
    close(ends[1]);
}

/* Hex and base64. */

static void hex_is_lower_case_digits_and_a_newline(void **state)
{
    (void)state;
    capture(OUTPUT_HEX, false, "\x00\x01\x09\x0a\x7f\x80\xab\xff", 8);
    comes_out("0001090a7f80abff\n", 17);
    capture(OUTPUT_HEX, false, "", 0);
    comes_out("\n", 1);
    unsigned char *bytes = every_byte_many_times(LARGEST);
    capture(OUTPUT_HEX, false, bytes, LARGEST);
    assert_int_equal(captured.length, 2 * LARGEST + 1);
    for (size_t i = 0; i < LARGEST; i++) {
        char digits[3];
        snprintf(digits, sizeof digits, "%02x", (unsigned)bytes[i]);
        assert_memory_equal(captured.bytes + 2 * i, digits, 2);
    }
    assert_int_equal(captured.bytes[(size_t)2 * LARGEST], '\n');
    free(bytes);
}

/* Decodes RFC 4648 base64 strictly; returns the number of bytes. */
static size_t decode_base64(const char *text, size_t length, unsigned char *bytes)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t count = 0;
    assert_int_equal(length % 4, 0);
    size_t padding = length > 0 ? (size_t)(text[length - 1] == '=') + (size_t)(text[length - 2] == '=') : 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < length - padding; i++) {
        const char *digit = strchr(alphabet, text[i]);
        assert_true(digit != NULL && text[i] != '\0');
        bits = bits << 6 | (uint32_t)(digit - alphabet);
        if (i % 4 != 0)
            bytes[count++] = (unsigned char)(bits >> (6 - i % 4 * 2));
    }
    return count;
}

static void base64_is_padded_and_ends_with_a_newline(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } samples[] = {{"", "\n"},
                   {"f", "Zg==\n"},
                   {"fo", "Zm8=\n"},
                   {"foo", "Zm9v\n"},
                   {"foob", "Zm9vYg==\n"},
                   {"fooba", "Zm9vYmE=\n"},
                   {"foobar", "Zm9vYmFy\n"},
                   {"\xfb\xff\xbf", "+/+/\n"}};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        capture(OUTPUT_BASE64, false, samples[i].bytes, strlen(samples[i].bytes));
        comes_out(samples[i].text, strlen(samples[i].text));
    }
}

static void base64_of_any_size_is_one_line_that_decodes_to_the_bytes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 4, 767, 768, 769, 3071, 3072, 3073, LARGEST - 1, LARGEST};
    unsigned char *bytes = every_byte_many_times(LARGEST);
    unsigned char *decoded = malloc(LARGEST + 3);
    assert_non_null(decoded);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        capture(OUTPUT_BASE64, false, bytes, sizes[i]);
        assert_int_equal(captured.length, (sizes[i] + 2) / 3 * 4 + 1);
        assert_int_equal(captured.bytes[captured.length - 1], '\n');
        assert_int_equal(decode_base64(captured.bytes, captured.length - 1, decoded), sizes[i]);
        assert_memory_equal(decoded, bytes, sizes[i]);
    }
    free(decoded);
    free(bytes);
}

/* JSON. */

/* A line, taken apart. */
static struct {
    unsigned char payload[LARGEST + 3];
    size_t payload_length;
    bool has_text;
    unsigned char text[LARGEST + 1];
    size_t text_length;
    unsigned long size;
    char server[64];
    char received_at[64];
} json;

static void expect(const char **next, const char *text)
{
    if (strncmp(*next, text, strlen(text)) != 0)
        fail_msg("no %s at: %.60s", text, *next);
    *next += strlen(text);
}

/* The character of a \u escape, as UTF-8; only the controls need one. */
static size_t unescape_unicode(const char *digits, unsigned char *character)
{
    char *end;
    char four[5] = {0};
    memcpy(four, digits, 4);
    unsigned long value = strtoul(four, &end, 16);
    assert_ptr_equal(end, four + 4);
    assert_true(value < 0x800);
    if (value < 0x80) {
        character[0] = (unsigned char)value;
        return 1;
    }
    character[0] = (unsigned char)(0xc0 | value >> 6);
    character[1] = (unsigned char)(0x80 | (value & 0x3f));
    return 2;
}

/* Reads a JSON string by RFC 8259 section 7; returns its length. */
static size_t read_string(const char **next, unsigned char *text, size_t size)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    size_t length = 0;
    expect(next, "\"");
    for (; **next != '"'; (*next)++) {
        assert_true(length + 2 <= size);
        assert_true((unsigned char)**next >= 0x20); /* also: the line does not end here */
        if (**next != '\\') {
            text[length++] = (unsigned char)**next;
        } else if (*++*next == 'u') {
            length += unescape_unicode(*next + 1, text + length);
            *next += 4;
        } else {
            const char *letter = strchr(letters, **next);
            assert_non_null(letter);
            assert_int_not_equal(**next, '\0');
            text[length++] = (unsigned char)meanings[letter - letters];
        }
    }
    expect(next, "\"");
    return length;
}

static void parse_json(void)
{
    const char *next = captured.bytes;
    unsigned char *field = malloc(CAPTURED_MAX);
    assert_non_null(field);
    assert_int_equal(strlen(captured.bytes), captured.length);
    expect(&next, "{\"payload\":");
    size_t length = read_string(&next, field, CAPTURED_MAX);
    json.payload_length = decode_base64((char *)field, length, json.payload);
    free(field);
    expect(&next, ",");
    json.has_text = strncmp(next, "\"text\":", 7) == 0;
    if (json.has_text) {
        expect(&next, "\"text\":");
        json.text_length = read_string(&next, json.text, sizeof json.text);
        expect(&next, ",");
    }
    expect(&next, "\"size\":");
    char *end;
    json.size = strtoul(next, &end, 10);
    next = end;
    expect(&next, ",\"server\":");
    json.server[read_string(&next, (unsigned char *)json.server, sizeof json.server - 1)] = '\0';
    expect(&next, ",\"received_at\":");
    json.received_at[read_string(&next, (unsigned char *)json.received_at, sizeof json.received_at - 1)] =
        '\0';
    expect(&next, "}\n");
    assert_int_equal(*next, '\0');
}

/* The downlink as JSON has the right fields, and a text where `has_text`. */
static void json_holds(const void *bytes, size_t length, bool has_text)
{
    capture(OUTPUT_JSON, false, bytes, length);
    parse_json();
    assert_int_equal(json.payload_length, length);
    assert_memory_equal(json.payload, bytes, length);
    assert_int_equal(json.size, length);
    assert_string_equal(json.server, "example.org:1234");
    if (json.has_text != has_text)
        fail_msg("text is %s: %s", has_text ? "missing" : "there", captured.bytes);
    if (has_text) {
        assert_int_equal(json.text_length, length);
        assert_memory_equal(json.text, bytes, length);
    }
}

static void json_tells_payload_text_size_and_server(void **state)
{
    (void)state;
    json_holds("Hello there", 11, true);
    assert_non_null(strstr(captured.bytes,
                           "{\"payload\":\"SGVsbG8gdGhlcmU=\",\"text\":\"Hello there\",\"size\":11,"
                           "\"server\":\"example.org:1234\",\"received_at\":\""));
    json_holds("", 0, true);
    assert_non_null(strstr(captured.bytes, "{\"payload\":\"\",\"text\":\"\",\"size\":0,"));
}

static void json_of_a_coap_response_has_its_code_and_content_format(void **state)
{
    (void)state;
    capture_begins(OUTPUT_JSON);
    output.code = "2.05";
    output.content_format = 0;
    assert_true(output_write(&output, (const unsigned char *)"a", 1));
    output.content_format = -1;
    assert_true(output_write(&output, (const unsigned char *)"b", 1));
    output.code = NULL;
    assert_true(output_write(&output, (const unsigned char *)"c", 1));
    capture_ends();
    assert_non_null(strstr(captured.bytes, "\"size\":1,\"code\":\"2.05\",\"content_format\":0,\"server\""));
    assert_non_null(strstr(captured.bytes, "\"text\":\"b\",\"size\":1,\"code\":\"2.05\",\"server\""));
    assert_non_null(strstr(captured.bytes, "\"text\":\"c\",\"size\":1,\"server\""));
}

static void json_escapes_quotes_backslashes_and_control_characters(void **state)
{
    (void)state;
    unsigned char bytes[128];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    json_holds(bytes, sizeof bytes, true);
    json_holds("say \"\\\"\n\r\t\b\f/\0.", 15, true);
}

static void json_keeps_utf8_as_it_is(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "gr\xc3\xbc\xc3\x9f",               /* two bytes */
        "\xe2\x82\xac 5",                   /* three */
        "\xf0\x9f\x8c\xa1",                 /* four */
        "\xc2\x80\xdf\xbf",                 /* the first and the last of two bytes */
        "\xe0\xa0\x80\xef\xbf\xbf",         /* of three */
        "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", /* of four */
        "\xed\x9f\xbf\xee\x80\x80",         /* around the surrogates */
        "\xe2\x80\xa8\xe2\x80\xa9",         /* line and paragraph separator */
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        json_holds(texts[i], strlen(texts[i]), true);
}

static const struct {
    const char *bytes;
    size_t length;
} not_utf8[] = {
    {"\x80", 1},             /* a continuation alone */
    {"a\xbfz", 3},           /* the same, within */
    {"\xc0\x80", 2},         /* NUL, overlong */
    {"\xc1\xbf", 2},         /* DEL, overlong */
    {"\xe0\x80\x80", 3},     /* overlong in three bytes */
    {"\xe0\x9f\xbf", 3},     /* the last of those */
    {"\xf0\x80\x80\x80", 4}, /* overlong in four bytes */
    {"\xf0\x8f\xbf\xbf", 4}, /* the last of those */
    {"\xed\xa0\x80", 3},     /* the first surrogate */
    {"\xed\xbf\xbf", 3},     /* the last */
    {"\xf4\x90\x80\x80", 4}, /* beyond U+10FFFF */
    {"\xf5\x80\x80\x80", 4}, /* no such first byte */
    {"\xf8\x88\x80\x80\x80", 5},
    {"\xfe", 1},
    {"\xff", 1},
    {"\xc3", 1}, /* cut short */
    {"ok \xe2\x82", 5},
    {"ok \xe2", 4},
    {"\xf0\x9f\x8c", 3},
    {"\xc3\x28", 2}, /* what follows is no continuation */
    {"\xe2\x28\xa1", 3},
    {"\xe2\x82\x28", 3},
    {"\xf0\x9f\x8c\x28", 4},
    {"\xc3\xc3\xbc", 3},
};

static void json_has_no_text_for_what_is_not_utf8(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof not_utf8 / sizeof not_utf8[0]; i++)
        json_holds(not_utf8[i].bytes, not_utf8[i].length, false);
}

static void utf8_cut_short_is_not_read_beyond_its_end(void **state)
{
    (void)state;
    static const char *const starts[] = {"\xc3", "\xe2\x82", "\xf0\x9f\x8c"};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        size_t length = strlen(starts[i]);
        char *bytes = malloc(length); /* so that the sanitizers watch its end */
        assert_non_null(bytes);
        memcpy(bytes, starts[i], length);
        json_holds(bytes, length, false);
        capture(OUTPUT_TEXT, true, bytes, length);
        free(bytes);
    }
}

static void json_of_the_largest_downlink_is_one_whole_line(void **state)
{
    (void)state;
    unsigned char *bytes = every_byte_many_times(LARGEST);
    json_holds(bytes, LARGEST, false);
    memset(bytes, '\1', LARGEST); /* each takes six characters */
    json_holds(bytes, LARGEST, true);
    free(bytes);
}

static void json_escapes_the_servers_name_too(void **state)
{
    (void)state;
    capture_begins(OUTPUT_JSON);
    output.server = "a\"b\\c:1";
    bool written = output_write(&output, (const unsigned char *)"x", 1);
    capture_ends();
    assert_true(written);
    parse_json();
    assert_string_equal(json.server, "a\"b\\c:1");
}

static void json_dates_a_downlink_by_rfc_3339_in_utc(void **state)
{
    (void)state;
    regex_t date;
    assert_int_equal(regcomp(&date, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?Z$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    const char *zone = getenv("TZ");
    char *before = zone != NULL ? strdup(zone) : NULL;
    setenv("TZ", "XST-5:45", 1); /* local time is far from UTC */
    tzset();
    time_t start = time(NULL);
    json_holds("x", 1, true);
    time_t end = time(NULL);
    if (before != NULL)
        setenv("TZ", before, 1);
    else
        unsetenv("TZ");
    tzset();
    free(before);
    int matched = regexec(&date, json.received_at, 0, NULL, 0);
    regfree(&date);
    if (matched != 0)
        fail_msg("not RFC 3339 in UTC: %s", json.received_at);
    struct tm parts = {0};
    assert_non_null(strptime(json.received_at, "%Y-%m-%dT%H:%M:%S", &parts));
    time_t written = timegm(&parts);
    assert_in_range(written, start - 1, end + 1);
}

/* Terminals. */

static void terminal_shows(const void *bytes, size_t length, const char *text)
{
    capture(OUTPUT_TEXT, true, bytes, length);
    comes_out(text, strlen(text));
}

static void a_terminal_gets_control_characters_escaped(void **state)
{
    (void)state;
    terminal_shows("\x1b[2J", 4, "\\x1b[2J\n"); /* ESC */
    terminal_shows("a\rb", 3, "a\\x0db\n");     /* CR would hide what is before it */
    terminal_shows("a\bb\a", 4, "a\\x08b\\x07\n");
    terminal_shows("a\0b", 3, "a\\x00b\n");
    terminal_shows("\x7f", 1, "\\x7f\n"); /* DEL */
    terminal_shows("\x9b"
                   "31m",
                   4, "\\x9b31m\n"); /* CSI, as one byte */
    terminal_shows("\xc2\x9b"
                   "31m",
                   5, "\\xc2\\x9b31m\n"); /* CSI, in UTF-8 */
    terminal_shows("\xc2\x80\xc2\x9f", 4, "\\xc2\\x80\\xc2\\x9f\n");
    for (int i = 0; i < 0x20; i++) {
        unsigned char byte = (unsigned char)i;
        char escaped[8];
        snprintf(escaped, sizeof escaped, "\\x%02x\n", (unsigned)i);
        if (byte != '\n' && byte != '\t')
            terminal_shows(&byte, 1, escaped);
    }
}

static void a_terminal_gets_what_is_not_utf8_escaped(void **state)
{
    (void)state;
    terminal_shows("\xff\xfe", 2, "\\xff\\xfe\n");
    terminal_shows("a\xe2\x82", 3, "a\\xe2\\x82\n");
    terminal_shows("\xc3\xc3\xbc", 3, "\\xc3\xc3\xbc\n");
    terminal_shows("\xed\xa0\x80", 3, "\\xed\\xa0\\x80\n");
    terminal_shows("\xe0\x82\x9b", 3, "\\xe0\\x82\\x9b\n"); /* CSI, overlong */
}

static void a_terminal_gets_text_as_it_is(void **state)
{
    (void)state;
    terminal_shows("one\n\ttwo\n", 9, "one\n\ttwo\n\n");
    terminal_shows("C:\\new\\x41 \"quoted\"", 19, "C:\\new\\x41 \"quoted\"\n");
    terminal_shows("\xc2\xa0\xc3\xbc\xe2\x82\xac\xf0\x9f\x8c\xa1", 11,
                   "\xc2\xa0\xc3\xbc\xe2\x82\xac\xf0\x9f\x8c\xa1\n");
    terminal_shows("", 0, "\n");
}

static void a_terminal_is_recognised_and_a_pipe_is_none(void **state)
{
    (void)state;
    capture(OUTPUT_TEXT, false, "x", 1);
    capture_begins(OUTPUT_TEXT);
    bool pipe_is_terminal = output.terminal;
    capture_ends();
    assert_false(pipe_is_terminal);
    int controller = posix_openpt(O_RDWR | O_NOCTTY);
    const char *name =
        controller >= 0 && grantpt(controller) == 0 && unlockpt(controller) == 0 ? ptsname(controller) : NULL;
    int terminal = name != NULL ? open(name, O_RDWR | O_NOCTTY) : -1;
    if (terminal < 0)
        skip();
    bool opened = output_open(&output, terminal, OUTPUT_TEXT, "s:1", no_limit);
    close(terminal);
    close(controller);
    assert_true(opened);
    assert_true(output.terminal);
}

/* What cannot be written to. */

/* output_open() refuses `fd`, which is closed then, with a reason. */
static void is_refused(int fd)
{
    assert_true(fd >= 0);
    bool opened = output_open(&output, fd, OUTPUT_TEXT, "s:1", no_limit);
    close(fd);
    assert_false(opened);
    assert_non_null(strstr(output.error, "standard output"));
    assert_null(strchr(output.error, '\n'));
}

static void a_closed_descriptor_is_refused(void **state)
{
    (void)state;
    int fd = dup(STDERR_FILENO);
    close(fd);
    assert_false(output_open(&output, fd, OUTPUT_TEXT, "s:1", no_limit));
    assert_string_not_equal(output.error, "");
    assert_false(output_open(&output, -1, OUTPUT_TEXT, "s:1", no_limit));
    assert_string_not_equal(output.error, "");
}

static void a_read_only_descriptor_is_refused(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    is_refused(ends[0]);
    close(ends[1]);
    is_refused(open("/dev/null", O_RDONLY | O_CLOEXEC));
    is_refused(open(scratch_write("file", "", 0), O_RDONLY | O_CLOEXEC));
    is_refused(open(scratch_directory, O_RDONLY | O_CLOEXEC));
}

static void a_full_device_is_refused(void **state)
{
    (void)state;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        skip();
    is_refused(fd);
}

static void a_pipe_without_reader_is_refused(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    is_refused(ends[1]);
}

static void files_and_dev_null_are_accepted_and_nothing_is_written_yet(void **state)
{
    (void)state;
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(output_open(&output, null, OUTPUT_TEXT, "s:1", no_limit));
    assert_true(output_write(&output, (const unsigned char *)"x", 1));
    close(null);
    const char *path = scratch_write("kept", "before\n", 7);
    int file = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(output_open(&output, file, OUTPUT_TEXT, "s:1", no_limit));
    assert_int_equal(lseek(file, 0, SEEK_END), 7);
    assert_true(output_write(&output, (const unsigned char *)"x", 1));
    assert_int_equal(lseek(file, 0, SEEK_END), 9);
    close(file);
}

/* A pipe that takes nothing more, though somebody holds its other end. */
static void fill_pipe(int ends[static 2])
{
    static const char zeros[4096];
    assert_int_equal(pipe(ends), 0);
    int flags = fcntl(ends[1], F_GETFL);
    fcntl(ends[1], F_SETFL, flags | O_NONBLOCK);
    while (write(ends[1], zeros, sizeof zeros) > 0)
        continue;
    fcntl(ends[1], F_SETFL, flags);
}

static void a_full_pipe_is_waited_for_until_the_deadline(void **state)
{
    (void)state;
    int ends[2];
    fill_pipe(ends);
    int64_t start_ms = wait_now_ms();
    assert_true(output_open(&output, ends[1], OUTPUT_TEXT, "s:1", wait_limit_in(60)));
    bool written = output_write(&output, (const unsigned char *)"x", 1);
    int64_t elapsed_ms = wait_now_ms() - start_ms;
    close(ends[0]);
    close(ends[1]);
    assert_false(written);
    assert_string_not_equal(output.error, "");
    assert_in_range(elapsed_ms, 59, 1000);
}

static void a_pipe_that_fills_up_does_not_outlast_the_deadline(void **state)
{
    (void)state;
    int ends[2];
    unsigned char *bytes = every_byte_many_times(LARGEST);
    int64_t start_ms = wait_now_ms();
    assert_int_equal(pipe(ends), 0);
    assert_true(output_open(&output, ends[1], OUTPUT_HEX, "s:1", wait_limit_in(60)));
    bool written = true;
    for (int i = 0; i < 64 && written; i++)
        written = output_write(&output, bytes, LARGEST);
    int64_t elapsed_ms = wait_now_ms() - start_ms;
    close(ends[0]);
    close(ends[1]);
    free(bytes);
    assert_false(written);
    assert_in_range(elapsed_ms, 59, 1000);
}

static void a_full_pipe_is_given_up_when_cancelled(void **state)
{
    (void)state;
    int ends[2], cancel[2];
    fill_pipe(ends);
    assert_int_equal(pipe(cancel), 0);
    assert_int_equal(write(cancel[1], "x", 1), 1);
    int64_t start_ms = wait_now_ms();
    assert_true(output_open(&output, ends[1], OUTPUT_RAW, "s:1",
                            (wait_limit_t){.deadline_ms = start_ms + 5000, .cancel_fd = cancel[0]}));
    bool written = output_write(&output, (const unsigned char *)"x", 1);
    int64_t elapsed_ms = wait_now_ms() - start_ms;
    close(ends[0]);
    close(ends[1]);
    close(cancel[0]);
    close(cancel[1]);
    assert_false(written);
    assert_true(elapsed_ms < 1000);
}

static void a_non_blocking_pipe_gets_everything_too(void **state)
{
    (void)state;
    unsigned char *bytes = every_byte_many_times(LARGEST);
    capture_begins(OUTPUT_RAW);
    fcntl(captured.ends[1], F_SETFL, O_WRONLY | O_NONBLOCK);
    bool written = true;
    for (int i = 0; i < 15; i++)
        written = written && output_write(&output, bytes, LARGEST);
    capture_ends();
    assert_true(written);
    assert_int_equal(captured.length, 15 * LARGEST);
    for (int i = 0; i < 15; i++)
        assert_memory_equal(captured.bytes + (size_t)i * LARGEST, bytes, LARGEST);
    free(bytes);
}

static void a_reader_that_leaves_is_told(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_true(output_open(&output, ends[1], OUTPUT_TEXT, "s:1", no_limit));
    assert_true(output_write(&output, (const unsigned char *)"one", 3));
    close(ends[0]);
    bool written = output_write(&output, (const unsigned char *)"two", 3);
    bool again = output_write(&output, (const unsigned char *)"three", 5);
    close(ends[1]);
    assert_false(written);
    assert_false(again);
    assert_non_null(strstr(output.error, "standard output"));
}

static void a_disk_that_fills_up_is_told(void **state)
{
    (void)state;
    struct rlimit before, ten = {.rlim_cur = 10};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    ten.rlim_max = before.rlim_max;
    int file = open(scratch_write("limited", "", 0), O_WRONLY | O_CLOEXEC);
    bool opened = output_open(&output, file, OUTPUT_RAW, "s:1", no_limit);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &ten), 0);
    bool fits = output_write(&output, (const unsigned char *)"0123456", 7);
    bool exceeds = output_write(&output, (const unsigned char *)"789abcdef", 9);
    setrlimit(RLIMIT_FSIZE, &before);
    close(file);
    assert_true(opened);
    assert_true(fits);
    assert_false(exceeds);
    assert_string_not_equal(output.error, "");
}

static void each_format_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(output_format_names[OUTPUT_TEXT], "text");
    assert_string_equal(output_format_names[OUTPUT_RAW], "raw");
    assert_string_equal(output_format_names[OUTPUT_HEX], "hex");
    assert_string_equal(output_format_names[OUTPUT_BASE64], "base64");
    assert_string_equal(output_format_names[OUTPUT_JSON], "json");
    assert_null(output_format_names[OUTPUT_JSON + 1]);
}

static int prepare(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    return scratch_make(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_the_bytes_and_a_newline),
        cmocka_unit_test(raw_is_the_bytes_alone),
        cmocka_unit_test(downlinks_of_any_size_are_written_whole),
        cmocka_unit_test(downlinks_come_out_in_order_and_each_at_once),
        cmocka_unit_test(hex_is_lower_case_digits_and_a_newline),
        cmocka_unit_test(base64_is_padded_and_ends_with_a_newline),
        cmocka_unit_test(base64_of_any_size_is_one_line_that_decodes_to_the_bytes),
        cmocka_unit_test(json_tells_payload_text_size_and_server),
        cmocka_unit_test(json_of_a_coap_response_has_its_code_and_content_format),
        cmocka_unit_test(json_escapes_quotes_backslashes_and_control_characters),
        cmocka_unit_test(json_keeps_utf8_as_it_is),
        cmocka_unit_test(json_has_no_text_for_what_is_not_utf8),
        cmocka_unit_test(utf8_cut_short_is_not_read_beyond_its_end),
        cmocka_unit_test(json_of_the_largest_downlink_is_one_whole_line),
        cmocka_unit_test(json_escapes_the_servers_name_too),
        cmocka_unit_test(json_dates_a_downlink_by_rfc_3339_in_utc),
        cmocka_unit_test(a_terminal_gets_control_characters_escaped),
        cmocka_unit_test(a_terminal_gets_what_is_not_utf8_escaped),
        cmocka_unit_test(a_terminal_gets_text_as_it_is),
        cmocka_unit_test(a_terminal_is_recognised_and_a_pipe_is_none),
        cmocka_unit_test(a_closed_descriptor_is_refused),
        cmocka_unit_test(a_read_only_descriptor_is_refused),
        cmocka_unit_test(a_full_device_is_refused),
        cmocka_unit_test(a_pipe_without_reader_is_refused),
        cmocka_unit_test(files_and_dev_null_are_accepted_and_nothing_is_written_yet),
        cmocka_unit_test(a_full_pipe_is_waited_for_until_the_deadline),
        cmocka_unit_test(a_pipe_that_fills_up_does_not_outlast_the_deadline),
        cmocka_unit_test(a_full_pipe_is_given_up_when_cancelled),
        cmocka_unit_test(a_non_blocking_pipe_gets_everything_too),
        cmocka_unit_test(a_reader_that_leaves_is_told),
        cmocka_unit_test(a_disk_that_fills_up_is_told),
        cmocka_unit_test(each_format_has_its_name),
    };
    return cmocka_run_group_tests_name("output", tests, prepare, scratch_remove);
}
