/* coap.h: messages are parsed strictly and within their bytes, and written as they are parsed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "run/coap.h"

/* --- What the tests share --- */

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

#define ACCEPTS(...)                                                                                         \
    do {                                                                                                     \
        const unsigned char bytes_[] = {__VA_ARGS__};                                                        \
        coap_message_t message_;                                                                             \
        assert_true(parse_copy(&message_, bytes_, sizeof bytes_));                                           \
    } while (0)

#define REJECTS(...)                                                                                         \
    do {                                                                                                     \
        const unsigned char bytes_[] = {__VA_ARGS__};                                                        \
        coap_message_t message_;                                                                             \
        assert_false(parse_copy(&message_, bytes_, sizeof bytes_));                                          \
    } while (0)

/* --- RFC 7252 appendix A --- */

static const unsigned char get_temperature[] = "\x41\x01\x7d\x35\x20\xbbtemperature";
static const unsigned char celsius[] = "\x61\x45\x7d\x35\x20\xff"
                                       "22.3 C";

static void the_confirmable_request_of_the_rfc_is_parsed(void **state)
{
    (void)state;
    coap_message_t message;
    coap_option_t option;
    assert_true(coap_parse(&message, get_temperature, sizeof get_temperature - 1));
    assert_int_equal(message.type, COAP_CONFIRMABLE);
    assert_int_equal(message.code, COAP_GET);
    assert_int_equal(message.id, 0x7d35);
    assert_int_equal(message.token_length, 1);
    assert_int_equal(message.token[0], 0x20);
    assert_int_equal(message.payload_length, 0);
    coap_options_t options = coap_options(&message);
    assert_true(coap_next_option(&options, &option));
    assert_int_equal(option.number, COAP_URI_PATH);
    assert_int_equal(option.length, 11);
    assert_memory_equal(option.value, "temperature", 11);
    assert_false(coap_next_option(&options, &option));
    assert_false(coap_next_option(&options, &option));
}

static void the_piggybacked_response_of_the_rfc_is_parsed(void **state)
{
    (void)state;
    coap_message_t message;
    assert_true(coap_parse(&message, celsius, sizeof celsius - 1));
    assert_int_equal(message.type, COAP_ACKNOWLEDGEMENT);
    assert_int_equal(message.code, COAP_CONTENT);
    assert_int_equal(message.id, 0x7d35);
    assert_int_equal(message.token_length, 1);
    assert_int_equal(message.options_length, 0);
    assert_int_equal(message.payload_length, 6);
    assert_memory_equal(message.payload, "22.3 C", 6);
}

static void both_are_written_as_the_rfc_has_them(void **state)
{
    (void)state;
    unsigned char bytes[64];
    coap_writer_t writer;
    coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_GET, 0x7d35, (const unsigned char *)" ",
               1);
    coap_add_option(&writer, COAP_URI_PATH, "temperature", 11);
    assert_int_equal(coap_end(&writer), sizeof get_temperature - 1);
    assert_memory_equal(bytes, get_temperature, sizeof get_temperature - 1);
    coap_begin(&writer, bytes, sizeof bytes, COAP_ACKNOWLEDGEMENT, COAP_CONTENT, 0x7d35,
               (const unsigned char *)" ", 1);
    coap_add_payload(&writer, "22.3 C", 6);
    assert_int_equal(coap_end(&writer), sizeof celsius - 1);
    assert_memory_equal(bytes, celsius, sizeof celsius - 1);
}

static void the_empty_acknowledgement_of_a_separate_response_is_written_and_parsed(void **state)
{
    (void)state;
    unsigned char bytes[4];
    coap_message_t message;
    coap_writer_t writer;
    coap_begin(&writer, bytes, sizeof bytes, COAP_ACKNOWLEDGEMENT, COAP_EMPTY, 0x7d38, NULL, 0);
    assert_int_equal(coap_end(&writer), 4);
    assert_memory_equal(bytes, "\x60\x00\x7d\x38", 4);
    assert_true(parse_copy(&message, bytes, 4));
    assert_int_equal(message.type, COAP_ACKNOWLEDGEMENT);
    assert_int_equal(message.code, COAP_EMPTY);
    assert_int_equal(message.id, 0x7d38);
}

/* --- Strictness --- */

static void a_header_has_version_1_and_at_most_8_bytes_of_token(void **state)
{
    (void)state;
    REJECTS(0x40, 0x01, 0x00);
    REJECTS(0x00, 0x01, 0x00, 0x00);
    REJECTS(0x80, 0x01, 0x00, 0x00);
    REJECTS(0xc0, 0x01, 0x00, 0x00);
    ACCEPTS(0x48, 0x01, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8);
    REJECTS(0x48, 0x01, 0, 0, 1, 2, 3, 4, 5, 6, 7);
    REJECTS(0x49, 0x01, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    REJECTS(0x4f, 0x01, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    coap_message_t message;
    assert_false(coap_parse(&message, NULL, 0));
}

static void an_empty_message_has_nothing_behind_its_id(void **state)
{
    (void)state;
    ACCEPTS(0x40, 0x00, 0x12, 0x34);
    ACCEPTS(0x60, 0x00, 0x12, 0x34);
    ACCEPTS(0x70, 0x00, 0x12, 0x34);
    REJECTS(0x41, 0x00, 0x12, 0x34, 0x01);
    REJECTS(0x60, 0x00, 0x12, 0x34, 0x00);
    REJECTS(0x60, 0x00, 0x12, 0x34, 0xff, 0x01);
}

static void a_type_goes_with_its_codes_alone(void **state)
{
    (void)state;
    REJECTS(0x50, 0x00, 0x12, 0x34);
    REJECTS(0x60, COAP_POST, 0x12, 0x34);
    REJECTS(0x70, COAP_POST, 0x12, 0x34);
    REJECTS(0x70, COAP_CHANGED, 0x12, 0x34);
    ACCEPTS(0x40, COAP_CHANGED, 0x12, 0x34);
    ACCEPTS(0x50, COAP_CHANGED, 0x12, 0x34);
    ACCEPTS(0x60, COAP_CHANGED, 0x12, 0x34);
}

static void reserved_classes_of_codes_are_format_errors(void **state)
{
    (void)state;
    for (unsigned code = 1; code < 256; code++) {
        unsigned class = code >> 5;
        const unsigned char bytes[] = {0x40, (unsigned char)code, 0, 0};
        coap_message_t message;
        assert_int_equal(parse_copy(&message, bytes, sizeof bytes),
                         class == 0 || class == 2 || class == 4 || class == 5);
    }
}

static void a_payload_marker_is_followed_by_a_payload(void **state)
{
    (void)state;
    REJECTS(0x60, 0x45, 0, 0, 0xff);
    ACCEPTS(0x60, 0x45, 0, 0, 0xff, 0xff);
    REJECTS(0x60, 0x45, 0, 0, 0xc0, 0xff);
}

static void a_nibble_of_15_is_no_option(void **state)
{
    (void)state;
    REJECTS(0x60, 0x45, 0, 0, 0xf0, 0x01, 0x01);
    REJECTS(0x60, 0x45, 0, 0, 0x0f, 0x01, 0x01);
    REJECTS(0x60, 0x45, 0, 0, 0x1f, 0x01, 0x01);
}

static void an_option_ends_within_the_message(void **state)
{
    (void)state;
    ACCEPTS(0x60, 0x45, 0, 0, 0xc1, 0x00);
    REJECTS(0x60, 0x45, 0, 0, 0xc1);
    REJECTS(0x60, 0x45, 0, 0, 0xd0);
    REJECTS(0x60, 0x45, 0, 0, 0xe0, 0x00);
    REJECTS(0x60, 0x45, 0, 0, 0xdd, 0x00);
    REJECTS(0x60, 0x45, 0, 0, 0xce, 0xff, 0xff, 0x00);
}

static void an_option_number_has_16_bits(void **state)
{
    (void)state;
    coap_message_t message;
    coap_option_t option;
    /* 65535 = 269 + 0xfef2 */
    const unsigned char highest[] = {0x60, 0x45, 0, 0, 0xe0, 0xfe, 0xf2};
    assert_true(coap_parse(&message, highest, sizeof highest));
    assert_true(coap_find_option(&message, 65535, &option));
    REJECTS(0x60, 0x45, 0, 0, 0xe0, 0xfe, 0xf3);
    REJECTS(0x60, 0x45, 0, 0, 0xe0, 0xff, 0xff);
    REJECTS(0x60, 0x45, 0, 0, 0xe0, 0xfe, 0xf2, 0x10);
}

static void what_is_rejected_still_gives_type_and_id_for_a_reset(void **state)
{
    (void)state;
    coap_message_t message;
    const unsigned char broken[] = {0x44, 0x45, 0xab, 0xcd, 0x01};
    assert_false(coap_parse(&message, broken, sizeof broken));
    assert_int_equal(message.type, COAP_CONFIRMABLE);
    assert_int_equal(message.id, 0xabcd);
    assert_int_equal(message.payload_length, 0);
    const unsigned char foreign[] = {0x00, 0x45, 0xab, 0xcd};
    assert_false(coap_parse(&message, foreign, sizeof foreign));
    assert_int_equal(message.type, COAP_RESET);
}

/* --- Options --- */

static void options_are_extended_by_one_and_by_two_bytes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 12, 13, 14, 268, 269, 270, 600};
    static const unsigned numbers[] = {12,  25,  38,   306,
                                       307, 576, 65535}; /* deltas of 12, 13, 13, 268, 1, 269 */
    unsigned char bytes[6000], value[600];
    coap_message_t message;
    coap_option_t option;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        coap_writer_t writer;
        memset(value, (int)i + 1, sizeof value);
        coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_POST, 1, NULL, 0);
        for (size_t j = 0; j < sizeof numbers / sizeof numbers[0]; j++)
            coap_add_option(&writer, numbers[j], value, sizes[i]);
        assert_true(coap_end(&writer) > 0);
        assert_true(parse_copy(&message, bytes, writer.length));
        assert_true(coap_parse(&message, bytes, writer.length));
        coap_options_t options = coap_options(&message);
        for (size_t j = 0; j < sizeof numbers / sizeof numbers[0]; j++) {
            assert_true(coap_next_option(&options, &option));
            assert_int_equal(option.number, numbers[j]);
            assert_int_equal(option.length, sizes[i]);
            assert_memory_equal(option.value, value, sizes[i]);
        }
        assert_false(coap_next_option(&options, &option));
    }
}

static void a_number_takes_no_more_bytes_than_it_needs(void **state)
{
    (void)state;
    static const struct {
        uint32_t value;
        size_t length;
    } numbers[] = {{0, 0},     {1, 1},     {255, 1},       {256, 2},
                   {65535, 2}, {65536, 3}, {0x1000000, 4}, {UINT32_MAX, 4}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        unsigned char bytes[16];
        coap_writer_t writer;
        coap_message_t message;
        coap_option_t option;
        uint32_t value;
        coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_GET, 1, NULL, 0);
        coap_add_uint(&writer, COAP_SIZE2, numbers[i].value);
        assert_true(coap_parse(&message, bytes, coap_end(&writer)));
        assert_true(coap_find_option(&message, COAP_SIZE2, &option));
        assert_int_equal(option.length, numbers[i].length);
        assert_true(coap_option_uint(&option, 4, &value));
        assert_int_equal(value, numbers[i].value);
    }
}

static void a_number_may_have_leading_zeros_but_no_more_bytes_than_allowed(void **state)
{
    (void)state;
    uint32_t value = 7;
    coap_option_t option = {COAP_MAX_AGE, (const unsigned char *)"\0\0\x01\x2c\0", 4};
    assert_true(coap_option_uint(&option, 4, &value));
    assert_int_equal(value, 300);
    value = 7;
    assert_false(coap_option_uint(&option, 3, &value));
    option.length = 5;
    assert_false(coap_option_uint(&option, 8, &value));
    assert_int_equal(value, 7);
}

static void a_smaller_option_number_fails_and_the_same_does_not(void **state)
{
    (void)state;
    unsigned char bytes[64];
    coap_writer_t writer;
    coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_GET, 1, NULL, 0);
    coap_add_option(&writer, COAP_URI_PATH, "a", 1);
    coap_add_option(&writer, COAP_URI_PATH, "b", 1);
    assert_int_equal(coap_end(&writer), 8);
    coap_add_option(&writer, COAP_URI_PATH - 1, "c", 1);
    assert_int_equal(coap_end(&writer), 0);
}

static void the_first_of_several_options_is_found(void **state)
{
    (void)state;
    const unsigned char bytes[] = {0x40, 0x01, 0, 0, 0xb1, 'a', 0x01, 'b', 0x41, 'q'};
    coap_message_t message;
    coap_option_t option;
    assert_true(coap_parse(&message, bytes, sizeof bytes));
    assert_true(coap_find_option(&message, COAP_URI_PATH, &option));
    assert_memory_equal(option.value, "a", 1);
    assert_true(coap_find_option(&message, COAP_URI_QUERY, &option));
    assert_false(coap_find_option(&message, COAP_CONTENT_FORMAT, &option));
    assert_false(coap_find_option(&message, 65535, &option));
}

/* --- What a client understands --- */

/* The first option of a response with these that is not understood; 0: all are. */
static unsigned not_understood(unsigned first, const char *value, size_t length, unsigned second)
{
    unsigned char bytes[64];
    unsigned number = 0;
    coap_writer_t writer;
    coap_message_t message;
    coap_begin(&writer, bytes, sizeof bytes, COAP_ACKNOWLEDGEMENT, COAP_CONTENT, 1, NULL, 0);
    coap_add_option(&writer, first, value, length);
    coap_add_option(&writer, second, "\x06", 1);
    assert_true(coap_parse(&message, bytes, coap_end(&writer)));
    bool understood = coap_understands_response(&message, &number);
    assert_int_equal(understood, number == 0);
    return number;
}

static void a_response_with_an_unknown_critical_option_is_not_understood(void **state)
{
    (void)state;
    assert_int_equal(not_understood(COAP_CONTENT_FORMAT, "", 0, COAP_BLOCK2), 0);
    assert_int_equal(not_understood(COAP_BLOCK2, "\x0e", 1, COAP_BLOCK1), 0);
    assert_int_equal(not_understood(COAP_LOCATION_PATH, "x", 1, 65534), 0);
    assert_int_equal(not_understood(COAP_BLOCK2, "", 0, 65535), 65535);
    /* It is defined for requests alone. */
    assert_int_equal(not_understood(COAP_URI_PATH, "x", 1, 60), COAP_URI_PATH);
    assert_int_equal(not_understood(9, "", 0, COAP_BLOCK2), 9);
}

static void a_block_option_that_comes_twice_or_is_broken_is_not_understood(void **state)
{
    (void)state;
    assert_int_equal(not_understood(COAP_BLOCK2, "\x06", 1, COAP_BLOCK2), COAP_BLOCK2);
    assert_int_equal(not_understood(COAP_BLOCK2, "\x07", 1, COAP_BLOCK1), COAP_BLOCK2);
    assert_int_equal(not_understood(COAP_BLOCK2, "\0\0\0\0", 4, COAP_BLOCK1), COAP_BLOCK2);
    /* Elective ones may come as often as they like. */
    assert_int_equal(not_understood(COAP_CONTENT_FORMAT, "\0\0\0", 3, COAP_CONTENT_FORMAT), 0);
}

/* --- Blocks --- */

static void block_options_are_parsed_and_written(void **state)
{
    (void)state;
    coap_block_t block;
    assert_true(coap_parse_block(&(coap_option_t){COAP_BLOCK1, NULL, 0}, &block));
    assert_true(block.number == 0 && !block.more && block.size_exponent == 0);
    const unsigned char third[] = {0x2e};
    assert_true(coap_parse_block(&(coap_option_t){COAP_BLOCK1, third, 1}, &block));
    assert_true(block.number == 2 && block.more && block.size_exponent == 6);
    assert_int_equal(coap_block_value(block), 0x2e);
    const unsigned char last[] = {0xff, 0xff, 0xf2};
    assert_true(coap_parse_block(&(coap_option_t){COAP_BLOCK2, last, 3}, &block));
    assert_true(block.number == COAP_BLOCK_MAX - 1 && !block.more && block.size_exponent == 2);
    assert_int_equal(coap_block_value(block), 0xfffff2);
}

static void the_reserved_block_size_and_more_than_3_bytes_are_refused(void **state)
{
    (void)state;
    coap_block_t block;
    const unsigned char reserved[] = {0x07}, with_more[] = {0x1f}, long_one[] = {0, 0, 0, 6};
    assert_false(coap_parse_block(&(coap_option_t){COAP_BLOCK1, reserved, 1}, &block));
    assert_false(coap_parse_block(&(coap_option_t){COAP_BLOCK1, with_more, 1}, &block));
    assert_false(coap_parse_block(&(coap_option_t){COAP_BLOCK1, long_one, 4}, &block));
}

/* --- The writer's limits --- */

static void what_does_not_fit_fails_at_every_size(void **state)
{
    (void)state;
    unsigned char bytes[64];
    for (size_t size = 0; size <= sizeof bytes; size++) {
        coap_writer_t writer;
        memset(bytes, 0xa5, sizeof bytes);
        coap_begin(&writer, bytes, size, COAP_CONFIRMABLE, COAP_POST, 1, (const unsigned char *)"ab", 2);
        coap_add_option(&writer, COAP_URI_PATH, "a path of 20 letters", 20);
        coap_add_uint(&writer, COAP_CONTENT_FORMAT, 50);
        coap_add_payload(&writer, "21.5", 4);
        assert_int_equal(coap_end(&writer), size < 35 ? 0 : 35);
        for (size_t i = size; i < sizeof bytes; i++)
            assert_int_equal(bytes[i], 0xa5);
    }
}

static void what_is_not_allowed_fails(void **state)
{
    (void)state;
    unsigned char bytes[64];
    coap_writer_t writer;
    coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_POST, 1,
               (const unsigned char *)"123456789", 9);
    assert_int_equal(coap_end(&writer), 0);
    coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_POST, 1, NULL, 0);
    coap_add_option(&writer, 65536, "", 0);
    assert_int_equal(coap_end(&writer), 0);
    coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_POST, 1, NULL, 0);
    coap_add_payload(&writer, "", 0);
    assert_int_equal(coap_end(&writer), 4);
    coap_add_payload(&writer, "a", 1);
    assert_int_equal(coap_end(&writer), 6);
    coap_add_payload(&writer, "b", 1);
    assert_int_equal(coap_end(&writer), 0);
    coap_begin(&writer, bytes, sizeof bytes, COAP_CONFIRMABLE, COAP_POST, 1, NULL, 0);
    coap_add_payload(&writer, "a", 1);
    coap_add_option(&writer, 65535, "", 0);
    assert_int_equal(coap_end(&writer), 0);
}

/* --- Codes --- */

static void codes_have_their_registered_names(void **state)
{
    (void)state;
    char text[COAP_CODE_TEXT];
    assert_string_equal(coap_code_name(COAP_CODE(4, 4)), "Not Found");
    assert_string_equal(coap_code_name(COAP_CODE(5, 8)), "Hop Limit Reached");
    assert_string_equal(coap_code_name(COAP_POST), "");
    coap_format_code(COAP_CODE(4, 4), text);
    assert_string_equal(text, "4.04 Not Found");
    coap_format_code(COAP_CONTINUE, text);
    assert_string_equal(text, "2.31 Continue");
    coap_format_code(COAP_CODE(4, 30), text);
    assert_string_equal(text, "4.30");
    for (unsigned code = 0; code < 256; code++) {
        coap_format_code((uint8_t)code, text);
        assert_true(strlen(text) < COAP_CODE_TEXT - 1);
    }
}

static void odd_options_are_critical(void **state)
{
    (void)state;
    assert_true(coap_is_critical(COAP_URI_PATH) && coap_is_critical(COAP_BLOCK1));
    assert_false(coap_is_critical(COAP_CONTENT_FORMAT) || coap_is_critical(COAP_ECHO));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_confirmable_request_of_the_rfc_is_parsed),
        cmocka_unit_test(the_piggybacked_response_of_the_rfc_is_parsed),
        cmocka_unit_test(both_are_written_as_the_rfc_has_them),
        cmocka_unit_test(the_empty_acknowledgement_of_a_separate_response_is_written_and_parsed),
        cmocka_unit_test(a_header_has_version_1_and_at_most_8_bytes_of_token),
        cmocka_unit_test(an_empty_message_has_nothing_behind_its_id),
        cmocka_unit_test(a_type_goes_with_its_codes_alone),
        cmocka_unit_test(reserved_classes_of_codes_are_format_errors),
        cmocka_unit_test(a_payload_marker_is_followed_by_a_payload),
        cmocka_unit_test(a_nibble_of_15_is_no_option),
        cmocka_unit_test(an_option_ends_within_the_message),
        cmocka_unit_test(an_option_number_has_16_bits),
        cmocka_unit_test(what_is_rejected_still_gives_type_and_id_for_a_reset),
        cmocka_unit_test(options_are_extended_by_one_and_by_two_bytes),
        cmocka_unit_test(a_number_takes_no_more_bytes_than_it_needs),
        cmocka_unit_test(a_number_may_have_leading_zeros_but_no_more_bytes_than_allowed),
        cmocka_unit_test(a_smaller_option_number_fails_and_the_same_does_not),
        cmocka_unit_test(the_first_of_several_options_is_found),
        cmocka_unit_test(a_response_with_an_unknown_critical_option_is_not_understood),
        cmocka_unit_test(a_block_option_that_comes_twice_or_is_broken_is_not_understood),
        cmocka_unit_test(block_options_are_parsed_and_written),
        cmocka_unit_test(the_reserved_block_size_and_more_than_3_bytes_are_refused),
        cmocka_unit_test(what_does_not_fit_fails_at_every_size),
        cmocka_unit_test(what_is_not_allowed_fails),
        cmocka_unit_test(codes_have_their_registered_names),
        cmocka_unit_test(odd_options_are_critical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
