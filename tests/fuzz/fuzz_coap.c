/* The decoder of CoAP messages. An input is a datagram. */
#include "fuzz.h"
#include "run/coap.h"

static void require_within(const unsigned char *at, size_t length, input_t datagram)
{
    REQUIRE(at >= datagram.bytes && at <= datagram.bytes + datagram.length);
    REQUIRE(length <= (size_t)(datagram.bytes + datagram.length - at));
}

static void require_same(const unsigned char *left, size_t left_length, const unsigned char *right,
                         size_t right_length)
{
    REQUIRE(left_length == right_length);
    REQUIRE(left_length == 0 || memcmp(left, right, left_length) == 0);
}

/* Everything lies within the datagram, options ascend, and each can be found and asked for a number. */
static void require_sound(const coap_message_t *message, input_t datagram)
{
    coap_options_t options = coap_options(message);
    coap_option_t option, found;
    coap_block_t block;
    uint32_t value;
    REQUIRE(message->token_length <= COAP_TOKEN_MAX);
    require_within(message->options, message->options_length, datagram);
    require_within(message->payload, message->payload_length, datagram);
    for (unsigned last = 0; coap_next_option(&options, &option); last = option.number) {
        REQUIRE(option.number >= last && option.number <= COAP_OPTION_MAX);
        require_within(option.value, option.length, datagram);
        REQUIRE(option.number == last || (coap_find_option(message, option.number, &found) &&
                                          found.number == option.number && found.value == option.value));
        if (coap_option_uint(&option, sizeof value, &value))
            REQUIRE(option.length <= sizeof value);
        if (coap_parse_block(&option, &block))
            REQUIRE(block.number < COAP_BLOCK_MAX && block.size_exponent < 7 &&
                    coap_option_uint(&option, 3, &value) && coap_block_value(block) == value);
    }
    REQUIRE(options.at == options.end);
}

/* Returns the length, at most that of the datagram: the writer's form of it is the shortest. */
static size_t write_again(const coap_message_t *message, unsigned char *bytes, size_t size)
{
    coap_options_t options = coap_options(message);
    coap_option_t option;
    coap_writer_t writer;
    coap_begin(&writer, bytes, size, message->type, message->code, message->id, message->token,
               message->token_length);
    while (coap_next_option(&options, &option))
        coap_add_option(&writer, option.number, option.value, option.length);
    coap_add_payload(&writer, message->payload, message->payload_length);
    REQUIRE(!writer.failed);
    return coap_end(&writer);
}

static void require_equal(const coap_message_t *left, const coap_message_t *right)
{
    coap_options_t left_options = coap_options(left), right_options = coap_options(right);
    coap_option_t left_option, right_option;
    REQUIRE(left->type == right->type && left->code == right->code && left->id == right->id);
    require_same(left->token, left->token_length, right->token, right->token_length);
    require_same(left->payload, left->payload_length, right->payload, right->payload_length);
    while (coap_next_option(&left_options, &left_option)) {
        REQUIRE(coap_next_option(&right_options, &right_option));
        REQUIRE(left_option.number == right_option.number);
        require_same(left_option.value, left_option.length, right_option.value, right_option.length);
    }
    REQUIRE(!coap_next_option(&right_options, &right_option));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    coap_message_t message, again;
    unsigned number = 0;
    if (!coap_parse(&message, data, size)) {
        REQUIRE(message.payload_length == 0 || message.payload != NULL);
        return 0;
    }
    require_sound(&message, (input_t){data, size});
    if (!coap_understands_response(&message, &number))
        REQUIRE(coap_is_critical(number));

    unsigned char *bytes = malloc(size);
    REQUIRE(bytes != NULL);
    size_t length = write_again(&message, bytes, size);
    REQUIRE(length > 0 && length <= size);
    REQUIRE(coap_parse(&again, bytes, length));
    require_equal(&message, &again);
    free(bytes);
    return 0;
}
