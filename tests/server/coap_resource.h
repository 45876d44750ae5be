/* What a CoAP request does. POST and PUT store their payload in the device's inbox, and their response bears
 * the next message of its outbox, if there is one; GET asks for that alone. The first part of the path can
 * ask for something else, for tests:
 *
 *     error/4.04    that code, any one, with the diagnostic payload "asked for"
 *     reset         a reset
 *     silent        nothing, not even an acknowledgement
 *     busy          5.03 and Max-Age 30
 *     critical      acts; the response has a critical option that nobody knows
 *     echo          4.01 with an Echo option (RFC 9175), until that came back; then acts. echo/always: never
 *     large         GET: 5000 bytes, the alphabet over and over, in blocks of 256
 *     early         2.04 instead of 2.31 to each block of a payload
 *     lost          the block of number 2 finds that those before it are lost, once: 4.08
 */
#ifndef COAP_RESOURCE_H
#define COAP_RESOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "peer.h"
#include "run/coap.h"

enum { COAP_RESOURCE_ECHO = 8, COAP_UPLOAD_MAX = 65536, COAP_BODY_MAX = 16384 };

/* What is known of one association's requests. */
typedef struct {
    unsigned char echo[COAP_RESOURCE_ECHO];
    bool fresh;                            /* that came back */
    unsigned char upload[COAP_UPLOAD_MAX]; /* a payload of which blocks have come */
    size_t uploaded;
    bool lost;                         /* as the path asked for */
    unsigned char body[COAP_BODY_MAX]; /* the last one, of which blocks may be asked for */
    size_t body_length;
    uint8_t body_code;
} coap_resource_t;

typedef enum { COAP_ANSWER, COAP_ANSWER_RESET, COAP_ANSWER_NOTHING } coap_outcome_t;

/* A response. What is 0, false or NULL is left out. */
typedef struct {
    uint8_t code;
    const unsigned char *body; /* the resource's, or a constant */
    size_t length;
    size_t downlink; /* bytes in the message of the outbox that this begins */
    bool has_format, has_block1, has_block2, critical;
    unsigned format;
    uint32_t max_age, size1, size2;
    coap_block_t block1, block2;
    const unsigned char *echo;
} coap_answer_t;

void coap_resource_init(coap_resource_t *resource);

/* Acts on a request that is no duplicate. `answer` is filled in for COAP_ANSWER. */
coap_outcome_t coap_resource_act(coap_resource_t *resource, peer_t *peer, const coap_message_t *request,
                                 coap_answer_t *answer);

#endif
