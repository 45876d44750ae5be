#include "run/exchange.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    ETAG = 4,
    ID_SIZE = 2,          /* of a token: 65536 exchanges under one key are more than there will be */
    LARGEST_EXPONENT = 6, /* blocks of 1024 bytes */
    UNBLOCKED_MAX = 1024  /* a payload up to here goes in one message (RFC 7252 section 4.6) */
};

static size_t size_of(unsigned exponent)
{
    return (size_t)16 << exponent;
}

static void add_uri_options(coap_writer_t *writer, const exchange_config_t *config, unsigned number)
{
    const unsigned char *at = config->uri_options, *last = at + config->uri_options_length;
    for (; last - at >= 2; at += 2 + at[1]) {
        if (at[0] == number)
            coap_add_option(writer, number, at + 2, at[1]);
    }
}

static size_t block_length(const exchange_t *exchange)
{
    size_t left = exchange->length - exchange->offset, size = size_of(exchange->size_exponent);
    return exchange->blockwise && left > size ? size : left;
}

static bool is_last_block(const exchange_t *exchange)
{
    return exchange->offset + block_length(exchange) == exchange->length;
}

/* Puts the next message together: a part of the payload, or, once that is confirmed, the request for the next
 * part of the response's body (RFC 7959 sections 2.2 and 3.3). */
static bool build(exchange_t *exchange)
{
    const exchange_config_t *config = &exchange->config;
    bool fetches = exchange->confirmed;
    coap_writer_t writer;
    unsigned char token[ID_SIZE] = {(unsigned char)(exchange->token >> 8), (unsigned char)exchange->token};
    coap_block_t block = {.number = exchange->body_block, .size_exponent = exchange->size_exponent};
    exchange->id = (*config->message_id)++;
    coap_begin(&writer, exchange->message, sizeof exchange->message, COAP_CONFIRMABLE, config->method,
               exchange->id, token, sizeof token);
    add_uri_options(&writer, config, COAP_URI_PATH);
    if (config->content_format >= 0 && !fetches)
        coap_add_uint(&writer, COAP_CONTENT_FORMAT, (uint32_t)config->content_format);
    add_uri_options(&writer, config, COAP_URI_QUERY);
    if (fetches)
        coap_add_uint(&writer, COAP_BLOCK2, coap_block_value(block));
    if (exchange->blockwise && !fetches) {
        block.number = (uint32_t)(exchange->offset / size_of(exchange->size_exponent));
        block.more = !is_last_block(exchange);
        coap_add_uint(&writer, COAP_BLOCK1, coap_block_value(block));
        if (block.number == 0)
            coap_add_uint(&writer, COAP_SIZE1, (uint32_t)exchange->length);
    }
    if (exchange->echo_length > 0)
        coap_add_option(&writer, COAP_ECHO, exchange->echo, exchange->echo_length);
    if (!fetches && exchange->length > 0)
        coap_add_payload(&writer, exchange->payload + exchange->offset, block_length(exchange));
    exchange->message_length = coap_end(&writer);
    return exchange->message_length > 0;
}

static bool start(exchange_t *exchange)
{
    exchange->token = (*exchange->config.token)++;
    exchange->offset = 0;
    exchange->waiting = build(exchange);
    return exchange->waiting;
}

void exchange_init(exchange_t *exchange, const exchange_config_t *config)
{
    exchange->config = *config;
    exchange->waiting = exchange->has_acknowledged = false;
    exchange->reply_length = 0;
}

bool exchange_begin(exchange_t *exchange, const unsigned char *payload, size_t length)
{
    exchange->payload = payload;
    exchange->length = length;
    exchange->blockwise = length > UNBLOCKED_MAX;
    exchange->size_exponent = LARGEST_EXPONENT;
    exchange->restarted = exchange->resized = exchange->confirmed = exchange->body_lost = false;
    exchange->echo_length = exchange->body_length = exchange->tag_length = 0;
    exchange->body_format = -1;
    exchange->text[0] = '\0';
    return start(exchange);
}

static exchange_step_t end(exchange_t *exchange, exchange_verdict_t verdict)
{
    exchange->waiting = false;
    exchange->verdict = verdict;
    return EXCHANGE_ANSWERED;
}

static exchange_step_t lose_body(exchange_t *exchange, const char *reason)
{
    snprintf(exchange->text, sizeof exchange->text, "the body of the response is lost: %s", reason);
    exchange->body_lost = true;
    exchange->body_length = 0;
    return end(exchange, EXCHANGE_CONFIRMED);
}

bool exchange_restart(exchange_t *exchange)
{
    exchange->has_acknowledged = false;
    if (exchange->confirmed && exchange->config.method != COAP_GET) {
        lose_body(exchange, "the server forgot the connection in the midst of it");
        return false;
    }
    /* Nobody there asked for an Echo yet, or lost a block. The server's wish for smaller blocks stays. */
    exchange->confirmed = exchange->restarted = false;
    exchange->echo_length = exchange->body_length = exchange->tag_length = 0;
    exchange->body_format = -1;
    return start(exchange);
}

void exchange_abandon(exchange_t *exchange)
{
    if (exchange->waiting && exchange->confirmed)
        lose_body(exchange, "no answer came for the rest of it");
    exchange->waiting = false;
}

static void reply(exchange_t *exchange, coap_type_t type, uint16_t id)
{
    coap_writer_t writer;
    coap_begin(&writer, exchange->reply, sizeof exchange->reply, type, COAP_EMPTY, id, NULL, 0);
    exchange->reply_length = coap_end(&writer);
}

/* --- Failures --- */

/* "4.04 Not Found: ", and what the server says about it (RFC 7252 section 5.5.2). */
static void describe(exchange_t *exchange, const coap_message_t *response)
{
    char code[COAP_CODE_TEXT];
    bool explained = response->payload_length > 0;
    int length = response->payload_length < 400 ? (int)response->payload_length : 400;
    coap_format_code(response->code, code);
    snprintf(exchange->text, sizeof exchange->text, "%s%s%.*s", code, explained ? ": " : "", length,
             explained ? (const char *)response->payload : "");
}

static void append(exchange_t *exchange, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void append(exchange_t *exchange, const char *format, ...)
{
    size_t used = strlen(exchange->text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(exchange->text + used, sizeof exchange->text - used, format, arguments);
    va_end(arguments);
}

static exchange_step_t fail(exchange_t *exchange, const coap_message_t *response)
{
    coap_option_t option;
    uint32_t seconds;
    describe(exchange, response);
    switch (response->code) {
    case COAP_BAD_REQUEST:
    case COAP_BAD_OPTION:
    case COAP_REQUEST_ENTITY_INCOMPLETE:
    case COAP_REQUEST_ENTITY_TOO_LARGE:
    case COAP_UNSUPPORTED_CONTENT_FORMAT:
    case COAP_UNPROCESSABLE_ENTITY:
        return end(exchange, EXCHANGE_REFUSED);
    case COAP_UNAUTHORIZED:
    case COAP_FORBIDDEN:
        return end(exchange, EXCHANGE_FORBIDDEN);
    default:
        break;
    }
    if (response->code != COAP_TOO_MANY_REQUESTS && COAP_CLASS(response->code) != 5)
        return end(exchange, EXCHANGE_UNEXPECTED);
    if (coap_find_option(response, COAP_MAX_AGE, &option) && coap_option_uint(&option, 4, &seconds))
        append(exchange, "; try again in %u s", seconds);
    return end(exchange, EXCHANGE_BUSY);
}

/* --- The payload's blocks --- */

/* The Block1 option of a response; false: there is none that can be read. */
static bool find_block(const coap_message_t *response, unsigned number, coap_block_t *block)
{
    coap_option_t option;
    return coap_find_option(response, number, &option) && coap_parse_block(&option, block);
}

/* To the message that was just built, if it could be. */
static exchange_step_t go_on(exchange_t *exchange, bool built)
{
    if (built)
        return EXCHANGE_NEXT;
    if (exchange->confirmed)
        return lose_body(exchange, "the request for its next part does not fit a datagram");
    snprintf(exchange->text, sizeof exchange->text, "the next message does not fit a datagram");
    return end(exchange, EXCHANGE_UNEXPECTED);
}

/* Such a response belongs to the message under way. Others may be late, since all blocks share a token. */
static bool is_piggybacked(const coap_message_t *response)
{
    return response->type == COAP_ACKNOWLEDGEMENT;
}

/* 2.31 Continue. */
static exchange_step_t next_block(exchange_t *exchange, const coap_message_t *response)
{
    coap_block_t block;
    size_t size = size_of(exchange->size_exponent), number = exchange->offset / size;
    bool fits = exchange->blockwise && find_block(response, COAP_BLOCK1, &block);
    if (fits && block.number < number && !is_piggybacked(response))
        return EXCHANGE_WAITING; /* a late one, for a block before */
    if (!fits || block.number != number || is_last_block(exchange)) {
        describe(exchange, response);
        append(exchange, ", where no other block was missing");
        return end(exchange, EXCHANGE_UNEXPECTED);
    }
    exchange->offset += size;
    if (block.size_exponent < exchange->size_exponent)
        exchange->size_exponent = block.size_exponent;
    return go_on(exchange, build(exchange));
}

/* 4.13: the server may say what size it takes (RFC 7959 section 2.9.3). */
static bool shrink(exchange_t *exchange, const coap_message_t *response)
{
    coap_block_t block;
    if (exchange->resized || exchange->offset > 0 || !find_block(response, COAP_BLOCK1, &block) ||
        size_of(block.size_exponent) >= block_length(exchange))
        return false;
    exchange->resized = exchange->blockwise = true;
    exchange->size_exponent = block.size_exponent;
    return true;
}

/* 4.01 with an Echo option asks whether we are there now (RFC 9175 section 2.3). */
static bool take_echo(exchange_t *exchange, const coap_message_t *response)
{
    coap_option_t option;
    if (exchange->echo_length > 0 || !coap_find_option(response, COAP_ECHO, &option) || option.length == 0 ||
        option.length > sizeof exchange->echo)
        return false;
    memcpy(exchange->echo, option.value, option.length);
    exchange->echo_length = option.length;
    return true;
}

/* Whether the payload is worth sending once more, from its start, because of this error. */
static bool is_curable(exchange_t *exchange, const coap_message_t *response)
{
    bool again = false;
    switch (response->code) {
    case COAP_UNAUTHORIZED:
        return take_echo(exchange, response);
    case COAP_REQUEST_ENTITY_TOO_LARGE:
        return shrink(exchange, response);
    case COAP_REQUEST_ENTITY_INCOMPLETE:
        again = exchange->blockwise && !exchange->restarted;
        exchange->restarted = true;
        return again;
    default:
        return false;
    }
}

/* --- The response's body --- */

/* Whether this part belongs to the parts before. */
static bool has_same_tag(exchange_t *exchange, const coap_message_t *response)
{
    coap_option_t tag;
    bool first = exchange->body_length == 0;
    if (!coap_find_option(response, ETAG, &tag))
        tag.length = 0;
    if (tag.length > sizeof exchange->tag)
        tag.length = sizeof exchange->tag;
    if (first) {
        exchange->tag_length = tag.length;
        if (tag.length > 0)
            memcpy(exchange->tag, tag.value, tag.length);
    }
    return tag.length == exchange->tag_length &&
           (tag.length == 0 || memcmp(exchange->tag, tag.value, tag.length) == 0);
}

static exchange_step_t take_body(exchange_t *exchange, const coap_message_t *response)
{
    coap_option_t option;
    uint32_t format;
    coap_block_t block = {.size_exponent = LARGEST_EXPONENT};
    bool in_blocks = coap_find_option(response, COAP_BLOCK2, &option);
    if (in_blocks && !coap_parse_block(&option, &block))
        return lose_body(exchange, "its blocks make no sense");
    size_t place = in_blocks ? block.number * size_of(block.size_exponent) : 0;
    if (place < exchange->body_length && !is_piggybacked(response))
        return EXCHANGE_WAITING; /* a part that came before */
    if (place != exchange->body_length || !has_same_tag(exchange, response) ||
        (block.more && response->payload_length != size_of(block.size_exponent)))
        return lose_body(exchange, "its blocks do not fit together");
    if (response->payload_length > sizeof exchange->body - exchange->body_length)
        return lose_body(exchange, "it is larger than 65536 bytes");
    if (response->payload_length > 0)
        memcpy(exchange->body + exchange->body_length, response->payload, response->payload_length);
    exchange->body_length += response->payload_length;
    if (place == 0 && coap_find_option(response, COAP_CONTENT_FORMAT, &option) &&
        coap_option_uint(&option, 2, &format))
        exchange->body_format = (int)format;
    if (!block.more)
        return end(exchange, EXCHANGE_CONFIRMED);
    exchange->body_block = block.number + 1;
    exchange->size_exponent = block.size_exponent;
    return go_on(exchange, build(exchange));
}

/* --- Responses --- */

static exchange_step_t take_success(exchange_t *exchange, const coap_message_t *response)
{
    bool whole = is_last_block(exchange);
    if (response->code == COAP_CONTINUE && !exchange->confirmed)
        return next_block(exchange, response);
    if (!exchange->confirmed && !whole) {
        describe(exchange, response);
        append(exchange, " before the last block was sent");
        return end(exchange, EXCHANGE_UNEXPECTED);
    }
    if (!exchange->confirmed)
        exchange->code = response->code;
    exchange->confirmed = true;
    return take_body(exchange, response);
}

static exchange_step_t take_response(exchange_t *exchange, const coap_message_t *response)
{
    unsigned critical;
    if (!coap_understands_response(response, &critical)) {
        if (exchange->confirmed)
            return lose_body(exchange,
                             "a part of it has a critical option that this program does not understand");
        describe(exchange, response);
        append(exchange, "; it has the critical option %u, which this program does not understand", critical);
        return end(exchange, EXCHANGE_UNEXPECTED);
    }
    if (COAP_CLASS(response->code) == 2)
        return take_success(exchange, response);
    if (exchange->confirmed) {
        char code[COAP_CODE_TEXT];
        coap_format_code(response->code, code);
        return lose_body(exchange, code);
    }
    if (is_curable(exchange, response))
        return go_on(exchange, start(exchange));
    exchange->code = response->code;
    return fail(exchange, response);
}

static bool has_token(const coap_message_t *message, uint16_t token)
{
    return message->token_length == ID_SIZE && message->token[0] == token >> 8 &&
           message->token[1] == (token & 0xff);
}

/* A response in a message of its own (RFC 7252 section 5.2.2). One that came before comes again where our
 * acknowledgement was lost. */
static exchange_step_t take_separate(exchange_t *exchange, const coap_message_t *message)
{
    bool confirmable = message->type == COAP_CONFIRMABLE;
    bool again = confirmable && exchange->has_acknowledged && message->id == exchange->acknowledged &&
                 has_token(message, exchange->acknowledged_token);
    unsigned critical;
    if (again) {
        reply(exchange, COAP_ACKNOWLEDGEMENT, message->id);
        return EXCHANGE_WAITING;
    }
    if (!exchange->waiting || !has_token(message, exchange->token)) {
        reply(exchange, COAP_RESET, message->id);
        return EXCHANGE_WAITING;
    }
    if (!coap_understands_response(message, &critical)) {
        reply(exchange, COAP_RESET, message->id); /* section 5.4.1 */
    } else if (confirmable) {
        reply(exchange, COAP_ACKNOWLEDGEMENT, message->id);
        exchange->acknowledged = message->id;
        exchange->acknowledged_token = exchange->token;
        exchange->has_acknowledged = true;
    }
    return take_response(exchange, message);
}

/* An acknowledgement or a reset of what is under way. */
static exchange_step_t take_reaction(exchange_t *exchange, const coap_message_t *message)
{
    if (!exchange->waiting || message->id != exchange->id)
        return EXCHANGE_WAITING;
    if (message->type == COAP_RESET) {
        exchange->code = 0;
        snprintf(exchange->text, sizeof exchange->text, "the server rejects the message with a reset");
        return exchange->confirmed ? lose_body(exchange, "a reset came") : end(exchange, EXCHANGE_UNEXPECTED);
    }
    if (message->code == COAP_EMPTY)
        return EXCHANGE_ACKNOWLEDGED;
    return has_token(message, exchange->token) ? take_response(exchange, message) : EXCHANGE_WAITING;
}

exchange_step_t exchange_take(exchange_t *exchange, const unsigned char *bytes, size_t length)
{
    coap_message_t message;
    exchange->reply_length = 0;
    if (coap_parse(&message, bytes, length)) {
        if (message.type == COAP_ACKNOWLEDGEMENT || message.type == COAP_RESET)
            return take_reaction(exchange, &message);
        if (coap_is_response(message.code))
            return take_separate(exchange, &message);
    }
    /* A ping, a request, or what cannot be read (RFC 7252 sections 4.2 and 4.3). */
    if (message.type == COAP_CONFIRMABLE || message.type == COAP_NON_CONFIRMABLE)
        reply(exchange, COAP_RESET, message.id);
    return EXCHANGE_WAITING;
}
