/* What a process arranges for itself, seen by its parent: each test forks one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "system/process.h"

enum { WATCHED_STATUS = 42, HANGING_MS = 10000, SOON_MS = 50 };

static const int ending[] = {SIGINT, SIGTERM, SIGHUP};
enum { ENDINGS = sizeof ending / sizeof ending[0] };

typedef struct {
    pid_t pid;
    int said; /* a pipe: a byte for each thing that it did */
} child_t;

/* Starts a process that does this, with one end of a pipe, and must not return from it. */
static child_t start(void (*run)(int say))
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(ends[0]);
        /* nohup(1), or a shell's "&", had some of them ignored. */
        for (size_t i = 0; i < ENDINGS; i++)
            signal(ending[i], SIG_DFL);
        run(ends[1]);
        _exit(0);
    }
    close(ends[1]);
    return (child_t){.pid = pid, .said = ends[0]};
}

static void say(int fd)
{
    if (write(fd, "x", 1) != 1)
        _exit(1);
}

/* Waits for the next thing that it does; fails the test where nothing comes. */
static void await(child_t child)
{
    struct pollfd said = {.fd = child.said, .events = POLLIN};
    char byte = 0;
    assert_int_equal(poll(&said, 1, HANGING_MS / 2), 1);
    assert_int_equal(read(child.said, &byte, 1), 1);
}

/* The status by which it ends; -1: by a signal. */
static int end_of(child_t child)
{
    int status = 0;
    assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
    close(child.said);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* As in a call that never returns; ends in the end, so that a test fails instead. */
static void hang(void)
{
    for (int i = 0; i < HANGING_MS / SOON_MS; i++)
        poll(NULL, 0, SOON_MS);
    _exit(1);
}

static void block_everything(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
}

/* --- Signals --- */

static void note_signals_and_hang(int fd)
{
    process_catch_signals();
    say(fd);
    while (process_signal() == 0)
        poll(NULL, 0, SOON_MS);
    say(fd);
    hang();
}

static void the_first_signal_is_noted_and_a_second_ends_a_run_that_hangs(void **state)
{
    (void)state;
    for (size_t i = 0; i < ENDINGS; i++) {
        child_t child = start(note_signals_and_hang);
        await(child);
        kill(child.pid, SIGTERM);
        await(child); /* it goes on */
        kill(child.pid, ending[i]);
        assert_int_equal(end_of(child), 128 + ending[i]);
    }
}

static void wait_for_the_descriptor(int fd)
{
    block_everything();
    process_catch_signals();
    say(fd);
    struct pollfd signalled = {.fd = process_signal_fd(), .events = POLLIN};
    while (poll(&signalled, 1, HANGING_MS) < 0 && errno == EINTR)
        continue;
    _exit((signalled.revents & POLLIN) != 0 ? process_signal() : 0);
}

static void a_signal_that_the_parent_had_blocked_is_noted_and_wakes_a_wait(void **state)
{
    (void)state;
    for (size_t i = 0; i < ENDINGS; i++) {
        child_t child = start(wait_for_the_descriptor);
        await(child);
        kill(child.pid, ending[i]);
        assert_int_equal(end_of(child), ending[i]);
    }
}

static void wait_for_one_that_came_before(int fd)
{
    block_everything();
    raise(SIGTERM);
    wait_for_the_descriptor(fd);
}

static void a_signal_that_came_while_it_was_blocked_is_not_lost(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(wait_for_one_that_came_before)), SIGTERM);
}

static void ignore_and_see(int fd)
{
    (void)fd;
    for (size_t i = 0; i < ENDINGS; i++)
        signal(ending[i], SIG_IGN);
    process_catch_signals();
    for (size_t i = 0; i < ENDINGS; i++)
        raise(ending[i]);
    _exit(process_signal());
}

static void a_signal_that_was_ignored_stays_so(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(ignore_and_see)), 0);
}

/* --- The alarm --- */

static void be_watched(int fd)
{
    (void)fd;
    close(STDERR_FILENO); /* its message is not for whoever runs the tests */
    process_catch_signals();
    process_watch(SOON_MS, WATCHED_STATUS);
    hang();
}

static void a_run_that_hangs_is_ended_by_its_deadline(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(be_watched)), WATCHED_STATUS);
}

static void be_watched_though_alarms_are_blocked(int fd)
{
    block_everything();
    signal(SIGALRM, SIG_IGN);
    be_watched(fd);
}

static void a_run_that_hangs_is_ended_though_the_parent_had_blocked_and_ignored_alarms(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(be_watched_though_alarms_are_blocked)), WATCHED_STATUS);
}

/* --- Core files --- */

static void tell_of_core_files(int fd)
{
    struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    (void)fd;
    process_prepare();
    getrlimit(RLIMIT_CORE, &limit);
    _exit(limit.rlim_cur == 0 && limit.rlim_max == 0 ? 0 : 1);
}

static void a_crash_leaves_no_core_file_that_would_hold_keys(void **state)
{
    (void)state;
    assert_int_equal(end_of(start(tell_of_core_files)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_signal_is_noted_and_a_second_ends_a_run_that_hangs),
        cmocka_unit_test(a_signal_that_the_parent_had_blocked_is_noted_and_wakes_a_wait),
        cmocka_unit_test(a_signal_that_came_while_it_was_blocked_is_not_lost),
        cmocka_unit_test(a_signal_that_was_ignored_stays_so),
        cmocka_unit_test(a_run_that_hangs_is_ended_by_its_deadline),
        cmocka_unit_test(a_run_that_hangs_is_ended_though_the_parent_had_blocked_and_ignored_alarms),
        cmocka_unit_test(a_crash_leaves_no_core_file_that_would_hold_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
