#include "run/coap.h"

#include <stdio.h>
#include <string.h>

enum {
    VERSION_1 = 1,
    HEADER_LENGTH = 4,
    PAYLOAD_MARKER = 0xff,
    /* A nibble of an option's first byte (section 3.1): up to 12 it is the value itself. */
    ONE_BYTE_MORE = 13,
    TWO_BYTES_MORE = 14,
    RESERVED = 15,
    LEAST_IN_ONE = 13,
    LEAST_IN_TWO = 269,
    EXTENDED_MAX = 65535 + LEAST_IN_TWO
};

/* --- Options --- */

/* Reads what a nibble stands for, and the bytes that extend it. False: reserved, or cut short. */
static bool read_extended(unsigned nibble, const unsigned char **at, const unsigned char *end,
                          unsigned *value)
{
    size_t bytes = nibble == TWO_BYTES_MORE ? 2 : nibble == ONE_BYTE_MORE ? 1 : 0;
    if (nibble == RESERVED || (size_t)(end - *at) < bytes)
        return false;
    if (bytes == 0)
        *value = nibble;
    else if (bytes == 1)
        *value = LEAST_IN_ONE + (unsigned)(*at)[0];
    else
        *value = LEAST_IN_TWO + ((unsigned)(*at)[0] << 8 | (*at)[1]);
    *at += bytes;
    return true;
}

/* Reads the option at options->at, which is before the end. False: it is broken. */
static bool read_option(coap_options_t *options, coap_option_t *option)
{
    unsigned first = *options->at++, delta, length;
    if (!read_extended(first >> 4, &options->at, options->end, &delta) ||
        !read_extended(first & 15, &options->at, options->end, &length) ||
        length > (size_t)(options->end - options->at) || delta > COAP_OPTION_MAX - options->number)
        return false;
    options->number += delta;
    *option = (coap_option_t){options->number, options->at, length};
    options->at += length;
    return true;
}

coap_options_t coap_options(const coap_message_t *message)
{
    coap_options_t options = {message->options, message->options, 0};
    if (message->options_length > 0)
        options.end += message->options_length;
    return options;
}

bool coap_next_option(coap_options_t *options, coap_option_t *option)
{
    return options->at != options->end && read_option(options, option);
}

bool coap_find_option(const coap_message_t *message, unsigned number, coap_option_t *option)
{
    coap_options_t options = coap_options(message);
    while (coap_next_option(&options, option))
        if (option->number == number)
            return true;
    return false;
}

bool coap_option_uint(const coap_option_t *option, size_t most_bytes, uint32_t *value)
{
    uint32_t number = 0;
    if (option->length > most_bytes || option->length > sizeof number)
        return false;
    for (size_t i = 0; i < option->length; i++)
        number = number << 8 | option->value[i];
    *value = number;
    return true;
}

bool coap_understands_response(const coap_message_t *message, unsigned *number)
{
    coap_options_t options = coap_options(message);
    coap_option_t option;
    coap_block_t block;
    for (unsigned last = 0; coap_next_option(&options, &option); last = option.number) {
        bool known = option.number == COAP_BLOCK1 || option.number == COAP_BLOCK2;
        bool good = known && option.number != last && coap_parse_block(&option, &block);
        if (coap_is_critical(option.number) && !good) {
            *number = option.number;
            return false;
        }
    }
    return true;
}

/* --- Blocks --- */

bool coap_parse_block(const coap_option_t *option, coap_block_t *block)
{
    uint32_t value;
    if (!coap_option_uint(option, 3, &value) || (value & 7) == 7)
        return false;
    *block = (coap_block_t){.number = value >> 4, .more = (value & 8) != 0, .size_exponent = value & 7};
    return true;
}

uint32_t coap_block_value(coap_block_t block)
{
    return block.number << 4 | (block.more ? 8U : 0U) | (block.size_exponent & 7U);
}

/* --- Messages --- */

/* Which types go with which codes (section 4.3, table 1); classes but these four are reserved (section 3). */
static bool is_allowed(coap_type_t type, uint8_t code)
{
    if (code == COAP_EMPTY)
        return type != COAP_NON_CONFIRMABLE;
    switch (COAP_CLASS(code)) {
    case 0:
        return type == COAP_CONFIRMABLE || type == COAP_NON_CONFIRMABLE;
    case 2:
    case 4:
    case 5:
        return type != COAP_RESET;
    default:
        return false;
    }
}

/* Checks the options and finds the payload behind them. */
static bool parse_body(coap_message_t *message, const unsigned char *at, const unsigned char *end)
{
    coap_options_t options = {at, end, 0};
    coap_option_t option;
    message->options = at;
    while (options.at != end && *options.at != PAYLOAD_MARKER)
        if (!read_option(&options, &option))
            return false;
    message->options_length = (size_t)(options.at - at);
    message->payload = end;
    if (options.at == end)
        return true;
    message->payload = options.at + 1;
    message->payload_length = (size_t)(end - message->payload);
    return message->payload_length > 0;
}

bool coap_parse(coap_message_t *message, const unsigned char *bytes, size_t length)
{
    *message = (coap_message_t){.type = COAP_RESET};
    if (length < HEADER_LENGTH || bytes[0] >> 6 != VERSION_1)
        return false;
    message->type = (coap_type_t)(bytes[0] >> 4 & 3);
    message->code = bytes[1];
    message->id = (uint16_t)(bytes[2] << 8 | bytes[3]);
    size_t token_length = bytes[0] & 15;
    if (token_length > COAP_TOKEN_MAX || token_length > length - HEADER_LENGTH ||
        !is_allowed(message->type, message->code) ||
        (message->code == COAP_EMPTY && (token_length > 0 || length > HEADER_LENGTH)))
        return false;
    message->token_length = token_length;
    memcpy(message->token, bytes + HEADER_LENGTH, token_length);
    return parse_body(message, bytes + HEADER_LENGTH + token_length, bytes + length);
}

/* --- Writing a message --- */

static void add_bytes(coap_writer_t *writer, const void *bytes, size_t length)
{
    if (length > writer->size - writer->length)
        writer->failed = true;
    if (writer->failed || length == 0)
        return;
    memcpy(writer->bytes + writer->length, bytes, length);
    writer->length += length;
}

void coap_begin(coap_writer_t *writer, unsigned char *bytes, size_t size, coap_type_t type, uint8_t code,
                uint16_t id, const unsigned char *token, size_t token_length)
{
    *writer = (coap_writer_t){.bytes = bytes, .size = size, .failed = token_length > COAP_TOKEN_MAX};
    unsigned char header[HEADER_LENGTH] = {
        (unsigned char)(VERSION_1 << 6 | (unsigned)type << 4 | (token_length & 15)), code,
        (unsigned char)(id >> 8), (unsigned char)(id & 0xff)};
    add_bytes(writer, header, sizeof header);
    add_bytes(writer, token, token_length);
}

static unsigned to_nibble(size_t value)
{
    return value < LEAST_IN_ONE ? (unsigned)value : value < LEAST_IN_TWO ? ONE_BYTE_MORE : TWO_BYTES_MORE;
}

static void add_extended(coap_writer_t *writer, size_t value)
{
    unsigned char two[2] = {(unsigned char)((value - LEAST_IN_TWO) >> 8),
                            (unsigned char)((value - LEAST_IN_TWO) & 0xff)};
    unsigned char one = (unsigned char)(value - LEAST_IN_ONE);
    if (to_nibble(value) == ONE_BYTE_MORE)
        add_bytes(writer, &one, 1);
    else if (to_nibble(value) == TWO_BYTES_MORE)
        add_bytes(writer, two, 2);
}

void coap_add_option(coap_writer_t *writer, unsigned number, const void *value, size_t length)
{
    /* Behind a payload last_option is above all numbers. */
    if (number < writer->last_option || number > COAP_OPTION_MAX || length > EXTENDED_MAX) {
        writer->failed = true;
        return;
    }
    unsigned delta = number - writer->last_option;
    unsigned char first = (unsigned char)(to_nibble(delta) << 4 | to_nibble(length));
    add_bytes(writer, &first, 1);
    add_extended(writer, delta);
    add_extended(writer, length);
    add_bytes(writer, value, length);
    writer->last_option = number;
}

void coap_add_uint(coap_writer_t *writer, unsigned number, uint32_t value)
{
    unsigned char bytes[4] = {(unsigned char)(value >> 24), (unsigned char)(value >> 16 & 0xff),
                              (unsigned char)(value >> 8 & 0xff), (unsigned char)(value & 0xff)};
    size_t zeros = 0;
    while (zeros < sizeof bytes && bytes[zeros] == 0)
        zeros++;
    coap_add_option(writer, number, bytes + zeros, sizeof bytes - zeros);
}

void coap_add_payload(coap_writer_t *writer, const void *payload, size_t length)
{
    unsigned char marker = PAYLOAD_MARKER;
    if (length == 0)
        return;
    if (writer->last_option > COAP_OPTION_MAX)
        writer->failed = true;
    add_bytes(writer, &marker, 1);
    add_bytes(writer, payload, length);
    writer->last_option = COAP_OPTION_MAX + 1;
}

size_t coap_end(const coap_writer_t *writer)
{
    return writer->failed ? 0 : writer->length;
}

/* --- Codes for people --- */

const char *coap_code_name(uint8_t code)
{
    static const struct {
        uint8_t code;
        const char *name;
    } names[] = {{COAP_CREATED, "Created"},
                 {COAP_CODE(2, 2), "Deleted"},
                 {COAP_CODE(2, 3), "Valid"},
                 {COAP_CHANGED, "Changed"},
                 {COAP_CONTENT, "Content"},
                 {COAP_CONTINUE, "Continue"},
                 {COAP_BAD_REQUEST, "Bad Request"},
                 {COAP_UNAUTHORIZED, "Unauthorized"},
                 {COAP_BAD_OPTION, "Bad Option"},
                 {COAP_FORBIDDEN, "Forbidden"},
                 {COAP_NOT_FOUND, "Not Found"},
                 {COAP_METHOD_NOT_ALLOWED, "Method Not Allowed"},
                 {COAP_CODE(4, 6), "Not Acceptable"},
                 {COAP_REQUEST_ENTITY_INCOMPLETE, "Request Entity Incomplete"},
                 {COAP_CODE(4, 9), "Conflict"},
                 {COAP_CODE(4, 12), "Precondition Failed"},
                 {COAP_REQUEST_ENTITY_TOO_LARGE, "Request Entity Too Large"},
                 {COAP_UNSUPPORTED_CONTENT_FORMAT, "Unsupported Content-Format"},
                 {COAP_UNPROCESSABLE_ENTITY, "Unprocessable Entity"},
                 {COAP_TOO_MANY_REQUESTS, "Too Many Requests"},
                 {COAP_INTERNAL_SERVER_ERROR, "Internal Server Error"},
                 {COAP_CODE(5, 1), "Not Implemented"},
                 {COAP_CODE(5, 2), "Bad Gateway"},
                 {COAP_SERVICE_UNAVAILABLE, "Service Unavailable"},
                 {COAP_CODE(5, 4), "Gateway Timeout"},
                 {COAP_CODE(5, 5), "Proxying Not Supported"},
                 {COAP_CODE(5, 8), "Hop Limit Reached"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].code == code)
            return names[i].name;
    return "";
}

void coap_format_code(uint8_t code, char text[static COAP_CODE_TEXT])
{
    const char *name = coap_code_name(code);
    snprintf(text, COAP_CODE_TEXT, "%d.%02d%s%s", COAP_CLASS(code), COAP_DETAIL(code),
             *name == '\0' ? "" : " ", name);
}
