/* In the place of the network, the clock and the kernel's randomness: datagrams go to the server in this
 * process, and come back as the fuzzer's script wants it; time passes only where somebody waits; randomness
 * is always the same. Replaces src/system/wait.c and src/system/random.c, and socket calls of the C library.
 */
#ifndef NETWORK_H
#define NETWORK_H

#include "fuzz.h"

/* Who gets what the client sends. */
typedef struct {
    void (*begin)(void);                                        /* the client has opened another socket */
    void (*receive)(const unsigned char *bytes, size_t length); /* a datagram of its came */
} network_peer_t;

/* Starts time and randomness afresh, without anything on the way. `script` tells what happens to the
 * datagrams to the client; it is read as they come, and is the caller's. */
void network_begin(const network_peer_t *peer, input_t *script);

/* From now on it is a day after all certificates have expired. */
void network_be_late(void);

/* Sends a datagram to the client as the next step of the script says. True: it will arrive whole, and as it
 * was. */
bool network_send(const unsigned char *bytes, size_t length);

/* Whether what was sent in several datagrams has come in one. */
bool network_has_glued(void);

#endif
