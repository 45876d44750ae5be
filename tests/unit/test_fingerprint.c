/* fingerprint_stamp(): what spares a repeat run reading its credentials must notice that they have changed.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "credentials/fingerprint.h"
#include "scratch.h"

/* How far the clock of this program is ahead. */
static time_t ahead_s;

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += ahead_s;
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}

static credentials_source_t source;

static int make_files(void **state)
{
    ahead_s = 10;
    memset(scratch_directory, 0, sizeof scratch_directory);
    if (scratch_make(state) != 0)
        return -1;
    source = (credentials_source_t){.cert_file = scratch_write("cert.crt", "certificate", 11),
                                    .key_file = scratch_write("key.pem", "key", 3)};
    return 0;
}

/* Whether a stamp could be taken twice, and both were the same. */
static bool is_settled(fingerprint_stamp_t *stamp)
{
    fingerprint_stamp_t again;
    return fingerprint_stamp(&source, stamp) && fingerprint_stamp(&source, &again) &&
           memcmp(stamp, &again, sizeof again) == 0;
}

static void files_that_stay_as_they_are_keep_their_stamp(void **state)
{
    (void)state;
    fingerprint_stamp_t stamp;
    assert_true(is_settled(&stamp));
    assert_int_not_equal(stamp.files[0].inode, stamp.files[1].inode);
}

static void what_was_just_changed_has_no_stamp(void **state)
{
    (void)state;
    fingerprint_stamp_t stamp;
    ahead_s = 2;
    assert_false(fingerprint_stamp(&source, &stamp));
    ahead_s = -3600; /* a clock that was set back */
    assert_false(fingerprint_stamp(&source, &stamp));
}

/* As cp(1) and touch(1) do it: same length, same time of modification. */
static void a_file_that_was_overwritten_in_place_is_noticed(void **state)
{
    (void)state;
    fingerprint_stamp_t before, after;
    struct stat status;
    assert_true(is_settled(&before));
    assert_int_equal(stat(source.key_file, &status), 0);
    struct timespec pause = {.tv_nsec = 20000000}; /* the kernel's clock for files ticks every 1 to 10 ms */
    nanosleep(&pause, NULL);
    scratch_write("key.pem", "KEY", 3);
    struct timespec times[2] = {status.st_atim, status.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, source.key_file, times, 0), 0);
    assert_true(is_settled(&after));
    assert_memory_not_equal(&before, &after, sizeof before);
}

static void a_file_that_was_replaced_is_noticed(void **state)
{
    (void)state;
    fingerprint_stamp_t before, after;
    const char *other = scratch_write("other.crt", "CERTIFICATE", 11);
    assert_true(is_settled(&before));
    assert_int_equal(rename(other, source.cert_file), 0);
    assert_true(is_settled(&after));
    assert_memory_not_equal(&before, &after, sizeof before);
}

static void every_file_that_is_named_counts(void **state)
{
    (void)state;
    fingerprint_stamp_t alone, with_ca, with_psk;
    assert_true(is_settled(&alone));
    source.ca = scratch_write("ca.crt", "roots", 5);
    assert_true(is_settled(&with_ca));
    assert_memory_not_equal(&alone, &with_ca, sizeof alone);
    source.psk_file = scratch_write("psk", "id:00", 5);
    assert_true(is_settled(&with_psk));
    assert_memory_not_equal(&with_ca, &with_psk, sizeof alone);
}

static void what_is_missing_or_no_plain_file_has_no_stamp(void **state)
{
    (void)state;
    fingerprint_stamp_t stamp;
    source.ca = scratch_directory;
    assert_false(fingerprint_stamp(&source, &stamp));
    source.ca = scratch_path("missing");
    assert_false(fingerprint_stamp(&source, &stamp));
}

/* As those have that are built in; where there are none, the default names stand in. */
static void files_that_are_not_named_are_those_of_the_default_names(void **state)
{
    (void)state;
    fingerprint_stamp_t named, unnamed;
    unsigned char named_digest[32], unnamed_digest[32];
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fingerprint_stamp(&source, &named) && fingerprint_digest(&source, named_digest));
    source.cert_file = source.key_file = NULL;
    assert_int_equal(chdir(scratch_directory), 0);
    bool found = fingerprint_stamp(&source, &unnamed) && fingerprint_digest(&source, unnamed_digest);
    assert_int_equal(fchdir(here), 0);
    close(here);
    assert_true(found);
    assert_memory_equal(&named, &unnamed, sizeof named);
    assert_memory_equal(named_digest, unnamed_digest, sizeof named_digest);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_files, scratch_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(files_that_stay_as_they_are_keep_their_stamp),
        TEST(what_was_just_changed_has_no_stamp),
        TEST(a_file_that_was_overwritten_in_place_is_noticed),
        TEST(a_file_that_was_replaced_is_noticed),
        TEST(every_file_that_is_named_counts),
        TEST(what_is_missing_or_no_plain_file_has_no_stamp),
        TEST(files_that_are_not_named_are_those_of_the_default_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
