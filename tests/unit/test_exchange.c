/* exchange.h: what a server says to a request in one message means what RFC 7252 says, and nothing else does.
 */
#include "exchange_peer.h"

static void assert_text_begins(const char *text)
{
    if (strncmp(exchange.text, text, strlen(text)) != 0)
        fail_msg("\"%s\" does not begin with \"%s\"", exchange.text, text);
}

/* --- The request --- */

static void a_request_bears_path_format_query_and_payload(void **state)
{
    (void)state;
    post("21.5");
    coap_message_t message = request();
    coap_options_t options = coap_options(&message);
    coap_option_t option;
    assert_int_equal(message.code, COAP_POST);
    assert_true(coap_next_option(&options, &option));
    assert_int_equal(option.number, COAP_URI_PATH);
    assert_memory_equal(option.value, "sensor", 6);
    assert_true(coap_next_option(&options, &option));
    assert_int_equal(option.number, COAP_CONTENT_FORMAT);
    assert_int_equal(option.value[0], 60);
    assert_true(coap_next_option(&options, &option));
    assert_int_equal(option.number, COAP_URI_QUERY);
    assert_memory_equal(option.value, "a=1", 3);
    assert_false(coap_next_option(&options, &option));
    assert_int_equal(message.payload_length, 4);
    assert_memory_equal(message.payload, "21.5", 4);
}

static void an_empty_payload_and_a_get_have_no_payload_marker(void **state)
{
    (void)state;
    post("");
    assert_int_equal(request().payload_length, 0);
    begin_with(COAP_GET, NULL, 0);
    assert_int_equal(request().payload_length, 0);
    assert_int_equal(request().code, COAP_GET);
}

static void ids_and_tokens_go_on_from_the_associations_counters(void **state)
{
    (void)state;
    post("one");
    assert_int_equal(exchange.id, 0xfffd);
    assert_int_equal(exchange.token, 0xfffe);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
    assert_true(exchange_begin(&exchange, (const unsigned char *)"two", 3));
    assert_int_equal(request().id, 0xfffe);
    assert_int_equal(exchange.token, 0xffff);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
    assert_true(exchange_begin(&exchange, (const unsigned char *)"three", 5));
    assert_int_equal(exchange.token, 0);
    assert_int_equal(next_id, 0);
    assert_int_equal(next_token, 1);
}

static void the_message_stays_unchanged_whatever_decides_nothing(void **state)
{
    (void)state;
    unsigned char before[EXCHANGE_MESSAGE_MAX];
    post("21.5");
    size_t length = exchange.message_length;
    memcpy(before, exchange.message, length);
    assert_int_equal(SAYS(.type = COAP_CONFIRMABLE, .id = 7), EXCHANGE_WAITING);
    assert_int_equal(SEPARATE(COAP_CHANGED, .id = 8, .other_token = true), EXCHANGE_WAITING);
    assert_int_equal(PIGGYBACKED(COAP_CHANGED, .id = 9), EXCHANGE_WAITING);
    assert_int_equal(PIGGYBACKED(COAP_EMPTY), EXCHANGE_ACKNOWLEDGED);
    assert_int_equal(exchange.message_length, length);
    assert_memory_equal(exchange.message, before, length);
}

static void what_does_not_fit_a_message_is_not_begun(void **state)
{
    (void)state;
    unsigned char options[20 * 257];
    for (size_t i = 0; i < sizeof options; i += 257) {
        memset(options + i, 'x', 257);
        options[i] = COAP_URI_PATH;
        options[i + 1] = 255;
    }
    exchange_config_t config = {.method = COAP_POST,
                                .uri_options = options,
                                .uri_options_length = sizeof options,
                                .content_format = -1,
                                .message_id = &next_id,
                                .token = &next_token};
    exchange_init(&exchange, &config);
    assert_false(exchange_begin(&exchange, (const unsigned char *)"x", 1));
    assert_int_equal(SEPARATE(COAP_CHANGED, .id = 1), EXCHANGE_WAITING);
    replied(COAP_RESET, 1);
}

/* --- Piggybacked --- */

static void a_piggybacked_response_confirms_by_id_and_token(void **state)
{
    (void)state;
    post("21.5");
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
    assert_int_equal(exchange.code, COAP_CHANGED);
    assert_int_equal(exchange.body_length, 0);
    replied_nothing();
}

static void a_piggybacked_response_of_another_id_or_token_decides_nothing(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(PIGGYBACKED(COAP_CHANGED, .id = (uint16_t)(exchange.id - 1)), EXCHANGE_WAITING);
    replied_nothing();
    assert_int_equal(PIGGYBACKED(COAP_CHANGED, .other_token = true), EXCHANGE_WAITING);
    replied_nothing();
    assert_int_equal(PIGGYBACKED(COAP_NOT_FOUND, .other_token = true), EXCHANGE_WAITING);
    ended(PIGGYBACKED(COAP_CREATED), EXCHANGE_CONFIRMED);
}

static void a_token_of_another_length_is_another_token(void **state)
{
    (void)state;
    post("21.5");
    unsigned char longer[] = {0x63, COAP_CHANGED, 0xff, 0xfd, 0xff, 0xfe, 0};
    unsigned char shorter[] = {0x61, COAP_CHANGED, 0xff, 0xfd, 0xff};
    assert_int_equal(take_bytes(longer, sizeof longer), EXCHANGE_WAITING);
    assert_int_equal(take_bytes(shorter, sizeof shorter), EXCHANGE_WAITING);
}

static void a_body_comes_with_its_code_and_format(void **state)
{
    (void)state;
    begin_with(COAP_GET, NULL, 0);
    ended(PIGGYBACKED(COAP_CONTENT, .format = 50 + 1, .payload = "{\"a\":1}"), EXCHANGE_CONFIRMED);
    assert_int_equal(exchange.code, COAP_CONTENT);
    assert_int_equal(exchange.body_format, 50);
    assert_int_equal(exchange.body_length, 7);
    assert_memory_equal(exchange.body, "{\"a\":1}", 7);
    assert_false(exchange.body_lost);
}

/* --- Separate --- */

static void a_separate_response_is_acknowledged_again_when_it_comes_again(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(PIGGYBACKED(COAP_EMPTY), EXCHANGE_ACKNOWLEDGED);
    ended(SEPARATE(COAP_CHANGED, .id = 77), EXCHANGE_CONFIRMED);
    replied(COAP_ACKNOWLEDGEMENT, 77);
    assert_int_equal(SEPARATE(COAP_CHANGED, .id = 77), EXCHANGE_WAITING);
    replied(COAP_ACKNOWLEDGEMENT, 77);
}

static void it_is_acknowledged_again_during_the_next_exchange_and_confirms_nothing_there(void **state)
{
    (void)state;
    unsigned char response[32];
    post("21.5");
    answer_t answer = {.type = COAP_CONFIRMABLE, .code = COAP_CHANGED, .id = 77};
    size_t length = write_answer(&answer, response, sizeof response);
    ended(take_bytes(response, length), EXCHANGE_CONFIRMED);
    assert_true(exchange_begin(&exchange, (const unsigned char *)"21.6", 4));
    assert_int_equal(take_bytes(response, length), EXCHANGE_WAITING);
    replied(COAP_ACKNOWLEDGEMENT, 77);
    assert_true(exchange.waiting);
}

static void a_server_that_restarted_may_use_the_same_id_again(void **state)
{
    (void)state;
    post("21.5");
    ended(SEPARATE(COAP_CHANGED, .id = 1), EXCHANGE_CONFIRMED);
    assert_true(exchange_begin(&exchange, (const unsigned char *)"21.6", 4));
    ended(SEPARATE(COAP_CHANGED, .id = 1), EXCHANGE_CONFIRMED);
    replied(COAP_ACKNOWLEDGEMENT, 1);
}

static void a_separate_response_may_overtake_the_acknowledgement(void **state)
{
    (void)state;
    post("21.5");
    ended(SEPARATE(COAP_CHANGED, .id = 77), EXCHANGE_CONFIRMED);
    assert_int_equal(PIGGYBACKED(COAP_EMPTY), EXCHANGE_WAITING);
    replied_nothing();
}

static void a_non_confirmable_response_is_believed_and_not_acknowledged(void **state)
{
    (void)state;
    post("21.5");
    ended(NON(COAP_CHANGED, .id = 77), EXCHANGE_CONFIRMED);
    replied_nothing();
}

static void a_separate_response_of_another_token_is_reset_and_not_believed(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(SEPARATE(COAP_CHANGED, .id = 77, .other_token = true), EXCHANGE_WAITING);
    replied(COAP_RESET, 77);
    assert_int_equal(NON(COAP_CHANGED, .id = 78, .other_token = true), EXCHANGE_WAITING);
    replied(COAP_RESET, 78);
    assert_true(exchange.waiting);
}

static void what_comes_after_the_end_is_reset(void **state)
{
    (void)state;
    post("21.5");
    exchange_abandon(&exchange);
    assert_int_equal(SEPARATE(COAP_CHANGED, .id = 77), EXCHANGE_WAITING);
    replied(COAP_RESET, 77);
    assert_int_equal(PIGGYBACKED(COAP_CHANGED), EXCHANGE_WAITING);
    replied_nothing();
}

/* --- What is no response --- */

static void malformed_confirmable_messages_are_reset(void **state)
{
    (void)state;
    post("21.5");
    const unsigned char marker_alone[] = {0x42, COAP_CHANGED, 0, 5, 0xff, 0xfe, 0xff};
    const unsigned char broken_option[] = {0x42, COAP_CHANGED, 0, 6, 0xff, 0xfe, 0xf0};
    const unsigned char reserved_class[] = {0x42, COAP_CODE(3, 0), 0, 7, 0xff, 0xfe};
    const unsigned char piggybacked[] = {0x62, COAP_CHANGED, 0xff, 0xfd, 0xff, 0xfe, 0xff};
    assert_int_equal(take_bytes(marker_alone, sizeof marker_alone), EXCHANGE_WAITING);
    replied(COAP_RESET, 5);
    assert_int_equal(take_bytes(broken_option, sizeof broken_option), EXCHANGE_WAITING);
    replied(COAP_RESET, 6);
    assert_int_equal(take_bytes(reserved_class, sizeof reserved_class), EXCHANGE_WAITING);
    replied(COAP_RESET, 7);
    assert_int_equal(take_bytes(piggybacked, sizeof piggybacked), EXCHANGE_WAITING);
    replied_nothing();
}

static void what_is_no_coap_is_ignored(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(take_bytes("", 0), EXCHANGE_WAITING);
    replied_nothing();
    assert_int_equal(take_bytes("abc", 3), EXCHANGE_WAITING);
    replied_nothing();
    assert_int_equal(take_bytes("\xc0xxxxxx", 7), EXCHANGE_WAITING);
    replied_nothing();
}

static void a_ping_is_answered_with_a_reset(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(SAYS(.type = COAP_CONFIRMABLE, .id = 99), EXCHANGE_WAITING);
    replied(COAP_RESET, 99);
}

static void a_request_of_the_server_is_reset(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(SEPARATE(COAP_GET, .id = 99), EXCHANGE_WAITING);
    replied(COAP_RESET, 99);
    assert_int_equal(NON(COAP_POST, .id = 98, .payload = "x"), EXCHANGE_WAITING);
    replied(COAP_RESET, 98);
}

static void a_reset_is_never_answered(void **state)
{
    (void)state;
    post("21.5");
    assert_int_equal(SAYS(.type = COAP_RESET, .id = 99), EXCHANGE_WAITING);
    replied_nothing();
}

static void a_reset_of_the_request_ends_it(void **state)
{
    (void)state;
    post("21.5");
    ended(SAYS(.type = COAP_RESET), EXCHANGE_UNEXPECTED);
    assert_int_equal(exchange.code, 0);
    assert_non_null(strstr(exchange.text, "reset"));
}

/* --- Echo --- */

static void echo_is_given_once(void **state)
{
    (void)state;
    coap_option_t option;
    post("21.5");
    uint16_t token = exchange.token, id = exchange.id;
    assert_int_equal(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "12345678"), EXCHANGE_NEXT);
    assert_int_not_equal(exchange.token, token);
    assert_int_not_equal(exchange.id, id);
    coap_message_t message = request();
    assert_true(coap_find_option(&message, COAP_ECHO, &option));
    assert_int_equal(option.length, 8);
    assert_memory_equal(option.value, "12345678", 8);
    assert_int_equal(message.payload_length, 4);
    ended(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "abcdefgh"), EXCHANGE_FORBIDDEN);
    assert_text_begins("4.01 Unauthorized");
}

static void echo_is_asked_for_anew_over_a_new_association(void **state)
{
    (void)state;
    coap_option_t option;
    post("21.5");
    assert_int_equal(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "12345678"), EXCHANGE_NEXT);
    assert_true(exchange_restart(&exchange));
    coap_message_t message = request();
    assert_false(coap_find_option(&message, COAP_ECHO, &option));
    assert_int_equal(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "abcdefgh"), EXCHANGE_NEXT);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
}

static void an_echo_that_nobody_may_send_is_no_echo(void **state)
{
    (void)state;
    post("21.5");
    ended(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = ""), EXCHANGE_FORBIDDEN);
    post("21.5");
    ended(PIGGYBACKED(COAP_UNAUTHORIZED, .echo = "0123456789012345678901234567890123456789x"),
          EXCHANGE_FORBIDDEN);
}

/* --- Failures --- */

static void every_code_has_its_verdict(void **state)
{
    (void)state;
    static const struct {
        uint8_t code;
        exchange_verdict_t verdict;
    } table[] = {{COAP_CODE(2, 0), EXCHANGE_CONFIRMED},     {COAP_CREATED, EXCHANGE_CONFIRMED},
                 {COAP_CODE(2, 2), EXCHANGE_CONFIRMED},     {COAP_CODE(2, 3), EXCHANGE_CONFIRMED},
                 {COAP_CHANGED, EXCHANGE_CONFIRMED},        {COAP_CONTENT, EXCHANGE_CONFIRMED},
                 {COAP_CODE(2, 30), EXCHANGE_CONFIRMED},    {COAP_CONTINUE, EXCHANGE_UNEXPECTED},
                 {COAP_CODE(4, 0), EXCHANGE_REFUSED},       {COAP_CODE(4, 1), EXCHANGE_FORBIDDEN},
                 {COAP_CODE(4, 2), EXCHANGE_REFUSED},       {COAP_CODE(4, 3), EXCHANGE_FORBIDDEN},
                 {COAP_CODE(4, 4), EXCHANGE_UNEXPECTED},    {COAP_CODE(4, 5), EXCHANGE_UNEXPECTED},
                 {COAP_CODE(4, 6), EXCHANGE_UNEXPECTED},    {COAP_CODE(4, 8), EXCHANGE_REFUSED},
                 {COAP_CODE(4, 9), EXCHANGE_UNEXPECTED},    {COAP_CODE(4, 12), EXCHANGE_UNEXPECTED},
                 {COAP_CODE(4, 13), EXCHANGE_REFUSED},      {COAP_CODE(4, 15), EXCHANGE_REFUSED},
                 {COAP_CODE(4, 22), EXCHANGE_REFUSED},      {COAP_CODE(4, 29), EXCHANGE_BUSY},
                 {COAP_CODE(4, 31), EXCHANGE_UNEXPECTED},   {COAP_CODE(5, 0), EXCHANGE_BUSY},
                 {COAP_CODE(5, 1), EXCHANGE_BUSY},          {COAP_CODE(5, 2), EXCHANGE_BUSY},
                 {COAP_SERVICE_UNAVAILABLE, EXCHANGE_BUSY}, {COAP_CODE(5, 4), EXCHANGE_BUSY},
                 {COAP_CODE(5, 5), EXCHANGE_BUSY},          {COAP_CODE(5, 31), EXCHANGE_BUSY}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        post("21.5");
        ended(PIGGYBACKED(table[i].code), table[i].verdict);
        post("21.5");
        ended(SEPARATE(table[i].code, .id = 77), table[i].verdict);
        replied(COAP_ACKNOWLEDGEMENT, 77);
        if (table[i].verdict != EXCHANGE_CONFIRMED)
            assert_int_not_equal(exchange.text[0], '\0');
    }
}

static void a_failure_is_told_with_number_name_and_diagnostic(void **state)
{
    (void)state;
    post("21.5");
    ended(PIGGYBACKED(COAP_NOT_FOUND, .payload = "no such sensor"), EXCHANGE_UNEXPECTED);
    assert_string_equal(exchange.text, "4.04 Not Found: no such sensor");
    post("21.5");
    ended(PIGGYBACKED(COAP_CODE(4, 31)), EXCHANGE_UNEXPECTED);
    assert_string_equal(exchange.text, "4.31");
}

static void a_long_diagnostic_is_cut(void **state)
{
    (void)state;
    char diagnostic[1025];
    memset(diagnostic, 'x', 1024);
    diagnostic[1024] = '\0';
    post("21.5");
    ended(PIGGYBACKED(COAP_UNSUPPORTED_CONTENT_FORMAT, .max_age = 1, .payload = diagnostic),
          EXCHANGE_REFUSED);
    assert_int_equal(strlen(exchange.text), strlen("4.15 Unsupported Content-Format: ") + 400);
}

static void max_age_tells_when_to_try_again(void **state)
{
    (void)state;
    post("21.5");
    ended(PIGGYBACKED(COAP_SERVICE_UNAVAILABLE, .max_age = 30, .payload = "restarting"), EXCHANGE_BUSY);
    assert_string_equal(exchange.text, "5.03 Service Unavailable: restarting; try again in 30 s");
    post("21.5");
    ended(PIGGYBACKED(COAP_TOO_MANY_REQUESTS), EXCHANGE_BUSY);
    assert_string_equal(exchange.text, "4.29 Too Many Requests");
}

static void an_unknown_critical_option_is_not_acted_on(void **state)
{
    (void)state;
    post("21.5");
    ended(PIGGYBACKED(COAP_CHANGED, .other_option = UNKNOWN_CRITICAL), EXCHANGE_UNEXPECTED);
    assert_non_null(strstr(exchange.text, "2049"));
    replied_nothing();
    post("21.5");
    ended(SEPARATE(COAP_CHANGED, .id = 77, .other_option = UNKNOWN_CRITICAL), EXCHANGE_UNEXPECTED);
    replied(COAP_RESET, 77);
}

static void an_unknown_elective_option_does_no_harm(void **state)
{
    (void)state;
    post("21.5");
    ended(PIGGYBACKED(COAP_CHANGED, .other_option = UNKNOWN_ELECTIVE), EXCHANGE_CONFIRMED);
}

/* --- A new association --- */

static void a_restart_has_an_id_and_a_token_of_its_own(void **state)
{
    (void)state;
    post("21.5");
    next_id = 0x1234; /* as a new association has its own counters */
    next_token = 0x5678;
    assert_true(exchange_restart(&exchange));
    assert_int_equal(request().id, 0x1234);
    assert_int_equal(exchange.token, 0x5678);
    assert_int_equal(request().payload_length, 4);
    ended(PIGGYBACKED(COAP_CHANGED), EXCHANGE_CONFIRMED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, reset_counters)
    const struct CMUnitTest tests[] = {
        TEST(a_request_bears_path_format_query_and_payload),
        TEST(an_empty_payload_and_a_get_have_no_payload_marker),
        TEST(ids_and_tokens_go_on_from_the_associations_counters),
        TEST(the_message_stays_unchanged_whatever_decides_nothing),
        TEST(what_does_not_fit_a_message_is_not_begun),
        TEST(a_piggybacked_response_confirms_by_id_and_token),
        TEST(a_piggybacked_response_of_another_id_or_token_decides_nothing),
        TEST(a_token_of_another_length_is_another_token),
        TEST(a_body_comes_with_its_code_and_format),
        TEST(a_separate_response_is_acknowledged_again_when_it_comes_again),
        TEST(it_is_acknowledged_again_during_the_next_exchange_and_confirms_nothing_there),
        TEST(a_server_that_restarted_may_use_the_same_id_again),
        TEST(a_separate_response_may_overtake_the_acknowledgement),
        TEST(a_non_confirmable_response_is_believed_and_not_acknowledged),
        TEST(a_separate_response_of_another_token_is_reset_and_not_believed),
        TEST(what_comes_after_the_end_is_reset),
        TEST(malformed_confirmable_messages_are_reset),
        TEST(what_is_no_coap_is_ignored),
        TEST(a_ping_is_answered_with_a_reset),
        TEST(a_request_of_the_server_is_reset),
        TEST(a_reset_is_never_answered),
        TEST(a_reset_of_the_request_ends_it),
        TEST(echo_is_given_once),
        TEST(echo_is_asked_for_anew_over_a_new_association),
        TEST(an_echo_that_nobody_may_send_is_no_echo),
        TEST(every_code_has_its_verdict),
        TEST(a_failure_is_told_with_number_name_and_diagnostic),
        TEST(a_long_diagnostic_is_cut),
        TEST(max_age_tells_when_to_try_again),
        TEST(an_unknown_critical_option_is_not_acted_on),
        TEST(an_unknown_elective_option_does_no_harm),
        TEST(a_restart_has_an_id_and_a_token_of_its_own),
    };
    return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}
