/* A whole CoAP exchange with a server that does anything. The first bytes of an input choose the exchange;
 * each message of the server follows: how it is made, and of what. Most copy the id and the token that are
 * under way, since all else is turned away at once.
 *
 * What must hold: a payload counts as confirmed only by a response of class 2 that came for its last block
 * (or for all of it) with the right token and, where it is piggybacked, the right id; and what is under way
 * is always a message that can be sent. */
#include "fuzz.h"
#include "run/exchange.h"

enum { PAYLOAD_LARGEST = 5000, MESSAGES_MOST = 400 };

/* What the server's next message is made of. */
enum {
    OF_BYTES,       /* of the input's own */
    OF_OTHER_TOKEN, /* a response to something else */
    OF_OTHER_ID,
    OF_RESTART, /* no message: there is a new association */
    OF_FIELDS   /* and all above: a response to what is under way */
};

/* Large; all that is used of it is set by exchange_init() and exchange_begin(). */
static exchange_t exchange;

typedef struct {
    input_t input;
    uint16_t id, token; /* the counters */
    bool confirmable;   /* a message came that may confirm the payload */
    unsigned char payload[PAYLOAD_LARGEST];
} run_t;

static void add_block(coap_writer_t *writer, unsigned number, input_t *input)
{
    uint32_t value = input_number(input, 1);
    /* Mostly the number that is due. */
    if (value >= 0xf0)
        value = input_number(input, 3);
    else if (number == COAP_BLOCK1)
        value = (uint32_t)(exchange.offset >> (exchange.size_exponent + 4)) << 4 | (value & 15);
    else
        value = (uint32_t)(exchange.body_length >> ((value & 7) + 4)) << 4 | (value & 15);
    coap_add_uint(writer, number, value);
}

/* Options in ascending order: each bit of `which` is one of them. */
static void add_options(coap_writer_t *writer, unsigned which, input_t *input)
{
    static const unsigned numbers[] = {4,           COAP_CONTENT_FORMAT, COAP_MAX_AGE, COAP_BLOCK2,
                                       COAP_BLOCK1, COAP_ECHO,           2049};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if ((which >> i & 1) == 0)
            continue;
        if (numbers[i] == COAP_BLOCK1 || numbers[i] == COAP_BLOCK2) {
            add_block(writer, numbers[i], input);
            continue;
        }
        input_t value = input_take(input, input_number(input, 1) % 50);
        coap_add_option(writer, numbers[i], value.bytes, value.length);
    }
}

/* Codes that do something, and any. */
static uint8_t pick_code(input_t *input)
{
    static const uint8_t codes[] = {COAP_CHANGED,
                                    COAP_CONTENT,
                                    COAP_CONTINUE,
                                    COAP_EMPTY,
                                    COAP_UNAUTHORIZED,
                                    COAP_REQUEST_ENTITY_INCOMPLETE,
                                    COAP_REQUEST_ENTITY_TOO_LARGE};
    uint32_t byte = input_number(input, 1);
    return byte < 0xe0 ? codes[byte % sizeof codes] : (uint8_t)input_number(input, 1);
}

static size_t write_fields(unsigned char *bytes, size_t size, uint32_t kind, input_t *input)
{
    uint32_t shape = input_number(input, 1);
    coap_type_t type = shape < 0xa0 ? COAP_ACKNOWLEDGEMENT : (coap_type_t)(shape & 3);
    uint8_t code = pick_code(input);
    bool copies_id = type == COAP_ACKNOWLEDGEMENT || type == COAP_RESET;
    uint16_t id = copies_id && kind != OF_OTHER_ID ? exchange.id : (uint16_t)input_number(input, 2);
    uint16_t token = kind == OF_OTHER_TOKEN ? (uint16_t)input_number(input, 2) : exchange.token;
    unsigned char token_bytes[2] = {(unsigned char)(token >> 8), (unsigned char)token};
    static const unsigned char filling[1024] = "what the server has to say";
    coap_writer_t writer;
    coap_begin(&writer, bytes, size, type, code, id, token_bytes, code == COAP_EMPTY ? 0 : 2);
    if (code != COAP_EMPTY) {
        add_options(&writer, input_number(input, 1), input);
        /* As long as a block is, or not. */
        uint32_t length = input_number(input, 1);
        coap_add_payload(&writer, filling, length < 7 ? (size_t)16 << length : length < 16 ? 0 : length);
    }
    return coap_end(&writer);
}

/* Whether the message may confirm the payload, judged by other means than the exchange's own. */
static bool may_confirm(const unsigned char *bytes, size_t length)
{
    coap_message_t request, response;
    coap_option_t option;
    coap_block_t block;
    REQUIRE(coap_parse(&request, exchange.message, exchange.message_length));
    bool last = !coap_find_option(&request, COAP_BLOCK1, &option) ||
                (coap_parse_block(&option, &block) && !block.more);
    return last && coap_parse(&response, bytes, length) && COAP_CLASS(response.code) == 2 &&
           response.code != COAP_CONTINUE && response.token_length == request.token_length &&
           memcmp(response.token, request.token, request.token_length) == 0 &&
           (response.type != COAP_ACKNOWLEDGEMENT || response.id == request.id);
}

/* What is under way is a message with our token, and a part of the payload where that says. */
static void require_sound_request(const run_t *run)
{
    coap_message_t request;
    REQUIRE(coap_parse(&request, exchange.message, exchange.message_length));
    REQUIRE(request.type == COAP_CONFIRMABLE && request.id == exchange.id && request.token_length == 2);
    REQUIRE(exchange.offset <= exchange.length && exchange.size_exponent <= 6);
    REQUIRE(request.payload_length <= 1024);
    if (request.payload_length > 0)
        REQUIRE(!exchange.confirmed && exchange.offset + request.payload_length <= exchange.length &&
                memcmp(request.payload, run->payload + exchange.offset, request.payload_length) == 0);
}

static void require_sound_reply(const unsigned char *bytes, size_t length)
{
    coap_message_t reply, message;
    if (exchange.reply_length == 0)
        return;
    coap_parse(&message, bytes, length);
    REQUIRE(coap_parse(&reply, exchange.reply, exchange.reply_length));
    REQUIRE(reply.code == COAP_EMPTY && reply.id == message.id);
    REQUIRE(reply.type == COAP_RESET ||
            (reply.type == COAP_ACKNOWLEDGEMENT && message.type == COAP_CONFIRMABLE));
    REQUIRE(message.type == COAP_CONFIRMABLE || message.type == COAP_NON_CONFIRMABLE);
}

static void require_sound_end(const run_t *run)
{
    REQUIRE(exchange.verdict == EXCHANGE_CONFIRMED || !exchange.confirmed);
    REQUIRE(exchange.verdict != EXCHANGE_CONFIRMED || run->confirmable);
    REQUIRE(exchange.body_length <= EXCHANGE_BODY_MAX);
    REQUIRE(memchr(exchange.text, '\0', sizeof exchange.text) != NULL);
    REQUIRE((exchange.verdict == EXCHANGE_CONFIRMED && !exchange.body_lost) || exchange.text[0] != '\0');
    REQUIRE(!exchange.waiting);
}

/* The server's next message. False: the exchange is over. */
static bool goes_on(run_t *run)
{
    uint32_t kind = input_number(&run->input, 1) & 15;
    unsigned char bytes[2048];
    size_t length;
    if (kind == OF_RESTART) {
        run->confirmable = run->confirmable && exchange.confirmed;
        return exchange_restart(&exchange);
    }
    if (kind == OF_BYTES) {
        input_t taken = input_take(&run->input, input_number(&run->input, 1));
        length = taken.length;
        if (length > 0)
            memcpy(bytes, taken.bytes, length);
    } else {
        length = write_fields(bytes, sizeof bytes, kind, &run->input);
    }
    unsigned char *copy = malloc(length + (length == 0)); /* for the sanitizer to see where it ends */
    REQUIRE(copy != NULL);
    memcpy(copy, bytes, length);
    run->confirmable = run->confirmable || may_confirm(copy, length);
    exchange_step_t step = exchange_take(&exchange, copy, length);
    require_sound_reply(copy, length);
    free(copy);
    if (step == EXCHANGE_NEXT || step == EXCHANGE_WAITING)
        require_sound_request(run);
    return step != EXCHANGE_ANSWERED;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static run_t run;
    static const unsigned char options[] = "\x0b\x01x\x0f\x01y";
    run = (run_t){.input = {data, size}};
    for (size_t i = 0; i < sizeof run.payload; i++)
        run.payload[i] = (unsigned char)(i * 7);
    uint32_t choice = input_number(&run.input, 1);
    size_t length = (choice & 1) == 0 ? 4 : 1 + input_number(&run.input, 2) % PAYLOAD_LARGEST;
    bool get = (choice & 6) == 6;
    exchange_config_t config = {.method = get ? COAP_GET : COAP_POST,
                                .uri_options = options,
                                .uri_options_length = sizeof options - 1,
                                .content_format = (choice & 8) == 0 ? -1 : 60,
                                .message_id = &run.id,
                                .token = &run.token};
    exchange_init(&exchange, &config);
    bool begun = exchange_begin(&exchange, get ? NULL : run.payload, get ? 0 : length);
    REQUIRE(begun);
    int messages = 0;
    while (run.input.length > 0 && messages++ < MESSAGES_MOST)
        if (!goes_on(&run)) {
            require_sound_end(&run);
            return 0;
        }
    bool confirmed = exchange.confirmed;
    exchange_abandon(&exchange);
    if (confirmed)
        require_sound_end(&run);
    REQUIRE(!exchange.waiting);
    return 0;
}
