/* dtls-send: sends payloads over DTLS and prints the downlinks that a server had queued for this device.
 * This file is the story of a run. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "command/options.h"
#include "command/output.h"
#include "credentials/check.h"
#include "credentials/embedded.h"
#include "run/connection.h"
#include "run/delivery.h"
#include "run/report.h"
#include "run/supply.h"
#include "store/file.h"
#include "system/log.h"
#include "system/process.h"
#include "system/random.h"

/* The time to read the configuration file, which may set another for the run. */
enum { READING_MS = 60000 };

typedef struct {
    options_t options;
    wait_limit_t limit;
    char server[OPTIONS_HOST_SIZE + 9]; /* "host:port", for people */
    supply_t supply;
    supply_payload_t payload; /* in hand */
    output_t output;
    connection_t connection;
    delivery_t delivery;
    report_t report;
} run_t;

/* --- The exchange --- */

/* Puts the next payload into our hand; what cannot be sent is told and passed over. False: there is none. */
static bool next_payload(run_t *run)
{
    supply_outcome_t outcome;
    while ((outcome = supply_next(&run->supply, &run->payload)) != SUPPLY_OK && outcome != SUPPLY_END)
        report_supply(&run->report, outcome);
    return outcome == SUPPLY_OK;
}

/* How the supply took a verdict. False: the run cannot go on. */
static bool is_settled(run_t *run, supply_outcome_t outcome)
{
    if (outcome != SUPPLY_OK)
        report_supply(&run->report, outcome);
    return outcome != SUPPLY_FAILED;
}

/* It was sent, or refused with those before it; nothing confirms it. False: the run cannot go on. */
static bool keep_until_settled(run_t *run)
{
    if (!is_settled(run, supply_settle(&run->supply, delivery_settled(&run->delivery))))
        return false;
    if (supply_sent(&run->supply))
        return true;
    report_failure(&run->report, EX_OSERR, "out of memory");
    return false;
}

/* Passes the verdict on the payload in hand to the supply. False: the run cannot go on. */
static bool judge(run_t *run, delivery_outcome_t outcome)
{
    supply_t *supply = &run->supply;
    switch (outcome) {
    case DELIVERY_OK:
        return keep_until_settled(run);
    case DELIVERY_LOST:
        if (!keep_until_settled(run))
            return false;
        supply_rewind(supply);
        return true;
    case DELIVERY_CONFIRMED:
        return is_settled(run, supply_delivered(supply));
    case DELIVERY_REFUSED:
        return is_settled(run, supply_refused(supply, run->delivery.error));
    case DELIVERY_BODY_LOST:
        report_delivery(&run->report, outcome, &run->delivery);
        return is_settled(run, supply_delivered(supply));
    case DELIVERY_UNCONFIRMED:
        supply_unconfirmed(supply);
        report_delivery(&run->report, outcome, &run->delivery);
        return run->payload.doubted;
    default:
        supply_kept(supply);
        report_delivery(&run->report, outcome, &run->delivery);
        return false;
    }
}

/* Sends the payload in hand. False: the run cannot go on. */
static bool deliver(run_t *run)
{
    const supply_payload_t *payload = &run->payload;
    delivery_outcome_t outcome =
        delivery_send(&run->delivery, payload->bytes, payload->length, payload->confirm, payload->doubted);
    bool goes_on = judge(run, outcome);
    log_progress(run->supply.delivered + supply_unsettled(&run->supply), supply_total(&run->supply));
    return goes_on;
}

/* Prints what comes down until more can be read from `input`; or, where that is -1, for as long as downlinks
 * are waited for after the last payload. False: the run cannot go on. */
static bool print_downlinks(run_t *run, int input)
{
    const options_t *options = &run->options;
    delivery_outcome_t outcome = input >= 0
                                     ? delivery_await_input(&run->delivery, input)
                                     : delivery_finish(&run->delivery, options->wait_ms, options->count);
    if (outcome == DELIVERY_LOST)
        supply_rewind(&run->supply);
    else if (outcome != DELIVERY_OK)
        report_delivery(&run->report, outcome, &run->delivery);
    return outcome == DELIVERY_OK || outcome == DELIVERY_LOST;
}

/* Sends every payload, the first of which is in hand, and prints every downlink. True: to the end. */
static bool send_all(run_t *run)
{
    for (;;) {
        if (!deliver(run))
            return false;
        int input = supply_fd(&run->supply);
        if (input >= 0 && !print_downlinks(run, input))
            return false;
        if (next_payload(run))
            continue;
        if (!print_downlinks(run, -1))
            return false;
        if (!next_payload(run)) /* else what was refused comes again */
            return is_settled(run, supply_settle(&run->supply, supply_unsettled(&run->supply)));
    }
}

/* Asks what waits, until nothing does. True: to the end. */
static bool ask(run_t *run)
{
    uint64_t most = run->options.count != 0 ? run->options.count : 1;
    delivery_outcome_t outcome = DELIVERY_CONFIRMED;
    for (uint64_t asked = 0; asked < most && outcome == DELIVERY_CONFIRMED; asked++) {
        outcome = delivery_send(&run->delivery, NULL, 0, true, false);
        if (run->delivery.exchange.body_length == 0)
            break;
    }
    if (outcome != DELIVERY_CONFIRMED)
        report_delivery(&run->report, outcome, &run->delivery);
    return outcome == DELIVERY_CONFIRMED;
}

/* --- The run --- */

static credentials_source_t credentials_of(const options_t *options)
{
    return (credentials_source_t){.cert_file = options->cert_file,
                                  .key_file = options->key_file,
                                  .passphrase_file = options->passphrase_file,
                                  .ca = options->ca,
                                  .psk_file = options->psk_file};
}

/* A run that hangs elsewhere than in a wait, as on a disk, is ended too, with this status. */
static void watch(const run_t *run, int status)
{
    process_watch(run->limit.deadline_ms - wait_now_ms(), status);
}

/* What is given is put into the queue, if there is one, where it is safe whatever fails later. */
static void accept(run_t *run)
{
    const options_t *options = &run->options;
    supply_config_t config = {.source = options->payload,
                              .queue = options->queue,
                              .queue_limit = options->queue_limit,
                              .confirm = options->confirm || options->coaps,
                              .limit = run->limit};
    watch(run, options->queue != NULL ? EX_CANTCREAT : EX_TEMPFAIL);
    supply_outcome_t outcome = supply_open(&run->supply, &config);
    if (outcome != SUPPLY_OK)
        report_supply(&run->report, outcome);
    while ((outcome = supply_accept(&run->supply)) != SUPPLY_END) {
        if (outcome != SUPPLY_OK)
            report_supply(&run->report, outcome);
    }
    watch(run, EX_TEMPFAIL);
}

/* The cron jobs of a fleet all fire at :00. This is not part of --timeout. False: a signal came. */
static bool splay(run_t *run)
{
    uint64_t random = 0;
    if (run->options.splay_ms == 0)
        return true;
    random_bytes(NULL, (unsigned char *)&random, sizeof random);
    int64_t delay_ms = (int64_t)(random % ((uint64_t)run->options.splay_ms + 1));
    log_step("waiting %.3f s before connecting", (double)delay_ms / 1000);
    run->limit.deadline_ms += delay_ms;
    supply_set_limit(&run->supply, run->limit);
    watch(run, EX_TEMPFAIL);
    if (wait_for(-1, 0, wait_at_most(run->limit, delay_ms)) != WAIT_INTERRUPTED)
        return true;
    report_failure(&run->report, EX_TEMPFAIL, "interrupted");
    return false;
}

static bool open_output(run_t *run)
{
    bool opened = output_open(&run->output, STDOUT_FILENO, run->options.format, run->server, run->limit);
    if (!opened)
        report_failure(&run->report, EX_IOERR, run->output.error);
    return opened;
}

/* Waits for the turn to send, and takes the first payload in hand. False: there is nothing to send. */
static bool take_first(run_t *run)
{
    if (run->options.method == METHOD_GET)
        return true;
    supply_outcome_t outcome = supply_begin(&run->supply);
    if (outcome != SUPPLY_OK)
        report_supply(&run->report, outcome);
    return outcome == SUPPLY_OK && next_payload(run);
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
    if (complete || run->delivery.measured)
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
                                  .credentials = credentials_of(options),
                                  .session_file = options->session,
                                  .answered = coaps_or_confirm,
                                  .lease_ms = options->lease_ms};
    bool complete = false;
    if (!take_first(run))
        return;
    bool connected = connect_to_server(run, &config);
    if (connected)
        complete = options->method == METHOD_GET ? ask(run) : send_all(run);
    leave_session(run, complete);
    supply_outcome_t outcome;
    while ((outcome = supply_finish(&run->supply)) != SUPPLY_END)
        report_supply(&run->report, outcome);
}
