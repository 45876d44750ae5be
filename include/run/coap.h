/* CoAP messages (RFC 7252 section 3) and their block options (RFC 7959): bytes to fields and back. Pure: no
 * socket, no clock, no memory of its own; nothing here blocks. */
#ifndef COAP_H
#define COAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { COAP_CONFIRMABLE, COAP_NON_CONFIRMABLE, COAP_ACKNOWLEDGEMENT, COAP_RESET } coap_type_t;

/* Class and detail as in "4.04". */
#define COAP_CODE(class, detail) ((class) << 5 | (detail))
#define COAP_CLASS(code)         ((code) >> 5)
#define COAP_DETAIL(code)        ((code)&31)

enum {
    COAP_EMPTY = COAP_CODE(0, 0),
    COAP_GET = COAP_CODE(0, 1),
    COAP_POST = COAP_CODE(0, 2),
    COAP_PUT = COAP_CODE(0, 3),
    COAP_CREATED = COAP_CODE(2, 1),
    COAP_CHANGED = COAP_CODE(2, 4),
    COAP_CONTENT = COAP_CODE(2, 5),
    COAP_CONTINUE = COAP_CODE(2, 31), /* RFC 7959 section 2.9 */
    COAP_BAD_REQUEST = COAP_CODE(4, 0),
    COAP_UNAUTHORIZED = COAP_CODE(4, 1),
    COAP_BAD_OPTION = COAP_CODE(4, 2),
    COAP_FORBIDDEN = COAP_CODE(4, 3),
    COAP_NOT_FOUND = COAP_CODE(4, 4),
    COAP_METHOD_NOT_ALLOWED = COAP_CODE(4, 5),
    COAP_REQUEST_ENTITY_INCOMPLETE = COAP_CODE(4, 8), /* RFC 7959 section 2.9 */
    COAP_REQUEST_ENTITY_TOO_LARGE = COAP_CODE(4, 13),
    COAP_UNSUPPORTED_CONTENT_FORMAT = COAP_CODE(4, 15),
    COAP_UNPROCESSABLE_ENTITY = COAP_CODE(4, 22), /* RFC 8132 section 4 */
    COAP_TOO_MANY_REQUESTS = COAP_CODE(4, 29),    /* RFC 8516 */
    COAP_INTERNAL_SERVER_ERROR = COAP_CODE(5, 0),
    COAP_SERVICE_UNAVAILABLE = COAP_CODE(5, 3)
};

/* Option numbers. */
enum {
    COAP_LOCATION_PATH = 8,
    COAP_URI_PATH = 11,
    COAP_CONTENT_FORMAT = 12,
    COAP_MAX_AGE = 14,
    COAP_URI_QUERY = 15,
    COAP_BLOCK2 = 23,
    COAP_BLOCK1 = 27,
    COAP_SIZE2 = 28,
    COAP_SIZE1 = 60,
    COAP_ECHO = 252 /* RFC 9175 section 2.2 */
};

enum {
    COAP_TOKEN_MAX = 8,
    COAP_ECHO_MAX = 40,       /* bytes in an Echo option's value */
    COAP_OPTION_MAX = 65535,  /* the highest option number */
    COAP_BLOCK_MAX = 1 << 20, /* a block's number is below it */
    COAP_CODE_TEXT = 48       /* bytes for coap_format_code(), the NUL included */
};

/* A message within the datagram that it was parsed from: the pointers point into that, and own nothing. */
typedef struct {
    coap_type_t type;
    uint8_t code;
    uint16_t id;
    unsigned char token[COAP_TOKEN_MAX];
    size_t token_length;
    const unsigned char *options; /* as they stand there, checked; coap_next_option() walks along them */
    size_t options_length;
    const unsigned char *payload; /* its length is 0: there is none */
    size_t payload_length;
} coap_message_t;

typedef struct {
    unsigned number;
    const unsigned char *value; /* within the datagram */
    size_t length;
} coap_option_t;

/* Parses a datagram. False: it is no CoAP message, or one of a kind that no peer may send: version other than
 * 1, broken options, a payload marker without payload, anything behind the id of an empty message, a reserved
 * class of codes (section 3), or a type that does not go with the code (section 4.3, table 1). Then `type`
 * and `id` are still those of the header, so that what is confirmable can be rejected (section 4.2); where
 * there is no header, `type` is COAP_RESET, to which nothing is ever answered. */
bool coap_parse(coap_message_t *message, const unsigned char *bytes, size_t length);

static inline bool coap_is_request(uint8_t code)
{
    return COAP_CLASS(code) == 0 && code != COAP_EMPTY;
}

static inline bool coap_is_response(uint8_t code)
{
    return COAP_CLASS(code) >= 2;
}

/* --- Options --- */

typedef struct {
    const unsigned char *at, *end;
    unsigned number; /* of the option before `at` */
} coap_options_t;

/* Before the first option of a message that coap_parse() accepted. */
coap_options_t coap_options(const coap_message_t *message);

/* Gives the next option, in ascending order of numbers. False: there is none left. */
bool coap_next_option(coap_options_t *options, coap_option_t *option);

/* Finds the first option of that number. False: there is none. */
bool coap_find_option(const coap_message_t *message, unsigned number, coap_option_t *option);

/* An option's value as an unsigned number, leading zeros allowed (section 3.2). False: it has more than
 * `most_bytes` bytes (or 4), and counts as an option that is not known (section 5.4.3). */
bool coap_option_uint(const coap_option_t *option, size_t most_bytes, uint32_t *value);

/* Whether who does not know the option must reject the message (section 5.4.6). */
static inline bool coap_is_critical(unsigned number)
{
    return number % 2 != 0;
}

/* Whether a client that sends requests in blocks can act on this response. False: a critical option in it is
 * not known, is not one for responses, comes twice, or has a value that it cannot have; all that counts the
 * same (sections 5.4, 5.4.3 and 5.4.5). `number` is that option's. */
bool coap_understands_response(const coap_message_t *message, unsigned *number);

/* --- Blocks --- */

/* The value of a Block1 or Block2 option (RFC 7959 section 2.2). */
typedef struct {
    uint32_t number;        /* below COAP_BLOCK_MAX; the first block is 0 */
    bool more;              /* blocks follow */
    unsigned size_exponent; /* 0 to 6: a block has 16 << size_exponent bytes, the last one at most so many */
} coap_block_t;

/* False: it has more than 3 bytes, or the reserved size. */
bool coap_parse_block(const coap_option_t *option, coap_block_t *block);

/* The same as a number, for coap_add_uint(). */
uint32_t coap_block_value(coap_block_t block);

/* --- Writing a message --- */

/* What does not fit or is not allowed sets `failed`, and all that follows does nothing. */
typedef struct {
    unsigned char *bytes; /* the caller's */
    size_t size, length;
    unsigned last_option;
    bool failed;
} coap_writer_t;

/* Begins a message in `bytes`, which has `size` bytes. Fails with a token of more than COAP_TOKEN_MAX. */
void coap_begin(coap_writer_t *writer, unsigned char *bytes, size_t size, coap_type_t type, uint8_t code,
                uint16_t id, const unsigned char *token, size_t token_length);

/* Adds an option. Fails where its number is lower than the last one's; the same again is allowed. */
void coap_add_option(coap_writer_t *writer, unsigned number, const void *value, size_t length);

/* The same with a number as value, in as few bytes as it needs; 0 needs none (section 3.2). */
void coap_add_uint(coap_writer_t *writer, unsigned number, uint32_t value);

/* Adds the payload, behind all options; nothing where `length` is 0. Fails where there is one already. */
void coap_add_payload(coap_writer_t *writer, const void *payload, size_t length);

/* Returns the message's length; 0: something failed. */
size_t coap_end(const coap_writer_t *writer);

/* --- Codes for people --- */

/* "Not Found"; "" where the code is no response, or none that this program knows (RFC 7252, 7959, 8132, 8516,
 * 8768). A constant. */
const char *coap_code_name(uint8_t code);

/* "4.04 Not Found"; only the number where coap_code_name() has no name. */
void coap_format_code(uint8_t code, char text[static COAP_CODE_TEXT]);

#endif
