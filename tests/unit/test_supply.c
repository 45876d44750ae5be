/* supply.h: a run's payloads come in order whatever they come from, leave the queue when they may, and what
 * became of them is told truly. */
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "run/supply.h"
#include "scratch.h"

enum { MANY = 10000, PATIENCE_MS = 20000 };

static supply_t supply, other; /* of two runs */
static supply_payload_t payload;
static char path[PATH_MAX]; /* of the queue */
static int standard_input = -1;

/* --- What the tests share --- */

static int start_afresh(void **state)
{
    scratch_remove(state);
    memset(scratch_directory, 0, sizeof scratch_directory);
    if (scratch_make(state) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/queue", scratch_directory);
    supply_init(&supply);
    supply_init(&other);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    supply_close(&supply);
    supply_close(&other);
    if (standard_input >= 0) {
        dup2(standard_input, STDIN_FILENO);
        close(standard_input);
        standard_input = -1;
    }
    return 0;
}

static const char *inside(const char *name)
{
    static char joined[PATH_MAX + NAME_MAX + 2];
    snprintf(joined, sizeof joined, "%s/%s", path, name);
    return joined;
}

/* Lets standard input hold `text`. */
static void give_input(const char *text)
{
    int fd = open(scratch_write("input", text, strlen(text)), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    if (standard_input < 0)
        standard_input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    assert_int_equal(dup2(fd, STDIN_FILENO), STDIN_FILENO);
    close(fd);
}

static supply_config_t config_for(payload_kind_t kind, const char *text, const char *queue)
{
    return (supply_config_t){.source = {.kind = kind, .text = text},
                             .queue = queue,
                             .queue_limit = MANY,
                             .limit = wait_limit_in(PATIENCE_MS)};
}

static void open_with(supply_t *run, const supply_config_t *config)
{
    supply_close(run);
    supply_init(run);
    if (supply_open(run, config) != SUPPLY_OK)
        fail_msg("not opened: %s", run->error);
}

static void accept_all(supply_t *run)
{
    supply_outcome_t outcome;
    while ((outcome = supply_accept(run)) == SUPPLY_OK)
        ;
    if (outcome != SUPPLY_END)
        fail_msg("not accepted: %s", run->error);
}

static void begin(supply_t *run)
{
    accept_all(run);
    if (supply_begin(run) != SUPPLY_OK)
        fail_msg("no turn: %s", run->error);
}

/* A run that has its turn, and whose payload is the argument `text`, or none. */
static void run_with(supply_t *run, const char *text, bool confirm)
{
    supply_config_t config = config_for(text != NULL ? PAYLOAD_ARGUMENT : PAYLOAD_NONE, text, path);
    config.confirm = confirm;
    open_with(run, &config);
    begin(run);
}

static void run_with_lines(supply_t *run, const char *lines, const char *queue)
{
    give_input(lines);
    supply_config_t config = config_for(PAYLOAD_LINES, NULL, queue);
    open_with(run, &config);
    begin(run);
}

/* Adds payloads as runs that die before they send. */
static void leave_waiting(const char *text, bool confirm)
{
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, text, path);
    config.confirm = confirm;
    open_with(&other, &config);
    accept_all(&other);
    supply_close(&other);
}

static void assert_next(supply_t *run, const char *text)
{
    if (supply_next(run, &payload) != SUPPLY_OK)
        fail_msg("'%s' is not the next: %s", text, run->error);
    assert_int_equal(payload.length, strlen(text));
    assert_memory_equal(payload.bytes, text, payload.length);
}

static void assert_end(supply_t *run)
{
    assert_int_equal(supply_next(run, &payload), SUPPLY_END);
    assert_int_equal(supply_next(run, &payload), SUPPLY_END);
}

static void assert_delivers(supply_t *run, const char *text)
{
    assert_next(run, text);
    assert_int_equal(supply_delivered(run), SUPPLY_OK);
}

static void assert_sends(supply_t *run, const char *text)
{
    assert_next(run, text);
    assert_true(supply_sent(run));
}

static void assert_told(const supply_t *run, const char *mention)
{
    if (strstr(run->error, mention) == NULL || strchr(run->error, '\n') != NULL)
        fail_msg("'%s' in one line is missing from: %s", mention, run->error);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in the queue but .last, sorted, a blank behind each. */
static void assert_names(const char *wanted)
{
    char listing[4000] = "", *names[100];
    size_t count = 0;
    DIR *stream = opendir(path);
    assert_non_null(stream);
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL && count < 100;)
        if (entry->d_name[0] != '.')
            names[count++] = strdup(entry->d_name);
    closedir(stream);
    qsort(names, count, sizeof names[0], compare);
    for (size_t i = 0; i < count; i++) {
        size_t used = strlen(listing);
        snprintf(listing + used, sizeof listing - used, "%s ", names[i]);
        free(names[i]);
    }
    assert_string_equal(listing, wanted);
}

static void assert_fate(supply_t *run, const char *wanted)
{
    assert_string_equal(supply_fate(run), wanted);
}

/* --- Where payloads come from --- */

static void without_a_queue_what_is_given_is_handed_on(void **state)
{
    (void)state;
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "one", NULL);
    config.confirm = true;
    open_with(&supply, &config);
    assert_int_equal(supply_accept(&supply), SUPPLY_END);
    assert_int_equal(supply_begin(&supply), SUPPLY_OK);
    assert_int_equal(supply_total(&supply), 1);
    assert_delivers(&supply, "one");
    assert_true(payload.confirm);
    assert_false(payload.doubted);
    assert_int_equal(supply_fd(&supply), -1);
    assert_end(&supply);

    run_with_lines(&supply, "a\n\nb\n", NULL);
    assert_int_equal(supply_total(&supply), 0);
    assert_delivers(&supply, "a");
    assert_false(payload.confirm);
    assert_delivers(&supply, "");
    assert_delivers(&supply, "b");
    assert_int_equal(supply_fd(&supply), STDIN_FILENO);
    assert_end(&supply);
    assert_int_equal(supply_fd(&supply), -1);
    assert_int_equal(supply_finish(&supply), SUPPLY_END);
}

static void with_a_queue_nobody_waits_for_input_between_payloads(void **state)
{
    (void)state;
    run_with_lines(&supply, "a\nb", path);
    assert_int_equal(supply_total(&supply), 2);
    assert_names("0000000000000001 0000000000000002 ");
    assert_delivers(&supply, "a");
    assert_int_equal(supply_fd(&supply), -1);
    assert_delivers(&supply, "b");
    assert_end(&supply);
    assert_names("");
}

static void where_nothing_is_given_what_waits_is_sent(void **state)
{
    (void)state;
    leave_waiting("one", false);
    run_with(&supply, NULL, false);
    assert_int_equal(supply_total(&supply), 1);
    assert_delivers(&supply, "one");
    assert_end(&supply);
    supply_config_t config = config_for(PAYLOAD_NONE, NULL, NULL);
    open_with(&supply, &config);
    assert_int_equal(supply_total(&supply), 0);
    assert_end(&supply);
}

/* After each but a refused payload there is an end, or the caller might ask for ever. */
static void an_incident_is_told_once_and_then_the_end_comes(void **state)
{
    (void)state;
    supply_config_t config = config_for(PAYLOAD_FILE, scratch_path("missing"), NULL);
    open_with(&supply, &config);
    assert_int_equal(supply_next(&supply, &payload), SUPPLY_UNREADABLE);
    assert_told(&supply, "missing: No such file");
    assert_end(&supply);

    config = config_for(PAYLOAD_FILE, scratch_path("missing"), path);
    open_with(&supply, &config);
    assert_int_equal(supply_accept(&supply), SUPPLY_UNREADABLE);
    assert_fate(&supply, "; the payload was not accepted");
    begin(&supply);
    assert_end(&supply);

    int ends[2];
    assert_int_equal(pipe(ends), 0);
    give_input("");
    assert_int_equal(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    for (int queued = 0; queued < 2; queued++) {
        config = config_for(PAYLOAD_LINES, NULL, queued ? path : NULL);
        config.limit = wait_limit_in(20);
        open_with(&supply, &config);
        assert_int_equal(queued ? supply_accept(&supply) : supply_next(&supply, &payload), SUPPLY_TIMEOUT);
        assert_told(&supply, "--timeout");
        assert_fate(&supply, queued ? "; no payload was accepted" : "");
        begin(&supply);
        assert_end(&supply);
    }
    close(ends[0]);
    close(ends[1]);
}

static void a_refused_line_does_not_keep_the_others_back(void **state)
{
    (void)state;
    for (int queued = 0; queued < 2; queued++) {
        give_input("31\n3x\n32\n");
        supply_config_t config = config_for(PAYLOAD_LINES, NULL, queued ? path : NULL);
        config.source.hex = true;
        open_with(&supply, &config);
        if (queued) {
            assert_int_equal(supply_accept(&supply), SUPPLY_OK);
            assert_int_equal(supply_accept(&supply), SUPPLY_REFUSED);
            assert_told(&supply, "line 2: not hex");
            assert_fate(&supply, "; the payload was not accepted");
        }
        begin(&supply);
        assert_delivers(&supply, "1");
        if (!queued)
            assert_int_equal(supply_next(&supply, &payload), SUPPLY_REFUSED);
        assert_delivers(&supply, "2");
        assert_end(&supply);
    }
}

static void a_later_limit_holds_for_what_follows(void **state)
{
    (void)state;
    run_with(&other, "one", false);
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "two", path);
    open_with(&supply, &config);
    accept_all(&supply);
    supply_set_limit(&supply, wait_limit_in(20));
    assert_int_equal(supply_begin(&supply), SUPPLY_TIMEOUT);
    assert_told(&supply, "another run is sending");
    assert_fate(&supply, "; the payload waits in the queue");
}

/* --- The queue that cannot take it --- */

static void a_full_queue_refuses_and_what_waits_is_sent_all_the_same(void **state)
{
    (void)state;
    leave_waiting("one", false);
    leave_waiting("two", false);
    give_input("three\nfour\n");
    supply_config_t config = config_for(PAYLOAD_LINES, NULL, path);
    config.queue_limit = 2;
    open_with(&supply, &config);
    assert_int_equal(supply_accept(&supply), SUPPLY_UNWRITABLE);
    assert_told(&supply, "full: 2 payloads wait");
    assert_int_equal(supply_accept(&supply), SUPPLY_END); /* not again for every line */
    assert_fate(&supply, "; no payload was accepted");
    begin(&supply);
    assert_delivers(&supply, "one");
    assert_delivers(&supply, "two");
    assert_end(&supply);
    assert_fate(&supply, "; no payload was accepted; 2 of 2 payloads were delivered");
}

/* A limit on the size of files stands for the full disk. */
static void a_full_disk_refuses_and_what_waits_is_sent_all_the_same(void **state)
{
    (void)state;
    struct rlimit before, small;
    leave_waiting("one", false);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 10;
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "a larger payload", path);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    supply_outcome_t opened = supply_open(&supply, &config);
    supply_outcome_t outcome = supply_accept(&supply);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(opened, SUPPLY_OK);
    assert_int_equal(outcome, SUPPLY_UNWRITABLE);
    assert_told(&supply, "not queued: File too large");
    assert_fate(&supply, "; the payload was not accepted");
    begin(&supply);
    assert_delivers(&supply, "one");
    assert_end(&supply);
    assert_names("");
}

static void a_queue_that_cannot_be_opened_accepts_nothing(void **state)
{
    (void)state;
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "one", scratch_path("missing/queue"));
    assert_int_equal(supply_open(&supply, &config), SUPPLY_UNWRITABLE);
    assert_told(&supply, "missing/queue: the queue cannot be used");
    assert_fate(&supply, "; the payload was not accepted");
    begin(&supply);
    assert_int_equal(supply_total(&supply), 0);
    assert_end(&supply);
}

/* --- What must be confirmed --- */

static void what_was_accepted_to_be_confirmed_stays_so_whoever_sends_it(void **state)
{
    (void)state;
    leave_waiting("one", true);
    leave_waiting("two", false);
    run_with(&supply, NULL, false);
    assert_next(&supply, "one");
    assert_true(payload.confirm);
    supply_kept(&supply);
    assert_next(&supply, "two");
    assert_false(payload.confirm);
    assert_names("0000000000000001c 0000000000000002 ");
    run_with(&supply, NULL, true);
    assert_delivers(&supply, "one");
    assert_next(&supply, "two");
    assert_true(payload.confirm); /* this run wants it */
}

static void what_was_kept_is_not_marked(void **state)
{
    (void)state;
    run_with(&supply, "one", true);
    assert_next(&supply, "one");
    supply_kept(&supply);
    assert_end(&supply);
    assert_int_equal(supply_finish(&supply), SUPPLY_END);
    assert_names("0000000000000001c ");
    assert_fate(&supply, "; the payload waits in the queue");
}

static void what_was_not_confirmed_is_doubted_by_the_next_run(void **state)
{
    (void)state;
    run_with(&supply, "one", true);
    assert_next(&supply, "one");
    assert_false(payload.doubted);
    supply_unconfirmed(&supply);
    assert_names("0000000000000001c-0 "); /* at once: the run may be killed */
    run_with(&supply, NULL, false);
    assert_next(&supply, "one");
    assert_true(payload.doubted && payload.confirm);
}

static void where_nothing_is_confirmed_nothing_is_counted(void **state)
{
    (void)state;
    leave_waiting("plain", false);
    leave_waiting("one", true);
    leave_waiting("two", true);
    for (int run = 0; run < 2 * QUEUE_TRIES_MAX; run++) {
        run_with(&supply, NULL, false);
        if (run == 0) /* it was sent, but that is no confirmation */
            assert_delivers(&supply, "plain");
        assert_next(&supply, "one");
        supply_unconfirmed(&supply);
        assert_next(&supply, "two");
        supply_unconfirmed(&supply);
        assert_end(&supply);
        assert_int_equal(supply_finish(&supply), SUPPLY_END);
        assert_names("0000000000000002c-0 0000000000000003c-0 ");
    }
}

static void the_unconfirmed_are_counted_where_another_was_confirmed_before_or_after(void **state)
{
    (void)state;
    leave_waiting("never", true);
    run_with(&supply, "after", true);
    assert_next(&supply, "never");
    supply_unconfirmed(&supply);
    assert_delivers(&supply, "after");
    assert_names("0000000000000001c-0 ");
    assert_int_equal(supply_finish(&supply), SUPPLY_END);
    assert_int_equal(supply_finish(&supply), SUPPLY_END);
    assert_names("0000000000000001c-1 ");

    run_with(&supply, "neither", true);
    assert_next(&supply, "never");
    supply_kept(&supply);
    assert_delivers(&supply, "neither");
    assert_int_equal(supply_finish(&supply), SUPPLY_END);
    assert_names("0000000000000001c-1 ");

    leave_waiting("nor that", true);
    run_with(&supply, NULL, true);
    assert_next(&supply, "never");
    supply_kept(&supply);
    assert_delivers(&supply, "nor that");
    assert_end(&supply);
    assert_int_equal(supply_finish(&supply), SUPPLY_END);
    assert_names("0000000000000001c-1 ");
}

static void ten_counts_move_a_payload_out_of_the_way(void **state)
{
    (void)state;
    leave_waiting("never", true);
    for (int run = 1; run <= QUEUE_TRIES_MAX; run++) {
        run_with(&supply, "good", true);
        assert_next(&supply, "never");
        assert_true(payload.doubted == (run > 1));
        supply_unconfirmed(&supply);
        assert_delivers(&supply, "good");
        assert_end(&supply);
        if (run == QUEUE_TRIES_MAX) {
            assert_int_equal(supply_finish(&supply), SUPPLY_UNSENDABLE);
            assert_told(&supply, "moved to failed: not confirmed in 10 runs in which others were");
        }
        assert_int_equal(supply_finish(&supply), SUPPLY_END);
    }
    assert_names("failed ");
    assert_int_equal(access(inside("failed/0000000000000001c-10"), F_OK), 0);
}

/* --- What can never be sent --- */

static void what_the_server_can_never_take_is_out_of_the_way(void **state)
{
    (void)state;
    run_with(&supply, "large", false);
    assert_next(&supply, "large");
    assert_int_equal(supply_refused(&supply, "larger than 2 bytes"), SUPPLY_UNSENDABLE);
    assert_told(&supply, "moved to failed: larger than 2 bytes");
    assert_fate(&supply, "");
    assert_end(&supply);

    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "large", NULL);
    open_with(&supply, &config);
    assert_next(&supply, "large");
    assert_int_equal(supply_refused(&supply, "larger than 2 bytes"), SUPPLY_REFUSED);
    assert_string_equal(supply.error, "larger than 2 bytes");
    assert_end(&supply);
}

static void what_another_run_set_aside_of_ours_is_told_and_what_it_delivered_is_not(void **state)
{
    (void)state;
    give_input("large\nsmall\n");
    supply_config_t config = config_for(PAYLOAD_LINES, NULL, path);
    open_with(&supply, &config);
    accept_all(&supply);
    run_with(&other, NULL, false);
    assert_next(&other, "large");
    assert_int_equal(supply_refused(&other, "too large"), SUPPLY_UNSENDABLE);
    assert_delivers(&other, "small");
    supply_close(&other);
    begin(&supply);
    assert_int_equal(supply_next(&supply, &payload), SUPPLY_UNSENDABLE);
    assert_told(&supply, "failed/0000000000000001: was moved there by another run");
    assert_end(&supply);
    assert_fate(&supply, "");
}

static void what_lies_there_and_is_no_payload_is_told_once(void **state)
{
    (void)state;
    leave_waiting("one", false);
    assert_int_equal(mkdir(inside("readme"), 0700), 0);
    run_with(&supply, NULL, false);
    assert_int_equal(supply_next(&supply, &payload), SUPPLY_UNSENDABLE);
    assert_told(&supply, "readme: is no queued payload");
    assert_delivers(&supply, "one");
    assert_end(&supply);
}

static void what_cannot_be_removed_is_told_to_be_sent_again(void **state)
{
    (void)state;
    for (int unsettled = 0; unsettled < 2; unsettled++) {
        start_afresh(state);
        run_with(&supply, "one", false);
        assert_next(&supply, "one");
        assert_int_equal(unlink(inside("0000000000000001")), 0);
        assert_int_equal(mkdir(inside("0000000000000001"), 0700), 0);
        if (unsettled)
            assert_true(supply_sent(&supply));
        assert_int_equal(unsettled ? supply_settle(&supply, 1) : supply_delivered(&supply), SUPPLY_FAILED);
        assert_told(&supply, "will be sent again");
        supply_close(&supply);
    }
}

/* --- The unsettled --- */

static void what_is_unsettled_stays_in_the_queue(void **state)
{
    (void)state;
    run_with_lines(&supply, "a\nb\nc\n", path);
    assert_sends(&supply, "a");
    assert_sends(&supply, "b");
    assert_sends(&supply, "c");
    assert_int_equal(supply_unsettled(&supply), 3);
    assert_int_equal(supply_settle(&supply, 1), SUPPLY_OK);
    assert_int_equal(supply_unsettled(&supply), 2);
    assert_names("0000000000000002 0000000000000003 ");
    assert_fate(&supply, "; 2 of 3 payloads wait in the queue; 1 of 3 payloads was delivered");
    supply_close(&supply);
    assert_names("0000000000000002 0000000000000003 ");
}

/* Twice, the second time in the midst of the first. */
static void a_rewind_gives_the_same_payloads_again_in_order(void **state)
{
    (void)state;
    for (int queued = 0; queued < 2; queued++) {
        run_with_lines(&supply, "a\nb\n\nd\ne\n", queued ? path : NULL);
        assert_sends(&supply, "a");
        assert_sends(&supply, "b");
        assert_sends(&supply, "");
        assert_sends(&supply, "d");
        assert_int_equal(supply_settle(&supply, 1), SUPPLY_OK);
        supply_rewind(&supply);
        assert_int_equal(supply_unsettled(&supply), 0);
        assert_int_equal(supply_fd(&supply), -1);
        assert_sends(&supply, "b");
        assert_sends(&supply, "");
        supply_rewind(&supply);
        assert_sends(&supply, "b");
        assert_sends(&supply, "");
        assert_sends(&supply, "d");
        assert_sends(&supply, "e");
        assert_end(&supply);
        supply_rewind(&supply); /* also after the end */
        assert_sends(&supply, "b");
        assert_sends(&supply, "");
        assert_sends(&supply, "d");
        assert_sends(&supply, "e");
        assert_end(&supply);
        assert_int_equal(supply_settle(&supply, 100), SUPPLY_OK);
        assert_int_equal(supply_unsettled(&supply), 0);
        assert_int_equal(supply.delivered, 5);
        assert_end(&supply);
        if (queued)
            assert_names("");
    }
}

/* What was told otherwise meanwhile does not come again. */
static void a_rewind_gives_the_unsettled_alone(void **state)
{
    (void)state;
    leave_waiting("a", false);
    leave_waiting("never", true);
    leave_waiting("b", false);
    run_with(&supply, NULL, false);
    assert_sends(&supply, "a");
    assert_next(&supply, "never");
    supply_unconfirmed(&supply);
    assert_sends(&supply, "b");
    supply_rewind(&supply);
    assert_sends(&supply, "a");
    assert_sends(&supply, "b");
    assert_end(&supply);
}

static void the_window_takes_so_many_and_no_more(void **state)
{
    (void)state;
    char lines[2 * SUPPLY_WINDOW + 3] = "";
    for (size_t i = 0; i <= SUPPLY_WINDOW; i++) {
        lines[2 * i] = 'x';
        lines[2 * i + 1] = '\n';
    }
    for (int queued = 0; queued < 2; queued++) {
        run_with_lines(&supply, lines, queued ? path : NULL);
        for (int i = 0; i < SUPPLY_WINDOW; i++)
            assert_sends(&supply, "x");
        assert_next(&supply, "x");
        assert_false(supply_sent(&supply));
        assert_int_equal(supply_unsettled(&supply), SUPPLY_WINDOW);
        assert_int_equal(supply_settle(&supply, SUPPLY_WINDOW), SUPPLY_OK);
        assert_int_equal(supply_delivered(&supply), SUPPLY_OK); /* still in hand */
        assert_end(&supply);
    }
    assert_names("");
}

static void what_someone_removed_by_hand_does_not_come_again(void **state)
{
    (void)state;
    run_with_lines(&supply, "a\nb\n", path);
    assert_sends(&supply, "a");
    assert_sends(&supply, "b");
    assert_int_equal(unlink(inside("0000000000000001")), 0);
    supply_rewind(&supply);
    assert_sends(&supply, "b");
    assert_end(&supply);
}

/* --- What became of them --- */

static void the_fate_of_one_payload_without_a_queue_goes_without_saying(void **state)
{
    (void)state;
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "one", NULL);
    assert_fate(&supply, "");
    open_with(&supply, &config);
    assert_fate(&supply, "");
    assert_next(&supply, "one");
    assert_fate(&supply, "");
}

static void the_fate_of_lines_without_a_queue_is_how_many_were_delivered(void **state)
{
    (void)state;
    run_with_lines(&supply, "a\nb\nc\n", NULL);
    assert_next(&supply, "a");
    assert_fate(&supply, "");
    assert_int_equal(supply_delivered(&supply), SUPPLY_OK);
    assert_next(&supply, "b");
    assert_fate(&supply, "; 1 of 2 payloads read so far was delivered");
    assert_true(supply_sent(&supply));
    assert_sends(&supply, "c");
    assert_end(&supply);
    assert_fate(&supply, "; 1 of 3 payloads was delivered");
    assert_int_equal(supply_settle(&supply, 2), SUPPLY_OK);
    assert_fate(&supply, "; 3 of 3 payloads were delivered");
}

static void the_fate_is_not_accepted_until_it_is_on_the_disk(void **state)
{
    (void)state;
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "one", path);
    open_with(&supply, &config);
    assert_fate(&supply, "; the payload was not accepted");
    assert_int_equal(supply_accept(&supply), SUPPLY_OK);
    assert_fate(&supply, "; the payload waits in the queue");
    begin(&supply);
    assert_delivers(&supply, "one");
    assert_fate(&supply, "");
}

static void the_fate_of_lines_in_a_queue_says_how_many_wait_and_how_many_do_not(void **state)
{
    (void)state;
    give_input("31\n3x\n33\n");
    supply_config_t config = config_for(PAYLOAD_LINES, NULL, path);
    config.source.hex = true;
    open_with(&supply, &config);
    assert_fate(&supply, "; no payload was accepted");
    assert_int_equal(supply_accept(&supply), SUPPLY_OK);
    assert_fate(&supply, "; 1 payload waits in the queue, and the rest was not accepted");
    assert_int_equal(supply_accept(&supply), SUPPLY_REFUSED);
    assert_fate(&supply, "; the payload was not accepted");
    assert_int_equal(supply_accept(&supply), SUPPLY_OK);
    assert_fate(&supply, "; 2 payloads wait in the queue, and the rest was not accepted");
    assert_int_equal(supply_accept(&supply), SUPPLY_END);
    assert_fate(&supply, "; 2 of 3 payloads wait in the queue; 1 of 3 payloads was not accepted");
    begin(&supply);
    assert_delivers(&supply, "1");
    assert_fate(&supply, "; 1 of 3 payloads waits in the queue; 1 of 3 payloads was not accepted"
                         "; 1 of 2 payloads was delivered");
}

static void the_fate_of_what_waited_is_how_many_still_do(void **state)
{
    (void)state;
    leave_waiting("a", false);
    leave_waiting("b", false);
    supply_config_t config = config_for(PAYLOAD_NONE, NULL, path);
    open_with(&supply, &config);
    accept_all(&supply);
    assert_fate(&supply, "");
    begin(&supply);
    assert_fate(&supply, "; 2 of 2 payloads wait in the queue; none of 2 payloads was delivered");
    assert_delivers(&supply, "a");
    assert_fate(&supply, "; 1 of 2 payloads waits in the queue; 1 of 2 payloads was delivered");
    run_with(&supply, "c", false);
    assert_fate(&supply, "; the payload waits in the queue; none of 2 payloads was delivered");
    assert_delivers(&supply, "b");
    assert_fate(&supply, "; the payload waits in the queue; 1 of 2 payloads was delivered");
}

/* Also where other runs add, and send what is ours. */
static void the_fate_is_about_our_own_payloads(void **state)
{
    (void)state;
    supply_config_t config = config_for(PAYLOAD_ARGUMENT, "ours", path);
    open_with(&supply, &config);
    accept_all(&supply);
    leave_waiting("theirs", false);
    run_with(&other, NULL, false);
    assert_fate(&supply, "; the payload waits in the queue");
    assert_delivers(&other, "ours");
    assert_fate(&supply, "");
}

static void closing_is_harmless_at_any_time(void **state)
{
    (void)state;
    supply_close(&supply);
    run_with_lines(&supply, "a\nb\nc\n", NULL);
    assert_sends(&supply, "a");
    assert_sends(&supply, "b");
    supply_rewind(&supply);
    assert_sends(&supply, "a"); /* copies of both kinds are held */
    supply_close(&supply);
    supply_close(&supply);
    assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
    run_with(&supply, "one", false);
    supply_close(&supply);
    supply_close(&supply);
    run_with(&other, NULL, false); /* the turn has ended */
    assert_delivers(&other, "one");
}

#define test(name) cmocka_unit_test_setup_teardown(name, start_afresh, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(without_a_queue_what_is_given_is_handed_on),
        test(with_a_queue_nobody_waits_for_input_between_payloads),
        test(where_nothing_is_given_what_waits_is_sent),
        test(an_incident_is_told_once_and_then_the_end_comes),
        test(a_refused_line_does_not_keep_the_others_back),
        test(a_later_limit_holds_for_what_follows),
        test(a_full_queue_refuses_and_what_waits_is_sent_all_the_same),
        test(a_full_disk_refuses_and_what_waits_is_sent_all_the_same),
        test(a_queue_that_cannot_be_opened_accepts_nothing),
        test(what_was_accepted_to_be_confirmed_stays_so_whoever_sends_it),
        test(what_was_kept_is_not_marked),
        test(what_was_not_confirmed_is_doubted_by_the_next_run),
        test(where_nothing_is_confirmed_nothing_is_counted),
        test(the_unconfirmed_are_counted_where_another_was_confirmed_before_or_after),
        test(ten_counts_move_a_payload_out_of_the_way),
        test(what_the_server_can_never_take_is_out_of_the_way),
        test(what_another_run_set_aside_of_ours_is_told_and_what_it_delivered_is_not),
        test(what_lies_there_and_is_no_payload_is_told_once),
        test(what_cannot_be_removed_is_told_to_be_sent_again),
        test(what_is_unsettled_stays_in_the_queue),
        test(a_rewind_gives_the_same_payloads_again_in_order),
        test(a_rewind_gives_the_unsettled_alone),
        test(the_window_takes_so_many_and_no_more),
        test(what_someone_removed_by_hand_does_not_come_again),
        test(the_fate_of_one_payload_without_a_queue_goes_without_saying),
        test(the_fate_of_lines_without_a_queue_is_how_many_were_delivered),
        test(the_fate_is_not_accepted_until_it_is_on_the_disk),
        test(the_fate_of_lines_in_a_queue_says_how_many_wait_and_how_many_do_not),
        test(the_fate_of_what_waited_is_how_many_still_do),
        test(the_fate_is_about_our_own_payloads),
        test(closing_is_harmless_at_any_time),
    };
    return cmocka_run_group_tests_name("supply", tests, NULL, scratch_remove);
}
