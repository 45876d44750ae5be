#include "run/report.h"

#include <string.h>
#include <sysexits.h>

#include "system/log.h"
#include "system/process.h"

static const int connection_statuses[] = {[DTLS_OK] = EX_OK,
                                          [DTLS_TIMEOUT] = EX_TEMPFAIL,
                                          [DTLS_CLOSED] = EX_TEMPFAIL,
                                          [DTLS_INTERRUPTED] = EX_TEMPFAIL,
                                          [DTLS_NAME_UNKNOWN] = EX_NOHOST,
                                          [DTLS_REFUSED] = EX_UNAVAILABLE,
                                          [DTLS_UNTRUSTED] = EX_NOPERM,
                                          [DTLS_REJECTED] = EX_NOPERM,
                                          [DTLS_CREDENTIALS] = EX_CONFIG,
                                          [DTLS_PROTOCOL] = EX_PROTOCOL,
                                          [DTLS_TOO_LARGE] = EX_DATAERR,
                                          [DTLS_SYSTEM] = EX_OSERR};

/* DELIVERY_BROKEN has the status of what broke the connection. */
static const int delivery_statuses[] = {[DELIVERY_OK] = EX_OK,
                                        [DELIVERY_CONFIRMED] = EX_OK,
                                        [DELIVERY_BODY_LOST] = EX_PROTOCOL,
                                        [DELIVERY_REFUSED] = EX_DATAERR,
                                        [DELIVERY_FORBIDDEN] = EX_NOPERM,
                                        [DELIVERY_BUSY] = EX_TEMPFAIL,
                                        [DELIVERY_UNEXPECTED] = EX_PROTOCOL,
                                        [DELIVERY_UNCONFIRMED] = EX_TEMPFAIL,
                                        [DELIVERY_LOST] = EX_UNAVAILABLE,
                                        [DELIVERY_UNWRITABLE] = EX_IOERR,
                                        [DELIVERY_BROKEN] = EX_SOFTWARE};

static const int supply_statuses[] = {[SUPPLY_OK] = EX_OK,
                                      [SUPPLY_END] = EX_OK,
                                      [SUPPLY_REFUSED] = EX_DATAERR,
                                      [SUPPLY_UNREADABLE] = EX_NOINPUT,
                                      [SUPPLY_UNSENDABLE] = EX_DATAERR,
                                      [SUPPLY_UNWRITABLE] = EX_CANTCREAT,
                                      [SUPPLY_TIMEOUT] = EX_TEMPFAIL,
                                      [SUPPLY_INTERRUPTED] = EX_TEMPFAIL,
                                      [SUPPLY_FAILED] = EX_OSERR};

/* Where the payload that was given is lost to the caller, it is no news that what waits cannot be sent
 * either. */
static log_level_t level_of(const report_t *report)
{
    const supply_t *supply = report->supply;
    bool lost = supply->config.queue != NULL && supply->given > 0 && supply->accepted == 0;
    return lost && report->status != EX_OK ? LOG_STEPS : LOG_ERROR;
}

void report_failure(report_t *report, int status, const char *message)
{
    const char *fate = supply_fate(report->supply);
    if (process_signal() == 0) {
        log_print(level_of(report), "%s%s", message, fate);
        report->status = report->status == EX_OK ? status : report->status;
    } else if (report->status != 128 + process_signal()) {
        log_error("ended by a signal: %s%s", strsignal(process_signal()), fate);
        report->status = 128 + process_signal();
    }
}

void report_connection(report_t *report, dtls_outcome_t outcome, const char *message)
{
    report_failure(report, connection_statuses[outcome], message);
}

void report_delivery(report_t *report, delivery_outcome_t outcome, const delivery_t *delivery)
{
    bool broken = outcome == DELIVERY_BROKEN;
    report_failure(report, broken ? connection_statuses[delivery->broken] : delivery_statuses[outcome],
                   delivery->error);
}

void report_supply(report_t *report, supply_outcome_t outcome)
{
    if (outcome != SUPPLY_UNSENDABLE) {
        report_failure(report, supply_statuses[outcome], report->supply->error);
        return;
    }
    log_error("%s", report->supply->error);
    report->unsendable = true;
}

bool report_may_pass(const report_t *report)
{
    return report->status == EX_UNAVAILABLE || report->status == EX_TEMPFAIL;
}

int report_status(const report_t *report)
{
    return report->status == EX_OK && report->unsendable ? EX_DATAERR : report->status;
}
