/* Preloaded by tests: makes one chosen call of the program, or of a library beneath it, go wrong.
 *
 *     FAULT=FUNCTION:N:ACTION  what befalls the Nth call of FUNCTION; N+: that and all later ones;
 *                              FUNCTION@END: only calls whose DETAIL ends so are counted
 *                                ENOSPC, EIO...  it fails so
 *                                short           it does half of what it was asked to
 *                                before, after   the process is killed then
 *                                hang            it never returns
 *     FAULT_NOTE=FILE          "FUNCTION N DETAIL" is written there when that call comes
 *     FAULT_PEAK=FILE          the kilobytes of memory that were needed are written there at the end
 *
 * DETAIL is the path, or what the descriptor stands for. Calls are counted from main() on. Nothing here
 * allocates memory, or holds a descriptor open, since that would change what is watched. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef enum { PASS, FAIL, SHORT, BEFORE, AFTER, HANG } action_t;

static struct {
    char function[24];
    char end[64];
    unsigned long number;
    bool lasting;
    action_t action;
    int error;
} fault;

static const char *note_path, *peak_path;
static bool armed;

static const struct {
    const char *name;
    int number;
} errors[] = {{"EACCES", EACCES},
              {"EADDRINUSE", EADDRINUSE},
              {"EAGAIN", EAGAIN},
              {"EBUSY", EBUSY},
              {"ECONNREFUSED", ECONNREFUSED},
              {"EINTR", EINTR},
              {"EIO", EIO},
              {"EMFILE", EMFILE},
              {"ENETUNREACH", ENETUNREACH},
              {"ENOBUFS", ENOBUFS},
              {"ENOLCK", ENOLCK},
              {"ENOMEM", ENOMEM},
              {"ENOSPC", ENOSPC},
              {"ENOSYS", ENOSYS},
              {"EPERM", EPERM},
              {"EROFS", EROFS}};

static bool parse_action(const char *text)
{
    static const char *const names[] = {
        [SHORT] = "short", [BEFORE] = "before", [AFTER] = "after", [HANG] = "hang"};
    for (size_t i = SHORT; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0)
            fault.action = (action_t)i;
    }
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (strcmp(text, errors[i].name) == 0) {
            fault.action = FAIL;
            fault.error = errors[i].number;
        }
    }
    return fault.action != PASS;
}

/* Copies what comes before `separator`, and returns what comes after it; NULL: there is none, or no room. */
static const char *cut(const char *text, char separator, char *part, size_t size)
{
    const char *found = strchr(text, separator);
    if (found == NULL || (size_t)(found - text) >= size)
        return NULL;
    memcpy(part, text, (size_t)(found - text));
    part[found - text] = '\0';
    return found + 1;
}

static bool parse(const char *text)
{
    char *end = NULL;
    const char *rest = cut(text, '@', fault.function, sizeof fault.function);
    if (rest != NULL)
        rest = cut(rest, ':', fault.end, sizeof fault.end);
    else
        rest = cut(text, ':', fault.function, sizeof fault.function);
    if (rest == NULL)
        return false;
    fault.number = strtoul(rest, &end, 10);
    fault.lasting = *end == '+';
    end += fault.lasting;
    return *end == ':' && parse_action(end + 1);
}

__attribute__((constructor)) static void arm(void)
{
    const char *wanted = getenv("FAULT");
    note_path = getenv("FAULT_NOTE");
    peak_path = getenv("FAULT_PEAK");
    /* A mistake in a test must not look like a run that met no fault. */
    if (wanted != NULL && !parse(wanted))
        abort();
    armed = true;
}

/* --- What happened --- */

static void write_line(const char *path, const char *line, size_t length)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || syscall(SYS_write, fd, line, length) < 0)
        abort();
    syscall(SYS_close, fd);
}

/* What a call is about: a path, or what a descriptor stands for. */
static void describe(const char *name, int fd, char detail[static PATH_MAX + 16])
{
    char link[64], target[PATH_MAX] = "";
    snprintf(detail, PATH_MAX + 16, "%s", name != NULL ? name : "");
    if (name != NULL || fd < 0)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    snprintf(detail, PATH_MAX + 16, "%d:%s", fd, target);
}

static void note(const char *function, unsigned long number, const char *name, int fd)
{
    char detail[PATH_MAX + 16], line[PATH_MAX + 128];
    describe(name, fd, detail);
    write_line(note_path, line, (size_t)snprintf(line, sizeof line, "%s %lu %s\n", function, number, detail));
}

/* Whether it is one of those that count. */
static bool is_meant(const char *function, const char *name, int fd)
{
    char detail[PATH_MAX + 16];
    if (strcmp(function, fault.function) != 0)
        return false;
    if (fault.end[0] == '\0')
        return true;
    describe(name, fd, detail);
    size_t length = strlen(detail), wanted = strlen(fault.end);
    return length >= wanted && strcmp(detail + length - wanted, fault.end) == 0;
}

/* Of this process's memory alone; getrusage(2) counts in that of whoever started it. */
__attribute__((destructor)) static void note_peak(void)
{
    char status[8192] = "", line[64];
    if (peak_path == NULL)
        return;
    long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0 || syscall(SYS_read, fd, status, sizeof status - 1) < 0)
        abort();
    syscall(SYS_close, fd);
    const char *peak = strstr(status, "VmHWM:");
    int used = snprintf(line, sizeof line, "%ld\n", peak != NULL ? strtol(peak + 6, NULL, 10) : 0);
    write_line(peak_path, line, (size_t)used);
}

/* --- What shall happen --- */

/* Called before the call. FAIL: errno says how. */
static action_t strike(const char *function, const char *name, int fd)
{
    static atomic_ulong calls;
    if (!armed || !is_meant(function, name, fd))
        return PASS;
    unsigned long number = atomic_fetch_add(&calls, 1) + 1;
    bool later = fault.lasting && number > fault.number;
    if (number != fault.number && !later)
        return PASS;
    if (note_path != NULL && !later)
        note(function, number, name, fd);
    if (fault.action == BEFORE)
        kill(getpid(), SIGKILL);
    while (fault.action == HANG)
        pause();
    if (fault.action == FAIL)
        errno = fault.error;
    return fault.action;
}

/* ISO C has no cast from an object to a function. */
static void find(const char *name, void *function, size_t size)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (symbol == NULL)
        abort();
    memcpy(function, &symbol, size);
}

#define FIND_NEXT(function)                                                                                  \
    static __typeof__(&(function)) next;                                                                     \
    if (next == NULL)                                                                                        \
    find(#function, &next, sizeof next)

#define STRIKE_OR_RETURN(function, name, fd, failed)                                                         \
    FIND_NEXT(function);                                                                                     \
    action_t action = strike(#function, name, fd);                                                           \
    if (action == FAIL)                                                                                      \
    return failed

#define RETURN(type, call)                                                                                   \
    type result = call;                                                                                      \
    if (action == AFTER)                                                                                     \
        kill(getpid(), SIGKILL);                                                                             \
    return result

#define WRAP(type, failed, function, parameters, arguments, name, fd)                                        \
    type function parameters                                                                                 \
    {                                                                                                        \
        STRIKE_OR_RETURN(function, name, fd, failed);                                                        \
        RETURN(type, next arguments);                                                                        \
    }

/* Those that can do less than they were asked to. */
#define WRAP_SIZED(function, parameters, arguments, size, fd)                                                \
    ssize_t function parameters                                                                              \
    {                                                                                                        \
        STRIKE_OR_RETURN(function, NULL, fd, -1);                                                            \
        if (action == SHORT)                                                                                 \
            (size) = ((size) + 1) / 2;                                                                       \
        RETURN(ssize_t, next arguments);                                                                     \
    }

WRAP(void *, NULL, malloc, (size_t size), (size), NULL, -1)
WRAP(void *, NULL, calloc, (size_t count, size_t size), (count, size), NULL, -1)

WRAP_SIZED(read, (int fd, void *bytes, size_t size), (fd, bytes, size), size, fd)
WRAP_SIZED(write, (int fd, const void *bytes, size_t size), (fd, bytes, size), size, fd)
WRAP_SIZED(pread, (int fd, void *bytes, size_t size, off_t at), (fd, bytes, size, at), size, fd)
WRAP_SIZED(pwrite, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at), size, fd)
WRAP_SIZED(getrandom, (void *bytes, size_t size, unsigned flags), (bytes, size, flags), size, -1)

WRAP(int, -1, fsync, (int fd), (fd), NULL, fd)
WRAP(int, -1, fchmod, (int fd, mode_t mode), (fd, mode), NULL, fd)
WRAP(int, -1, flock, (int fd, int operation), (fd, operation), NULL, fd)
WRAP(int, -1, fstat, (int fd, struct stat *status), (fd, status), NULL, fd)
WRAP(int, -1, fstatfs, (int fd, struct statfs *status), (fd, status), NULL, fd)
WRAP(int, -1, ftruncate, (int fd, off_t length), (fd, length), NULL, fd)
WRAP(int, -1, stat, (const char *path, struct stat *status), (path, status), path, -1)
WRAP(int, -1, lstat, (const char *path, struct stat *status), (path, status), path, -1)
WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode), path, -1)
WRAP(int, -1, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), path, -1)
WRAP(int, -1, rename, (const char *from, const char *to), (from, to), to, -1)
WRAP(int, -1, renameat, (int at, const char *from, int to_at, const char *to), (at, from, to_at, to), to, -1)
WRAP(int, -1, unlink, (const char *path), (path), path, -1)
WRAP(int, -1, unlinkat, (int at, const char *path, int flags), (at, path, flags), path, -1)

WRAP(DIR *, NULL, fdopendir, (int fd), (fd), NULL, fd)
WRAP(struct dirent *, NULL, readdir, (DIR * directory), (directory), NULL, dirfd(directory))

WRAP(int, -1, eventfd, (unsigned value, int flags), (value, flags), NULL, -1)
WRAP(int, -1, socket, (int family, int type, int protocol), (family, type, protocol), NULL, -1)
WRAP(int, -1, bind, (int fd, __CONST_SOCKADDR_ARG address, socklen_t length), (fd, address, length), NULL, fd)
WRAP(int, -1, connect, (int fd, __CONST_SOCKADDR_ARG address, socklen_t length), (fd, address, length), NULL,
     fd)
WRAP(ssize_t, -1, send, (int fd, const void *bytes, size_t size, int flags), (fd, bytes, size, flags), NULL,
     fd)
WRAP(ssize_t, -1, recv, (int fd, void *bytes, size_t size, int flags), (fd, bytes, size, flags), NULL, fd)

/* On Linux the descriptor is gone also where close(2) fails. */
int close(int fd)
{
    FIND_NEXT(close);
    action_t action = strike("close", NULL, fd);
    int error = errno;
    int result = next(fd);
    if (action == AFTER)
        kill(getpid(), SIGKILL);
    if (action != FAIL)
        return result;
    errno = error;
    return -1;
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    STRIKE_OR_RETURN(open, path, -1, -1);
    RETURN(int, next(path, flags, mode));
}

int openat(int at, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    STRIKE_OR_RETURN(openat, path, -1, -1);
    RETURN(int, next(at, path, flags, mode));
}

/* --- Other names --- */

/* What those become in a program for large files. The types differ in their names alone. */
_Static_assert(sizeof(off_t) == sizeof(off64_t) && sizeof(struct stat) == sizeof(struct stat64),
               "for 64-bit systems");

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open(path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat(at, path, flags, mode);
}

ssize_t pread64(int fd, void *bytes, size_t size, off64_t at)
{
    return pread(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at)
{
    return pwrite(fd, bytes, size, at);
}

int fstatfs64(int fd, struct statfs64 *status)
{
    return fstatfs(fd, (struct statfs *)status);
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

int fstat64(int fd, struct stat64 *status)
{
    return fstat(fd, (struct stat *)status);
}

int stat64(const char *path, struct stat64 *status)
{
    return stat(path, (struct stat *)status);
}

int lstat64(const char *path, struct stat64 *status)
{
    return lstat(path, (struct stat *)status);
}

struct dirent64 *readdir64(DIR *directory)
{
    return (struct dirent64 *)readdir(directory);
}

/* What open(2) becomes where it is fortified. */
int __open_2(const char *path, int flags)
{
    return open(path, flags);
}

int __open64_2(const char *path, int flags)
{
    return open(path, flags);
}
