/* psk.h: what is a pre-shared key, and what is said about what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "credentials/psk.h"
#include "scratch.h"

/* Of the name, the program's own name, the reason and the advice, none has these in it. */
#define SECRET "c0ffee0123456789"
#define WHO    "gadget-77"

static psk_t psk;
static char error[256];

/* Writes the file with this mode, and loads it. The one before goes: its mode may forbid writing. */
static bool load(const void *content, size_t length, mode_t mode)
{
    unlink(scratch_path("file"));
    const char *path = scratch_write("file", content, length);
    assert_int_equal(chmod(path, mode), 0);
    memset(&psk, 0, sizeof psk);
    snprintf(error, sizeof error, "untouched");
    return psk_load(&psk, path, error, sizeof error);
}

#define LOAD(text) load(text, sizeof(text) - 1, 0600)

static void expect(const char *identity, size_t identity_length, const void *key, size_t key_length)
{
    assert_int_equal(psk.identity_length, identity_length);
    assert_memory_equal(psk.identity, identity, identity_length);
    assert_int_equal(psk.key_length, key_length);
    assert_memory_equal(psk.key, key, key_length);
}

/* What was refused is told in one line that has `mention` and the file's name in it, and nothing of its
 * content; and nothing of it is kept. */
static void expect_refusal(bool loaded, const char *mention)
{
    static const psk_t none;
    if (loaded)
        fail_msg("'%s' was expected, but it was taken", mention);
    if (strstr(error, mention) == NULL || strstr(error, "/file: ") == NULL || strchr(error, '\n') != NULL)
        fail_msg("'%s' in one line is missing from: %s", mention, error);
    if (strstr(error, "c0ffee") != NULL || strstr(error, WHO) != NULL)
        fail_msg("it tells of the content: %s", error);
    assert_memory_equal(&psk, &none, sizeof psk);
}

static void a_line_is_an_identity_and_a_key_in_hex(void **state)
{
    (void)state;
    assert_true(LOAD("dev:00ff10Ab\n"));
    expect("dev", 3, "\x00\xff\x10\xab", 4);
    assert_string_equal(error, "untouched");
}

static void how_the_line_ends_is_no_matter(void **state)
{
    (void)state;
    static const char *const ends[] = {"", "\n", "\r\n", " ", "\t\n", "\n\n\n", " \r\n \r\n"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char text[32];
        int length = snprintf(text, sizeof text, "dev:0102%s", ends[i]);
        if (!load(text, (size_t)length, 0600))
            fail_msg("end %zu: %s", i, error);
        expect("dev", 3, "\x01\x02", 2);
    }
}

static void an_identity_may_hold_any_bytes_and_colons(void **state)
{
    (void)state;
    assert_true(LOAD("urn:dev:1:0102"));
    expect("urn:dev:1", 9, "\x01\x02", 2);
    assert_true(LOAD("::0102"));
    expect(":", 1, "\x01\x02", 2);
    assert_true(LOAD("a b\t\xc3\xa5:0102"));
    expect("a b\t\xc3\xa5", 6, "\x01\x02", 2);
}

static void an_identity_may_have_128_bytes_and_no_more(void **state)
{
    (void)state;
    char text[160];
    memset(text, 'i', sizeof text);
    snprintf(text + 128, 6, ":0102");
    assert_true(load(text, 133, 0600));
    assert_int_equal(psk.identity_length, 128);
    memset(text, 'i', sizeof text);
    snprintf(text + 129, 6, ":0102");
    expect_refusal(load(text, 134, 0600), "128 bytes");
}

static void a_key_may_have_what_the_library_takes_and_no_more(void **state)
{
    (void)state;
    char text[4 + 2 * MBEDTLS_PSK_MAX_LEN + 2];
    snprintf(text, sizeof text, "dev:");
    memset(text + 4, 'a', sizeof text - 4);
    assert_true(load(text, sizeof text - 2, 0600));
    assert_int_equal(psk.key_length, MBEDTLS_PSK_MAX_LEN);
    expect_refusal(load(text, sizeof text, 0600), "longer than");
    expect_refusal(load(text, sizeof text - 1, 0600), "odd");
    assert_true(LOAD("dev:01"));
    assert_int_equal(psk.key_length, 1);
}

static void what_is_no_key_is_refused_with_its_reason_and_not_shown(void **state)
{
    (void)state;
    expect_refusal(LOAD(""), "colon");
    expect_refusal(LOAD("\n"), "colon");
    expect_refusal(LOAD(SECRET), "colon");
    expect_refusal(LOAD(WHO ":"), "key is empty");
    expect_refusal(LOAD(WHO ":\r\n"), "key is empty");
    expect_refusal(LOAD(":" SECRET), "identity is empty");
    expect_refusal(LOAD(":"), "identity is empty");
    expect_refusal(LOAD(WHO ":" SECRET "0"), "odd");
    expect_refusal(LOAD(WHO ":" SECRET "0g"), "hex");
    expect_refusal(LOAD(WHO ":0x" SECRET), "hex");
    expect_refusal(LOAD(WHO ":" SECRET " " SECRET "0"), "hex");
    expect_refusal(LOAD(WHO ": " SECRET "0"), "hex");
    expect_refusal(LOAD(WHO ":\xff\xfe"), "hex");
}

static void more_than_one_line_is_refused(void **state)
{
    (void)state;
    expect_refusal(LOAD(WHO ":" SECRET "\nother:" SECRET "\n"), "one line");
    expect_refusal(LOAD("# a comment\n" WHO ":" SECRET "\n"), "one line");
    expect_refusal(LOAD("\n" WHO ":" SECRET "\n"), "one line");
    expect_refusal(LOAD(WHO "\0:" SECRET), "one line");
    expect_refusal(LOAD(WHO ":" SECRET "\0" SECRET), "one line");
}

static void a_file_of_more_than_4096_bytes_is_refused(void **state)
{
    (void)state;
    char text[4097];
    snprintf(text, sizeof text, "dev:0102");
    memset(text + 8, '\n', sizeof text - 8);
    assert_true(load(text, 4096, 0600));
    expect_refusal(load(text, 4097, 0600), "4096");
}

static void a_file_that_others_can_read_or_write_is_refused(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        bool taken;
    } modes[] = {{0600, true},  {0400, true},  {0700, true},  {0640, false}, {0604, false},
                 {0660, false}, {0644, false}, {0620, false}, {0602, false}, {0666, false}};
    static const char text[] = WHO ":" SECRET "\n";
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        bool loaded = load(text, sizeof text - 1, modes[i].mode);
        if (modes[i].taken)
            assert_true(loaded);
        else
            expect_refusal(loaded, "chmod 600");
    }
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    memset(&psk, 0, sizeof psk);
    assert_false(psk_load(&psk, scratch_path("missing"), error, sizeof error));
    assert_non_null(strstr(error, "/missing: No such file or directory"));
    assert_non_null(strstr(error, "--psk"));
    assert_false(psk_load(&psk, scratch_directory, error, sizeof error));
    assert_non_null(strstr(error, "directory"));
}

static void a_key_in_the_place_of_the_path_is_not_quoted(void **state)
{
    (void)state;
    static const char *const mistakes[] = {WHO ":" SECRET, SECRET SECRET, "a/b:" SECRET, ":" SECRET};
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        assert_false(psk_load(&psk, mistakes[i], error, sizeof error));
        if (strstr(error, "c0ffee") != NULL || strstr(error, WHO) != NULL || strstr(error, "--psk") == NULL)
            fail_msg("%s", error);
    }
}

static void an_error_never_goes_beyond_its_buffer(void **state)
{
    (void)state;
    char small[9] = "12345678";
    unlink(scratch_path("file"));
    const char *path = scratch_write("file", "none", 4);
    assert_int_equal(chmod(path, 0600), 0);
    assert_false(psk_load(&psk, path, small, 6));
    assert_int_equal(strlen(small), 5);
    assert_string_equal(small + 6, "78");
    assert_false(psk_load(&psk, scratch_path("missing"), small, 6));
    assert_string_equal(small + 6, "78");
}

static void wiping_leaves_nothing(void **state)
{
    (void)state;
    static const psk_t none;
    assert_true(LOAD(WHO ":" SECRET));
    psk_wipe(&psk);
    assert_memory_equal(&psk, &none, sizeof psk);
    psk_wipe(&psk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_an_identity_and_a_key_in_hex),
        cmocka_unit_test(how_the_line_ends_is_no_matter),
        cmocka_unit_test(an_identity_may_hold_any_bytes_and_colons),
        cmocka_unit_test(an_identity_may_have_128_bytes_and_no_more),
        cmocka_unit_test(a_key_may_have_what_the_library_takes_and_no_more),
        cmocka_unit_test(what_is_no_key_is_refused_with_its_reason_and_not_shown),
        cmocka_unit_test(more_than_one_line_is_refused),
        cmocka_unit_test(a_file_of_more_than_4096_bytes_is_refused),
        cmocka_unit_test(a_file_that_others_can_read_or_write_is_refused),
        cmocka_unit_test(a_missing_file_is_named),
        cmocka_unit_test(a_key_in_the_place_of_the_path_is_not_quoted),
        cmocka_unit_test(an_error_never_goes_beyond_its_buffer),
        cmocka_unit_test(wiping_leaves_nothing),
    };
    return cmocka_run_group_tests_name("psk", tests, scratch_make, scratch_remove);
}
