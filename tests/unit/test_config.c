/* config.h: where the configuration file is, and what its lines are. */
#include <fcntl.h>
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

#include "command/config.h"
#include "scratch.h"

static config_t config;

static const char *write_text(const char *name, const char *text)
{
    return scratch_write(name, text, strlen(text));
}

/* Opens a file with this content. */
static void open_content(const void *content, size_t length)
{
    const char *reason = NULL;
    memset(&config, 0x5a, sizeof config);
    if (!config_open(&config, scratch_write("content", content, length), &reason))
        fail_msg("%s", reason);
}

static void expect_line(size_t number, const char *name, const char *value)
{
    const char *got_name = NULL, *got_value = "untouched";
    config_outcome_t outcome = config_next(&config, &got_name, &got_value);
    if (outcome != CONFIG_LINE)
        fail_msg("outcome %d instead of '%s'", (int)outcome, name);
    assert_string_equal(got_name, name);
    if (value == NULL)
        assert_null(got_value);
    else
        assert_string_equal(got_value, value);
    assert_int_equal(config.line, number);
}

static void expect_end(void)
{
    const char *name = NULL, *value = NULL;
    assert_int_equal(config_next(&config, &name, &value), CONFIG_END);
    assert_int_equal(config_next(&config, &name, &value), CONFIG_END);
    config_close(&config);
}

/* At line `number` there is a bad one, for a reason that has `mention` in it. */
static void expect_bad(size_t number, const char *mention)
{
    const char *name = NULL, *value = NULL;
    assert_int_equal(config_next(&config, &name, &value), CONFIG_BAD);
    assert_non_null(strstr(name, mention));
    assert_int_equal(config.line, number);
    config_close(&config);
}

#define OPEN(text) open_content(text, sizeof(text) - 1)

/* --- Lines --- */

static void a_line_is_a_name_and_a_value_without_the_blanks_around_them(void **state)
{
    (void)state;
    OPEN("server host:1\nconfirm\n\tcert \t a b  c \t\n");
    expect_line(1, "server", "host:1");
    expect_line(2, "confirm", NULL);
    expect_line(3, "cert", "a b  c");
    expect_end();
}

static void an_equals_sign_may_stand_between_name_and_value(void **state)
{
    (void)state;
    OPEN("a=b\nc = d e\nf =g\nh= i\n\tj\t=\tk \nl x=y\nm==n\no = = p\nq=x=y\n");
    expect_line(1, "a", "b");
    expect_line(2, "c", "d e");
    expect_line(3, "f", "g");
    expect_line(4, "h", "i");
    expect_line(5, "j", "k");
    expect_line(6, "l", "x=y");
    expect_line(7, "m", "=n");
    expect_line(8, "o", "= p");
    expect_line(9, "q", "x=y");
    expect_end();
    OPEN("a=\nb = \n=c\n=\n");
    expect_line(1, "a", "");
    expect_line(2, "b", "");
    expect_line(3, "", "c");
    expect_line(4, "", "");
    expect_end();
}

static void a_comment_behind_a_line_is_told_as_the_mistake_it_is(void **state)
{
    (void)state;
    static const char *const lines[] = {"a b # c", "a b #", "a # b", "a = b # c",
                                        "a = # b", "a\t#b", "a #b",  "a b#c #d"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        open_content(lines[i], strlen(lines[i]));
        expect_bad(1, "comment stands on a line of its own");
    }
    OPEN("a b#c\nd=#e\nf#g h\ni ##\n");
    expect_line(1, "a", "b#c");
    expect_line(2, "d", "#e");
    expect_line(3, "f#g", "h");
    expect_bad(4, "comment");
}

static void blank_lines_and_comments_say_nothing_and_are_counted(void **state)
{
    (void)state;
    OPEN("\n# one\n   # two\n \t \n#\na b\n\n");
    expect_line(6, "a", "b");
    expect_end();
}

static void line_ends_of_windows_say_nothing(void **state)
{
    (void)state;
    OPEN("\r\na b\r\nc\r\n#\r\n");
    expect_line(2, "a", "b");
    expect_line(3, "c", NULL);
    expect_end();
}

static void the_last_line_needs_no_end(void **state)
{
    (void)state;
    OPEN("a b\nlast one");
    expect_line(1, "a", "b");
    expect_line(2, "last", "one");
    expect_end();
    OPEN("x");
    expect_line(1, "x", NULL);
    expect_end();
}

static void an_empty_file_has_no_lines(void **state)
{
    (void)state;
    OPEN("");
    expect_end();
    OPEN("\n");
    expect_end();
}

static void a_value_may_hold_any_text(void **state)
{
    (void)state;
    OPEN("a \"q\" 'r' \\ s# = \xc3\xa5\n");
    expect_line(1, "a", "\"q\" 'r' \\ s# = \xc3\xa5");
    expect_end();
}

static void every_control_character_but_blanks_makes_a_line_bad(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[] = "a b\nc d?e\n";
        *strchr(text, '?') = (char)byte;
        open_content(text, sizeof text - 1);
        expect_line(1, "a", "b");
        if ((byte < ' ' && byte != '\t' && byte != '\r' && byte != '\n') || byte == 0x7f) {
            expect_bad(2, "text");
        } else {
            const char *name = NULL, *value = NULL;
            assert_int_equal(config_next(&config, &name, &value), CONFIG_LINE);
            config_close(&config);
        }
    }
}

static void a_nul_is_bad_wherever_it_stands(void **state)
{
    (void)state;
    static const char *const texts[] = {"?a b\n", "a? b\n", "a b?\n", "# ?\n", "?"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char text[16];
        size_t length = strlen(texts[i]);
        snprintf(text, sizeof text, "%s", texts[i]);
        *strchr(text, '?') = '\0';
        open_content(text, length);
        expect_bad(1, "text");
    }
}

static void a_line_of_4096_bytes_is_read_and_a_longer_one_is_not(void **state)
{
    (void)state;
    static char text[4200];
    memset(text, 'x', sizeof text);
    text[1] = ' ';
    text[4096] = '\n';
    open_content(text, 4097);
    const char *name = NULL, *value = NULL;
    assert_int_equal(config_next(&config, &name, &value), CONFIG_LINE);
    assert_int_equal(strlen(value), 4094);
    expect_end();
    open_content(text, 4096); /* and without a newline */
    assert_int_equal(config_next(&config, &name, &value), CONFIG_LINE);
    expect_end();
    text[4096] = 'x';
    text[4097] = '\n';
    open_content(text, 4098);
    expect_bad(1, "too long");
}

static void names_and_values_stay_until_the_file_is_closed(void **state)
{
    (void)state;
    const char *names[3], *values[3];
    OPEN("first one\nsecond two\nthird\n");
    for (int i = 0; i < 3; i++)
        assert_int_equal(config_next(&config, &names[i], &values[i]), CONFIG_LINE);
    assert_string_equal(names[0], "first");
    assert_string_equal(values[0], "one");
    assert_string_equal(values[1], "two");
    assert_string_equal(names[2], "third");
    expect_end();
    config_close(&config);
}

/* --- Where it is --- */

/* $DTLS_SEND_CONFIG, $XDG_CONFIG_HOME and $HOME; NULL: not set. */
static void set_environment(const char *named, const char *base, const char *home)
{
    const char *const names[] = {"DTLS_SEND_CONFIG", "XDG_CONFIG_HOME", "HOME"};
    const char *const values[] = {named, base, home};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(values[i] != NULL ? setenv(names[i], values[i], 1) : unsetenv(names[i]), 0);
}

/* Opening `path` (or NULL) finds the file `expected`; NULL: none of those made here. */
static void expect_found(const char *path, const char *expected)
{
    const char *reason = NULL;
    memset(&config, 0x5a, sizeof config);
    bool opened = config_open(&config, path, &reason);
    if (expected != NULL && !opened)
        fail_msg("%s: %s", config.path, reason);
    if (expected != NULL)
        assert_string_equal(config.path, expected);
    else /* the machine may have one in /etc */
        assert_true(*config.path == '\0' || strncmp(config.path, "/etc/", 5) == 0);
    config_close(&config);
}

static int make_places(void **state)
{
    static const char *const directories[] = {"xdg", "home", "home/.config"};
    for (size_t i = 0; i < 3; i++) {
        if (mkdir(scratch_path(directories[i]), 0700) != 0)
            return -1;
    }
    write_text("flag", "a\n");
    write_text("named", "a\n");
    write_text("xdg/dtls-send.conf", "a\n");
    write_text("home/.config/dtls-send.conf", "a\n");
    (void)state;
    return 0;
}

static int remove_places(void **state)
{
    (void)state;
    set_environment(NULL, NULL, NULL);
    return remove(scratch_path("xdg/dtls-send.conf")) | remove(scratch_path("home/.config/dtls-send.conf")) |
           remove(scratch_path("xdg")) | remove(scratch_path("home/.config")) | remove(scratch_path("home"));
}

static void the_first_place_with_a_file_is_taken(void **state)
{
    (void)state;
    const char *named = scratch_path("named"), *base = scratch_path("xdg"), *home = scratch_path("home");
    set_environment(named, base, home);
    expect_found(scratch_path("flag"), scratch_path("flag"));
    expect_found(NULL, named);
    set_environment("", base, home);
    expect_found(NULL, scratch_path("xdg/dtls-send.conf"));
    set_environment(NULL, base, home);
    expect_found(NULL, scratch_path("xdg/dtls-send.conf"));
    set_environment(NULL, NULL, home);
    expect_found(NULL, scratch_path("home/.config/dtls-send.conf"));
    set_environment(NULL, NULL, NULL);
    expect_found(NULL, NULL);
}

static void relative_directories_are_not_looked_in(void **state)
{
    (void)state;
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(chdir(scratch_directory), 0);
    set_environment(NULL, "xdg", scratch_path("home"));
    expect_found(NULL, scratch_path("home/.config/dtls-send.conf"));
    set_environment(NULL, "xdg", "home");
    expect_found(NULL, NULL);
    set_environment(NULL, "", "");
    expect_found(NULL, NULL);
    assert_int_equal(fchdir(here), 0);
    close(here);
}

static void a_base_directory_takes_the_home_directorys_place(void **state)
{
    (void)state;
    set_environment(NULL, scratch_path("no-such-directory"), scratch_path("home"));
    expect_found(NULL, NULL);
}

static void a_path_beyond_all_bounds_leads_nowhere(void **state)
{
    (void)state;
    static char endless[2 * PATH_MAX];
    memset(endless, 'x', sizeof endless - 1);
    endless[0] = '/';
    const char *reason = NULL;
    set_environment(NULL, endless, endless);
    expect_found(NULL, NULL);
    set_environment(endless, NULL, NULL);
    assert_false(config_open(&config, NULL, &reason));
    assert_false(config_open(&config, endless, &reason));
    config_close(&config);
}

static void what_was_named_and_cannot_be_read_is_a_failure_with_its_reason(void **state)
{
    (void)state;
    const char *reason = NULL, *missing = scratch_path("missing");
    assert_false(config_open(&config, missing, &reason));
    assert_string_equal(config.path, missing);
    assert_string_equal(reason, "No such file or directory");
    assert_int_equal(config.line, 0);
    set_environment(missing, NULL, NULL);
    assert_false(config_open(&config, NULL, &reason));
    assert_string_equal(config.path, missing);
    assert_false(config_open(&config, scratch_directory, &reason));
    assert_non_null(strstr(reason, "directory"));
    config_close(&config);
}

static void a_file_of_more_than_64_kib_is_refused(void **state)
{
    (void)state;
    static char text[65537];
    const char *reason = NULL;
    memset(text, '\n', sizeof text);
    assert_true(config_open(&config, scratch_write("large", text, 65536), &reason));
    expect_end();
    assert_false(config_open(&config, scratch_write("large", text, 65537), &reason));
    assert_non_null(strstr(reason, "65536"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_a_name_and_a_value_without_the_blanks_around_them),
        cmocka_unit_test(an_equals_sign_may_stand_between_name_and_value),
        cmocka_unit_test(a_comment_behind_a_line_is_told_as_the_mistake_it_is),
        cmocka_unit_test(blank_lines_and_comments_say_nothing_and_are_counted),
        cmocka_unit_test(line_ends_of_windows_say_nothing),
        cmocka_unit_test(the_last_line_needs_no_end),
        cmocka_unit_test(an_empty_file_has_no_lines),
        cmocka_unit_test(a_value_may_hold_any_text),
        cmocka_unit_test(every_control_character_but_blanks_makes_a_line_bad),
        cmocka_unit_test(a_nul_is_bad_wherever_it_stands),
        cmocka_unit_test(a_line_of_4096_bytes_is_read_and_a_longer_one_is_not),
        cmocka_unit_test(names_and_values_stay_until_the_file_is_closed),
        cmocka_unit_test_setup_teardown(the_first_place_with_a_file_is_taken, make_places, remove_places),
        cmocka_unit_test_setup_teardown(relative_directories_are_not_looked_in, make_places, remove_places),
        cmocka_unit_test_setup_teardown(a_base_directory_takes_the_home_directorys_place, make_places,
                                        remove_places),
        cmocka_unit_test(a_path_beyond_all_bounds_leads_nowhere),
        cmocka_unit_test(what_was_named_and_cannot_be_read_is_a_failure_with_its_reason),
        cmocka_unit_test(a_file_of_more_than_64_kib_is_refused),
    };
    return cmocka_run_group_tests_name("config", tests, scratch_make, scratch_remove);
}
