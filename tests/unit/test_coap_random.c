/* coap.h: messages and bytes at random. What is written is parsed to the same fields, and what is cut short
 * or no message at all is parsed within its bytes. SEED= repeats a run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "run/coap.h"

enum { MESSAGE_SIZE = 1500, OPTIONS_MOST = 12, VALUE_MOST = 700 };

/* Parses a copy that ends where the message does, so that valgrind and the sanitizer see what is read behind
 * it. */
static bool parse_copy(coap_message_t *message, const unsigned char *bytes, size_t length)
{
    unsigned char *copy = malloc(length > 0 ? length : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    bool parsed = coap_parse(message, copy, length);
    free(copy);
    return parsed;
}

static unsigned random_state;

static unsigned random_below(unsigned limit)
{
    random_state = random_state * 1664525U + 1013904223U;
    return (random_state >> 8) % limit;
}

static void seed_random(void)
{
    const char *seed = getenv("SEED");
    random_state = seed != NULL ? (unsigned)strtoul(seed, NULL, 10) : (unsigned)time(NULL);
    print_message("SEED=%u\n", random_state);
}

typedef struct {
    unsigned char bytes[2 * MESSAGE_SIZE + OPTIONS_MOST * VALUE_MOST];
    size_t length;
    coap_message_t message; /* what was put in; its payload and options are elsewhere */
    unsigned char payload[MESSAGE_SIZE];
    size_t option_count;
    unsigned numbers[OPTIONS_MOST];
    unsigned char values[OPTIONS_MOST][VALUE_MOST];
    size_t lengths[OPTIONS_MOST];
} sample_t;

static void fill_randomly(unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)random_below(256);
}

static size_t random_length(size_t most)
{
    static const unsigned limits[] = {1, 14, 30, 300, 600};
    unsigned limit = limits[random_below(5)];
    return random_below(limit < most ? limit : (unsigned)most);
}

/* A message that is valid, of whatever it may have. */
static void make_sample(sample_t *sample)
{
    static const uint8_t codes[] = {COAP_GET,     COAP_POST,      COAP_PUT,      COAP_CODE(0, 31),
                                    COAP_CHANGED, COAP_NOT_FOUND, COAP_CONTINUE, COAP_SERVICE_UNAVAILABLE};
    coap_message_t *message = &sample->message;
    *message = (coap_message_t){.code = codes[random_below(8)]};
    message->type = (coap_type_t)random_below(coap_is_request(message->code) ? 2 : 3);
    message->id = (uint16_t)random_below(65536);
    message->token_length = random_below(COAP_TOKEN_MAX + 1);
    fill_randomly(message->token, message->token_length);
    message->payload_length = random_length(MESSAGE_SIZE);
    fill_randomly(sample->payload, message->payload_length);

    coap_writer_t writer;
    coap_begin(&writer, sample->bytes, sizeof sample->bytes, message->type, message->code, message->id,
               message->token, message->token_length);
    unsigned number = 0;
    sample->option_count = random_below(OPTIONS_MOST);
    for (size_t i = 0; i < sample->option_count; i++) {
        number += (unsigned)random_length(600);
        sample->numbers[i] = number;
        sample->lengths[i] = random_length(VALUE_MOST);
        fill_randomly(sample->values[i], sample->lengths[i]);
        coap_add_option(&writer, number, sample->values[i], sample->lengths[i]);
    }
    coap_add_payload(&writer, sample->payload, message->payload_length);
    sample->length = coap_end(&writer);
    assert_true(sample->length > 0);
}

static void assert_sample(const coap_message_t *message, const sample_t *sample)
{
    coap_options_t options = coap_options(message);
    coap_option_t option;
    assert_int_equal(message->type, sample->message.type);
    assert_int_equal(message->code, sample->message.code);
    assert_int_equal(message->id, sample->message.id);
    assert_int_equal(message->token_length, sample->message.token_length);
    assert_memory_equal(message->token, sample->message.token, COAP_TOKEN_MAX);
    for (size_t i = 0; i < sample->option_count; i++) {
        assert_true(coap_next_option(&options, &option));
        assert_int_equal(option.number, sample->numbers[i]);
        assert_int_equal(option.length, sample->lengths[i]);
        assert_memory_equal(option.value, sample->values[i], option.length);
    }
    assert_false(coap_next_option(&options, &option));
    assert_int_equal(message->payload_length, sample->message.payload_length);
    assert_memory_equal(message->payload, sample->payload, message->payload_length);
}

static void random_messages_survive_a_round_trip(void **state)
{
    (void)state;
    static sample_t sample;
    coap_message_t message;
    for (int i = 0; i < 5000; i++) {
        make_sample(&sample);
        assert_true(coap_parse(&message, sample.bytes, sample.length));
        assert_sample(&message, &sample);
    }
}

/* A message that is cut short is either refused, or has the same fields up to the cut. */
static void every_truncation_is_parsed_within_its_bytes(void **state)
{
    (void)state;
    static sample_t sample;
    coap_message_t whole, cut;
    for (int i = 0; i < 50; i++) {
        make_sample(&sample);
        assert_true(coap_parse(&whole, sample.bytes, sample.length));
        size_t payload_at = sample.length - whole.payload_length;
        for (size_t length = 0; length < sample.length; length++) {
            bool parsed = parse_copy(&cut, sample.bytes, length);
            assert_false(parsed && length < 4 + whole.token_length);
            if (whole.payload_length > 0 && length >= payload_at)
                assert_int_equal(parsed, length > payload_at);
            if (parsed)
                assert_true(cut.options_length + cut.payload_length + cut.token_length + 4 +
                                (cut.payload_length > 0) ==
                            length);
        }
    }
}

static void random_bytes_are_parsed_within_their_bounds(void **state)
{
    (void)state;
    unsigned char bytes[80] = {0};
    coap_message_t message;
    for (int i = 0; i < 50000; i++) {
        size_t length = random_below(sizeof bytes);
        fill_randomly(bytes, length);
        bytes[0] = (unsigned char)(bytes[0] % 0x49 & 0x7f);
        (void)parse_copy(&message, bytes, length);
    }
}

static int begin_randomly(void **state)
{
    (void)state;
    seed_random();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_messages_survive_a_round_trip),
        cmocka_unit_test(every_truncation_is_parsed_within_its_bytes),
        cmocka_unit_test(random_bytes_are_parsed_within_their_bounds),
    };
    return cmocka_run_group_tests(tests, begin_randomly, NULL);
}
