/* queue.h: what was accepted waits, in order, until it was sent; what cannot be sent is out of the way. */
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "scratch.h"
#include "store/queue.h"

enum { MANY = 10000, LISTING = 4000, PATIENCE_MS = 20000 };

/* Two runs: each has descriptors of its own, and flock(2) is theirs. */
static queue_t ours, theirs;
static char path[PATH_MAX]; /* of the queue */
static unsigned char payload[ENTRY_PAYLOAD_MAX];
static size_t length;
static entry_t last; /* where the payload that came last waits */

/* --- What the tests share --- */

static int start_afresh(void **state)
{
    scratch_remove(state);
    memset(scratch_directory, 0, sizeof scratch_directory);
    if (scratch_make(state) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/queue", scratch_directory);
    queue_init(&ours);
    queue_init(&theirs);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    queue_close(&ours);
    queue_close(&theirs);
    return 0;
}

/* The path of something in the queue, until the next call. */
static const char *inside(const char *name)
{
    static char joined[PATH_MAX + NAME_MAX + 2];
    snprintf(joined, sizeof joined, "%s/%s", path, name);
    return joined;
}

/* As a new run. */
static void open_for(queue_t *queue, uint64_t maximum)
{
    queue_close(queue);
    queue_init(queue);
    if (!queue_open(queue, path, maximum))
        fail_msg("not opened: %s", queue->error);
}

static void begin_both(void)
{
    open_for(&ours, MANY);
    open_for(&theirs, MANY);
}

static queue_outcome_t try_to_add(queue_t *queue, const char *text)
{
    return queue_add(queue, text, strlen(text), false, wait_limit_in(PATIENCE_MS));
}

static void add(queue_t *queue, const char *text)
{
    if (try_to_add(queue, text) != QUEUE_OK)
        fail_msg("not added: %s", queue->error);
}

static void take_turn(queue_t *queue)
{
    if (queue_take_turn(queue, wait_limit_in(0)) != QUEUE_OK)
        fail_msg("no turn: %s", queue->error);
}

static void assert_next(queue_t *queue, const char *text)
{
    if (queue_next(queue, payload, &length, &last) != QUEUE_OK)
        fail_msg("'%s' is not the next: %s", text, queue->error);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(payload, text, length);
}

static void assert_sends(queue_t *queue, const char *text)
{
    assert_next(queue, text);
    assert_true(queue_remove(queue, &last));
}

static void assert_end(queue_t *queue)
{
    assert_int_equal(queue_next(queue, payload, &length, &last), QUEUE_END);
}

/* One line, which names the queue, and what else is wanted. */
static void assert_told(const queue_t *queue, const char *mention)
{
    if (strstr(queue->error, path) == NULL || strstr(queue->error, mention) == NULL ||
        strchr(queue->error, '\n') != NULL)
        fail_msg("'%s' and '%s' in one line are missing from: %s", path, mention, queue->error);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in `directory` but .last, sorted, a blank behind each. */
static const char *names_in(const char *directory)
{
    static char listing[LISTING];
    char *names[200];
    size_t count = 0;
    DIR *stream = opendir(directory);
    assert_non_null(stream);
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL && count < 200;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, ".last") != 0)
            names[count++] = strdup(entry->d_name);
    }
    closedir(stream);
    qsort(names, count, sizeof names[0], compare);
    listing[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(listing);
        snprintf(listing + used, sizeof listing - used, "%s ", names[i]);
        free(names[i]);
    }
    return listing;
}

static void assert_names(const char *wanted)
{
    assert_string_equal(names_in(path), wanted);
}

/* Puts what no run of ours has added. */
static void plant(const char *name, const char *text)
{
    int fd = open(inside(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

static void plant_number(unsigned number, const char *text)
{
    char name[32];
    snprintf(name, sizeof name, "%016u", number);
    plant(name, text);
}

static void assert_content(const char *name, const char *text)
{
    char content[64];
    int fd = open(inside(name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t got = read(fd, content, sizeof content);
    close(fd);
    assert_int_equal(got, (ssize_t)strlen(text));
    assert_memory_equal(content, text, strlen(text));
}

/* --- Opening --- */

static void a_missing_directory_is_made_and_it_and_what_is_in_it_are_private(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 022, 077};
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        struct stat status;
        mode_t before = umask(masks[i]);
        open_for(&ours, MANY);
        umask(before);
        assert_int_equal(stat(path, &status), 0);
        assert_int_equal(status.st_mode, S_IFDIR | S_IRWXU);
        assert_int_equal(stat(inside(".last"), &status), 0);
        assert_int_equal(status.st_mode, S_IFREG | S_IRUSR | S_IWUSR);
        queue_close(&ours);
        assert_int_equal(unlink(inside(".last")), 0);
        assert_int_equal(rmdir(path), 0);
    }
}

static void assert_not_opened(const char *queue, const char *mention)
{
    assert_false(queue_open(&ours, queue, MANY));
    if (strstr(ours.error, mention) == NULL || strchr(ours.error, '\n') != NULL)
        fail_msg("'%s' in one line is missing from: %s", mention, ours.error);
    queue_close(&ours);
}

static void only_the_last_component_is_made(void **state)
{
    (void)state;
    char deep[PATH_MAX];
    snprintf(deep, sizeof deep, "%s/missing/queue", scratch_directory);
    assert_not_opened(deep, "No such file");
    assert_string_equal(names_in(scratch_directory), "");
}

static void what_is_no_directory_of_ours_alone_is_refused(void **state)
{
    (void)state;
    char slashed[PATH_MAX];
    snprintf(slashed, sizeof slashed, "%.4000s//", path);
    scratch_write("queue", "x", 1);
    assert_not_opened(path, "queue: the queue cannot be used");
    assert_int_equal(unlink(path), 0);

    assert_int_equal(symlink(scratch_directory, path), 0);
    assert_not_opened(path, "queue: the queue cannot be used");
    assert_not_opened(slashed, "queue: the queue cannot be used");
    assert_int_equal(unlink(path), 0);
    assert_string_equal(names_in(scratch_directory), "");

    assert_int_equal(mkdir(path, 0700), 0);
    static const mode_t modes[] = {0720, 0702, 0777, 01777};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_not_opened(path, "written by other");
    }
    assert_int_equal(chmod(path, 0755), 0);
    open_for(&ours, MANY);
}

static void a_directory_of_another_user_is_refused(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chown(path, 65534, 65534), 0);
    assert_not_opened(path, "another user");
    assert_names("");
}

static void a_path_that_is_too_long_is_refused_whole(void **state)
{
    (void)state;
    static char longest[2 * PATH_MAX];
    memset(longest, 'x', sizeof longest - 1);
    assert_not_opened(longest, "too long");
    longest[PATH_MAX - 1] = '\0';
    assert_not_opened(longest, "too long");
}

static void a_counter_that_is_no_file_is_refused(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(mkdir(inside(".last"), 0700), 0);
    assert_not_opened(path, ".last");
    assert_int_equal(rmdir(inside(".last")), 0);
    assert_int_equal(mkfifo(inside(".last"), 0600), 0);
    assert_not_opened(path, "regular");
    assert_int_equal(unlink(inside(".last")), 0);
    scratch_write("victim", "content", 7);
    assert_int_equal(symlink("../victim", inside(".last")), 0);
    assert_not_opened(path, ".last");
    assert_content("../victim", "content");
}

static void closing_is_harmless_at_any_time(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    queue_close(&ours);
    queue_close(&ours);
    assert_int_equal(fcntl(0, F_GETFD) >= 0, 1);
}

/* --- Adding --- */

static void a_payload_is_a_private_file_that_holds_its_bytes_and_nothing_else(void **state)
{
    (void)state;
    struct stat status;
    static unsigned char bytes[ENTRY_PAYLOAD_MAX];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    open_for(&ours, MANY);
    assert_int_equal(queue_add(&ours, bytes, sizeof bytes, false, wait_limit_in(PATIENCE_MS)), QUEUE_OK);
    assert_names("0000000000000001 ");
    assert_int_equal(stat(inside("0000000000000001"), &status), 0);
    assert_int_equal(status.st_mode, S_IFREG | S_IRUSR | S_IWUSR);
    assert_int_equal(status.st_size, sizeof bytes);
    take_turn(&ours);
    assert_int_equal(queue_next(&ours, payload, &length, &last), QUEUE_OK);
    assert_int_equal(length, sizeof bytes);
    assert_memory_equal(payload, bytes, sizeof bytes);
}

static void names_sort_in_order_of_arrival(void **state)
{
    (void)state;
    begin_both();
    for (int i = 0; i < 12; i++)
        add(i % 2 == 0 ? &ours : &theirs, "x");
    assert_names("0000000000000001 0000000000000002 0000000000000003 0000000000000004 0000000000000005 "
                 "0000000000000006 0000000000000007 0000000000000008 0000000000000009 0000000000000010 "
                 "0000000000000011 0000000000000012 ");
}

/* Else who has sent the one could remove the other. */
static void a_number_is_never_given_twice(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    add(&ours, "two");
    take_turn(&ours);
    assert_sends(&ours, "one");
    assert_sends(&ours, "two");
    queue_close(&ours);
    assert_names("");
    open_for(&theirs, MANY);
    add(&theirs, "three");
    assert_names("0000000000000003 ");
}

static void a_lost_counter_gives_a_number_after_all_that_wait(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        ssize_t length; /* -1: the counter is gone */
    } counters[] = {
        {"", -1},
        {"", 0},
        {"\1\0\0\0", 4},
        {"\0\0\0\0\0\0\0\0", 8},
        {"\1\0\0\0\0\0\0\0", 8},
        {"garbage!", 8},
        {"\377\377\377\377\377\377\377\377", 8},
        {"\1\0\301\157\362\206\43\0", 8},     /* beyond the last number */
        {"\377\377\300\157\362\206\43\0", 8}, /* the last number */
        {"\366\377\300\157\362\206\43\0", 8}, /* soon there would be none left */
        {"\200\0\0\0\0\0\0\200 and more", 17},
    };
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        open_for(&ours, MANY);
        add(&ours, "older");
        add(&ours, "old");
        if (counters[i].length < 0) {
            assert_int_equal(unlink(inside(".last")), 0);
        } else {
            int fd = open(inside(".last"), O_WRONLY | O_TRUNC | O_CLOEXEC);
            assert_int_equal(write(fd, counters[i].bytes, (size_t)counters[i].length), counters[i].length);
            assert_int_equal(close(fd), 0);
        }
        open_for(&theirs, MANY);
        if (try_to_add(&theirs, "new") != QUEUE_OK)
            fail_msg("counter %zu: %s", i, theirs.error);
        take_turn(&theirs);
        assert_sends(&theirs, "older");
        assert_sends(&theirs, "old");
        assert_sends(&theirs, "new");
        assert_end(&theirs);
        queue_close(&ours);
        queue_close(&theirs);
    }
}

static void what_a_dead_run_was_writing_is_no_payload_and_no_hindrance(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    plant(".new", "hal");
    take_turn(&ours);
    assert_end(&ours);
    open_for(&ours, MANY);
    add(&ours, "whole");
    assert_names("0000000000000001 ");
    take_turn(&ours);
    assert_sends(&ours, "whole");
}

static void a_full_queue_refuses_until_there_is_room(void **state)
{
    (void)state;
    open_for(&ours, 2);
    add(&ours, "one");
    add(&ours, "two");
    assert_int_equal(try_to_add(&ours, "three"), QUEUE_FULL);
    assert_told(&ours, "full: 2 payloads wait");
    assert_names("0000000000000001 0000000000000002 ");
    take_turn(&ours);
    assert_sends(&ours, "one");
    add(&ours, "three");
    assert_int_equal(try_to_add(&ours, "four"), QUEUE_FULL);
    assert_names("0000000000000002 0000000000000003 ");
}

static void the_limit_counts_what_others_add_and_send(void **state)
{
    (void)state;
    open_for(&ours, 3);
    open_for(&theirs, 3);
    add(&ours, "one");
    add(&theirs, "two");
    add(&ours, "three");
    assert_int_equal(try_to_add(&theirs, "four"), QUEUE_FULL);
    assert_int_equal(try_to_add(&ours, "four"), QUEUE_FULL);
    take_turn(&theirs);
    assert_sends(&theirs, "one");
    add(&ours, "four");
    assert_int_equal(try_to_add(&ours, "five"), QUEUE_FULL);
}

/* They do not wait to be sent, so that a queue of nothing else is not full for ever. */
static void the_limit_counts_payloads_alone(void **state)
{
    (void)state;
    open_for(&ours, 1);
    plant("foreign", "x");
    plant(".hidden", "x");
    assert_int_equal(mkdir(inside("failed"), 0700), 0);
    plant("failed/0000000000000001", "x");
    add(&ours, "one");
    assert_int_equal(try_to_add(&ours, "two"), QUEUE_FULL);
}

/* A limit on the size of files stands for the full disk. */
static void nothing_is_left_of_what_a_full_disk_refused_and_the_rest_is_untouched(void **state)
{
    (void)state;
    static unsigned char large[5000];
    struct rlimit before;
    open_for(&ours, MANY);
    add(&ours, "one");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    queue_outcome_t outcomes[2];
    for (int i = 0; i < 2; i++) { /* the payload, then the counter too */
        struct rlimit small = {.rlim_cur = i == 0 ? 4096 : 0, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        outcomes[i] = queue_add(&ours, large, sizeof large, false, wait_limit_in(PATIENCE_MS));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        assert_told(&ours, "not queued: File too large");
    }
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(outcomes[0], QUEUE_FAILED);
    assert_int_equal(outcomes[1], QUEUE_FAILED);
    assert_names("0000000000000001 ");
    add(&ours, "two");
    take_turn(&ours);
    assert_sends(&ours, "one");
    assert_sends(&ours, "two");
    assert_end(&ours);
}

static int cancelled(void)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    close(ends[1]);
    return ends[0];
}

static void who_adds_waits_for_others_that_do_and_gives_up_without_a_trace(void **state)
{
    (void)state;
    begin_both();
    assert_int_equal(flock(theirs.counter, LOCK_EX), 0);
    assert_int_equal(queue_add(&ours, "x", 1, false, wait_limit_in(50)), QUEUE_TIMEOUT);
    assert_told(&ours, "another run adds");
    wait_limit_t limit = wait_limit_in(PATIENCE_MS);
    limit.cancel_fd = cancelled();
    assert_int_equal(queue_add(&ours, "x", 1, false, limit), QUEUE_INTERRUPTED);
    close(limit.cancel_fd);
    assert_names("");
    assert_int_equal(flock(theirs.counter, LOCK_UN), 0);
    add(&ours, "x");
    add(&theirs, "y"); /* it was not kept locked */
}

static void nothing_is_accepted_once_the_time_is_over(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    assert_int_equal(queue_add(&ours, "x", 1, false, wait_limit_in(-2)), QUEUE_TIMEOUT);
    assert_told(&ours, "--timeout");
    assert_names("");
}

/* --- Sending --- */

static void one_run_alone_has_the_turn_until_it_closes(void **state)
{
    (void)state;
    begin_both();
    take_turn(&ours);
    assert_int_equal(queue_take_turn(&theirs, wait_limit_in(50)), QUEUE_TIMEOUT);
    assert_told(&theirs, "another run is sending");
    wait_limit_t limit = wait_limit_in(PATIENCE_MS);
    limit.cancel_fd = cancelled();
    assert_int_equal(queue_take_turn(&theirs, limit), QUEUE_INTERRUPTED);
    close(limit.cancel_fd);
    queue_close(&ours);
    take_turn(&theirs);
}

static void adding_waits_for_no_turn(void **state)
{
    (void)state;
    begin_both();
    take_turn(&ours);
    add(&theirs, "x");
    assert_names("0000000000000001 ");
}

static void a_run_sends_the_oldest_first_and_nothing_after_its_own(void **state)
{
    (void)state;
    begin_both();
    add(&theirs, "first");
    add(&ours, "second");
    add(&theirs, "third");
    take_turn(&ours);
    assert_sends(&ours, "first");
    assert_sends(&ours, "second");
    assert_end(&ours);
    queue_close(&ours);
    take_turn(&theirs);
    assert_sends(&theirs, "third");
    assert_end(&theirs);
    assert_names("");
}

/* Else it might never end where others go on adding. More wait than it looks at in one go. */
static void a_run_that_adds_nothing_sends_what_waited_when_its_turn_came(void **state)
{
    (void)state;
    enum { WAITING = QUEUE_BATCH + 2 };
    begin_both();
    for (unsigned number = 1; number <= WAITING; number++)
        plant_number(number, "old");
    take_turn(&ours);
    for (unsigned number = 1; number <= WAITING; number++) {
        if (number == 1 || number == WAITING)
            add(&theirs, "new");
        assert_sends(&ours, "old");
    }
    assert_end(&ours);
    assert_false(queue_has_more(&ours));
    assert_names("0000000000000259 0000000000000260 ");
}

static void what_is_not_removed_waits_for_the_next_turn(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    add(&ours, "two");
    take_turn(&ours);
    assert_next(&ours, "one");
    assert_next(&ours, "two"); /* each once in a turn */
    assert_end(&ours);
    queue_close(&ours);
    open_for(&theirs, MANY);
    take_turn(&theirs);
    assert_next(&theirs, "one");
}

static void what_someone_removed_by_hand_is_passed_over(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    add(&ours, "two");
    add(&ours, "three");
    take_turn(&ours);
    assert_next(&ours, "one");
    assert_int_equal(unlink(inside("0000000000000001")), 0);
    assert_int_equal(unlink(inside("0000000000000002")), 0);
    assert_true(queue_remove(&ours, &last));
    assert_sends(&ours, "three");
    assert_end(&ours);
}

static void a_queue_of_any_size_comes_in_order_each_payload_once(void **state)
{
    (void)state;
    enum { PAYLOADS = 3 * QUEUE_BATCH };
    char text[20];
    open_for(&ours, MANY);
    for (unsigned i = 0; i < PAYLOADS; i++) { /* 7 and their number have no common divisor */
        unsigned number = i * 7 % PAYLOADS + 1;
        snprintf(text, sizeof text, "payload %u", number);
        plant_number(number, text);
    }
    take_turn(&ours);
    for (unsigned number = 1; number <= PAYLOADS; number++) {
        assert_true(queue_has_more(&ours));
        snprintf(text, sizeof text, "payload %u", number);
        assert_next(&ours, text);
        if (number % 3 != 0)
            assert_true(queue_remove(&ours, &last));
    }
    assert_false(queue_has_more(&ours));
    assert_end(&ours);
}

static void what_was_sent_and_cannot_be_removed_is_told(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    take_turn(&ours);
    assert_next(&ours, "one");
    assert_int_equal(unlink(inside("0000000000000001")), 0);
    assert_int_equal(mkdir(inside("0000000000000001"), 0700), 0);
    assert_false(queue_remove(&ours, &last));
    assert_told(&ours, "will be sent again");
}

/* A directory that was remounted or lost its permissions: what is sent from it is sent by every run. */
static void nothing_is_sent_that_could_not_be_removed(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    assert_int_equal(chmod(path, 0500), 0);
    if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0)
        skip(); /* root may write all the same */
    assert_int_equal(try_to_add(&ours, "two"), QUEUE_FAILED);
    assert_int_equal(queue_take_turn(&ours, wait_limit_in(0)), QUEUE_FAILED);
    assert_told(&ours, "nothing is sent");
    assert_int_equal(chmod(path, 0700), 0);
}

static void what_waits_can_be_sent_where_a_full_disk_has_no_room_for_the_counter(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    open_for(&ours, MANY);
    close(ours.counter); /* as queue_open() leaves it */
    ours.counter = -1;
    ours.counter_error = ENOSPC;
    assert_int_equal(try_to_add(&ours, "two"), QUEUE_FAILED);
    assert_told(&ours, "not queued: No space left");
    take_turn(&ours);
    assert_sends(&ours, "one");
    assert_end(&ours);
}

/* --- What must be confirmed --- */

static void add_confirmed(queue_t *queue, const char *text)
{
    if (queue_add(queue, text, strlen(text), true, wait_limit_in(PATIENCE_MS)) != QUEUE_OK)
        fail_msg("not added: %s", queue->error);
}

static void assert_entry(bool confirm, int tries)
{
    assert_int_equal(last.confirm, confirm);
    assert_int_equal(last.tries, tries);
}

static void the_queue_remembers_what_must_be_confirmed_whichever_run_sends_it(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    add_confirmed(&ours, "two");
    add(&ours, "three");
    assert_names("0000000000000001 0000000000000002c 0000000000000003 ");
    open_for(&theirs, MANY);
    take_turn(&theirs);
    assert_sends(&theirs, "one");
    assert_entry(false, ENTRY_UNMARKED);
    assert_sends(&theirs, "two");
    assert_entry(true, ENTRY_UNMARKED);
    assert_sends(&theirs, "three");
    assert_end(&theirs);
    assert_names("");
}

static void a_number_is_not_given_again_while_it_waits_under_another_name(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    plant("0000000000000007c-3", "old");
    add(&ours, "new");
    assert_names("0000000000000007c-3 0000000000000008 ");
}

static void a_doubt_stays_with_the_payload_and_the_rest_keeps_its_order(void **state)
{
    (void)state;
    for (int copies = 0; copies < 2; copies++) { /* as on FAT */
        start_afresh(state);
        open_for(&ours, MANY);
        ours.copies = copies != 0;
        add_confirmed(&ours, "one");
        add(&ours, "two");
        take_turn(&ours);
        assert_next(&ours, "one");
        assert_true(queue_doubt(&ours, &last));
        assert_true(queue_doubt(&ours, &last));
        assert_entry(true, 0);
        assert_names("0000000000000001c-0 0000000000000002 ");
        assert_next(&ours, "two");
        assert_int_equal(queue_count(&ours, &last), QUEUE_OK);
        assert_names("0000000000000001c-0 0000000000000002-1 ");
        assert_end(&ours); /* each once in a turn, whatever its name is now */
        open_for(&theirs, MANY);
        queue_close(&ours);
        take_turn(&theirs);
        assert_next(&theirs, "one");
        assert_entry(true, 0);
        assert_sends(&theirs, "two");
        assert_entry(false, 1);
        assert_names("0000000000000001c-0 ");
        queue_close(&theirs);
    }
}

static void ten_counts_move_a_payload_to_failed_with_its_reason(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add_confirmed(&ours, "never");
    for (int run = 1; run <= QUEUE_TRIES_MAX; run++) {
        open_for(&ours, MANY);
        take_turn(&ours);
        assert_next(&ours, "never");
        assert_int_equal(queue_count(&ours, &last), run < QUEUE_TRIES_MAX ? QUEUE_OK : QUEUE_UNSENDABLE);
    }
    assert_told(&ours, "moved to failed: not confirmed in 10 runs in which others were");
    assert_names("failed ");
    assert_content("failed/0000000000000001c-10", "never");
}

/* Else a rename would replace the other one. */
static void a_mark_never_costs_another_payload(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    plant("0000000000000001", "one");
    plant("0000000000000001-0", "another");
    take_turn(&ours);
    last = (entry_t){1, false, ENTRY_UNMARKED};
    assert_false(queue_doubt(&ours, &last));
    assert_told(&ours, "cannot be marked");
    assert_content("0000000000000001", "one");
    assert_content("0000000000000001-0", "another");
}

static void a_payload_can_be_read_again(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    add(&ours, "two");
    take_turn(&ours);
    assert_next(&ours, "one");
    entry_t first = last;
    assert_next(&ours, "two");
    assert_int_equal(queue_read(&ours, &first, payload, &length), QUEUE_OK);
    assert_int_equal(length, 3);
    assert_memory_equal(payload, "one", 3);
    assert_true(queue_remove(&ours, &first));
    assert_int_equal(queue_read(&ours, &first, payload, &length), QUEUE_END);
    assert_true(queue_remove(&ours, &last));
    assert_names("");
}

static void what_still_waits_is_counted_among_our_own_or_among_all(void **state)
{
    (void)state;
    begin_both();
    add(&theirs, "1");
    add(&ours, "2");
    add(&theirs, "3");
    add(&ours, "4");
    assert_int_equal(queue_standing(&ours), 2);
    open_for(&theirs, MANY);
    take_turn(&theirs);
    assert_int_equal(theirs.total, 4);
    assert_sends(&theirs, "1");
    assert_int_equal(queue_standing(&theirs), 3);
    assert_int_equal(queue_standing(&ours), 2);
    assert_sends(&theirs, "2");
    assert_int_equal(queue_standing(&ours), 1);
    queue_close(&theirs);
    take_turn(&ours);
    assert_int_equal(ours.total, 2);
}

/* --- What cannot be sent --- */

static void make_unsendable(unsigned kind, const char *name)
{
    static const char too_large[ENTRY_PAYLOAD_MAX + 2] = "x";
    switch (kind) {
    case 0:
        assert_int_equal(mkdir(inside(name), 0700), 0);
        break;
    case 1: /* the file that it leads to must not be sent */
        scratch_write("secret", "secret", 6);
        assert_int_equal(chmod(scratch_path("secret"), 0600), 0);
        assert_int_equal(symlink("../secret", inside(name)), 0);
        break;
    case 2:
        assert_int_equal(symlink("nowhere", inside(name)), 0);
        break;
    case 3:
        assert_int_equal(mkfifo(inside(name), 0600), 0);
        break;
    case 4:
        plant(name, "x");
        assert_int_equal(chmod(inside(name), 0644), 0);
        break;
    case 5:
        plant(name, "x");
        assert_int_equal(chmod(inside(name), 0), 0);
        break;
    case 6:
        plant(name, "");
        assert_int_equal(truncate(inside(name), ENTRY_PAYLOAD_MAX + 1), 0);
        break;
    default:
        plant(name, too_large);
        assert_int_equal(truncate(inside(name), (off_t)1 << 40), 0);
    }
}

static void what_can_never_be_sent_is_moved_to_failed_and_told_and_the_rest_goes_on(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind <= 7; kind++) {
        start_afresh(state);
        open_for(&ours, MANY);
        add(&ours, "before");
        make_unsendable(kind, "0000000000000002");
        plant("0000000000000003", "after");
        take_turn(&ours);
        open_for(&ours, MANY);
        take_turn(&ours);
        assert_sends(&ours, "before");
        if (queue_next(&ours, payload, &length, &last) != QUEUE_UNSENDABLE)
            fail_msg("kind %u was sent", kind);
        assert_told(&ours, "/0000000000000002: moved to failed: ");
        assert_sends(&ours, "after");
        assert_end(&ours);
        assert_names("failed ");
        assert_string_equal(names_in(inside("failed")), "0000000000000002 ");
        queue_close(&ours);
    }
}

static void a_payload_with_a_second_name_as_of_a_backup_is_still_a_payload(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "one");
    assert_int_equal(link(inside("0000000000000001"), scratch_path("backup")), 0);
    take_turn(&ours);
    assert_sends(&ours, "one");
    assert_end(&ours);
    assert_names("");
    assert_content("../backup", "one");
}

static void an_empty_payload_and_a_largest_one_can_be_sent(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    add(&ours, "");
    plant("0000000000000002", "");
    assert_int_equal(truncate(inside("0000000000000002"), ENTRY_PAYLOAD_MAX), 0);
    open_for(&ours, MANY);
    take_turn(&ours);
    assert_sends(&ours, "");
    assert_int_equal(queue_next(&ours, payload, &length, &last), QUEUE_OK);
    assert_int_equal(length, ENTRY_PAYLOAD_MAX);
}

static void what_the_server_does_not_take_is_set_aside_with_its_reason(void **state)
{
    (void)state;
    struct stat status;
    open_for(&ours, MANY);
    add(&ours, "large");
    add(&ours, "small");
    take_turn(&ours);
    assert_next(&ours, "large");
    queue_set_aside(&ours, &last, "larger than 2 bytes");
    assert_told(&ours, "/0000000000000001: moved to failed: larger than 2 bytes");
    assert_content("failed/0000000000000001", "large");
    assert_int_equal(stat(inside("failed"), &status), 0);
    assert_int_equal(status.st_mode, S_IFDIR | S_IRWXU);
    assert_sends(&ours, "small");
}

static void who_waited_is_told_that_another_run_set_its_payload_aside(void **state)
{
    (void)state;
    begin_both();
    add(&ours, "small");
    add(&ours, "large");
    open_for(&theirs, MANY); /* as a flush */
    take_turn(&theirs);
    assert_sends(&theirs, "small");
    assert_next(&theirs, "large");
    queue_set_aside(&theirs, &last, "larger than 2 bytes");
    queue_close(&theirs);
    take_turn(&ours);
    assert_int_equal(queue_next(&ours, payload, &length, &last), QUEUE_UNSENDABLE);
    assert_told(&ours, "/failed/0000000000000002: was moved there by another run");
    assert_end(&ours);
}

static void what_another_run_has_sent_is_no_failure(void **state)
{
    (void)state;
    begin_both();
    add(&ours, "small");
    take_turn(&theirs);
    assert_sends(&theirs, "small");
    queue_close(&theirs);
    take_turn(&ours);
    assert_end(&ours);
}

static void nothing_in_failed_is_ever_overwritten(void **state)
{
    (void)state;
    enum { TIMES = 300 };
    char text[20];
    open_for(&ours, MANY);
    for (unsigned i = 0; i < TIMES; i++) { /* as after a counter was lost, time and again */
        snprintf(text, sizeof text, "payload %u", i);
        plant("0000000000000001", text);
        last = (entry_t){1, false, ENTRY_UNMARKED};
        queue_set_aside(&ours, &last, "refused");
        unlink(inside("0000000000000001"));
        if (strstr(ours.error, "nor moved") != NULL)
            break;
    }
    assert_content("failed/0000000000000001", "payload 0");
    assert_content("failed/0000000000000001.1", "payload 1");
    assert_content("failed/0000000000000001.254", "payload 254");
}

static void what_cannot_be_moved_stays_and_is_told_and_the_rest_goes_on(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    for (int kind = 0; kind < 2; kind++) {
        if (kind == 0)
            plant("failed", "a file");
        else
            assert_int_equal(symlink("..", inside("failed")), 0);
        plant_number(1, "x");
        assert_int_equal(chmod(inside("0000000000000001"), 0644), 0);
        plant_number(2, "after");
        open_for(&ours, MANY);
        take_turn(&ours);
        assert_int_equal(queue_next(&ours, payload, &length, &last), QUEUE_UNSENDABLE);
        assert_told(&ours, "nor moved to failed: ");
        assert_sends(&ours, "after");
        assert_end(&ours);
        assert_names("0000000000000001 failed ");
        queue_close(&ours);
        assert_int_equal(unlink(inside("failed")), 0);
    }
    assert_string_equal(names_in(scratch_directory), "queue ");
}

static void what_is_no_payload_is_left_alone_and_told_once(void **state)
{
    (void)state;
    static const char *const foreign[] = {"000000000000001",
                                          "00000000000000002",
                                          "0000000000000000",
                                          "000000000000000a",
                                          "0000000000000001-",
                                          "0000000000000001-00",
                                          "0000000000000001-100",
                                          "0000000000000001-1c",
                                          "0000000000000001cc",
                                          "0000000000000001c-",
                                          "0000000000000001C",
                                          "0000000000000001.1",
                                          "0000000000000001-03",
                                          "0000000000000001c-1 ",
                                          "0000000000000001--1",
                                          "0000000000000000c",
                                          "readme",
                                          " 000000000000001",
                                          "-000000000000001"};
    open_for(&ours, MANY);
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        open_for(&ours, MANY);
        plant(foreign[i], "foreign");
        add(&ours, "x");
        take_turn(&ours);
        assert_int_equal(queue_next(&ours, payload, &length, &last), QUEUE_UNSENDABLE);
        assert_told(&ours, foreign[i]);
        assert_told(&ours, "left alone");
        assert_sends(&ours, "x");
        assert_end(&ours);
        assert_content(foreign[i], "foreign");
        assert_int_equal(unlink(inside(foreign[i])), 0);
    }
    plant("one", "x");
    plant("two", "x");
    open_for(&ours, MANY);
    take_turn(&ours);
    assert_int_equal(queue_next(&ours, payload, &length, &last), QUEUE_UNSENDABLE);
    assert_told(&ours, "as are others");
    assert_end(&ours);
}

static void hidden_files_are_not_told(void **state)
{
    (void)state;
    open_for(&ours, MANY);
    plant(".nfs0000001", "x");
    take_turn(&ours);
    assert_end(&ours);
    assert_names(".nfs0000001 ");
}

#define test(name) cmocka_unit_test_setup_teardown(name, start_afresh, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(a_missing_directory_is_made_and_it_and_what_is_in_it_are_private),
        test(only_the_last_component_is_made),
        test(what_is_no_directory_of_ours_alone_is_refused),
        test(a_directory_of_another_user_is_refused),
        test(a_path_that_is_too_long_is_refused_whole),
        test(a_counter_that_is_no_file_is_refused),
        test(closing_is_harmless_at_any_time),
        test(a_payload_is_a_private_file_that_holds_its_bytes_and_nothing_else),
        test(names_sort_in_order_of_arrival),
        test(a_number_is_never_given_twice),
        test(a_lost_counter_gives_a_number_after_all_that_wait),
        test(what_a_dead_run_was_writing_is_no_payload_and_no_hindrance),
        test(a_full_queue_refuses_until_there_is_room),
        test(the_limit_counts_what_others_add_and_send),
        test(the_limit_counts_payloads_alone),
        test(nothing_is_left_of_what_a_full_disk_refused_and_the_rest_is_untouched),
        test(who_adds_waits_for_others_that_do_and_gives_up_without_a_trace),
        test(nothing_is_accepted_once_the_time_is_over),
        test(one_run_alone_has_the_turn_until_it_closes),
        test(adding_waits_for_no_turn),
        test(a_run_sends_the_oldest_first_and_nothing_after_its_own),
        test(a_run_that_adds_nothing_sends_what_waited_when_its_turn_came),
        test(what_is_not_removed_waits_for_the_next_turn),
        test(what_someone_removed_by_hand_is_passed_over),
        test(a_queue_of_any_size_comes_in_order_each_payload_once),
        test(what_was_sent_and_cannot_be_removed_is_told),
        test(nothing_is_sent_that_could_not_be_removed),
        test(what_waits_can_be_sent_where_a_full_disk_has_no_room_for_the_counter),
        test(the_queue_remembers_what_must_be_confirmed_whichever_run_sends_it),
        test(a_number_is_not_given_again_while_it_waits_under_another_name),
        test(a_doubt_stays_with_the_payload_and_the_rest_keeps_its_order),
        test(ten_counts_move_a_payload_to_failed_with_its_reason),
        test(a_mark_never_costs_another_payload),
        test(a_payload_can_be_read_again),
        test(what_still_waits_is_counted_among_our_own_or_among_all),
        test(what_can_never_be_sent_is_moved_to_failed_and_told_and_the_rest_goes_on),
        test(a_payload_with_a_second_name_as_of_a_backup_is_still_a_payload),
        test(an_empty_payload_and_a_largest_one_can_be_sent),
        test(what_the_server_does_not_take_is_set_aside_with_its_reason),
        test(who_waited_is_told_that_another_run_set_its_payload_aside),
        test(what_another_run_has_sent_is_no_failure),
        test(nothing_in_failed_is_ever_overwritten),
        test(what_cannot_be_moved_stays_and_is_told_and_the_rest_goes_on),
        test(what_is_no_payload_is_left_alone_and_told_once),
        test(hidden_files_are_not_told),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, scratch_remove);
}
