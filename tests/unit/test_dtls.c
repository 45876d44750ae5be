/* The verbs where there is no connection; with one they are tested against servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "dtls.h"

static const dtls_config_t nowhere = {.host = "127.0.0.1", .port = "9"};

static void without_a_connection_every_verb_has_an_outcome(void **state)
{
    (void)state;
    dtls_state_t dtls;
    unsigned char buffer[8];
    size_t length = 1;
    dtls_blob_t blob = {0};
    dtls_init(&dtls);
    dtls.config = nowhere;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dtls_send(&dtls, "x", 1), DTLS_CLOSED);
        assert_int_equal(dtls_receive(&dtls, buffer, sizeof buffer, &length, 1000), DTLS_CLOSED);
        assert_int_equal(length, 0);
        assert_int_equal(dtls_payload_maximum(&dtls), 0);
        assert_false(dtls_suspend(&dtls, &blob));
        assert_null(blob.bytes);
        assert_false(dtls_save_session(&dtls, &blob));
        assert_null(blob.bytes);
        assert_int_equal(dtls_fd(&dtls), -1);
        assert_false(dtls_was_resumed(&dtls));
        assert_int_equal(dtls_expiry(&dtls), 0);
        assert_int_equal(dtls_round_trip_us(&dtls), 0);
        assert_non_null(strstr(dtls_error_text(&dtls), "not connected"));
    }
    dtls_close(&dtls);
    dtls_close(&dtls);
}

static void an_association_that_is_damaged_is_an_outcome(void **state)
{
    (void)state;
    static unsigned char bytes[sizeof(association_ends_t) + 100];
    dtls_state_t dtls;
    dtls_init(&dtls);
    for (size_t length = 0; length <= sizeof bytes; length += 50) {
        dtls_blob_t blob = {bytes, length};
        dtls_config_t config = nowhere;
        assert_int_not_equal(dtls_resume(&dtls, &config, &blob), DTLS_OK);
        assert_int_equal(dtls_send(&dtls, "x", 1), DTLS_CLOSED);
    }
    dtls_close(&dtls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(without_a_connection_every_verb_has_an_outcome),
                                       cmocka_unit_test(an_association_that_is_damaged_is_an_outcome)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
