/* How a DTLS call ended. Zero bytes, a timeout, a close and an error are four things. */
#ifndef DTLS_OUTCOME_H
#define DTLS_OUTCOME_H

typedef enum {
    DTLS_OK,
    DTLS_TIMEOUT,      /* nothing came in time */
    DTLS_CLOSED,       /* the server closed the connection (close_notify), or there is none */
    DTLS_INTERRUPTED,  /* limit.cancel_fd became readable */
    DTLS_NAME_UNKNOWN, /* no such host */
    DTLS_REFUSED,     /* every address refused or out of reach; or, once connected, nobody listens any more */
    DTLS_UNTRUSTED,   /* the server's certificate is not acceptable */
    DTLS_REJECTED,    /* the server does not accept ours */
    DTLS_CREDENTIALS, /* ours cannot be used */
    DTLS_PROTOCOL,    /* the handshake failed for another reason, or a fatal alert came */
    DTLS_TOO_LARGE,   /* more than one record, or the caller's buffer, can hold */
    DTLS_SYSTEM       /* no memory, no socket, no entropy */
} dtls_outcome_t;

#endif
