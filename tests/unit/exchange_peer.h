/* The other end of an exchange, for its tests: hands in messages as a server would send them, and reads what
 * is under way. */
#ifndef EXCHANGE_PEER_H
#define EXCHANGE_PEER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/exchange.h"

enum { ETAG = 4, UNKNOWN_CRITICAL = 2049, UNKNOWN_ELECTIVE = 2050 };

static exchange_t exchange;
static uint16_t next_id, next_token;

/* /sensor?a=1 */
static const unsigned char uri_options[] = "\x0b\x06sensor\x0f\x03"
                                           "a=1";

/* A message of the server. By default it has the id and the token of what is under way. */
typedef struct {
    coap_type_t type;
    uint8_t code;
    uint16_t id; /* 0: that of the message under way */
    bool other_token;
    const char *tag;
    int format; /* Content-Format, one more than its number; 0: none */
    int max_age;
    bool has_block2, has_block1;
    coap_block_t block2, block1;
    const char *echo;
    unsigned other_option;
    const char *payload;
    size_t payload_length; /* 0: the payload is a string */
} answer_t;

static size_t write_answer(const answer_t *answer, unsigned char *bytes, size_t size)
{
    uint16_t token = (uint16_t)(exchange.token + (answer->other_token ? 1 : 0));
    unsigned char token_bytes[2] = {(unsigned char)(token >> 8), (unsigned char)token};
    coap_writer_t writer;
    coap_begin(&writer, bytes, size, answer->type, answer->code, answer->id == 0 ? exchange.id : answer->id,
               token_bytes, answer->code == COAP_EMPTY ? 0 : 2);
    if (answer->tag != NULL)
        coap_add_option(&writer, ETAG, answer->tag, strlen(answer->tag));
    if (answer->format > 0)
        coap_add_uint(&writer, COAP_CONTENT_FORMAT, (uint32_t)answer->format - 1);
    if (answer->max_age > 0)
        coap_add_uint(&writer, COAP_MAX_AGE, (uint32_t)answer->max_age);
    if (answer->has_block2)
        coap_add_uint(&writer, COAP_BLOCK2, coap_block_value(answer->block2));
    if (answer->has_block1)
        coap_add_uint(&writer, COAP_BLOCK1, coap_block_value(answer->block1));
    if (answer->echo != NULL)
        coap_add_option(&writer, COAP_ECHO, answer->echo, strlen(answer->echo));
    if (answer->other_option > 0)
        coap_add_uint(&writer, answer->other_option, 1);
    if (answer->payload != NULL)
        coap_add_payload(&writer, answer->payload,
                         answer->payload_length > 0 ? answer->payload_length : strlen(answer->payload));
    assert_int_not_equal(coap_end(&writer), 0);
    return coap_end(&writer);
}

/* Hands in a copy that ends where the message does, and is gone afterwards. */
static exchange_step_t take_bytes(const void *bytes, size_t length)
{
    unsigned char *copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    if (length > 0)
        memcpy(copy, bytes, length);
    exchange_step_t step = exchange_take(&exchange, copy, length);
    free(copy);
    return step;
}

static exchange_step_t take_answer(const answer_t *answer)
{
    unsigned char bytes[EXCHANGE_MESSAGE_MAX];
    return take_bytes(bytes, write_answer(answer, bytes, sizeof bytes));
}

#define SAYS(...)                  take_answer(&(answer_t){__VA_ARGS__})
#define PIGGYBACKED(...)           SAYS(.type = COAP_ACKNOWLEDGEMENT, .code = __VA_ARGS__)
#define SEPARATE(...)              SAYS(.type = COAP_CONFIRMABLE, .code = __VA_ARGS__)
#define NON(...)                   SAYS(.type = COAP_NON_CONFIRMABLE, .code = __VA_ARGS__)
#define BLOCK1(number, more, size) .has_block1 = true, .block1 = {number, more, size}
#define BLOCK2(number, more, size) .has_block2 = true, .block2 = {number, more, size}

/* The exchange has just replied with an empty message of that type, to that id. */
static inline void replied(coap_type_t type, uint16_t id)
{
    coap_message_t reply;
    assert_true(coap_parse(&reply, exchange.reply, exchange.reply_length));
    assert_int_equal(reply.type, type);
    assert_int_equal(reply.code, COAP_EMPTY);
    assert_int_equal(reply.id, id);
}

static inline void replied_nothing(void)
{
    assert_int_equal(exchange.reply_length, 0);
}

static inline void ended(exchange_step_t step, exchange_verdict_t verdict)
{
    assert_int_equal(step, EXCHANGE_ANSWERED);
    assert_int_equal(exchange.verdict, verdict);
    assert_false(exchange.waiting);
}

/* The message under way. */
static coap_message_t request(void)
{
    coap_message_t message;
    assert_true(coap_parse(&message, exchange.message, exchange.message_length));
    assert_int_equal(message.type, COAP_CONFIRMABLE);
    assert_int_equal(message.id, exchange.id);
    assert_int_equal(message.token_length, 2);
    assert_int_equal(message.token[0] << 8 | message.token[1], exchange.token);
    return message;
}

static void begin_with(uint8_t method, const void *payload, size_t length)
{
    exchange_config_t config = {.method = method,
                                .uri_options = uri_options,
                                .uri_options_length = sizeof uri_options - 1,
                                .content_format = 60,
                                .message_id = &next_id,
                                .token = &next_token};
    exchange_init(&exchange, &config);
    assert_true(exchange_begin(&exchange, payload, length));
}

static inline void post(const char *payload)
{
    begin_with(COAP_POST, payload, strlen(payload));
}

/* Counters that wrap soon. */
static int reset_counters(void **state)
{
    (void)state;
    next_id = 0xfffd;
    next_token = 0xfffe;
    return 0;
}

#endif
