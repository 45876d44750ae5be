/* Which failure of an attempt to connect decides, and which is only one of many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "dtls/attempts.h"

enum { MANY = 16 };

/* What the attempts bring, one after the other; behind them silence. */
typedef struct {
    dtls_outcome_t outcomes[MANY];
    bool heard[MANY];
    int made;
    const struct addrinfo *at[MANY];
    char text[MANY][8];
} script_t;

static struct addrinfo addresses[2];

static attempt_t make(void *context, const struct addrinfo *address, int64_t patience_ms)
{
    script_t *script = context;
    int number = script->made++;
    assert_in_range(number, 0, MANY - 1);
    script->at[number] = address;
    snprintf(script->text[number], sizeof script->text[number], "text %d", number);
    if (script->outcomes[number] == DTLS_TIMEOUT)
        wait_for(-1, 0, wait_limit_in(patience_ms < 100 ? patience_ms : 100));
    return (attempt_t){script->outcomes[number], script->heard[number], script->text[number]};
}

static dtls_outcome_t run(script_t *script, int hosts, bool persist, char text[static ATTEMPTS_TEXT_SIZE])
{
    addresses[0].ai_next = hosts > 1 ? &addresses[1] : NULL;
    for (int i = 0; i < MANY; i++) {
        if (i > 0 && script->outcomes[i] == DTLS_OK && script->outcomes[i - 1] == DTLS_TIMEOUT)
            script->outcomes[i] = DTLS_TIMEOUT;
    }
    return attempts_run(addresses, persist, wait_limit_in(350), make, script, text);
}

static void a_failure_that_anyone_can_forge_is_believed_when_it_comes_twice(void **state)
{
    (void)state;
    static const dtls_outcome_t forgeable[] = {DTLS_REFUSED, DTLS_REJECTED, DTLS_PROTOCOL};
    char text[ATTEMPTS_TEXT_SIZE];
    for (size_t i = 0; i < sizeof forgeable / sizeof forgeable[0]; i++) {
        script_t once = {.outcomes = {forgeable[i], DTLS_OK}};
        assert_int_equal(run(&once, 1, false, text), DTLS_OK);
        script_t twice = {.outcomes = {forgeable[i], forgeable[i], DTLS_OK}};
        assert_int_equal(run(&twice, 1, false, text), forgeable[i]);
        assert_int_equal(twice.made, 2);
        assert_string_equal(text, "text 1");
    }
}

static void two_different_failures_are_no_second_time(void **state)
{
    (void)state;
    char text[ATTEMPTS_TEXT_SIZE];
    script_t script = {.outcomes = {DTLS_PROTOCOL, DTLS_REFUSED, DTLS_PROTOCOL, DTLS_OK}};
    assert_int_equal(run(&script, 1, false, text), DTLS_OK);
}

static void what_no_other_attempt_can_change_ends_them_at_once(void **state)
{
    (void)state;
    static const dtls_outcome_t final[] = {DTLS_UNTRUSTED, DTLS_INTERRUPTED, DTLS_SYSTEM};
    char text[ATTEMPTS_TEXT_SIZE];
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        script_t script = {.outcomes = {final[i]}};
        assert_int_equal(run(&script, 2, true, text), final[i]);
        assert_int_equal(script.made, 1);
        assert_string_equal(text, "text 0");
    }
}

static void a_refusal_never_decides_where_the_server_may_be_restarting(void **state)
{
    (void)state;
    char text[ATTEMPTS_TEXT_SIZE];
    script_t script = {.outcomes = {DTLS_REFUSED, DTLS_REFUSED, DTLS_OK}};
    assert_int_equal(run(&script, 1, true, text), DTLS_OK);
    script_t always = {.outcomes = {DTLS_REFUSED, DTLS_REFUSED, DTLS_REFUSED, DTLS_REFUSED, DTLS_REFUSED,
                                    DTLS_REFUSED, DTLS_REFUSED, DTLS_REFUSED}};
    assert_int_equal(run(&always, 1, true, text), DTLS_REFUSED);
    assert_in_range(always.made, 3, 5); /* after pauses of 100 and 200 ms, and what is left */
}

static void a_reason_that_was_known_is_not_lost_to_a_refusal(void **state)
{
    (void)state;
    char text[ATTEMPTS_TEXT_SIZE];
    script_t script = {.outcomes = {DTLS_TIMEOUT, DTLS_REFUSED, DTLS_REFUSED}, .heard = {true}};
    assert_int_equal(run(&script, 1, false, text), DTLS_TIMEOUT);
    assert_string_equal(text, "text 0");
    script_t rejected = {.outcomes = {DTLS_REJECTED, DTLS_REFUSED, DTLS_REFUSED}, .heard = {true}};
    assert_int_equal(run(&rejected, 1, false, text), DTLS_REJECTED);
    assert_string_equal(text, "text 0");
}

static void a_server_that_was_heard_says_more_than_a_silent_address(void **state)
{
    (void)state;
    char text[ATTEMPTS_TEXT_SIZE];
    script_t script = {.outcomes = {DTLS_TIMEOUT, DTLS_TIMEOUT, DTLS_TIMEOUT}, .heard = {true}};
    assert_int_equal(run(&script, 2, false, text), DTLS_TIMEOUT);
    assert_string_equal(text, "text 0");
}

static void an_address_that_refused_twice_is_not_asked_again(void **state)
{
    (void)state;
    char text[ATTEMPTS_TEXT_SIZE];
    script_t script = {.outcomes = {DTLS_REFUSED, DTLS_TIMEOUT, DTLS_REFUSED, DTLS_TIMEOUT, DTLS_TIMEOUT}};
    assert_int_equal(run(&script, 2, false, text), DTLS_TIMEOUT);
    assert_true(script.made >= 5);
    assert_ptr_equal(script.at[0], &addresses[0]);
    assert_ptr_equal(script.at[2], &addresses[0]);
    for (int i = 3; i < script.made; i++)
        assert_ptr_equal(script.at[i], &addresses[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_that_anyone_can_forge_is_believed_when_it_comes_twice),
        cmocka_unit_test(two_different_failures_are_no_second_time),
        cmocka_unit_test(what_no_other_attempt_can_change_ends_them_at_once),
        cmocka_unit_test(a_refusal_never_decides_where_the_server_may_be_restarting),
        cmocka_unit_test(a_reason_that_was_known_is_not_lost_to_a_refusal),
        cmocka_unit_test(a_server_that_was_heard_says_more_than_a_silent_address),
        cmocka_unit_test(an_address_that_refused_twice_is_not_asked_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
