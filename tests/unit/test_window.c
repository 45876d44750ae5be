#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "run/window.h"

static void nothing_is_unsettled_at_first(void **state)
{
    window_t window = {0};
    (void)state;
    assert_false(window_is_full(&window));
    assert_int_equal(window_start_ms(&window), 0);
    assert_int_equal(window_end_ms(&window), 0);
    assert_int_equal(window_take_settled(&window, INT64_MAX), 0);
}

static void each_is_settled_at_its_time_and_not_before(void **state)
{
    window_t window = {0};
    (void)state;
    window_add(&window, 10);
    window_add(&window, 20);
    window_add(&window, 30);
    assert_int_equal(window_start_ms(&window), 10);
    assert_int_equal(window_end_ms(&window), 30);
    assert_int_equal(window_take_settled(&window, 9), 0);
    assert_int_equal(window_take_settled(&window, 20), 2);
    assert_int_equal(window_start_ms(&window), 30);
    assert_int_equal(window_take_settled(&window, 29), 0);
    assert_int_equal(window_take_settled(&window, 30), 1);
    assert_int_equal(window_end_ms(&window), 0);
}

static void none_is_settled_before_those_that_were_sent_before_it(void **state)
{
    window_t window = {0};
    (void)state;
    window_add(&window, 100);
    window_add(&window, 50); /* the path has become quicker */
    assert_int_equal(window_take_settled(&window, 99), 0);
    assert_int_equal(window_take_settled(&window, 100), 2);
}

static void it_holds_so_many_and_no_more_for_ever(void **state)
{
    window_t window = {0};
    (void)state;
    for (int i = 0; i < 10 * WINDOW_SIZE; i++) {
        if (window_is_full(&window))
            assert_int_equal(window_take_settled(&window, window_start_ms(&window)), 1);
        window_add(&window, i);
        assert_int_equal(window_end_ms(&window), i);
    }
    assert_true(window_is_full(&window));
    window_add(&window, INT64_MAX);
    assert_int_equal(window.count, WINDOW_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_unsettled_at_first),
        cmocka_unit_test(each_is_settled_at_its_time_and_not_before),
        cmocka_unit_test(none_is_settled_before_those_that_were_sent_before_it),
        cmocka_unit_test(it_holds_so_many_and_no_more_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
