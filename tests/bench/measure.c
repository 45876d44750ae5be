/* measure FD SECONDS COMMAND [ARGUMENT]...: runs a command and writes to FD what it took, in one line:
 *
 *     STATUS STARTED ENDED CPU MEMORY
 *
 * STATUS is as a shell has it, 124 if the command had to be killed after SECONDS; the times are nanoseconds
 * of CLOCK_MONOTONIC; CPU is microseconds of user and system time; MEMORY is the peak, in KiB.
 *
 * Linux counts what a process was before it executed a program towards that program's peak memory. Hence this
 * one, which is small when linked statically; a Python that starts a command hides what is smaller than
 * Python. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILLED = 124, NOT_RUN = 127, NOBODY_COULD_TELL = 125 };

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* False: it did not end in time. SIGCHLD is blocked. */
static int ends_within(long seconds, const sigset_t *child_ends)
{
    struct timespec limit = {.tv_sec = seconds};
    int signal;
    do
        signal = sigtimedwait(child_ends, NULL, &limit);
    while (signal < 0 && errno == EINTR);
    return signal == SIGCHLD;
}

static void execute(char **command, const sigset_t *child_ends)
{
    sigprocmask(SIG_UNBLOCK, child_ends, NULL);
    execvp(command[0], command);
    perror(command[0]);
    _exit(NOT_RUN);
}

static long microseconds(struct timeval time)
{
    return time.tv_sec * 1000000L + time.tv_usec;
}

int main(int argc, char **argv)
{
    sigset_t child_ends;
    struct rusage used;
    int status;
    if (argc < 4)
        return NOBODY_COULD_TELL;
    int report_fd = (int)strtol(argv[1], NULL, 10);
    long seconds = strtol(argv[2], NULL, 10);
    FILE *report = fdopen(report_fd, "w");
    sigemptyset(&child_ends);
    sigaddset(&child_ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_ends, NULL);

    long long started = now_ns();
    pid_t child = fork();
    if (child == 0) {
        close(report_fd);
        execute(argv + 3, &child_ends);
    }
    if (child < 0 || report == NULL)
        return NOBODY_COULD_TELL;
    int in_time = ends_within(seconds, &child_ends);
    if (!in_time)
        kill(child, SIGKILL);
    wait4(child, &status, 0, &used);

    long long ended = now_ns();
    int as_in_a_shell = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    fprintf(report, "%d %lld %lld %ld %ld\n", in_time ? as_in_a_shell : KILLED, started, ended,
            microseconds(used.ru_utime) + microseconds(used.ru_stime), used.ru_maxrss);
    return fclose(report) == 0 ? EXIT_SUCCESS : NOBODY_COULD_TELL;
}
