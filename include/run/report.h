/* A run's failures: each is told in one line on standard error, with what became of the payloads, and the
 * first decides the exit status. The only place that knows which status an outcome has. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>

#include "dtls/outcome.h"
#include "run/delivery.h"
#include "run/supply.h"

typedef struct {
    supply_t *supply; /* says what became of the payloads; not owned */
    int status;       /* so far; 0: nothing failed */
    bool unsendable;  /* something in the queue is: every other failure outranks that */
} report_t;

/* Tells a failure with this status. A signal outranks what it interrupted, and is told once. */
void report_failure(report_t *report, int status, const char *message);

/* The same for an outcome of a module, and its words. */
void report_connection(report_t *report, dtls_outcome_t outcome, const char *message);
void report_delivery(report_t *report, delivery_outcome_t outcome, const delivery_t *delivery);
void report_supply(report_t *report, supply_outcome_t outcome);

/* Whether the failure may pass by itself: the server was out of reach, or did not answer. */
bool report_may_pass(const report_t *report);

/* The exit status of the whole run. */
int report_status(const report_t *report);

#endif
