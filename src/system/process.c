#include "system/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sysexits.h>
#include <unistd.h>

#include "system/log.h"

/* How long after the deadline a run that hangs elsewhere than in a wait is ended. */
enum { WATCHDOG_MS = 200 };

static volatile sig_atomic_t caught;
static volatile sig_atomic_t watch_status = EX_TEMPFAIL;
static int fd = -1; /* an eventfd that becomes readable with the first signal */

void process_prepare(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY}; /* what stands in fails as a closed one does */
    for (int standard = 0; standard <= 2; standard++) {
        if (fcntl(standard, F_GETFD) < 0 && open("/dev/null", modes[standard]) != standard)
            _exit(EX_OSERR);
    }
    umask(S_IRWXG | S_IRWXO);
    /* Not PR_SET_DUMPABLE as well: debuggers and sanitizers could not look at the process any more. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){.rlim_cur = 0, .rlim_max = 0});
}

static void on_signal(int number)
{
    int kept_errno = errno;
    if (caught != 0) /* someone is impatient */
        _exit(128 + number);
    caught = number;
    eventfd_write(fd, 1);
    errno = kept_errno;
}

/* Waits end by themselves; this is for what cannot be waited for, such as a disk that hangs or a FIFO to
 * open. */
static void on_alarm(int number)
{
    static const char message[] = "dtls-send: timeout: the system did not return from a call\n";
    (void)number;
    struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
    /* What hangs may be whoever should read it. */
    if (log_level() >= LOG_ERROR && poll(&standard_error, 1, 0) == 1 &&
        (standard_error.revents & POLLOUT) != 0 && write(STDERR_FILENO, message, sizeof message - 1) < 0)
        _exit(watch_status);
    _exit(watch_status);
}

void process_catch_signals(void)
{
    static const int ending[] = {SIGINT, SIGTERM, SIGHUP};
    sigset_t wanted;
    /* No SA_RESTART: a blocked open(2) must end. */
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction before;
    sigemptyset(&action.sa_mask);
    sigemptyset(&wanted);
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* Without it no wait would notice: a signal ends the process then as it ever does. */
    for (size_t i = 0; i < sizeof ending / sizeof ending[0]; i++) {
        sigaddset(&wanted, ending[i]);
        /* What nohup(1) or a shell's "&" had ignored stays so. */
        if (fd >= 0 && sigaction(ending[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(ending[i], &action, NULL);
    }
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    /* The mask of a parent that waits for its signals by sigwait(3) or signalfd(2) is inherited. */
    sigaddset(&wanted, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &wanted, NULL);
}

void process_watch(int64_t delay_ms, int status)
{
    int64_t alarm_ms = (delay_ms > 0 ? delay_ms : 0) + WATCHDOG_MS;
    struct itimerval timer = {
        .it_value = {.tv_sec = (time_t)(alarm_ms / 1000), .tv_usec = (suseconds_t)(alarm_ms % 1000 * 1000)}};
    watch_status = status;
    setitimer(ITIMER_REAL, &timer, NULL);
}

int process_signal(void)
{
    return caught;
}

int process_signal_fd(void)
{
    return fd;
}
