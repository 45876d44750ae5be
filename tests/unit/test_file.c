/* file.h: the private files that payloads wait in are read if they are ours alone, and put for good. What is
 * taken and put unsynced is tested with the session that it is for. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"
#include "store/file.h"

static char events[64];    /* what was called: s a file's sync, r rename, d a directory's sync */
static char failing;       /* of which this one fails */
static int failures, with; /* so often, with this errno */

static bool note_event(char event)
{
    size_t length = strlen(events);
    if (length < sizeof events - 1) {
        events[length] = event;
        events[length + 1] = '\0';
    }
    if (event != failing || failures == 0)
        return true;
    failures--;
    errno = with;
    return false;
}

/* In place of the C library's, so that a test can see the order of calls, and make one fail. */
int fsync(int fd)
{
    struct stat status;
    bool is_directory = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
    return note_event(is_directory ? 'd' : 's') ? (int)syscall(SYS_fsync, fd) : -1;
}

int renameat(int old_directory, const char *old_name, int new_directory, const char *new_name)
{
    if (!note_event('r'))
        return -1;
    return (int)syscall(SYS_renameat2, old_directory, old_name, new_directory, new_name, 0);
}

/* --- What the tests share --- */

static int directory = -1;

static int start_afresh(void **state)
{
    scratch_remove(state);
    memset(scratch_directory, 0, sizeof scratch_directory);
    if (scratch_make(state) != 0)
        return -1;
    events[0] = '\0';
    failures = 0;
    directory = open(scratch_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory >= 0 ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    return close(directory);
}

/* How many entries the directory has. */
static int entries(void)
{
    int count = -2; /* . and .. */
    DIR *stream = opendir(scratch_directory);
    assert_non_null(stream);
    while (readdir(stream) != NULL)
        count++;
    closedir(stream);
    return count;
}

static void make_file(const char *name, mode_t mode, size_t length)
{
    static const unsigned char bytes[5000] = "content";
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), (ssize_t)length);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

static void assert_reads(const char *name, const void *bytes, size_t length)
{
    file_content_t content;
    const char *reason = NULL;
    assert_int_equal(file_read_private(directory, name, 4096, &content, &reason), FILE_OK);
    assert_int_equal(content.length, length);
    assert_memory_equal(content.bytes, bytes, length);
    file_content_free(&content);
}

static void assert_not_read(const char *name, file_outcome_t outcome, const char *mention)
{
    file_content_t content;
    const char *reason = NULL;
    assert_int_equal(file_read_private(directory, name, 4096, &content, &reason), outcome);
    assert_null(content.bytes);
    assert_non_null(reason);
    if (strstr(reason, mention) == NULL)
        fail_msg("\"%s\" does not mention \"%s\"", reason, mention);
}

static bool put(const char *name, const void *bytes, size_t length)
{
    const char *reason = NULL;
    bool done = file_put_synced(directory, name, ".new", bytes, length, &reason);
    assert_true(done == (reason == NULL));
    return done;
}

/* --- Reading --- */

static void a_private_file_is_read_whole_and_stays(void **state)
{
    (void)state;
    make_file("file", 0600, 7);
    assert_reads("file", "content", 7);
    assert_reads("file", "content", 7);
    make_file("empty", 0600, 0);
    assert_reads("empty", "", 0);
    static unsigned char largest[4096] = "content";
    make_file("largest", 0600, 4096);
    assert_reads("largest", largest, sizeof largest);
}

static void a_file_that_is_not_there_is_told_apart(void **state)
{
    (void)state;
    assert_not_read("none", FILE_ABSENT, "No such file");
}

static void a_larger_file_is_unfit(void **state)
{
    (void)state;
    make_file("file", 0600, 4097);
    assert_not_read("file", FILE_UNFIT, "larger than 4096 bytes");
}

static void a_file_that_others_can_reach_is_unfit(void **state)
{
    (void)state;
    static const mode_t modes[] = {0644, 0640, 0606, 0660, 0400, 0700, 0, 04600};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        make_file("file", modes[i], 7);
        assert_not_read("file", FILE_UNFIT, "");
        unlinkat(directory, "file", 0);
    }
}

static void a_file_of_another_user_is_unfit(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    make_file("file", 0600, 7);
    assert_int_equal(fchownat(directory, "file", 65534, 65534, 0), 0);
    assert_not_read("file", FILE_UNFIT, "another user");
}

static void a_file_with_a_second_name_is_read(void **state)
{
    (void)state;
    make_file("file", 0600, 7);
    assert_int_equal(linkat(directory, "file", directory, "backup", 0), 0);
    assert_reads("file", "content", 7);
    assert_reads("backup", "content", 7);
}

static void a_symbolic_link_is_unfit_wherever_it_leads(void **state)
{
    (void)state;
    make_file("file", 0600, 7);
    assert_int_equal(symlinkat("file", directory, "link"), 0);
    assert_int_equal(symlinkat("nowhere", directory, "dangling"), 0);
    assert_int_equal(symlinkat("loop", directory, "loop"), 0);
    assert_not_read("link", FILE_UNFIT, "");
    assert_not_read("dangling", FILE_UNFIT, "");
    assert_not_read("loop", FILE_UNFIT, "");
}

/* A FIFO without a writer would also hang who opens it. */
static void what_is_no_regular_file_is_unfit(void **state)
{
    (void)state;
    assert_int_equal(mkdirat(directory, "directory", 0600), 0);
    assert_int_equal(mkfifoat(directory, "fifo", 0600), 0);
    assert_not_read("directory", FILE_UNFIT, "regular");
    assert_not_read("fifo", FILE_UNFIT, "regular");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/socket", scratch_directory);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_not_read("socket", FILE_UNFIT, "");
    close(fd);
}

/* Nothing is wrong with the file: it must not be set aside. */
static void a_lack_of_descriptors_is_the_systems_failure(void **state)
{
    (void)state;
    struct rlimit before;
    make_file("file", 0600, 7);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    file_content_t content;
    const char *reason = NULL;
    file_outcome_t outcome = file_read_private(directory, "file", 4096, &content, &reason);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(outcome, FILE_FAILED);
    assert_reads("file", "content", 7);
}

/* --- Putting --- */

static void a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_call_returns(void **state)
{
    (void)state;
    assert_true(put("file", "bytes", 5));
    assert_string_equal(events, "srd");
    assert_reads("file", "bytes", 5);
    assert_int_equal(entries(), 1);
}

static void a_file_that_was_put_is_private_whatever_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 077, 0777};
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        struct stat status;
        mode_t before = umask(masks[i]);
        assert_true(put("file", "bytes", 5));
        umask(before);
        assert_int_equal(fstatat(directory, "file", &status, 0), 0);
        assert_int_equal(status.st_mode, S_IFREG | S_IRUSR | S_IWUSR);
    }
}

static void what_a_dead_process_left_is_no_hindrance(void **state)
{
    (void)state;
    make_file(".new", 0600, 4000);
    assert_true(put("file", "bytes", 5));
    assert_int_equal(entries(), 1);
    assert_reads("file", "bytes", 5);
}

/* Whoever planted it would have us write where it leads. */
static void a_link_under_the_temporary_name_is_not_followed(void **state)
{
    (void)state;
    make_file("victim", 0600, 7);
    assert_int_equal(symlinkat("victim", directory, ".new"), 0);
    assert_true(put("file", "bytes", 5));
    assert_reads("victim", "content", 7);
    assert_reads("file", "bytes", 5);
}

static void nothing_is_left_of_what_was_not_put(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC, EDQUOT};
    for (const char *call = "srd"; *call != '\0'; call++) {
        for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
            failing = *call;
            failures = 1;
            with = errors[i];
            assert_false(put("file", "bytes", 5));
            assert_int_equal(failures, 0);
            assert_int_equal(entries(), 0);
        }
    }
}

static void a_sync_that_a_signal_interrupts_is_made_again(void **state)
{
    (void)state;
    failing = 's';
    failures = 2;
    with = EINTR;
    assert_true(put("file", "bytes", 5));
    assert_string_equal(events, "sssrd");
    events[0] = '\0';
    failing = 'd';
    failures = 2;
    assert_true(put("file", "bytes", 5));
    assert_string_equal(events, "srddd");
}

/* A limit on the size of files stands for the full disk. */
static void nothing_is_left_on_a_disk_that_fills_up(void **state)
{
    (void)state;
    static unsigned char bytes[5000];
    struct rlimit before;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit small = {.rlim_cur = 4096, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool done = put("file", bytes, sizeof bytes);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(done);
    assert_int_equal(entries(), 0);
}

/* --- Locking --- */

static void a_lock_is_one_opens_alone_until_that_is_closed(void **state)
{
    (void)state;
    int other = open(scratch_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(file_lock(directory, wait_limit_in(0)), WAIT_READY);
    assert_int_equal(file_lock(other, wait_limit_in(0)), WAIT_TIMEOUT);
    int64_t began_ms = wait_now_ms();
    assert_int_equal(file_lock(other, wait_limit_in(100)), WAIT_TIMEOUT);
    assert_true(wait_now_ms() - began_ms >= 100);
    assert_int_equal(flock(directory, LOCK_UN), 0);
    assert_int_equal(file_lock(other, wait_limit_in(0)), WAIT_READY);
    close(other);
    assert_int_equal(file_lock(directory, wait_limit_in(0)), WAIT_READY);
}

static void the_wait_for_a_lock_can_be_cancelled(void **state)
{
    (void)state;
    int ends[2];
    int other = open(scratch_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(flock(other, LOCK_EX), 0);
    wait_limit_t limit = wait_limit_in(20000);
    limit.cancel_fd = ends[0];
    assert_int_equal(write(ends[1], "x", 1), 1);
    int64_t began_ms = wait_now_ms();
    assert_int_equal(file_lock(directory, limit), WAIT_INTERRUPTED);
    assert_true(wait_now_ms() - began_ms < 10000);
    close(ends[0]);
    close(ends[1]);
    close(other);
}

static void what_cannot_be_locked_is_a_failure(void **state)
{
    (void)state;
    assert_int_equal(file_lock(-1, wait_limit_in(1000)), WAIT_FAILED);
    assert_int_equal(errno, EBADF);
}

#define test(name) cmocka_unit_test_setup_teardown(name, start_afresh, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_private_file_is_read_whole_and_stays),
        test(a_file_that_is_not_there_is_told_apart),
        test(a_larger_file_is_unfit),
        test(a_file_that_others_can_reach_is_unfit),
        test(a_file_of_another_user_is_unfit),
        test(a_file_with_a_second_name_is_read),
        test(a_symbolic_link_is_unfit_wherever_it_leads),
        test(what_is_no_regular_file_is_unfit),
        test(a_lack_of_descriptors_is_the_systems_failure),
        test(a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_call_returns),
        test(a_file_that_was_put_is_private_whatever_the_umask),
        test(what_a_dead_process_left_is_no_hindrance),
        test(a_link_under_the_temporary_name_is_not_followed),
        test(nothing_is_left_of_what_was_not_put),
        test(a_sync_that_a_signal_interrupts_is_made_again),
        test(nothing_is_left_on_a_disk_that_fills_up),
        test(a_lock_is_one_opens_alone_until_that_is_closed),
        test(the_wait_for_a_lock_can_be_cancelled),
        test(what_cannot_be_locked_is_a_failure),
    };
    return cmocka_run_group_tests_name("file", tests, NULL, scratch_remove);
}
