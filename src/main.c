/* dtls-send: sends payloads over DTLS and prints the downlinks that a server had queued for this device.
 * This file is the story of a run, and the only place that knows exit statuses. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "command/options.h"
#include "command/output.h"
#include "command/payload.h"
#include "credentials/check.h"
#include "credentials/embedded.h"
#include "run/connection.h"
#include "run/delivery.h"
#include "store/file.h"
#include "store/queue.h"
#include "system/log.h"
#include "system/process.h"
#include "system/random.h"

/* The time to read the configuration file, which may set another for the run. */
enum { READING_MS = 60000 };

typedef struct {
    options_t options;
    wait_limit_t limit;
    char server[OPTIONS_HOST_SIZE + 9]; /* "host:port", for people */
    payload_reader_t payloads;          /* holds the payload in hand, also where that came from the queue */
    queue_t queue;
    entry_t entry;   /* where the payload in hand came from */
    bool unsettled;  /* the payload in hand was sent, and is still in the queue */
    bool none_added; /* the payload that was given was refused: this run sends only what waits */
    bool unsendable; /* something in the queue was, and was told */
    output_t output;
    connection_t connection;
    delivery_t delivery;
    uint64_t total; /* payloads to send; 0: not known */
    uint64_t sent;
    int status; /* the first failure's */
} run_t;

/* --- Outcomes --- */

static int status_of(dtls_outcome_t outcome)
{
    switch (outcome) {
    case DTLS_OK:
        return EX_OK;
    case DTLS_TIMEOUT:
    case DTLS_CLOSED:
        return EX_TEMPFAIL;
    case DTLS_INTERRUPTED:
        return 128 + process_signal();
    case DTLS_NAME_UNKNOWN:
        return EX_NOHOST;
    case DTLS_REFUSED:
        return EX_UNAVAILABLE;
    case DTLS_UNTRUSTED:
    case DTLS_REJECTED:
        return EX_NOPERM;
    case DTLS_CREDENTIALS:
        return EX_CONFIG;
    case DTLS_PROTOCOL:
        return EX_PROTOCOL;
    case DTLS_TOO_LARGE:
        return EX_DATAERR;
    case DTLS_SYSTEM:
        return EX_OSERR;
    }
    return EX_SOFTWARE;
}

/* Prints why; the first failure decides the status. A signal outranks what it interrupted, and is told once.
 * That what waits cannot be sent either is no news where the payload that was given is lost to the caller. */
static void note_failure(run_t *run, int status, const char *message)
{
    if (process_signal() == 0) {
        log_print(run->none_added && run->status != EX_OK ? LOG_STEPS : LOG_ERROR, "%s", message);
        run->status = run->status == EX_OK ? status : run->status;
    } else if (run->status != 128 + process_signal()) {
        log_error("ended by a signal: %s", strsignal(process_signal()));
        run->status = 128 + process_signal();
    }
}

/* --- Payloads --- */

/* Reads the next payload that can be sent; those that cannot are told and passed over. */
static payload_outcome_t read_payload(run_t *run)
{
    for (;;) {
        payload_outcome_t outcome = payload_next(&run->payloads);
        switch (outcome) {
        case PAYLOAD_OK:
        case PAYLOAD_END:
            return outcome;
        case PAYLOAD_REFUSED:
            note_failure(run, EX_DATAERR, run->payloads.error);
            break;
        case PAYLOAD_TIMEOUT:
        case PAYLOAD_INTERRUPTED:
            /* EX_TEMPFAIL would say that it waits in the queue. */
            note_failure(run, run->options.queue != NULL ? EX_NOINPUT : EX_TEMPFAIL, run->payloads.error);
            return outcome;
        case PAYLOAD_UNREADABLE:
            note_failure(run, EX_NOINPUT, run->payloads.error);
            return outcome;
        }
    }
}

/* Puts everything that is given into the queue, where it is safe whatever fails later. True: there may be
 * something to send. */
static bool fill_queue(run_t *run)
{
    queue_t *queue = &run->queue;
    bool opened = queue_open(queue, run->options.queue, run->options.queue_limit);
    queue_outcome_t added = opened ? QUEUE_OK : QUEUE_FAILED;
    payload_outcome_t read = PAYLOAD_END;
    bool given = run->options.payload.kind != PAYLOAD_NONE;
    while (given && added == QUEUE_OK && (read = read_payload(run)) == PAYLOAD_OK)
        added = queue_add(queue, run->payloads.bytes, run->payloads.length, run->options.confirm, run->limit);
    if (added != QUEUE_OK)
        note_failure(run, EX_CANTCREAT, queue->error);
    run->none_added = given && queue->ranges == 0;
    /* What waits is sent also where the queue is full, or a sensor is broken: else it would stay there. */
    bool writable = added == QUEUE_OK || added == QUEUE_FULL || (added == QUEUE_FAILED && opened);
    return writable && read != PAYLOAD_TIMEOUT && read != PAYLOAD_INTERRUPTED;
}

/* Something in the queue can never be sent. It says nothing of the payload that was given, so every failure
 * outranks it. */
static void note_unsendable(run_t *run)
{
    log_error("%s", run->queue.error);
    run->unsendable = true;
}

/* The next payload from the queue; what cannot be sent is told and passed over. */
static bool next_queued(run_t *run)
{
    for (;;) {
        switch (queue_next(&run->queue, run->payloads.bytes, &run->payloads.length, &run->entry)) {
        case QUEUE_OK:
            return true;
        case QUEUE_END:
            return false;
        case QUEUE_UNSENDABLE:
            note_unsendable(run);
            break;
        default:
            note_failure(run, EX_OSERR, run->queue.error);
            return false;
        }
    }
}

/* Puts the next payload into our hand. False: there is none. */
static bool next_payload(run_t *run)
{
    return run->options.queue != NULL ? next_queued(run) : read_payload(run) == PAYLOAD_OK;
}

/* The payload in hand was delivered, as far as can be known: it leaves the queue. */
static bool settle(run_t *run)
{
    if (!run->unsettled || queue_remove(&run->queue, &run->entry)) {
        run->unsettled = false;
        return true;
    }
    note_failure(run, EX_OSERR, run->queue.error);
    return false;
}

/* --- The connection --- */

static credentials_source_t credentials_of(const options_t *options)
{
    return (credentials_source_t){.cert_file = options->cert_file,
                                  .key_file = options->key_file,
                                  .passphrase_file = options->passphrase_file,
                                  .ca = options->ca,
                                  .psk_file = options->psk_file};
}

static connection_config_t config_of(const run_t *run)
{
    const options_t *options = &run->options;
    return (connection_config_t){.dtls = {.host = options->host,
                                          .port = options->port,
                                          .server_name = options->server_name,
                                          .family = options->family,
                                          .mtu = options->mtu,
                                          .limit = run->limit},
                                 .credentials = credentials_of(options),
                                 .session_file = options->session,
                                 .answered = options->confirm,
                                 .lease_ms = options->lease_ms};
}

static bool session_spares_others(run_t *run)
{
    connection_config_t config = config_of(run);
    bool is_config =
        run->options.session != NULL && file_is_same(run->options.session, run->options.config.path);
    if (is_config || !connection_spares_credentials(&config))
        note_failure(run, EX_USAGE,
                     "--session: names a file of credentials or options, which it would replace");
    return run->status == EX_OK;
}

static bool connect_to_server(run_t *run)
{
    connection_config_t config = config_of(run);
    dtls_outcome_t outcome = connection_open(&run->connection, &config);
    if (outcome != DTLS_OK)
        note_failure(run, status_of(outcome), connection_error_text(&run->connection));
    run->delivery.connection = &run->connection;
    run->delivery.output = &run->output;
    run->delivery.confirm = run->options.confirm;
    run->delivery.limit = run->limit;
    return outcome == DTLS_OK;
}

/* --- The exchange --- */

/* The server takes no payload as large as the one in hand. */
static void refuse(run_t *run)
{
    if (run->options.queue == NULL) {
        note_failure(run, EX_DATAERR, run->delivery.error);
        return;
    }
    queue_set_aside(&run->queue, &run->entry, run->delivery.error);
    note_unsendable(run);
}

/* False: the run cannot go on. */
static bool goes_on(run_t *run, delivery_outcome_t outcome)
{
    switch (outcome) {
    case DELIVERY_OK:
        return true;
    case DELIVERY_TOO_LARGE:
        refuse(run);
        return true;
    case DELIVERY_UNCONFIRMED:
        note_failure(run, EX_TEMPFAIL, run->delivery.error);
        return false;
    case DELIVERY_UNWRITABLE:
        note_failure(run, EX_IOERR, run->delivery.error);
        return false;
    default:
        note_failure(run, status_of(run->delivery.broken), run->delivery.error);
        return false;
    }
}

/* The payload in hand. What was not confirmed leaves the queue later, when no refusal has come. */
static bool deliver(run_t *run)
{
    delivery_outcome_t outcome = delivery_send(&run->delivery, run->payloads.bytes, run->payloads.length);
    run->unsettled = outcome == DELIVERY_OK && run->options.queue != NULL;
    log_progress(++run->sent, run->total);
    return goes_on(run, outcome) && (!run->options.confirm || settle(run));
}

/* Between payloads: waits until there is another to take, and prints what comes down meanwhile. False: the
 * run cannot go on. */
static bool await_payload(run_t *run)
{
    bool readable = false;
    if (!goes_on(run, delivery_pause(&run->delivery)))
        return false;
    for (int fd; !readable && (fd = payload_fd(&run->payloads)) >= 0;) {
        /* payload_next() finds the same deadline or signal, and tells of it. */
        if (wait_for_input(fd, dtls_fd(&run->connection.dtls), run->limit, &readable) != WAIT_READY)
            break;
        if (!readable && !goes_on(run, delivery_receive(&run->delivery, 0, 0, false)))
            return false;
    }
    return true;
}

/* Sends every payload, the first of which is in hand, and prints every downlink. */
static void exchange(run_t *run)
{
    const options_t *options = &run->options;
    for (bool more = true; more;) {
        if (!deliver(run))
            return;
        more = options->queue != NULL ? queue_has_more(&run->queue) : options->payload.kind == PAYLOAD_LINES;
        if (more && !(await_payload(run) && settle(run)))
            return;
        more = more && next_payload(run);
    }
    if (!goes_on(run, delivery_receive(&run->delivery, options->wait_ms, options->count, true)) ||
        !settle(run))
        return;
    const char *reason = connection_keep(&run->connection);
    if (reason != NULL)
        log_error("%s: the session is not saved: %s", options->session, reason);
}

/* --- The run --- */

/* A run that hangs elsewhere than in a wait, as on a disk, is ended too, with this status. */
static void watch(const run_t *run, int status)
{
    process_watch(run->limit.deadline_ms - wait_now_ms(), status);
}

/* The cron jobs of a fleet all fire at :00. This is not part of --timeout. */
static bool splay(run_t *run)
{
    uint64_t random = 0;
    if (run->options.splay_ms == 0)
        return true;
    random_bytes(NULL, (unsigned char *)&random, sizeof random);
    int64_t delay_ms = (int64_t)(random % ((uint64_t)run->options.splay_ms + 1));
    log_step("waiting %.3f s before connecting", (double)delay_ms / 1000);
    run->limit.deadline_ms += delay_ms;
    run->payloads.limit = run->limit;
    watch(run, EX_TEMPFAIL);
    if (wait_for(-1, 0, wait_at_most(run->limit, delay_ms)) != WAIT_INTERRUPTED)
        return true;
    note_failure(run, EX_TEMPFAIL, "interrupted");
    return false;
}

static bool open_output(run_t *run)
{
    bool opened = output_open(&run->output, STDOUT_FILENO, run->options.format, run->server, run->limit);
    if (!opened)
        note_failure(run, EX_IOERR, run->output.error);
    return opened;
}

/* True: it is our turn, and something waits. */
static bool take_turn(run_t *run)
{
    queue_outcome_t outcome = queue_take_turn(&run->queue, run->limit);
    run->total = run->queue.waiting;
    if (outcome == QUEUE_OK)
        return next_payload(run);
    note_failure(run, outcome == QUEUE_FAILED ? EX_OSERR : EX_TEMPFAIL, run->queue.error);
    return false;
}

/* Takes the first payload in hand, and with a queue all into that. False: there is nothing to send. */
static bool take_payloads(run_t *run)
{
    bool queued = run->options.queue != NULL;
    watch(run, queued ? EX_CANTCREAT : EX_TEMPFAIL);
    payload_open(&run->payloads, run->options.payload, run->limit);
    if (!queued)
        return next_payload(run);
    bool taken = fill_queue(run);
    watch(run, EX_TEMPFAIL);
    return taken;
}

static void run_once(run_t *run)
{
    connection_init(&run->connection);
    queue_init(&run->queue);
    if (session_spares_others(run) && take_payloads(run) && splay(run) && open_output(run) &&
        (run->options.queue == NULL || take_turn(run)) && connect_to_server(run))
        exchange(run);
    if (run->status == EX_OK && run->unsendable)
        run->status = EX_DATAERR;
    log_clear_progress();
    connection_close(&run->connection);
    queue_close(&run->queue);
    payload_close(&run->payloads);
}

/* --- Beside a run --- */

static int finish_printing(int status)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return status;
    log_error("standard output: %s", strerror(errno));
    return EX_IOERR;
}

static int print_and_end(options_outcome_t wish)
{
    if (wish == OPTIONS_HELP)
        options_print_help(stdout);
    else
        printf("dtls-send " VERSION " (%s)%s\n", dtls_library(),
               embedded_is_present() ? ", with built-in credentials" : "");
    return finish_printing(EX_OK);
}

static int check(run_t *run)
{
    char error[512];
    credentials_source_t source = credentials_of(&run->options);
    process_watch(run->options.timeout_ms, EX_TEMPFAIL);
    if (!check_credentials(&source, run->options.renew_days, stdout, error, sizeof error))
        note_failure(run, EX_CONFIG, error);
    return finish_printing(run->status);
}

int main(int argc, char **argv)
{
    static run_t run; /* large: not for the stack */
    char error[512];

    process_prepare();
    process_catch_signals();
    process_watch(READING_MS, EX_TEMPFAIL);
    options_outcome_t wish = options_parse(argc, argv, &run.options, error, sizeof error);
    if (wish == OPTIONS_BAD || wish == OPTIONS_BAD_CONFIG) {
        note_failure(&run, wish == OPTIONS_BAD ? EX_USAGE : EX_CONFIG, error);
        return run.status;
    }
    if (wish != OPTIONS_RUN)
        return print_and_end(wish);

    log_set_level((log_level_t)run.options.verbosity);
    if (run.options.config.path[0] != '\0')
        log_step("options from %s", run.options.config.path);
    if (run.options.check)
        return check(&run);
    run.limit = wait_limit_in(run.options.timeout_ms);
    run.limit.cancel_fd = process_signal_fd();
    bool bracketed = strchr(run.options.host, ':') != NULL;
    snprintf(run.server, sizeof run.server, bracketed ? "[%s]:%s" : "%s:%s", run.options.host,
             run.options.port);
    run_once(&run);
    return run.status;
}
