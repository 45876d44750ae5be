/* What dtls.c and association.c, both halves of dtls.h, have in common. Internal to them. */
#ifndef DTLS_INTERNAL_H
#define DTLS_INTERNAL_H

#include "dtls.h"

/* Notes the reason behind "HOST:PORT: ", for dtls_error_text(), and returns `outcome`. */
dtls_outcome_t dtls_fail(dtls_state_t *state, dtls_outcome_t outcome, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Notes what an mbed TLS error, or where `status` is 0 the transport's, means to the caller. */
dtls_outcome_t dtls_explain(dtls_state_t *state, int status);

/* The callbacks that handshakes and resumed associations need alike. */
void dtls_add_callbacks(dtls_state_t *state);

/* Makes a fresh context on the socket that was just opened. Returns 0 or an mbed TLS error. */
int dtls_prepare(dtls_state_t *state);

/* Tells with -v how much went over the network. */
void dtls_log_traffic(const dtls_state_t *state);

#endif
