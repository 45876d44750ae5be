/* session.h and the private files under it: what was saved comes back once and whole, or not at all. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
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
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"
#include "store/file.h"
#include "store/session.h"

static const unsigned char binding[SESSION_BINDING_SIZE] = "bound to this";
static int64_t clock_offset_s;
static uint32_t file_system; /* on which all files lie */
static int emptying_error, removal_error;
static int watched; /* a descriptor; -1: none */
static off_t size_at_removal;

/* In place of the C library's, so that a test can let time pass. */
time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time_t moved = now.tv_sec + (time_t)clock_offset_s;
    if (result != NULL)
        *result = moved;
    return moved;
}

/* And these, to put any file on any file system, and to make a file hard to take. */
int fstatfs(int fd, struct statfs *status)
{
    (void)fd;
    memset(status, 0, sizeof *status);
    status->f_type = (__typeof__(status->f_type))file_system;
    return 0;
}

int ftruncate(int fd, off_t length)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    errno = emptying_error;
    return emptying_error == 0 ? truncate(path, length) : -1;
}

int unlink(const char *path)
{
    struct stat status;
    if (watched >= 0 && fstat(watched, &status) == 0)
        size_at_removal = status.st_size;
    errno = removal_error;
    return removal_error == 0 ? unlinkat(AT_FDCWD, path, 0) : -1;
}

/* --- What the tests share --- */

static unsigned char *copy(const void *bytes, size_t length)
{
    unsigned char *copied = malloc(length);
    assert_non_null(copied);
    memcpy(copied, bytes, length);
    return copied;
}

static const unsigned char association[] = "keys \0 and counters", session_bytes[] = "a session\0 to resume";

/* A session as a run leaves it. */
static session_t example(void)
{
    return (session_t){.association = copy(association, sizeof association),
                       .association_length = sizeof association,
                       .session = copy(session_bytes, sizeof session_bytes),
                       .session_length = sizeof session_bytes,
                       .full_at = time(NULL),
                       .full_ms = session_clock_ms(),
                       .heard_ms = 123456789012,
                       .expiry = (int64_t)time(NULL) + 1000,
                       .round_trip_us = 54321,
                       .answer_us = 98765,
                       .failures = 1,
                       .message_id = 65535,
                       .token = 4711,
                       .want_ticket = true};
}

static void put_session(const char *path, session_t *session)
{
    const char *reason = "";
    if (!session_put(path, binding, session, &reason))
        fail_msg("not put: %s", reason);
    session_free(session);
}

static void put_example(const char *path)
{
    session_t session = example();
    put_session(path, &session);
}

static bool has_nothing(const session_t *session)
{
    return session->association == NULL && session->association_length == 0 && session->session == NULL &&
           session->session_length == 0 && session->heard_ms == 0 && session->expiry == 0 &&
           session->round_trip_us == 0 && session->answer_us == 0 && session->failures == 0 &&
           session->message_id == 0 && session->token == 0 && session->full_at == 0 &&
           session->full_ms == 0 && !session->want_ticket;
}

static void gives_nothing(const char *path)
{
    session_t session;
    session_take(path, binding, &session);
    bool nothing = has_nothing(&session);
    session_free(&session);
    assert_true(nothing);
}

static void has_the_examples_session(const session_t *session)
{
    assert_int_equal(session->session_length, sizeof session_bytes);
    assert_memory_equal(session->session, session_bytes, sizeof session_bytes);
    assert_int_equal(session->heard_ms, 123456789012);
    assert_int_equal(session->round_trip_us, 54321);
    assert_int_equal(session->answer_us, 98765);
    assert_int_equal(session->failures, 1);
    assert_true(session->want_ticket);
}

static void gives_the_example(const char *path)
{
    session_t session;
    session_take(path, binding, &session);
    assert_int_equal(session.association_length, sizeof association);
    assert_memory_equal(session.association, association, sizeof association);
    assert_int_equal(session.message_id, 65535);
    assert_int_equal(session.token, 4711);
    has_the_examples_session(&session);
    session_free(&session);
    assert_int_equal(access(path, F_OK), -1);
}

static void gives_the_session_alone(const char *path)
{
    session_t session;
    session_take(path, binding, &session);
    assert_null(session.association);
    assert_int_equal(session.association_length, 0);
    assert_int_equal(session.message_id, 0);
    assert_int_equal(session.token, 0);
    has_the_examples_session(&session);
    session_free(&session);
    assert_int_equal(access(path, F_OK), -1);
}

/* How many entries the test's own directory has. */
static int entries(void)
{
    int count = -2; /* . and .. */
    DIR *directory = opendir(scratch_directory);
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static int start_afresh(void **state)
{
    clock_offset_s = 0;
    file_system = TMPFS_MAGIC;
    emptying_error = removal_error = 0;
    watched = -1;
    scratch_remove(state);
    memset(scratch_directory, 0, sizeof scratch_directory);
    return scratch_make(state);
}

/* The path of `name` in this test's directory; unlike scratch_path()'s, valid until the next call. */
static const char *own_path(const char *name)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", scratch_directory, name);
    return path;
}

static file_content_t content_of(const char *path)
{
    file_content_t content;
    const char *reason = "";
    if (!file_read(path, 1 << 20, &content, &reason))
        fail_msg("%s: %s", path, reason);
    return content;
}

/* A file of mode 0600. */
static void write_private(const char *path, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), (ssize_t)length);
    assert_int_equal(close(fd), 0);
}

static void refuses_to_take(const char *path, const char *mention)
{
    file_content_t content;
    file_place_t place;
    const char *reason = NULL;
    assert_false(file_take(path, 4096, &content, &place, &reason));
    assert_null(content.bytes);
    assert_non_null(reason);
    if (strstr(reason, mention) == NULL)
        fail_msg("\"%s\" does not mention \"%s\"", reason, mention);
}

static bool put_file(const char *path, const void *bytes, size_t length, const char **reason)
{
    file_draft_t draft;
    return file_begin(&draft, path, reason) && file_finish(&draft, path, bytes, length, reason);
}

static void refuses_to_put(const char *path, const char *mention)
{
    const char *reason = NULL;
    assert_false(put_file(path, "bytes", 5, &reason));
    assert_non_null(reason);
    if (strstr(reason, mention) == NULL)
        fail_msg("\"%s\" does not mention \"%s\"", reason, mention);
}

/* --- Whole, and once --- */

static void what_was_put_is_taken_whole(void **state)
{
    (void)state;
    session_t session = example();
    int64_t expiry = session.expiry;
    put_session(own_path("session"), &session);
    session_take(own_path("session"), binding, &session);
    assert_int_equal(session.expiry, expiry);
    session_free(&session);
    put_example(own_path("session"));
    gives_the_example(own_path("session"));
}

static void what_was_taken_cannot_be_taken_again(void **state)
{
    (void)state;
    put_example(own_path("session"));
    gives_the_example(own_path("session"));
    gives_nothing(own_path("session"));
    assert_int_equal(entries(), 0);
}

static void what_is_put_last_is_taken(void **state)
{
    (void)state;
    session_t session = example();
    session.association[0] = 'x';
    put_session(own_path("session"), &session);
    put_example(own_path("session"));
    assert_int_equal(entries(), 1);
    gives_the_example(own_path("session"));
}

static void a_session_without_an_association_is_kept(void **state)
{
    (void)state;
    session_t session = example();
    session_drop_association(&session);
    put_session(own_path("session"), &session);
    session_take(own_path("session"), binding, &session);
    assert_null(session.association);
    assert_int_equal(session.session_length, sizeof session_bytes);
    assert_memory_equal(session.session, session_bytes, sizeof session_bytes);
    session_free(&session);
}

static void an_association_without_a_session_is_kept(void **state)
{
    (void)state;
    session_t session = example();
    session_replace(&session, NULL, 0);
    put_session(own_path("session"), &session);
    session_take(own_path("session"), binding, &session);
    assert_null(session.session);
    assert_int_equal(session.association_length, sizeof association);
    session_free(&session);
}

static void a_wish_for_a_ticket_alone_is_kept(void **state)
{
    (void)state;
    session_t session = {.want_ticket = true, .full_at = time(NULL)};
    put_session(own_path("session"), &session);
    session_take(own_path("session"), binding, &session);
    assert_true(session.want_ticket);
    session_free(&session);
}

static void freeing_twice_is_harmless(void **state)
{
    (void)state;
    session_t session = example();
    session_free(&session);
    session_free(&session);
    assert_null(session.association);
    assert_null(session.session);
}

static void the_file_is_private_whatever_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 077, 0777};
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        struct stat status;
        mode_t before = umask(masks[i]);
        put_example(own_path("session"));
        umask(before);
        assert_int_equal(stat(own_path("session"), &status), 0);
        assert_int_equal(status.st_mode, S_IFREG | S_IRUSR | S_IWUSR);
        assert_int_equal(status.st_nlink, 1);
    }
}

/* --- Damage --- */

static void a_flip_of_any_bit_or_byte_is_found(void **state)
{
    (void)state;
    char path[300];
    snprintf(path, sizeof path, "%s", own_path("session"));
    session_t session = example();
    session_drop_association(&session); /* which does not fit a copy */
    put_session(path, &session);
    file_content_t whole = content_of(path);
    for (size_t i = 0; i < whole.length; i++) {
        static const unsigned char flips[] = {1, 2, 4, 8, 16, 32, 64, 128, 255};
        for (size_t j = 0; j < sizeof flips; j++) {
            whole.bytes[i] ^= flips[j];
            write_private(path, whole.bytes, whole.length);
            gives_nothing(path);
            whole.bytes[i] ^= flips[j];
        }
    }
    write_private(path, whole.bytes, whole.length); /* it was each time the flip */
    gives_the_session_alone(path);
    file_content_free(&whole);
}

static void a_file_cut_at_any_length_is_found(void **state)
{
    (void)state;
    char path[300];
    snprintf(path, sizeof path, "%s", own_path("session"));
    put_example(path);
    file_content_t whole = content_of(path);
    for (size_t length = 0; length < whole.length; length++) {
        write_private(path, whole.bytes, length);
        gives_nothing(path);
    }
    file_content_free(&whole);
}

static void a_file_with_more_behind_it_is_found(void **state)
{
    (void)state;
    static unsigned char longer[4096];
    put_example(own_path("session"));
    file_content_t whole = content_of(own_path("session"));
    memcpy(longer, whole.bytes, whole.length);
    memcpy(longer + whole.length, whole.bytes, whole.length);
    write_private(own_path("session"), longer, whole.length + 1);
    gives_nothing(own_path("session"));
    write_private(own_path("session"), longer, 2 * whole.length);
    gives_nothing(own_path("session"));
    file_content_free(&whole);
}

static void garbage_of_any_length_gives_nothing(void **state)
{
    (void)state;
    static unsigned char garbage[70000];
    unsigned number = 1;
    for (size_t i = 0; i < sizeof garbage; i++) {
        number = number * 1103515245 + 12345;
        garbage[i] = (unsigned char)(number >> 16);
    }
    for (size_t length = 0; length <= sizeof garbage; length += length < 400 ? 1 : 23200) {
        write_private(own_path("session"), garbage, length);
        gives_nothing(own_path("session"));
    }
}

static void an_enormous_file_gives_nothing(void **state)
{
    (void)state;
    put_example(own_path("session"));
    assert_int_equal(truncate(own_path("session"), INT64_C(1) << 33), 0);
    gives_nothing(own_path("session"));
}

/* --- For whom, and how long --- */

static void another_binding_gives_nothing_ever(void **state)
{
    (void)state;
    for (size_t i = 0; i < SESSION_BINDING_SIZE; i++) {
        unsigned char other[SESSION_BINDING_SIZE];
        session_t session;
        memcpy(other, binding, sizeof other);
        other[i] ^= 1;
        put_example(own_path("session"));
        session_take(own_path("session"), other, &session);
        assert_true(has_nothing(&session));
        session_free(&session);
    }
}

static void bind_two(unsigned char made[static SESSION_BINDING_SIZE], const char *first, size_t first_length,
                     const char *second, size_t second_length)
{
    session_part_t parts[] = {{first, first_length}, {second, second_length}};
    assert_true(session_bind(made, parts, 2));
}

static void a_binding_knows_where_each_part_ends(void **state)
{
    (void)state;
    unsigned char one[SESSION_BINDING_SIZE], same[SESSION_BINDING_SIZE], other[SESSION_BINDING_SIZE];
    bind_two(one, "ab", 2, "c", 1);
    bind_two(same, "ab", 2, "c", 1);
    assert_memory_equal(one, same, sizeof one);
    bind_two(other, "a", 1, "bc", 2);
    assert_memory_not_equal(one, other, sizeof one);
    bind_two(other, "abc", 3, "", 0);
    assert_memory_not_equal(one, other, sizeof one);
    bind_two(other, "c", 1, "ab", 2);
    assert_memory_not_equal(one, other, sizeof one);
    assert_true(session_bind(other, &(session_part_t){"abc", 3}, 1));
    assert_memory_not_equal(one, other, sizeof one);
}

static void a_session_ends_with_the_servers_certificate(void **state)
{
    (void)state;
    put_example(own_path("session"));
    clock_offset_s = 999; /* it expires after 1000 seconds */
    session_t session;
    session_take(own_path("session"), binding, &session);
    assert_non_null(session.session);
    session_free(&session);

    clock_offset_s = 0;
    put_example(own_path("session"));
    clock_offset_s = 1001;
    gives_nothing(own_path("session"));
}

static void a_day_counts_from_the_full_handshake_however_often_it_is_saved(void **state)
{
    (void)state;
    session_t session = example();
    session.expiry = 0;
    for (int64_t hours = 0; hours < 24; hours++) {
        clock_offset_s = hours * 3600;
        put_session(own_path("session"), &session);
        session_take(own_path("session"), binding, &session);
        assert_non_null(session.session);
        assert_non_null(session.association);
    }
    put_session(own_path("session"), &session);
    clock_offset_s = SESSION_AGE_MAX_S + 10;
    gives_nothing(own_path("session"));
}

static void a_session_without_a_full_handshake_gives_nothing(void **state)
{
    (void)state;
    session_t session = example();
    session.full_at = 0;
    put_session(own_path("session"), &session);
    gives_nothing(own_path("session"));
}

static void an_association_lasts_a_day_by_the_boots_clock_too(void **state)
{
    (void)state;
    static const int64_t a_day_ms = SESSION_AGE_MAX_S * INT64_C(1000);
    const int64_t ages_ms[] = {a_day_ms + 1000, -1000, INT64_MAX, INT64_MIN / 2};
    for (size_t i = 0; i < sizeof ages_ms / sizeof ages_ms[0]; i++) {
        session_t session = example();
        session.full_ms -= ages_ms[i];
        put_session(own_path("session"), &session);
        gives_the_session_alone(own_path("session"));
    }
    session_t session = example();
    session.full_ms -= a_day_ms - 10000;
    put_session(own_path("session"), &session);
    gives_the_example(own_path("session"));
}

static void a_session_of_the_future_gives_nothing(void **state)
{
    (void)state;
    clock_offset_s = 100;
    put_example(own_path("session"));
    clock_offset_s = 0;
    gives_nothing(own_path("session"));
}

static void the_clock_never_goes_back(void **state)
{
    (void)state;
    int64_t before_ms = session_clock_ms();
    clock_offset_s = -5000;
    int64_t after_ms = session_clock_ms();
    assert_true(before_ms > 0);
    assert_true(after_ms >= before_ms && after_ms < before_ms + 60000);
}

/* --- Where an association may lie --- */

static void an_association_is_never_kept_on_a_disk(void **state)
{
    (void)state;
    file_system = EXT4_SUPER_MAGIC;
    put_example(own_path("session"));
    file_content_t content = content_of(own_path("session"));
    assert_null(memmem(content.bytes, content.length, association, sizeof association));
    file_content_free(&content);
    file_system = TMPFS_MAGIC;
    gives_the_session_alone(own_path("session"));
}

static void an_association_is_never_read_from_a_disk(void **state)
{
    (void)state;
    static const uint32_t disks[] = {EXT4_SUPER_MAGIC, MSDOS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC,
                                     NFS_SUPER_MAGIC};
    for (size_t i = 0; i < sizeof disks / sizeof disks[0]; i++) {
        file_system = TMPFS_MAGIC;
        put_example(own_path("session"));
        file_system = disks[i];
        gives_the_session_alone(own_path("session"));
    }
}

static void an_association_is_kept_on_ramfs_too(void **state)
{
    (void)state;
    file_system = RAMFS_MAGIC;
    put_example(own_path("session"));
    gives_the_example(own_path("session"));
}

static void a_copied_files_association_does_not_fit(void **state)
{
    (void)state;
    char copied[300];
    snprintf(copied, sizeof copied, "%s", own_path("copy"));
    put_example(own_path("session"));
    file_content_t whole = content_of(own_path("session"));
    write_private(copied, whole.bytes, whole.length);
    watched = open(own_path("session"), O_RDONLY | O_CLOEXEC); /* so that a disk does not reuse its inode */
    gives_the_example(own_path("session"));
    assert_int_equal(rename(copied, own_path("session")), 0); /* where it was before */
    gives_the_session_alone(own_path("session"));
    put_example(own_path("session")); /* written into the file of a later run */
    write_private(own_path("session"), whole.bytes, whole.length);
    gives_the_session_alone(own_path("session"));
    file_content_free(&whole);
    close(watched);
}

static void where_associations_are_kept_is_told_before_the_file_exists(void **state)
{
    (void)state;
    struct statfs shared;
    bool has_tmpfs = statfs("/dev/shm", &shared) == 0 && shared.f_type == TMPFS_MAGIC;
    assert_false(session_keeps_associations("/proc/session"));
    assert_false(session_keeps_associations(own_path("missing/session")));
    assert_false(session_keeps_associations(""));
    assert_int_equal(session_keeps_associations("/dev/shm/dtls-send.none"), has_tmpfs);
    if (has_tmpfs) {
        int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(chdir("/dev/shm"), 0);
        assert_true(session_keeps_associations("session"));
        assert_int_equal(fchdir(here), 0);
        close(here);
    }
}

/* --- Taking --- */

static void a_taken_file_is_emptied_before_it_loses_its_name(void **state)
{
    (void)state;
    char content;
    put_example(own_path("session"));
    watched = open(own_path("session"), O_RDONLY | O_CLOEXEC);
    assert_true(watched >= 0);
    size_at_removal = -1;
    gives_the_example(own_path("session"));
    assert_int_equal(size_at_removal, 0);
    assert_int_equal(read(watched, &content, 1), 0);
    close(watched);
}

static void what_cannot_be_emptied_or_removed_is_not_used(void **state)
{
    (void)state;
    put_example(own_path("session"));
    emptying_error = EPERM;
    gives_nothing(own_path("session"));
    assert_int_equal(access(own_path("session"), F_OK), 0);
    emptying_error = 0;
    removal_error = EROFS;
    gives_nothing(own_path("session"));
    removal_error = 0;
    gives_nothing(own_path("session")); /* nor later: it is empty */
}

static void a_private_file_is_taken_and_gone(void **state)
{
    (void)state;
    file_content_t content;
    file_place_t place;
    struct stat status;
    const char *reason = NULL;
    write_private(own_path("file"), "four", 4);
    assert_int_equal(stat(own_path("file"), &status), 0);
    assert_true(file_take(own_path("file"), 4, &content, &place, &reason));
    assert_true(place.device == status.st_dev && place.inode == status.st_ino && place.in_memory);
    assert_int_equal(content.length, 4);
    assert_memory_equal(content.bytes, "four", 5);
    file_content_free(&content);
    refuses_to_take(own_path("file"), "No such file");
}

static void a_file_of_any_other_mode_is_not_taken(void **state)
{
    (void)state;
    for (mode_t mode = 0; mode <= 07777; mode++) {
        if (mode == 0600)
            continue;
        write_private(own_path("file"), "four", 4);
        assert_int_equal(chmod(own_path("file"), mode), 0);
        refuses_to_take(own_path("file"), geteuid() == 0 ? "mode" : "");
        assert_int_equal(unlink(own_path("file")), 0);
    }
}

static void a_file_of_two_names_is_not_taken(void **state)
{
    (void)state;
    char second[300];
    snprintf(second, sizeof second, "%s", own_path("second"));
    write_private(own_path("file"), "four", 4);
    assert_int_equal(link(own_path("file"), second), 0);
    refuses_to_take(own_path("file"), "names");
    assert_int_equal(entries(), 2);
}

static void a_symbolic_link_is_not_followed(void **state)
{
    (void)state;
    char target[300];
    snprintf(target, sizeof target, "%s", own_path("target"));
    write_private(target, "four", 4);
    assert_int_equal(symlink(target, own_path("file")), 0);
    refuses_to_take(own_path("file"), "link");
    assert_int_equal(access(target, F_OK), 0);
}

static void a_file_of_another_user_is_not_taken(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip(); /* only root can give files away */
    write_private(own_path("file"), "four", 4);
    assert_int_equal(chown(own_path("file"), 65534, 65534), 0);
    refuses_to_take(own_path("file"), "another user");
    assert_int_equal(entries(), 1);
}

static void what_is_no_file_is_not_taken(void **state)
{
    (void)state;
    assert_int_equal(mkdir(own_path("directory"), 0600), 0);
    refuses_to_take(own_path("directory"), "directory");
    assert_int_equal(mkfifo(own_path("fifo"), 0600), 0);
    refuses_to_take(own_path("fifo"), "not a regular file");
    refuses_to_take("/dev/null", "not a regular file");
    refuses_to_take("", "");
    assert_int_equal(entries(), 2);
}

static void a_file_too_large_is_not_taken(void **state)
{
    (void)state;
    static const char large[5000];
    write_private(own_path("file"), large, sizeof large);
    refuses_to_take(own_path("file"), "larger than 4096");
}

static void a_file_that_another_process_takes_is_not_taken(void **state)
{
    (void)state;
    write_private(own_path("file"), "four", 4);
    int fd = open(own_path("file"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    refuses_to_take(own_path("file"), "another process");
    close(fd);
}

/* --- Putting --- */

static void putting_replaces_whole(void **state)
{
    (void)state;
    const char *reason = NULL;
    assert_true(put_file(own_path("file"), "a long content", 14, &reason));
    assert_true(put_file(own_path("file"), "short", 5, &reason));
    file_content_t content = content_of(own_path("file"));
    assert_int_equal(content.length, 5);
    assert_memory_equal(content.bytes, "short", 5);
    file_content_free(&content);
    assert_int_equal(entries(), 1);
}

static void putting_nothing_makes_an_empty_file(void **state)
{
    (void)state;
    const char *reason = NULL;
    assert_true(put_file(own_path("file"), "", 0, &reason));
    file_content_t content = content_of(own_path("file"));
    assert_int_equal(content.length, 0);
    file_content_free(&content);
}

static void putting_replaces_a_symbolic_link_and_not_its_target(void **state)
{
    (void)state;
    char target[300];
    const char *reason = NULL;
    snprintf(target, sizeof target, "%s", own_path("target"));
    write_private(target, "four", 4);
    assert_int_equal(symlink(target, own_path("file")), 0);
    assert_true(put_file(own_path("file"), "bytes", 5, &reason));
    file_content_t content = content_of(target);
    assert_memory_equal(content.bytes, "four", 5);
    file_content_free(&content);
    struct stat status;
    assert_int_equal(lstat(own_path("file"), &status), 0);
    assert_true(S_ISREG(status.st_mode));
}

static void putting_that_fails_leaves_nothing_behind(void **state)
{
    (void)state;
    refuses_to_put(own_path("missing/file"), "No such file");
    assert_int_equal(entries(), 0);
    assert_int_equal(mkdir(own_path("directory"), 0700), 0);
    refuses_to_put(own_path("directory"), "");
    refuses_to_put(own_path("directory/"), "");
    assert_int_equal(entries(), 1);
    assert_int_equal(rmdir(own_path("directory")), 0); /* empty, too */
    char name[280];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    refuses_to_put(name, "too long");
    refuses_to_put("", "");
}

static void putting_what_does_not_fit_leaves_the_old_content(void **state)
{
    (void)state;
    struct rlimit before, tight;
    const char *reason = NULL;
    char path[300];
    snprintf(path, sizeof path, "%s", own_path("file"));
    assert_true(put_file(path, "old", 3, &reason));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 2;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    bool put = put_file(path, "bytes", 5, &reason);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(put);
    assert_non_null(reason);
    file_content_t content = content_of(path);
    assert_memory_equal(content.bytes, "old", 4);
    file_content_free(&content);
    assert_int_equal(entries(), 1);
}

static void putting_leaves_alone_what_is_no_file(void **state)
{
    (void)state;
    struct stat status;
    const char *reason = NULL;
    assert_int_equal(mkfifo(own_path("fifo"), 0600), 0);
    assert_false(put_file(own_path("fifo"), "bytes", 5, &reason));
    assert_int_equal(lstat(own_path("fifo"), &status), 0);
    assert_true(S_ISFIFO(status.st_mode));
    assert_int_equal(entries(), 1);
}

static void a_session_that_cannot_be_put_is_told(void **state)
{
    (void)state;
    session_t session = example();
    const char *reason = NULL;
    assert_false(session_put(own_path("missing/session"), binding, &session, &reason));
    assert_string_equal(reason, "No such file or directory; make its directory first");
    assert_int_equal(session.association_length, sizeof association); /* still the caller's to free */
    session_free(&session);
    assert_int_equal(entries(), 0);
}

#define TEST(name) cmocka_unit_test_setup(name, start_afresh)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_was_put_is_taken_whole),
        TEST(what_was_taken_cannot_be_taken_again),
        TEST(what_is_put_last_is_taken),
        TEST(a_session_without_an_association_is_kept),
        TEST(an_association_without_a_session_is_kept),
        TEST(a_wish_for_a_ticket_alone_is_kept),
        TEST(freeing_twice_is_harmless),
        TEST(the_file_is_private_whatever_the_umask),
        TEST(a_flip_of_any_bit_or_byte_is_found),
        TEST(a_file_cut_at_any_length_is_found),
        TEST(a_file_with_more_behind_it_is_found),
        TEST(garbage_of_any_length_gives_nothing),
        TEST(an_enormous_file_gives_nothing),
        TEST(another_binding_gives_nothing_ever),
        TEST(a_binding_knows_where_each_part_ends),
        TEST(a_session_ends_with_the_servers_certificate),
        TEST(a_day_counts_from_the_full_handshake_however_often_it_is_saved),
        TEST(a_session_without_a_full_handshake_gives_nothing),
        TEST(an_association_lasts_a_day_by_the_boots_clock_too),
        TEST(a_session_of_the_future_gives_nothing),
        TEST(the_clock_never_goes_back),
        TEST(an_association_is_never_kept_on_a_disk),
        TEST(an_association_is_never_read_from_a_disk),
        TEST(an_association_is_kept_on_ramfs_too),
        TEST(a_copied_files_association_does_not_fit),
        TEST(where_associations_are_kept_is_told_before_the_file_exists),
        TEST(a_taken_file_is_emptied_before_it_loses_its_name),
        TEST(what_cannot_be_emptied_or_removed_is_not_used),
        TEST(a_private_file_is_taken_and_gone),
        TEST(a_file_of_any_other_mode_is_not_taken),
        TEST(a_file_of_two_names_is_not_taken),
        TEST(a_symbolic_link_is_not_followed),
        TEST(a_file_of_another_user_is_not_taken),
        TEST(what_is_no_file_is_not_taken),
        TEST(a_file_too_large_is_not_taken),
        TEST(a_file_that_another_process_takes_is_not_taken),
        TEST(putting_replaces_whole),
        TEST(putting_nothing_makes_an_empty_file),
        TEST(putting_replaces_a_symbolic_link_and_not_its_target),
        TEST(putting_that_fails_leaves_nothing_behind),
        TEST(putting_what_does_not_fit_leaves_the_old_content),
        TEST(putting_leaves_alone_what_is_no_file),
        TEST(a_session_that_cannot_be_put_is_told),
    };
    return cmocka_run_group_tests_name("session", tests, scratch_make, scratch_remove);
}
