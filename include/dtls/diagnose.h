/* Why a connection failed, in words and as an outcome. */
#ifndef DIAGNOSE_H
#define DIAGNOSE_H

#include "dtls.h"

/* Says what `status`, an mbed TLS error returned for state->ssl, or state->transport.error where that is set,
 * means to the caller: the outcome, and a clause for people in `reason`. Changes nothing in the state. */
dtls_outcome_t diagnose(const dtls_state_t *state, int status, char *reason, size_t size);

#endif
