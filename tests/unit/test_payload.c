/* payload.h: payloads come byte-exact from where they were asked from, or with a reason why not. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "command/payload.h"
#include "scratch.h"

static payload_reader_t reader;
static int standard_input; /* as it was before a test put something else in its place */

static const wait_limit_t no_limit = {.deadline_ms = INT64_MAX, .cancel_fd = -1};

static void open_limited(payload_kind_t kind, const char *text, bool hex, wait_limit_t limit)
{
    payload_open(&reader, (payload_source_t){.kind = kind, .text = text, .hex = hex}, limit);
}

static void open_source(payload_kind_t kind, const char *text, bool hex)
{
    open_limited(kind, text, hex, no_limit);
}

static void gives(const void *bytes, size_t length)
{
    payload_outcome_t outcome = payload_next(&reader);
    if (outcome != PAYLOAD_OK)
        fail_msg("outcome %d: %s", (int)outcome, reader.error);
    assert_int_equal(reader.length, length);
    assert_memory_equal(reader.bytes, bytes, length);
}

static void gives_text(const char *text)
{
    gives(text, strlen(text));
}

static void ends(void)
{
    assert_int_equal(payload_next(&reader), PAYLOAD_END);
    assert_int_equal(payload_next(&reader), PAYLOAD_END);
    payload_close(&reader);
}

/* The next payload is not given, and the one line why has `mention` in it. */
static void fails(payload_outcome_t expected, const char *mention)
{
    assert_int_equal(payload_next(&reader), expected);
    if (strstr(reader.error, mention) == NULL || strchr(reader.error, '\n') != NULL)
        fail_msg("'%s' in one line is missing from: %s", mention, reader.error);
}

/* Makes `fd` standard input, and closes it. */
static void become_standard_input(int fd)
{
    assert_true(fd > STDIN_FILENO);
    assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    close(fd);
}

/* Standard input is a pipe that holds `bytes`. Returns its other end where `open`, else -1: closed. */
static int feed_pipe(const void *bytes, size_t length, bool open)
{
    int pipe_ends[2];
    assert_int_equal(pipe(pipe_ends), 0);
    assert_true(length <= 65536); /* what a pipe holds */
    assert_int_equal(write(pipe_ends[1], bytes, length), length);
    become_standard_input(pipe_ends[0]);
    if (open)
        return pipe_ends[1];
    close(pipe_ends[1]);
    return -1;
}

static void feed_text(const char *text)
{
    feed_pipe(text, strlen(text), false);
}

/* Standard input is a file that holds `bytes`, which may be many. */
static void feed_file(const void *bytes, size_t length)
{
    become_standard_input(open(scratch_write("input", bytes, length), O_RDONLY | O_CLOEXEC));
}

/* Standard input gives `pieces`, a NULL at their end, one a read(2). */
static void feed_pieces(const char *const *pieces)
{
    int sockets[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets), 0);
    for (; *pieces != NULL; pieces++)
        assert_int_equal(write(sockets[1], *pieces, strlen(*pieces)), strlen(*pieces));
    become_standard_input(sockets[0]);
    close(sockets[1]);
}

static unsigned char *filled(size_t length, int byte)
{
    unsigned char *bytes = malloc(length);
    assert_non_null(bytes);
    memset(bytes, byte, length);
    return bytes;
}

/* Without its NUL. */
static void put_text(unsigned char *bytes, const char *text)
{
    while (*text != '\0')
        *bytes++ = (unsigned char)*text++;
}

/* Bytes that no shift or repetition of them equals. */
static unsigned char *noise(size_t length)
{
    unsigned char *bytes = malloc(length);
    uint32_t value = 1;
    assert_non_null(bytes);
    for (size_t i = 0; i < length; i++) {
        value = value * 1664525 + 1013904223;
        bytes[i] = (unsigned char)(value >> 24);
    }
    return bytes;
}

static char *to_hex(const unsigned char *bytes, size_t length)
{
    char *text = malloc(2 * length + 1);
    assert_non_null(text);
    for (size_t i = 0; i < length; i++)
        snprintf(text + 2 * i, 3, i % 2 == 0 ? "%02x" : "%02X", (unsigned)bytes[i]);
    return text;
}

/* Takes what is given, lines, while there is time. */
static void gives_until_the_deadline(int64_t deadline_ms)
{
    payload_outcome_t outcome = PAYLOAD_OK;
    while (outcome == PAYLOAD_OK && wait_now_ms() < deadline_ms) {
        outcome = payload_next(&reader);
        usleep(100);
    }
    if (outcome != PAYLOAD_OK)
        assert_true(wait_now_ms() >= deadline_ms);
}

static void the_argument_is_one_payload(void **state)
{
    (void)state;
    open_source(PAYLOAD_ARGUMENT, "Echo this", false);
    gives_text("Echo this");
    ends();
}

static void an_empty_argument_is_an_empty_payload(void **state)
{
    (void)state;
    open_source(PAYLOAD_ARGUMENT, "", false);
    gives_text("");
    ends();
    open_source(PAYLOAD_ARGUMENT, "", true);
    gives_text("");
    ends();
}

static void a_dash_as_argument_is_a_payload(void **state)
{
    (void)state;
    open_source(PAYLOAD_ARGUMENT, "-", false);
    gives_text("-");
    ends();
}

static void an_argument_may_have_16384_bytes_and_no_more(void **state)
{
    (void)state;
    unsigned char *bytes = filled(PAYLOAD_MAX + 2, 'a');
    bytes[PAYLOAD_MAX] = '\0';
    open_source(PAYLOAD_ARGUMENT, (char *)bytes, false);
    gives(bytes, PAYLOAD_MAX);
    ends();
    bytes[PAYLOAD_MAX] = 'a';
    bytes[PAYLOAD_MAX + 1] = '\0';
    open_source(PAYLOAD_ARGUMENT, (char *)bytes, false);
    fails(PAYLOAD_REFUSED, "16384");
    assert_null(strstr(reader.error, "aaaa"));
    ends();
    free(bytes);
}

static void a_file_is_one_payload_byte_for_byte(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 4095, 4096, 4097, PAYLOAD_MAX - 1, PAYLOAD_MAX};
    unsigned char *bytes = noise(PAYLOAD_MAX);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        open_source(PAYLOAD_FILE, scratch_write("data", bytes, sizes[i]), false);
        gives(bytes, sizes[i]);
        ends();
    }
    open_source(PAYLOAD_FILE, scratch_write("data", "two\nlines\n", 10), false);
    gives_text("two\nlines\n");
    ends();
    free(bytes);
}

static void a_file_larger_than_16384_bytes_is_refused(void **state)
{
    (void)state;
    static const size_t sizes[] = {PAYLOAD_MAX + 1, (size_t)2 * PAYLOAD_MAX, 1 << 20};
    unsigned char *bytes = noise(1 << 20);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const char *path = scratch_write("large", bytes, sizes[i]);
        open_source(PAYLOAD_FILE, path, false);
        fails(PAYLOAD_REFUSED, path);
        ends();
    }
    free(bytes);
}

static void an_endless_file_is_refused(void **state)
{
    (void)state;
    open_source(PAYLOAD_FILE, "/dev/zero", false);
    fails(PAYLOAD_REFUSED, "/dev/zero");
    ends();
}

static void a_missing_file_is_unreadable_and_named(void **state)
{
    (void)state;
    const char *path = scratch_path("missing");
    open_source(PAYLOAD_FILE, path, false);
    fails(PAYLOAD_UNREADABLE, path);
    assert_non_null(strstr(reader.error, "No such file"));
    payload_close(&reader);
}

static void a_directory_is_unreadable_and_named(void **state)
{
    (void)state;
    open_source(PAYLOAD_FILE, scratch_directory, false);
    fails(PAYLOAD_UNREADABLE, scratch_directory);
    payload_close(&reader);
}

static void a_file_without_permission_is_unreadable_and_named(void **state)
{
    (void)state;
    const char *path = scratch_write("private", "secret", 6);
    uid_t user = geteuid();
    assert_int_equal(chmod(path, 0), 0);
    if (user == 0 && seteuid(65534) != 0)
        skip();
    open_source(PAYLOAD_FILE, path, false);
    payload_outcome_t outcome = payload_next(&reader);
    payload_close(&reader);
    assert_int_equal(seteuid(user), 0);
    assert_int_equal(outcome, PAYLOAD_UNREADABLE);
    assert_non_null(strstr(reader.error, path));
}

static void the_longest_of_paths_fits_its_error(void **state)
{
    (void)state;
    char *path = (char *)filled(PATH_MAX, 'p');
    path[PATH_MAX - 1] = '\0';
    open_source(PAYLOAD_FILE, path, false);
    fails(PAYLOAD_UNREADABLE, "pppp");
    payload_close(&reader);
    free(path);
}

static void the_file_named_dash_is_standard_input(void **state)
{
    (void)state;
    static const char bytes[] = "a\0b\r\n\nc";
    feed_pipe(bytes, sizeof bytes, false);
    open_source(PAYLOAD_FILE, "-", false);
    gives(bytes, sizeof bytes);
    ends();
}

/* It is what a broken sensor writes. */
static void an_empty_file_or_input_is_no_payload(void **state)
{
    (void)state;
    static const char *const texts[] = {"", " ", "\n", " \r\n\t "}; /* all are empty in hex */
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *path = scratch_write("empty", texts[i], strlen(texts[i]));
        open_source(PAYLOAD_FILE, path, *texts[i] != '\0');
        fails(PAYLOAD_UNREADABLE, "is empty; give ''");
        assert_non_null(strstr(reader.error, path));
        ends();
        feed_text(texts[i]);
        open_source(PAYLOAD_FILE, "-", *texts[i] != '\0');
        fails(PAYLOAD_UNREADABLE, "standard input: is empty; give ''");
        ends();
    }
    open_source(PAYLOAD_FILE, scratch_write("newline", "\n", 1), false);
    gives_text("\n");
    ends();
}

static void no_source_gives_no_payload(void **state)
{
    (void)state;
    open_source(PAYLOAD_NONE, NULL, false);
    ends();
}

static void standard_input_may_come_in_pieces(void **state)
{
    (void)state;
    feed_pieces((const char *[]){"He", "l", "lo\nthe", "re", NULL});
    open_source(PAYLOAD_FILE, "-", false);
    gives_text("Hello\nthere");
    ends();
}

static void standard_input_may_have_16384_bytes_and_no_more(void **state)
{
    (void)state;
    unsigned char *bytes = noise(PAYLOAD_MAX + 1);
    feed_pipe(bytes, PAYLOAD_MAX, false);
    open_source(PAYLOAD_FILE, "-", false);
    gives(bytes, PAYLOAD_MAX);
    ends();
    feed_pipe(bytes, PAYLOAD_MAX + 1, false);
    open_source(PAYLOAD_FILE, "-", false);
    fails(PAYLOAD_REFUSED, "standard input");
    ends();
    free(bytes);
}

static void each_line_is_a_payload_without_its_newline(void **state)
{
    (void)state;
    feed_text("one\ntwo words\n\n \nlast\n");
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("one");
    assert_int_equal(reader.line, 1);
    gives_text("two words");
    gives_text("");
    gives_text(" ");
    gives_text("last");
    assert_int_equal(reader.line, 5);
    ends();
}

static void the_last_line_needs_no_newline(void **state)
{
    (void)state;
    feed_text("one\nlast");
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("one");
    gives_text("last");
    ends();
}

static void input_without_any_line_is_no_payload(void **state)
{
    (void)state;
    feed_text("");
    open_source(PAYLOAD_LINES, NULL, false);
    fails(PAYLOAD_UNREADABLE, "standard input: is empty");
    ends();
    become_standard_input(open("/dev/null", O_RDONLY | O_CLOEXEC));
    open_source(PAYLOAD_LINES, NULL, false);
    fails(PAYLOAD_UNREADABLE, "standard input: is empty");
    ends();
}

static void lines_without_end_are_given_until_the_deadline(void **state)
{
    (void)state;
    static const char *const paths[] = {"lines", "/dev/zero"}; /* the second is one line without end */
    unsigned char *bytes = filled(1 << 20, '\n');
    scratch_write("lines", bytes, 1 << 20);
    free(bytes);
    for (size_t i = 0; i < 2; i++) {
        const char *path = *paths[i] == '/' ? paths[i] : scratch_path(paths[i]);
        become_standard_input(open(path, O_RDONLY | O_CLOEXEC));
        int64_t start_ms = wait_now_ms();
        open_limited(PAYLOAD_LINES, NULL, false, wait_limit_in(20));
        gives_until_the_deadline(start_ms + 20);
        fails(PAYLOAD_TIMEOUT, "standard input");
        assert_in_range(wait_now_ms() - start_ms, 20, 1000);
        payload_close(&reader);
    }
}

static void the_end_of_the_lines_is_known_after_the_deadline_too(void **state)
{
    (void)state;
    feed_text("one\n");
    int64_t start_ms = wait_now_ms();
    open_limited(PAYLOAD_LINES, NULL, false, wait_limit_in(20));
    gives_text("one");
    while (wait_now_ms() <= start_ms + 20)
        usleep(1000);
    ends();
}

static void a_newline_alone_is_one_empty_line(void **state)
{
    (void)state;
    feed_text("\n");
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("");
    ends();
}

static void carriage_returns_and_nul_bytes_in_lines_are_kept(void **state)
{
    (void)state;
    feed_pipe("a\r\n\0\n\0x\0\n\r", 10, false);
    open_source(PAYLOAD_LINES, NULL, false);
    gives("a\r", 2);
    gives("\0", 1);
    gives("\0x\0", 3);
    gives("\r", 1);
    ends();
}

static void lines_may_come_in_pieces(void **state)
{
    (void)state;
    feed_pieces((const char *[]){"on", "e", "\n", "two\nth", "ree\n\nfive", "\n", "si", "x", NULL});
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("one");
    gives_text("two");
    gives_text("three");
    gives_text("");
    gives_text("five");
    gives_text("six");
    ends();
}

static void many_lines_come_whole_and_in_order(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    char *text = malloc((size_t)COUNT * 16);
    size_t length = 0;
    assert_non_null(text);
    for (int i = 0; i < COUNT; i++)
        length += (size_t)sprintf(text + length, "%d%s\n", i, i % 3 == 0 ? " x" : "");
    feed_file(text, length);
    open_source(PAYLOAD_LINES, NULL, false);
    for (int i = 0; i < COUNT; i++) {
        char expected[16];
        sprintf(expected, "%d%s", i, i % 3 == 0 ? " x" : "");
        gives_text(expected);
    }
    ends();
    free(text);
}

static void a_line_of_16384_bytes_is_given(void **state)
{
    (void)state;
    unsigned char *bytes = filled(PAYLOAD_MAX + 5, 'a');
    put_text(bytes + PAYLOAD_MAX, "\nnext");
    feed_pipe(bytes, PAYLOAD_MAX + 5, false);
    open_source(PAYLOAD_LINES, NULL, false);
    gives(bytes, PAYLOAD_MAX);
    gives_text("next");
    ends();
    feed_pipe(bytes, PAYLOAD_MAX, false);
    open_source(PAYLOAD_LINES, NULL, false);
    gives(bytes, PAYLOAD_MAX);
    ends();
    free(bytes);
}

static void a_line_too_long_is_refused_and_the_next_is_given(void **state)
{
    (void)state;
    static const size_t sizes[] = {PAYLOAD_MAX + 1, (size_t)2 * PAYLOAD_MAX, (size_t)2 * PAYLOAD_MAX + 1,
                                   1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        unsigned char *bytes = filled(sizes[i] + 13, 'a');
        put_text(bytes, "first\n");
        put_text(bytes + 6 + sizes[i], "\n\nlast\n");
        feed_file(bytes, sizes[i] + 13);
        open_source(PAYLOAD_LINES, NULL, false);
        gives_text("first");
        fails(PAYLOAD_REFUSED, "line 2");
        assert_null(strstr(reader.error, "aaaa"));
        gives_text("");
        gives_text("last");
        assert_int_equal(reader.line, 4);
        ends();
        feed_file(bytes, sizes[i] + 6); /* the same, but it ends without a newline */
        open_source(PAYLOAD_LINES, NULL, false);
        gives_text("first");
        fails(PAYLOAD_REFUSED, "line 2");
        ends();
        free(bytes);
    }
}

static void hex_digits_of_either_case_are_bytes(void **state)
{
    (void)state;
    open_source(PAYLOAD_ARGUMENT, "00fF09aAB1", true);
    gives("\x00\xff\x09\xaa\xb1", 5);
    ends();
}

static void every_byte_can_be_written_in_hex(void **state)
{
    (void)state;
    unsigned char bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    char *text = to_hex(bytes, sizeof bytes);
    open_source(PAYLOAD_ARGUMENT, text, true);
    gives(bytes, sizeof bytes);
    ends();
    free(text);
}

static void white_space_between_hex_digits_is_ignored(void **state)
{
    (void)state;
    open_source(PAYLOAD_ARGUMENT, " 01 02\t03\r\n0 4\n\v\f05 ", true);
    gives("\x01\x02\x03\x04\x05", 5);
    ends();
    open_source(PAYLOAD_ARGUMENT, " \t\r\n", true);
    gives_text("");
    ends();
}

static void an_odd_number_of_hex_digits_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"0", "012", "01 2", "01 02 3 "};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        open_source(PAYLOAD_ARGUMENT, texts[i], true);
        fails(PAYLOAD_REFUSED, "odd");
        ends();
    }
}

static void what_is_not_hex_is_refused_and_not_quoted(void **state)
{
    (void)state;
    static const char *const texts[] = {"0g", "secret",     "0x01",       "01:02",       "01,02",
                                        "-1", "01\x80\x81", "0123secret", "\xc2\xa0 01", "/0",
                                        ":0", "@0",         "G0",         "`0",          "01;"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        open_source(PAYLOAD_ARGUMENT, texts[i], true);
        fails(PAYLOAD_REFUSED, "hex");
        assert_null(strstr(reader.error, "secret"));
        ends();
    }
}

static void a_nul_byte_is_no_hex_digit(void **state)
{
    (void)state;
    open_source(PAYLOAD_FILE,
                scratch_write("nul",
                              "01\0"
                              "02",
                              5),
                true);
    fails(PAYLOAD_REFUSED, "hex");
    ends();
}

static void hex_may_stand_for_16384_bytes_and_no_more(void **state)
{
    (void)state;
    unsigned char *bytes = noise(PAYLOAD_MAX + 1);
    char *text = to_hex(bytes, PAYLOAD_MAX + 1);
    const size_t digits = (size_t)2 * PAYLOAD_MAX;
    open_source(PAYLOAD_FILE, scratch_write("hex", text, digits), true);
    gives(bytes, PAYLOAD_MAX);
    ends();
    const char *path = scratch_write("hex", text, digits + 2);
    open_source(PAYLOAD_FILE, path, true);
    fails(PAYLOAD_REFUSED, path);
    assert_non_null(strstr(reader.error, "16384"));
    ends();
    open_source(PAYLOAD_ARGUMENT, text, true);
    fails(PAYLOAD_REFUSED, "16384");
    ends();
    text[digits] = '\0';
    open_source(PAYLOAD_ARGUMENT, text, true);
    gives(bytes, PAYLOAD_MAX);
    ends();
    free(text);
    free(bytes);
}

static void any_amount_of_white_space_in_hex_is_allowed(void **state)
{
    (void)state;
    const size_t length = 300000;
    unsigned char *text = filled(length, ' ');
    text[0] = '4';
    text[length / 2] = '1';
    text[length - 2] = '4';
    text[length - 1] = '2';
    open_source(PAYLOAD_FILE, scratch_write("sparse", text, length), true);
    gives_text("AB");
    ends();
    feed_file(text, length);
    open_source(PAYLOAD_FILE, "-", true);
    gives_text("AB");
    ends();
    feed_file(text, length);
    open_source(PAYLOAD_LINES, NULL, true);
    gives_text("AB");
    ends();
    free(text);
}

static void hex_is_read_from_files_and_from_lines_too(void **state)
{
    (void)state;
    open_source(PAYLOAD_FILE, scratch_write("digits", "48 65\n6c 6c 6f\n", 15), true);
    gives_text("Hello");
    ends();
    feed_text("48656c6c6f\r\n\n746865 7265");
    open_source(PAYLOAD_LINES, NULL, true);
    gives_text("Hello");
    gives_text("");
    gives_text("there");
    ends();
    feed_pieces((const char *[]){"4", "8 ", "6", "5", NULL});
    open_source(PAYLOAD_FILE, "-", true);
    gives_text("He");
    ends();
}

static void a_line_of_bad_hex_is_refused_and_the_next_is_given(void **state)
{
    (void)state;
    feed_text("4\n48\nxy\n65\n");
    open_source(PAYLOAD_LINES, NULL, true);
    fails(PAYLOAD_REFUSED, "line 1");
    gives_text("H");
    fails(PAYLOAD_REFUSED, "line 3");
    gives_text("e");
    ends();
}

static void a_silent_pipe_is_waited_for_until_the_deadline(void **state)
{
    (void)state;
    static const payload_kind_t kinds[] = {PAYLOAD_FILE, PAYLOAD_LINES};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int other_end = feed_pipe("begun", 5, true);
        int64_t start_ms = wait_now_ms();
        open_limited(kinds[i], "-", false, wait_limit_in(40));
        fails(PAYLOAD_TIMEOUT, "standard input");
        int64_t elapsed_ms = wait_now_ms() - start_ms;
        assert_in_range(elapsed_ms, 39, 1000);
        payload_close(&reader);
        close(other_end);
    }
}

static void nothing(int signal)
{
    (void)signal;
}

static void a_fifo_that_nobody_writes_is_waited_for_until_the_deadline(void **state)
{
    (void)state;
    const char *path = scratch_path("fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    /* Should it hang, a signal ends the hang. */
    struct sigaction before, action = {.sa_handler = nothing};
    sigaction(SIGALRM, &action, &before);
    alarm(1);
    int64_t start_ms = wait_now_ms();
    open_limited(PAYLOAD_FILE, path, false, wait_limit_in(40));
    payload_outcome_t outcome = payload_next(&reader);
    int64_t elapsed_ms = wait_now_ms() - start_ms;
    alarm(0);
    sigaction(SIGALRM, &before, NULL);
    payload_close(&reader);
    assert_int_equal(outcome, PAYLOAD_TIMEOUT);
    assert_in_range(elapsed_ms, 39, 900);
}

static void whole_lines_are_given_before_the_deadline_ends_the_wait(void **state)
{
    (void)state;
    int other_end = feed_pipe("one\ntwo\nthr", 11, true);
    open_limited(PAYLOAD_LINES, NULL, false, wait_limit_in(20));
    gives_text("one");
    gives_text("two");
    fails(PAYLOAD_TIMEOUT, "standard input");
    payload_close(&reader);
    close(other_end);
}

static void a_readable_cancel_descriptor_interrupts_at_once(void **state)
{
    (void)state;
    static const payload_kind_t kinds[] = {PAYLOAD_FILE, PAYLOAD_LINES};
    int cancel[2];
    assert_int_equal(pipe(cancel), 0);
    assert_int_equal(write(cancel[1], "x", 1), 1);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        int other_end = feed_pipe("", 0, true);
        int64_t start_ms = wait_now_ms();
        open_limited(kinds[i], "-", false,
                     (wait_limit_t){.deadline_ms = start_ms + 5000, .cancel_fd = cancel[0]});
        assert_int_equal(payload_next(&reader), PAYLOAD_INTERRUPTED);
        assert_true(wait_now_ms() - start_ms < 1000);
        assert_string_not_equal(reader.error, "");
        payload_close(&reader);
        close(other_end);
    }
    close(cancel[0]);
    close(cancel[1]);
}

static void a_silent_cancel_descriptor_interrupts_nothing(void **state)
{
    (void)state;
    int cancel[2];
    assert_int_equal(pipe(cancel), 0);
    feed_text("one\n");
    open_limited(PAYLOAD_LINES, NULL, false,
                 (wait_limit_t){.deadline_ms = INT64_MAX, .cancel_fd = cancel[0]});
    gives_text("one");
    ends();
    close(cancel[0]);
    close(cancel[1]);
}

static void the_descriptor_to_wait_for_is_told_only_where_there_is_a_wait(void **state)
{
    (void)state;
    open_source(PAYLOAD_ARGUMENT, "x", false);
    assert_int_equal(payload_fd(&reader), -1);
    gives_text("x");
    assert_int_equal(payload_fd(&reader), -1);
    ends();
    int other_end = feed_pipe("one\ntwo\n", 8, true);
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("one");
    assert_int_equal(payload_fd(&reader), -1); /* a whole line was read ahead */
    gives_text("two");
    assert_int_equal(payload_fd(&reader), STDIN_FILENO);
    close(other_end);
    ends();
    assert_int_equal(payload_fd(&reader), -1);
}

static void a_line_begun_must_be_waited_for(void **state)
{
    (void)state;
    int other_end = feed_pipe("one\ntw", 6, true);
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("one");
    int fd = payload_fd(&reader); /* the rest of the next line has not come */
    assert_int_equal(write(other_end, "o\n", 2), 2);
    close(other_end);
    gives_text("two");
    ends();
    assert_int_equal(fd, STDIN_FILENO);
}

static void a_closed_standard_input_is_unreadable(void **state)
{
    (void)state;
    close(STDIN_FILENO);
    open_source(PAYLOAD_LINES, NULL, false);
    fails(PAYLOAD_UNREADABLE, "standard input");
    payload_close(&reader);
    open_source(PAYLOAD_FILE, "-", false);
    fails(PAYLOAD_UNREADABLE, "standard input");
    payload_close(&reader);
}

static void a_directory_as_standard_input_is_unreadable(void **state)
{
    (void)state;
    become_standard_input(open(scratch_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    open_source(PAYLOAD_LINES, NULL, false);
    fails(PAYLOAD_UNREADABLE, "standard input");
    payload_close(&reader);
}

static void opening_a_source_opens_no_file(void **state)
{
    (void)state;
    open_source(PAYLOAD_FILE, scratch_path("missing"), false);
    assert_int_equal(reader.fd, -1);
    payload_close(&reader);
}

static void closing_closes_the_file_but_never_standard_input(void **state)
{
    (void)state;
    open_source(PAYLOAD_FILE, scratch_write("data", "x", 1), false);
    gives_text("x");
    int fd = reader.fd;
    payload_close(&reader);
    if (fd >= 0)
        assert_int_equal(fcntl(fd, F_GETFD), -1);
    feed_text("x\n");
    open_source(PAYLOAD_LINES, NULL, false);
    gives_text("x");
    payload_close(&reader);
    assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
}

static int keep_standard_input(void **state)
{
    (void)state;
    if (fcntl(STDIN_FILENO, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != STDIN_FILENO)
        return -1;
    standard_input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (standard_input < 0)
        return -1;
    return scratch_make(state);
}

static int restore_standard_input(void **state)
{
    (void)state;
    return dup2(standard_input, STDIN_FILENO) == STDIN_FILENO ? 0 : -1;
}

#define TEST(function) cmocka_unit_test_teardown(function, restore_standard_input)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_argument_is_one_payload),
        TEST(an_empty_argument_is_an_empty_payload),
        TEST(a_dash_as_argument_is_a_payload),
        TEST(an_argument_may_have_16384_bytes_and_no_more),
        TEST(a_file_is_one_payload_byte_for_byte),
        TEST(a_file_larger_than_16384_bytes_is_refused),
        TEST(an_endless_file_is_refused),
        TEST(a_missing_file_is_unreadable_and_named),
        TEST(a_directory_is_unreadable_and_named),
        TEST(a_file_without_permission_is_unreadable_and_named),
        TEST(the_longest_of_paths_fits_its_error),
        TEST(the_file_named_dash_is_standard_input),
        TEST(an_empty_file_or_input_is_no_payload),
        TEST(no_source_gives_no_payload),
        TEST(standard_input_may_come_in_pieces),
        TEST(standard_input_may_have_16384_bytes_and_no_more),
        TEST(each_line_is_a_payload_without_its_newline),
        TEST(the_last_line_needs_no_newline),
        TEST(input_without_any_line_is_no_payload),
        TEST(lines_without_end_are_given_until_the_deadline),
        TEST(the_end_of_the_lines_is_known_after_the_deadline_too),
        TEST(a_newline_alone_is_one_empty_line),
        TEST(carriage_returns_and_nul_bytes_in_lines_are_kept),
        TEST(lines_may_come_in_pieces),
        TEST(many_lines_come_whole_and_in_order),
        TEST(a_line_of_16384_bytes_is_given),
        TEST(a_line_too_long_is_refused_and_the_next_is_given),
        TEST(hex_digits_of_either_case_are_bytes),
        TEST(every_byte_can_be_written_in_hex),
        TEST(white_space_between_hex_digits_is_ignored),
        TEST(an_odd_number_of_hex_digits_is_refused),
        TEST(what_is_not_hex_is_refused_and_not_quoted),
        TEST(a_nul_byte_is_no_hex_digit),
        TEST(hex_may_stand_for_16384_bytes_and_no_more),
        TEST(any_amount_of_white_space_in_hex_is_allowed),
        TEST(hex_is_read_from_files_and_from_lines_too),
        TEST(a_line_of_bad_hex_is_refused_and_the_next_is_given),
        TEST(a_silent_pipe_is_waited_for_until_the_deadline),
        TEST(a_fifo_that_nobody_writes_is_waited_for_until_the_deadline),
        TEST(whole_lines_are_given_before_the_deadline_ends_the_wait),
        TEST(a_readable_cancel_descriptor_interrupts_at_once),
        TEST(a_silent_cancel_descriptor_interrupts_nothing),
        TEST(the_descriptor_to_wait_for_is_told_only_where_there_is_a_wait),
        TEST(a_line_begun_must_be_waited_for),
        TEST(a_closed_standard_input_is_unreadable),
        TEST(a_directory_as_standard_input_is_unreadable),
        TEST(opening_a_source_opens_no_file),
        TEST(closing_closes_the_file_but_never_standard_input),
    };
    int failures = cmocka_run_group_tests_name("payload", tests, keep_standard_input, scratch_remove);
    close(standard_input);
    return failures;
}
