/* dtls-send: sends payloads over DTLS and prints the downlinks that a server had queued for this device.
 * This file is the story of a run. */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "command/options.h"
#include "run/connection.h"
#include "run/delivery.h"
#include "run/dispatch.h"
#include "run/inspect.h"
#include "run/supply.h"
#include "store/file.h"
#include "system/log.h"
#include "system/process.h"
#include "system/random.h"

enum { READING_MS = 60000 }; /* for the configuration file, which may set another time for the run */

typedef struct {
    options_t options;
    credentials_source_t credentials;
    wait_limit_t limit;
    char server[OPTIONS_HOST_SIZE + 9]; /* "host:port", for people */
    supply_t supply;
    output_t output;
    connection_t connection;
    delivery_t delivery;
    dispatch_t dispatch;
    report_t report;
} run_t;

static credentials_source_t credentials_of(const options_t *options)
{
    return (credentials_source_t){.cert_file = options->cert_file,
                                  .key_file = options->key_file,
                                  .passphrase_file = options->passphrase_file,
                                  .ca = options->ca,
                                  .psk_file = options->psk_file};
}

/* Reports why the run ends here. */
static bool stop(run_t *run, int status, const char *message)
{
    report_failure(&run->report, status, message);
    return false;
}

/* The session's file is taken away and written anew: it must be none of the others. */
static bool spares_files(run_t *run)
{
    const char *session = run->options.session;
    bool spares = session == NULL || !(file_is_same(session, run->options.config.path) ||
                                       connection_would_replace(session, &run->credentials));
    return spares ||
           stop(run, EX_USAGE, "--session: names a file of credentials or options, which it would replace");
}

/* A run that hangs elsewhere than in a wait, as on a disk, is ended too, with this status. */
static void watch(const run_t *run, int status)
{
    process_watch(run->limit.deadline_ms - wait_now_ms(), status);
}

/* What is given is put into the queue, if there is one, where it is safe whatever fails later. */
static bool accept_payloads(run_t *run)
{
    const options_t *options = &run->options;
    supply_config_t config = {.source = options->payload,
                              .queue = options->queue,
                              .queue_limit = options->queue_limit,
                              .confirm = options->confirm || options->coaps,
                              .limit = run->limit};
    watch(run, options->queue != NULL ? EX_CANTCREAT : EX_TEMPFAIL);
    return dispatch_accept(&run->dispatch, &config);
}

/* The cron jobs of a fleet all fire at :00. This is not part of --timeout. False: a signal came. */
static bool splay(run_t *run)
{
    int64_t delay_ms = (int64_t)random_up_to((uint64_t)run->options.splay_ms);
    if (run->options.splay_ms == 0)
        return true;
    log_step("waiting %.3f s before connecting", (double)delay_ms / 1000);
    run->limit.deadline_ms += delay_ms;
    supply_set_limit(&run->supply, run->limit);
    watch(run, EX_TEMPFAIL);
    bool interrupted = wait_for(-1, 0, wait_at_most(run->limit, delay_ms)) == WAIT_INTERRUPTED;
    return !interrupted || stop(run, EX_TEMPFAIL, "interrupted");
}

static bool open_output(run_t *run)
{
    return output_open(&run->output, STDOUT_FILENO, run->options.format, run->server, run->limit) ||
           stop(run, EX_IOERR, run->output.error);
}

static bool connect_to_server(run_t *run, const connection_config_t *config)
{
    static const uint8_t methods[] = {
        [METHOD_POST] = COAP_POST, [METHOD_PUT] = COAP_PUT, [METHOD_GET] = COAP_GET};
    const options_t *options = &run->options;
    delivery_config_t delivery = {.connection = &run->connection,
                                  .output = &run->output,
                                  .coaps = options->coaps,
                                  .exchange = {.method = methods[options->method],
                                               .uri_options = options->uri_options,
                                               .uri_options_length = options->uri_options_length,
                                               .content_format = options->content_format},
                                  .settles = options->queue != NULL || options->payload.kind == PAYLOAD_LINES,
                                  .limit = run->limit};
    dtls_outcome_t outcome = connection_open(&run->connection, config);
    if (outcome != DTLS_OK)
        report_connection(&run->report, outcome, connection_error_text(&run->connection));
    else
        delivery_init(&run->delivery, &delivery);
    return outcome == DTLS_OK;
}

/* Leaves the next run a connection; after a failure that may pass, at least its session. */
static void leave_session(run_t *run, bool complete)
{
    const char *reason = NULL;
    if (complete || delivery_was_answered(&run->delivery))
        reason = connection_keep(&run->connection, !delivery_is_ambiguous(&run->delivery));
    else if (report_may_pass(&run->report))
        connection_put_back(&run->connection);
    if (reason != NULL)
        log_error("%s: the session is not saved: %s", run->options.session, reason);
}

static void send_and_print(run_t *run)
{
    const options_t *options = &run->options;
    bool coaps_or_confirm = options->coaps || options->confirm;
    connection_config_t config = {.dtls = {.host = options->host,
                                           .port = options->port,
                                           .server_name = options->server_name,
                                           .family = options->family,
                                           .mtu = options->mtu,
                                           .persist = coaps_or_confirm,
                                           .limit = run->limit},
                                  .credentials = run->credentials,
                                  .session_file = options->session,
                                  .answered = coaps_or_confirm,
                                  .lease_ms = options->lease_ms};
    bool asks = options->method == METHOD_GET;
    watch(run, EX_TEMPFAIL);
    if (!asks && !dispatch_begin(&run->dispatch))
        return;
    bool complete = connect_to_server(run, &config) &&
                    (asks ? dispatch_ask(&run->dispatch, options->count)
                          : dispatch_all(&run->dispatch, options->wait_ms, options->count));
    leave_session(run, complete);
    dispatch_finish(&run->dispatch);
}

static void run_once(run_t *run)
{
    connection_init(&run->connection);
    supply_init(&run->supply);
    run->report.supply = &run->supply;
    run->dispatch = (dispatch_t){.supply = &run->supply, .delivery = &run->delivery, .report = &run->report};
    if (spares_files(run) && accept_payloads(run) && splay(run) && open_output(run))
        send_and_print(run);
    log_clear_progress();
    connection_close(&run->connection);
    supply_close(&run->supply);
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
        log_error("%s", error);
        return wish == OPTIONS_BAD ? EX_USAGE : EX_CONFIG;
    }
    if (wish != OPTIONS_RUN)
        return wish == OPTIONS_HELP ? inspect_help() : inspect_version();

    log_set_level((log_level_t)run.options.verbosity);
    run.credentials = credentials_of(&run.options);
    run.limit = wait_limit_in(run.options.timeout_ms);
    run.limit.cancel_fd = process_signal_fd();
    watch(&run, EX_TEMPFAIL); /* before the first line, which nobody may read */
    if (run.options.config.path[0] != '\0')
        log_step("options from %s", run.options.config.path);
    if (run.options.check)
        return inspect_credentials(&run.options, &run.credentials);
    snprintf(run.server, sizeof run.server, strchr(run.options.host, ':') != NULL ? "[%s]:%s" : "%s:%s",
             run.options.host, run.options.port);
    run_once(&run);
    return report_status(&run.report);
}
