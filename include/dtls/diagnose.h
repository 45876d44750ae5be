/* Why a connection failed, in words and as an outcome. */
#ifndef DIAGNOSE_H
#define DIAGNOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtls/outcome.h"
#include "dtls/verification.h"

/* What is known about a failure. Strings and pointers stay the caller's. */
typedef struct {
    int status;       /* mbed TLS's error */
    int socket_error; /* errno of the socket call that failed; it outranks the status; 0: none did */
    const char *peer; /* numeric address and port */
    bool heard;       /* something came from there */
    bool connected;   /* the handshake was complete */
    bool psk;         /* with a pre-shared key */
    int alert;        /* the fatal alert's number; only where the status says that one came */
    uint32_t flaws;   /* mbedtls_ssl_get_verify_result() */
    const verification_t *verification;
} failure_t;

/* Says what a failure means: returns the outcome, and puts a clause for people into `reason`. */
dtls_outcome_t diagnose(const failure_t *failure, char *reason, size_t size);

#endif
