/* Delivering payloads over a connection, one after the other, each sent once or until it is confirmed, and
 * printing the downlinks that come meanwhile. */
#ifndef DELIVERY_H
#define DELIVERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command/output.h"
#include "run/connection.h"
#include "system/wait.h"

typedef enum {
    DELIVERY_OK,
    DELIVERY_TOO_LARGE,   /* for this server; the next payload may fit */
    DELIVERY_UNCONFIRMED, /* no downlink answered in time */
    DELIVERY_UNWRITABLE,  /* a downlink could not be printed */
    DELIVERY_BROKEN       /* the connection is; delivery->broken says by what */
} delivery_outcome_t;

typedef struct {
    connection_t *connection; /* open; not owned, nor is the output */
    output_t *output;
    bool confirm;       /* a payload is sent until a downlink answers it */
    wait_limit_t limit; /* bounds every call */

    const unsigned char *payload; /* sent last; where a reused association proves dead it is sent again */
    size_t length;
    unsigned char downlink[DTLS_PAYLOAD_MAX];
    uint64_t downlinks;    /* printed so far */
    dtls_outcome_t broken; /* for DELIVERY_BROKEN */
    const char *error;     /* one line on why the last call did not return DELIVERY_OK; its owner's */
} delivery_t;

/* Sends a payload, which must stay where it is until the next. DELIVERY_OK: it was given to the network once;
 * or, with `confirm`, a downlink has answered it (RFC 7252 section 4.8), and was printed. */
delivery_outcome_t delivery_send(delivery_t *delivery, const unsigned char *payload, size_t length);

/* Prints downlinks until `wait_ms` pass in silence (0: those that have arrived), `enough` were printed in the
 * whole run (0: no limit), or, where `may_close`, the server closes. DELIVERY_OK, UNWRITABLE or BROKEN. */
delivery_outcome_t delivery_receive(delivery_t *delivery, int64_t wait_ms, uint64_t enough, bool may_close);

/* The pause that must be made between two payloads, in which downlinks are printed. As above. */
delivery_outcome_t delivery_pause(delivery_t *delivery);

#endif
