/* A DTLS server on mbed TLS in the process of the client that it serves. It is honest until it is told
 * otherwise. */
#ifndef SERVER_H
#define SERVER_H

#include "credentials/credentials.h"
#include "fuzz.h"
#include "network.h"

#define SERVER_NAME "server.test"

enum { SERVER_RECORD_MAX = 16384 };

/* How it does the handshake. */
typedef struct {
    bool cookies; /* begins with a HelloVerifyRequest */
    bool tickets;
    bool sessions; /* knows the session that server_remember() saw */
    bool mute;     /* says nothing of its own */
    bool psk;      /* has a pre-shared key, and no certificate */
} server_manner_t;

/* Makes keys and certificates; first call. */
void server_prepare(void);

/* What the client would read from files: a certificate and a key, or a pre-shared key. */
void server_give_credentials(credentials_t *credentials);
void server_give_psk(credentials_t *credentials);

/* The server's end of the network. Its handshakes will be in this manner. */
const network_peer_t *server_peer(server_manner_t manner);

/* Keeps the session of the handshake that was just completed, for all others. */
void server_remember_session(void);

/* Keeps the association, out of which server_resume() goes on, any number of times. */
void server_remember_association(void);
void server_resume(void);

/* Whether it can send and be sent to. */
bool server_is_connected(void);

/* Sends a record, well encrypted, of any type and content. */
void server_send_record(unsigned char type, input_t content);

/* Whether the last payload that came was this one; forgets it then. */
bool server_got(const void *payload, size_t length);

/* Takes the downlink that the client says it received: false where none was sent that was not taken before.
 */
bool server_sent(const void *downlink, size_t length);

/* Whether a downlink that was given whole to the network was not taken yet. Never after other records than
 * downlinks, for one that the client cannot bear takes the rest of its datagram with it; nor for empty ones,
 * which the library does not tell apart where several records come in a datagram. */
bool server_misses_a_downlink(void);

#endif
