/* exchange.h: large payloads and large bodies go in blocks (RFC 7959), and only the whole of them counts. */
#include "exchange_peer.h"

enum { SIZE_16, SIZE_32, SIZE_64, SIZE_128, SIZE_256, SIZE_512, SIZE_1024 };

static char large[70000];

static int prepare(void **state)
{
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 7 + i / 251);
    return reset_counters(state);
}

/* The message under way is this block of the payload. */
static void sends_block(uint32_t number, bool more, unsigned exponent, size_t offset, size_t length)
{
    coap_message_t message = request();
    coap_option_t option;
    coap_block_t block;
    uint32_t size;
    assert_true(coap_find_option(&message, COAP_BLOCK1, &option));
    assert_true(coap_parse_block(&option, &block));
    assert_int_equal(block.number, number);
    assert_int_equal(block.more, more);
    assert_int_equal(block.size_exponent, exponent);
    assert_int_equal(message.payload_length, length);
    assert_memory_equal(message.payload, large + offset, length);
    assert_int_equal(coap_find_option(&message, COAP_SIZE1, &option), number == 0);
    if (number == 0) {
        assert_true(coap_option_uint(&option, 4, &size));
        assert_int_equal(size, exchange.length);
    }
}

static void asks_for(uint32_t number, unsigned exponent)
{
    coap_message_t message = request();
    coap_option_t option;
    coap_block_t block;
    assert_true(coap_find_option(&message, COAP_BLOCK2, &option));
    assert_true(coap_parse_block(&option, &block));
    assert_int_equal(block.number, number);
    assert_int_equal(block.more, false);
    assert_int_equal(block.size_exponent, exponent);
    assert_int_equal(message.payload_length, 0);
    assert_false(coap_find_option(&message, COAP_BLOCK1, &option));
}

static void post_large(size_t length)
{
    begin_with(COAP_POST, large, length);
}

/* --- The payload --- */

static void up_to_1024_bytes_go_in_one_message(void **state)
{
    (void)state;
    coap_option_t option;
    post_large(1024);
    coap_message_t message = request();
    assert_false(coap_find_option(&message, COAP_BLOCK1, &option));
    assert_int_equal(message.payload_length, 1024);
    post_large(1025);
    sends_block(0, true, SIZE_1024, 0, 1024);
}

static void blocks_go_one_by_one_with_one_token_and_new_ids(void **state)
{
    (void)state;
    post_large(2500);
    uint16_t token = exchange.token, id = exchange.id;
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    sends_block(1, true, SIZE_1024, 1024, 1024);
    assert_int_equal(exchange.token, token);
    assert_int_equal(exchange.id, id + 1);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(1, true, SIZE_1024)), EXCHANGE_NEXT);
    sends_block(2, false, SIZE_1024, 2048, 452);
    assert_int_equal(exchange.token, token);
    ended(PIGGYBACKED(COAP_CHANGED, BLOCK1(2, false, SIZE_1024)), EXCHANGE_CONFIRMED);
}

static void a_last_block_may_be_full(void **state)
{
    (void)state;
    post_large(2048);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    sends_block(1, false, SIZE_1024, 1024, 1024);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
}

static void the_size_that_the_server_asks_for_is_kept_from_then_on(void **state)
{
    (void)state;
    post_large(1024 + 100);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_64)), EXCHANGE_NEXT);
    sends_block(16, true, SIZE_64, 1024, 64);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(16, true, SIZE_1024)), EXCHANGE_NEXT);
    sends_block(17, false, SIZE_64, 1088, 36);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
}

static void the_size_can_shrink_in_the_midst(void **state)
{
    (void)state;
    post_large(3000);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(1, true, SIZE_512)), EXCHANGE_NEXT);
    sends_block(4, true, SIZE_512, 2048, 512);
}

static void a_413_with_a_smaller_size_is_obeyed_once(void **state)
{
    (void)state;
    post_large(2000);
    uint16_t token = exchange.token;
    assert_int_equal(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE, BLOCK1(0, true, SIZE_256)), EXCHANGE_NEXT);
    sends_block(0, true, SIZE_256, 0, 256);
    assert_int_not_equal(exchange.token, token);
    ended(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE, BLOCK1(0, true, SIZE_64)), EXCHANGE_REFUSED);
}

static void a_413_to_an_unblocked_payload_brings_blocks(void **state)
{
    (void)state;
    post_large(300);
    assert_int_equal(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE, BLOCK1(0, true, SIZE_128)), EXCHANGE_NEXT);
    sends_block(0, true, SIZE_128, 0, 128);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_128)), EXCHANGE_NEXT);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(1, true, SIZE_128)), EXCHANGE_NEXT);
    sends_block(2, false, SIZE_128, 256, 44);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
}

static void a_413_without_help_is_a_refusal(void **state)
{
    (void)state;
    post_large(2000);
    ended(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE), EXCHANGE_REFUSED);
    post_large(2000);
    ended(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_REFUSED);
    post_large(60);
    ended(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE, BLOCK1(0, true, SIZE_64)), EXCHANGE_REFUSED);
    post_large(2000);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    ended(PIGGYBACKED(COAP_REQUEST_ENTITY_TOO_LARGE, BLOCK1(1, true, SIZE_64)), EXCHANGE_REFUSED);
}

static void a_408_in_the_midst_begins_once_more_from_the_start(void **state)
{
    (void)state;
    post_large(3000);
    uint16_t token = exchange.token;
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    assert_int_equal(PIGGYBACKED(COAP_REQUEST_ENTITY_INCOMPLETE), EXCHANGE_NEXT);
    sends_block(0, true, SIZE_1024, 0, 1024);
    assert_int_not_equal(exchange.token, token);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    ended(PIGGYBACKED(COAP_REQUEST_ENTITY_INCOMPLETE), EXCHANGE_REFUSED);
}

static void success_before_the_last_block_confirms_nothing(void **state)
{
    (void)state;
    post_large(2500);
    ended(PIGGYBACKED(COAP_CHANGED, BLOCK1(0, true, SIZE_1024)), EXCHANGE_UNEXPECTED);
    assert_false(exchange.confirmed);
    assert_non_null(strstr(exchange.text, "2.04 Changed before the last block"));
    post_large(2500);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    ended(NON(COAP_CREATED, .id = 5), EXCHANGE_UNEXPECTED);
}

static void continue_where_nothing_is_missing_confirms_nothing(void **state)
{
    (void)state;
    post_large(1025);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    ended(PIGGYBACKED(COAP_CONTINUE, BLOCK1(1, true, SIZE_1024)), EXCHANGE_UNEXPECTED);
    post_large(2500);
    ended(PIGGYBACKED(COAP_CONTINUE), EXCHANGE_UNEXPECTED);
    post_large(100);
    ended(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_UNEXPECTED);
}

static void a_late_continue_of_an_earlier_block_decides_nothing(void **state)
{
    (void)state;
    post_large(2500);
    assert_int_equal(NON(COAP_CONTINUE, .id = 1, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    assert_int_equal(NON(COAP_CONTINUE, .id = 2, BLOCK1(0, true, SIZE_1024)), EXCHANGE_WAITING);
    sends_block(1, true, SIZE_1024, 1024, 1024);
    assert_int_equal(SEPARATE(COAP_CONTINUE, .id = 3, BLOCK1(1, true, SIZE_1024)), EXCHANGE_NEXT);
    replied(COAP_ACKNOWLEDGEMENT, 3);
    assert_int_equal(SEPARATE(COAP_CONTINUE, .id = 3, BLOCK1(1, true, SIZE_1024)), EXCHANGE_WAITING);
    replied(COAP_ACKNOWLEDGEMENT, 3);
    /* The last block is under way, and still a late one is only late. */
    assert_int_equal(NON(COAP_CONTINUE, .id = 4, BLOCK1(1, true, SIZE_1024)), EXCHANGE_WAITING);
    ended(NON(COAP_CHANGED, .id = 5), EXCHANGE_CONFIRMED);
}

static void a_continue_for_another_block_ends_it_where_it_is_the_answer_to_this_one(void **state)
{
    (void)state;
    post_large(4000);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    ended(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_UNEXPECTED);
    post_large(4000);
    ended(NON(COAP_CONTINUE, .id = 1, BLOCK1(2, true, SIZE_1024)), EXCHANGE_UNEXPECTED);
}

static void an_echo_in_the_midst_begins_from_the_start(void **state)
{
    (void)state;
    post_large(2500);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    assert_int_equal(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "12345678"), EXCHANGE_NEXT);
    sends_block(0, true, SIZE_1024, 0, 1024);
}

static void a_new_association_begins_from_the_start_with_the_size_it_knows(void **state)
{
    (void)state;
    post_large(2500);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_256)), EXCHANGE_NEXT);
    assert_true(exchange_restart(&exchange));
    sends_block(0, true, SIZE_256, 0, 256);
    assert_int_equal(PIGGYBACKED(COAP_REQUEST_ENTITY_INCOMPLETE), EXCHANGE_NEXT);
    sends_block(0, true, SIZE_256, 0, 256);
}

/* --- The body --- */

#define PART(number, more, exponent, length)                                                                 \
    BLOCK2(number, more, exponent), .payload = large + ((number) << ((exponent) + 4)),                       \
                                    .payload_length = length

static void body_is(size_t length)
{
    assert_false(exchange.body_lost);
    assert_int_equal(exchange.body_length, length);
    assert_memory_equal(exchange.body, large, length);
}

/* The payload was confirmed, so it must not be sent again; the body's loss is told. */
static void body_is_lost(exchange_step_t step, const char *reason)
{
    ended(step, EXCHANGE_CONFIRMED);
    assert_true(exchange.body_lost);
    assert_int_equal(exchange.body_length, 0);
    if (strstr(exchange.text, reason) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", exchange.text, reason);
}

static void begin_body(void)
{
    post_large(100);
    assert_int_equal(PIGGYBACKED(COAP_CHANGED, .tag = "a", .format = 43, PART(0, true, SIZE_1024, 1024)),
                     EXCHANGE_NEXT);
    asks_for(1, SIZE_1024);
}

static void a_body_is_fetched_whole_with_one_token(void **state)
{
    (void)state;
    begin_body();
    uint16_t token = exchange.token;
    assert_int_equal(PIGGYBACKED(COAP_CONTENT, .tag = "a", PART(1, true, SIZE_1024, 1024)), EXCHANGE_NEXT);
    asks_for(2, SIZE_1024);
    assert_int_equal(exchange.token, token);
    ended(PIGGYBACKED(COAP_CONTENT, .tag = "a", PART(2, false, SIZE_1024, 10)), EXCHANGE_CONFIRMED);
    body_is(2058);
    assert_int_equal(exchange.body_format, 42);
    assert_int_equal(exchange.code, COAP_CHANGED);
}

static void a_body_in_one_block_needs_no_second_message(void **state)
{
    (void)state;
    begin_with(COAP_GET, NULL, 0);
    ended(PIGGYBACKED(COAP_CONTENT, PART(0, false, SIZE_64, 40)), EXCHANGE_CONFIRMED);
    body_is(40);
}

static void a_body_comes_by_separate_responses_too_and_late_parts_decide_nothing(void **state)
{
    (void)state;
    begin_with(COAP_GET, NULL, 0);
    assert_int_equal(SEPARATE(COAP_CONTENT, .id = 1, PART(0, true, SIZE_64, 64)), EXCHANGE_NEXT);
    replied(COAP_ACKNOWLEDGEMENT, 1);
    assert_int_equal(NON(COAP_CONTENT, .id = 2, PART(0, true, SIZE_64, 64)), EXCHANGE_WAITING);
    asks_for(1, SIZE_64);
    ended(NON(COAP_CONTENT, .id = 3, PART(1, false, SIZE_64, 64)), EXCHANGE_CONFIRMED);
    body_is(128);
}

static void a_body_of_65536_bytes_is_the_largest(void **state)
{
    (void)state;
    begin_with(COAP_GET, NULL, 0);
    for (uint32_t i = 0; i < 63; i++)
        assert_int_equal(PIGGYBACKED(COAP_CONTENT, PART(i, true, SIZE_1024, 1024)), EXCHANGE_NEXT);
    ended(PIGGYBACKED(COAP_CONTENT, PART(63, false, SIZE_1024, 1024)), EXCHANGE_CONFIRMED);
    body_is(65536);
    begin_with(COAP_GET, NULL, 0);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(PIGGYBACKED(COAP_CONTENT, PART(i, true, SIZE_1024, 1024)), EXCHANGE_NEXT);
    body_is_lost(PIGGYBACKED(COAP_CONTENT, PART(64, false, SIZE_1024, 1)), "larger than 65536 bytes");
}

static void a_body_that_does_not_fit_together_is_lost_and_told(void **state)
{
    (void)state;
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_CONTENT, .tag = "b", PART(1, false, SIZE_1024, 9)), "do not fit together");
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_CONTENT, PART(1, false, SIZE_1024, 9)), "do not fit together");
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_CONTENT, .tag = "a", PART(2, false, SIZE_1024, 9)), "do not fit together");
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_CONTENT, .tag = "a", PART(1, true, SIZE_1024, 9)), "do not fit together");
}

static void a_server_that_begins_again_and_again_ends_it(void **state)
{
    (void)state;
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_CONTENT, .tag = "a", PART(0, true, SIZE_1024, 1024)),
                 "do not fit together");
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_CONTENT, .tag = "a", .payload = "all of it"), "do not fit together");
}

static void an_error_in_the_midst_of_a_body_does_not_undo_the_confirmation(void **state)
{
    (void)state;
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_NOT_FOUND), "4.04 Not Found");
    begin_body();
    body_is_lost(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "12345678"), "4.01 Unauthorized");
    begin_body();
    body_is_lost(SAYS(.type = COAP_RESET), "reset");
    begin_body();
    body_is_lost(
        PIGGYBACKED(COAP_CONTENT, .tag = "a", PART(1, false, SIZE_1024, 9), .other_option = UNKNOWN_CRITICAL),
        "critical option");
    begin_body();
    exchange_abandon(&exchange);
    body_is_lost(EXCHANGE_ANSWERED, "no answer came");
}

static void a_confirmed_payload_is_never_sent_again_over_a_new_association(void **state)
{
    (void)state;
    begin_body();
    uint16_t id = next_id;
    assert_false(exchange_restart(&exchange));
    assert_int_equal(next_id, id);
    body_is_lost(EXCHANGE_ANSWERED, "forgot the connection");
}

static void a_get_is_asked_again_over_a_new_association(void **state)
{
    (void)state;
    begin_with(COAP_GET, NULL, 0);
    assert_int_equal(PIGGYBACKED(COAP_CONTENT, .tag = "a", .format = 43, PART(0, true, SIZE_64, 64)),
                     EXCHANGE_NEXT);
    assert_true(exchange_restart(&exchange));
    coap_message_t message = request();
    coap_option_t option;
    assert_false(coap_find_option(&message, COAP_BLOCK2, &option));
    ended(PIGGYBACKED(COAP_CONTENT, .tag = "b", .payload = "another"), EXCHANGE_CONFIRMED);
    assert_int_equal(exchange.body_length, 7);
    assert_int_equal(exchange.body_format, -1);
}

static void large_both_ways(void **state)
{
    (void)state;
    post_large(1100);
    assert_int_equal(PIGGYBACKED(COAP_CONTINUE, BLOCK1(0, true, SIZE_1024)), EXCHANGE_NEXT);
    assert_int_equal(PIGGYBACKED(COAP_CHANGED, BLOCK1(1, false, SIZE_1024), PART(0, true, SIZE_32, 32)),
                     EXCHANGE_NEXT);
    asks_for(1, SIZE_32);
    ended(PIGGYBACKED(COAP_CHANGED, PART(1, false, SIZE_32, 1)), EXCHANGE_CONFIRMED);
    body_is(33);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, prepare)
    const struct CMUnitTest tests[] = {
        TEST(up_to_1024_bytes_go_in_one_message),
        TEST(blocks_go_one_by_one_with_one_token_and_new_ids),
        TEST(a_last_block_may_be_full),
        TEST(the_size_that_the_server_asks_for_is_kept_from_then_on),
        TEST(the_size_can_shrink_in_the_midst),
        TEST(a_413_with_a_smaller_size_is_obeyed_once),
        TEST(a_413_to_an_unblocked_payload_brings_blocks),
        TEST(a_413_without_help_is_a_refusal),
        TEST(a_408_in_the_midst_begins_once_more_from_the_start),
        TEST(success_before_the_last_block_confirms_nothing),
        TEST(continue_where_nothing_is_missing_confirms_nothing),
        TEST(a_late_continue_of_an_earlier_block_decides_nothing),
        TEST(a_continue_for_another_block_ends_it_where_it_is_the_answer_to_this_one),
        TEST(an_echo_in_the_midst_begins_from_the_start),
        TEST(a_new_association_begins_from_the_start_with_the_size_it_knows),
        TEST(a_body_is_fetched_whole_with_one_token),
        TEST(a_body_in_one_block_needs_no_second_message),
        TEST(a_body_comes_by_separate_responses_too_and_late_parts_decide_nothing),
        TEST(a_body_of_65536_bytes_is_the_largest),
        TEST(a_body_that_does_not_fit_together_is_lost_and_told),
        TEST(a_server_that_begins_again_and_again_ends_it),
        TEST(an_error_in_the_midst_of_a_body_does_not_undo_the_confirmation),
        TEST(a_confirmed_payload_is_never_sent_again_over_a_new_association),
        TEST(a_get_is_asked_again_over_a_new_association),
        TEST(large_both_ways),
    };
    return cmocka_run_group_tests_name("exchange in blocks", tests, NULL, NULL);
}
