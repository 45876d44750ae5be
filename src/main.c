/* dtls-send: sends payloads over DTLS and prints the downlinks that a server had queued for this device.
 * This file is the story of a run, and the only place that knows exit statuses. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "dtls.h"
#include "log.h"
#include "options.h"
#include "output.h"
#include "payload.h"
#include "random.h"
#include "session.h"
#include "signals.h"

enum {
    CONFIRM_WAIT_MS =
        2000, /* RFC 7252's ACK_TIMEOUT; three round trips where these are known, but not less than */
    CONFIRM_WAIT_LEAST_MS = 250,
    CONFIRM_WAIT_MOST_MS = 8000, /* leaves room for many tries where much is lost */
    REUSED_TRANSMISSIONS = 2,    /* without an answer to these a reused association is given up */
    PACE_MS = 1 /* between --lines: no server's socket buffer takes thousands of datagrams at once */
};

typedef struct {
    options_t options;
    wait_limit_t limit;
    char server[OPTIONS_HOST_SIZE + 9]; /* "host:port", for people */
    payload_reader_t payloads;
    output_t output;
    dtls_state_t dtls;
    unsigned char downlink[DTLS_PAYLOAD_MAX];
    session_t saved;                             /* what the last run left, and what this one will leave */
    unsigned char binding[SESSION_BINDING_SIZE]; /* what that is good for */
    bool reused; /* the association of an earlier run is in use, and the server may have forgotten it */
    uint64_t downlinks; /* printed so far */
    int status;         /* the first failure's */
} run_t;

/* A descriptor that was closed would be given to the socket, and messages or downlinks would go to the
 * server. What stands in for it fails as a closed one does. */
static void hold_standard_descriptors(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            _exit(EX_OSERR);
    }
}

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
        return 128 + signals_caught();
    case DTLS_NAME_UNKNOWN:
        return EX_NOHOST;
    case DTLS_REFUSED:
        return EX_UNAVAILABLE;
    case DTLS_UNTRUSTED:
    case DTLS_REJECTED:
        return EX_NOPERM;
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
 */
static void note_failure(run_t *run, int status, const char *message)
{
    if (signals_caught() == 0) {
        log_error("%s", message);
        run->status = run->status == EX_OK ? status : run->status;
    } else if (run->status != 128 + signals_caught()) {
        log_error("ended by a signal: %s", strsignal(signals_caught()));
        run->status = 128 + signals_caught();
    }
}

static bool succeeded(run_t *run, dtls_outcome_t outcome)
{
    if (outcome != DTLS_OK)
        note_failure(run, status_of(outcome), dtls_error_text(&run->dtls));
    return outcome == DTLS_OK;
}

/* --- The run --- */

/* The next payload that can be sent; those that cannot are told and passed over. False: there is none. */
static bool next_payload(run_t *run)
{
    for (;;) {
        switch (payload_next(&run->payloads)) {
        case PAYLOAD_OK:
            return true;
        case PAYLOAD_END:
            return false;
        case PAYLOAD_REFUSED:
            note_failure(run, EX_DATAERR, run->payloads.error);
            break;
        case PAYLOAD_UNREADABLE:
            note_failure(run, EX_NOINPUT, run->payloads.error);
            return false;
        case PAYLOAD_TIMEOUT:
        case PAYLOAD_INTERRUPTED:
            note_failure(run, EX_TEMPFAIL, run->payloads.error);
            return false;
        }
    }
}

static credentials_source_t credentials_of(const run_t *run)
{
    return (credentials_source_t){.cert_file = run->options.cert_file,
                                  .key_file = run->options.key_file,
                                  .passphrase_file = run->options.passphrase_file,
                                  .ca = run->options.ca};
}

static dtls_config_t config_of(const run_t *run)
{
    return (dtls_config_t){.host = run->options.host,
                           .port = run->options.port,
                           .server_name = run->options.server_name,
                           .family = run->options.family,
                           .mtu = run->options.mtu,
                           .session = {run->saved.session, run->saved.session_length},
                           .want_ticket = run->saved.want_ticket,
                           .offer_connection_id = run->options.session != NULL,
                           .round_trip_us = run->saved.round_trip_us,
                           .limit = run->limit};
}

static bool is_same_file(const char *path, const char *other)
{
    struct stat status, other_status;
    return other != NULL && stat(path, &status) == 0 && stat(other, &other_status) == 0 &&
           status.st_dev == other_status.st_dev && status.st_ino == other_status.st_ino;
}

/* The session's file is taken away and written anew: it must be nothing that is dear. */
static bool spares_credentials(run_t *run)
{
    const options_t *options = &run->options;
    const char *path = options->session;
    if (path == NULL || !(is_same_file(path, options->cert_file) || is_same_file(path, options->key_file) ||
                          is_same_file(path, options->passphrase_file) || is_same_file(path, options->ca)))
        return true;
    note_failure(run, EX_USAGE, "--session: names a file of credentials, which it would replace");
    return false;
}

/* Takes what the last run saved. It is good for the same server, name, credentials and libraries only. */
static void take_session(run_t *run)
{
    unsigned char digest[32];
    credentials_source_t source = credentials_of(run);
    const options_t *options = &run->options;
    const char *name = options->server_name != NULL ? options->server_name : options->host;
    if (options->session == NULL || !credentials_digest(&source, digest))
        return; /* credentials that cannot be read are told of when they are loaded */
    session_part_t parts[] = {{VERSION, sizeof VERSION},
                              {dtls_library(), strlen(dtls_library())},
                              {run->server, strlen(run->server)},
                              {name, strlen(name)},
                              {&options->family, sizeof options->family},
                              {digest, sizeof digest}};
    if (session_bind(run->binding, parts, sizeof parts / sizeof parts[0]))
        session_take(options->session, run->binding, &run->saved);
}

static bool load_credentials(run_t *run)
{
    credentials_source_t source = credentials_of(run);
    if (credentials_load(&run->dtls.credentials, &source))
        return true;
    note_failure(run, EX_CONFIG, run->dtls.credentials.error);
    return false;
}

/* Notes what a handshake has brought for later runs. */
static void note_session(run_t *run)
{
    dtls_blob_t session;
    run->saved.heard_ms = session_clock_ms();
    if (run->options.session == NULL)
        return;
    /* A ticket that holds our certificate would make every ClientHello larger than the certificate; only a
     * server that gives no session id is asked for one, and then always. */
    if (!dtls_save_session(&run->dtls, &session))
        run->saved.want_ticket = true;
    session_replace(&run->saved, session.bytes, session.length);
    if (dtls_expiry(&run->dtls) != 0)
        run->saved.expiry = dtls_expiry(&run->dtls);
}

/* A handshake, abbreviated where the last run's session allows it. */
static bool connect_to_server(run_t *run)
{
    dtls_config_t config = config_of(run);
    if (!load_credentials(run))
        return false;
    dtls_outcome_t outcome = dtls_connect(&run->dtls, &config);
    bool failed_over_session =
        outcome == DTLS_PROTOCOL || outcome == DTLS_UNTRUSTED || outcome == DTLS_REJECTED;
    if (failed_over_session && run->saved.session != NULL) {
        log_step("once more, without the saved session");
        session_replace(&run->saved, NULL, 0);
        dtls_close(&run->dtls);
        return connect_to_server(run);
    }
    if (!succeeded(run, outcome))
        return false;
    note_session(run);
    return true;
}

/* Goes on with the last run's association where that may be trusted: it proves nothing about the server by
 * itself. Where it may not, the server is told goodbye by it if that may be needed. */
static bool reuse_association(run_t *run)
{
    dtls_blob_t association = {run->saved.association, run->saved.association_length};
    dtls_config_t config = config_of(run);
    bool trusted = run->options.confirm || session_clock_ms() - run->saved.heard_ms < run->options.lease_ms;
    dtls_outcome_t outcome = DTLS_CLOSED;
    if (association.bytes != NULL && (trusted || dtls_is_known_by_address(&association)))
        outcome = dtls_resume(&run->dtls, &config, &association);
    session_drop_association(&run->saved);
    if (outcome != DTLS_OK && outcome != DTLS_CLOSED)
        log_step("%s", dtls_error_text(&run->dtls));
    run->reused = outcome == DTLS_OK && trusted;
    if (run->reused)
        log_step("association with %s reused: no handshake", run->server);
    else
        dtls_close(&run->dtls);
    return run->reused;
}

static bool open_connection(run_t *run)
{
    take_session(run);
    return reuse_association(run) || connect_to_server(run);
}

/* The server has forgotten the association, or cannot be reached by it: a new handshake, from a fresh source
 * port since some servers do not listen to a ClientHello from one that has an association. */
static bool connect_anew(run_t *run)
{
    log_step("the reused association is of no use any more");
    run->reused = false;
    dtls_close(&run->dtls);
    return connect_to_server(run);
}

/* Leaves the next run what it needs. No close_notify then: it would end what is kept. */
static void keep_session(run_t *run)
{
    dtls_blob_t association;
    const char *reason = NULL;
    if (run->options.session == NULL)
        return;
    run->saved.round_trip_us = dtls_round_trip_us(&run->dtls);
    if (dtls_suspend(&run->dtls, &association)) {
        run->saved.association = association.bytes;
        run->saved.association_length = association.length;
    }
    if (!session_put(run->options.session, run->binding, &run->saved, &reason))
        log_error("%s: the session is not saved: %s", run->options.session, reason);
}

static bool print_downlink(run_t *run, size_t length)
{
    log_step("downlink of %zu bytes", length);
    run->downlinks++;
    run->saved.heard_ms = session_clock_ms();
    run->reused = false; /* whoever answers has not forgotten */
    if (output_write(&run->output, run->downlink, length))
        return true;
    note_failure(run, EX_IOERR, run->output.error);
    return false;
}

static dtls_outcome_t transmit(run_t *run)
{
    dtls_outcome_t outcome = dtls_send(&run->dtls, run->payloads.bytes, run->payloads.length);
    if (outcome == DTLS_OK)
        log_step("payload of %zu bytes sent", run->payloads.length);
    return outcome;
}

/* Prints downlinks until `wait_ms` pass in silence or, once all is sent, there were enough or the server
 * closes. False: the run cannot go on. */
static bool take_downlinks(run_t *run, int64_t wait_ms, bool all_sent)
{
    uint64_t enough = all_sent && run->options.count != 0 ? run->options.count : UINT64_MAX;
    while (run->downlinks < enough) {
        size_t length = 0;
        dtls_outcome_t outcome =
            dtls_receive(&run->dtls, run->downlink, sizeof run->downlink, &length, wait_ms);
        if (outcome == DTLS_TIMEOUT || (outcome == DTLS_CLOSED && all_sent))
            return true;
        if (run->reused && outcome == DTLS_REFUSED) { /* the payload has certainly not arrived */
            if (!connect_anew(run) || !succeeded(run, transmit(run)))
                return false;
        } else if (!succeeded(run, outcome) || !print_downlink(run, length)) {
            return false;
        }
    }
    return true;
}

static bool send_payload(run_t *run)
{
    dtls_outcome_t outcome = transmit(run);
    if (run->reused && outcome != DTLS_OK && outcome != DTLS_TOO_LARGE && connect_anew(run))
        outcome = transmit(run);
    return succeeded(run, outcome) || outcome == DTLS_TOO_LARGE; /* the next one may fit */
}

/* The wait after a first transmission (RFC 7252 section 4.2): random, so that devices that lost the same
 * answer do not all come back at once. */
static int64_t first_wait_ms(const run_t *run)
{
    uint16_t random = 0;
    int64_t wait_ms = 3 * dtls_round_trip_us(&run->dtls) / 1000;
    if (wait_ms == 0 && dtls_round_trip_us(&run->dtls) == 0)
        wait_ms = CONFIRM_WAIT_MS;
    else if (wait_ms < CONFIRM_WAIT_LEAST_MS)
        wait_ms = CONFIRM_WAIT_LEAST_MS;
    random_bytes(NULL, (unsigned char *)&random, sizeof random);
    return wait_ms + wait_ms * random / UINT16_MAX / 2;
}

/* Sends the payload, and again (RFC 7252 section 4.8), until a downlink answers. */
static bool confirm_payload(run_t *run)
{
    int64_t wait_ms = first_wait_ms(run);
    for (int transmissions = 1;; transmissions++) {
        size_t length = 0;
        dtls_outcome_t outcome = transmit(run);
        if (outcome == DTLS_OK)
            outcome = dtls_receive(&run->dtls, run->downlink, sizeof run->downlink, &length, wait_ms);
        if (outcome == DTLS_OK)
            return print_downlink(run, length);
        if (outcome == DTLS_TIMEOUT && wait_now_ms() >= run->limit.deadline_ms) {
            note_failure(run, EX_TEMPFAIL,
                         "not confirmed: no downlink answered the payload before --timeout");
            return false;
        }
        if (outcome == DTLS_TOO_LARGE || outcome == DTLS_INTERRUPTED)
            return succeeded(run, outcome) || outcome == DTLS_TOO_LARGE;
        if (run->reused && (outcome != DTLS_TIMEOUT || transmissions == REUSED_TRANSMISSIONS)) {
            if (!connect_anew(run))
                return false;
            transmissions = 0;
            wait_ms = first_wait_ms(run);
        } else if (outcome == DTLS_TIMEOUT) {
            wait_ms = wait_ms < CONFIRM_WAIT_MOST_MS / 2 ? 2 * wait_ms : CONFIRM_WAIT_MOST_MS;
        } else {
            return succeeded(run, outcome);
        }
    }
}

/* Between --lines: waits until there is more to read, and prints what comes down meanwhile. False: the run
 * cannot go on. */
static bool await_line(run_t *run)
{
    bool readable = false;
    /* A downlink that comes late would pass for the next line's confirmation. */
    int64_t late_ms = run->options.confirm ? dtls_round_trip_us(&run->dtls) / 1000 : 0;
    if (!take_downlinks(run, late_ms > PACE_MS ? late_ms : PACE_MS, false))
        return false;
    for (int fd; !readable && (fd = payload_fd(&run->payloads)) >= 0;) {
        /* payload_next() finds the same deadline or signal, and tells of it. */
        if (wait_for_input(fd, dtls_fd(&run->dtls), run->limit, &readable) != WAIT_READY)
            break;
        if (!readable && !take_downlinks(run, 0, false))
            return false;
    }
    return true;
}

/* Sends every payload, the first of which has been read, and prints every downlink. */
static void exchange(run_t *run)
{
    bool lines = run->options.payload.kind == PAYLOAD_LINES, confirm = run->options.confirm;
    bool going = true;
    do {
        going = (confirm ? confirm_payload(run) : send_payload(run)) && (!lines || await_line(run));
    } while (going && next_payload(run));
    if (going && take_downlinks(run, run->options.wait_ms, true))
        keep_session(run);
}

static void run_once(run_t *run)
{
    payload_open(&run->payloads, run->options.payload, run->limit);
    dtls_init(&run->dtls);
    if (!output_open(&run->output, STDOUT_FILENO, run->options.format, run->server, run->limit))
        note_failure(run, EX_IOERR, run->output.error);
    else if (spares_credentials(run) && next_payload(run) && open_connection(run))
        exchange(run);
    session_free(&run->saved);
    dtls_close(&run->dtls);
    payload_close(&run->payloads);
}

static int print_and_end(options_outcome_t wish)
{
    if (wish == OPTIONS_HELP)
        options_print_help(stdout);
    else
        printf("dtls-send " VERSION " (%s)\n", dtls_library());
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return EX_OK;
    log_error("standard output: %s", strerror(errno));
    return EX_IOERR;
}

int main(int argc, char **argv)
{
    static run_t run; /* large: not for the stack */
    char error[512];

    hold_standard_descriptors();
    options_outcome_t wish = options_parse(argc, argv, &run.options, error, sizeof error);
    if (wish == OPTIONS_BAD) {
        log_error("%s", error);
        return EX_USAGE;
    }
    if (wish != OPTIONS_RUN)
        return print_and_end(wish);

    log_set_level((log_level_t)run.options.verbosity);
    signals_catch(run.options.timeout_ms);
    run.limit = wait_limit_in(run.options.timeout_ms);
    run.limit.cancel_fd = signals_fd();
    bool bracketed = strchr(run.options.host, ':') != NULL;
    snprintf(run.server, sizeof run.server, bracketed ? "[%s]:%s" : "%s:%s", run.options.host,
             run.options.port);
    run_once(&run);
    return run.status;
}
