#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <mbedtls/ssl.h>

#include "dtls/transport.h"

/* A transport, and the socket that it talks to. */
typedef struct {
    transport_t transport;
    int server;
    struct sockaddr_in client;
} pair_t;

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void open_pair(pair_t *pair)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    pair->server = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(pair->server, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(pair->server, (struct sockaddr *)&address, &length), 0);
    struct addrinfo info = {
        .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&address, .ai_addrlen = length};
    transport_init(&pair->transport);
    assert_true(transport_open(&pair->transport, &info, NULL));
    length = sizeof pair->client;
    assert_int_equal(getsockname(pair->transport.net.fd, (struct sockaddr *)&pair->client, &length), 0);
    pair->transport.measures = true;
}

static void close_pair(pair_t *pair)
{
    transport_close(&pair->transport);
    close(pair->server);
}

static void send_bytes(pair_t *pair, size_t length)
{
    static const unsigned char bytes[1000];
    assert_int_equal(transport_send(&pair->transport, bytes, length), length);
}

/* How many bytes the server got in the next datagram; -1: there is none. */
static ssize_t arrived(pair_t *pair)
{
    unsigned char bytes[2000];
    return recv(pair->server, bytes, sizeof bytes, 0);
}

static void answer(pair_t *pair, size_t length)
{
    unsigned char bytes[1000] = {0};
    assert_int_equal(
        sendto(pair->server, bytes, length, 0, (struct sockaddr *)&pair->client, sizeof pair->client),
        (ssize_t)length);
    pair->transport.may_receive = true;
    assert_int_equal(transport_receive(&pair->transport, bytes, sizeof bytes),
                     length == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)length);
}

static void a_round_trip_is_measured_from_what_was_sent_once(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    send_bytes(&pair, 10);
    sleep_ms(20);
    answer(&pair, 10);
    assert_in_range(pair.transport.round_trip_us, 20000, 60000);
    close_pair(&pair);
}

static void an_answer_to_what_was_sent_twice_measures_nothing(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    pair.transport.pace_ms = 10;
    send_bytes(&pair, 10);
    transport_set_timer(&pair.transport, 250, 1000);
    sleep_ms(15);
    assert_int_equal(transport_get_timer(&pair.transport), 2);
    send_bytes(&pair, 10);
    answer(&pair, 10);
    assert_int_equal(pair.transport.round_trip_us, 0);
    close_pair(&pair);
}

static void an_unknown_path_is_given_a_second_and_a_half(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    transport_set_timer(&pair.transport, 250, 1000);
    assert_in_range(pair.transport.final_ms - wait_now_ms(), 1480, 1500);
    close_pair(&pair);
}

static void a_known_path_is_given_three_round_trips_within_bounds(void **state)
{
    static const int64_t cases[][2] = {{1, 250}, {100, 300}, {200, 600}, {600, 1000}, {1200, 1800}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        transport_t transport;
        transport_init(&transport);
        transport_expect_round_trip(&transport, cases[i][0] * 1000);
        assert_int_equal(transport.pace_ms, cases[i][1]);
    }
}

static void an_empty_datagram_is_nothing(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    answer(&pair, 0);
    close_pair(&pair);
}

static void a_flight_that_is_repeated_before_an_answer_can_come_is_not_sent(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    transport_expect_round_trip(&pair.transport, 1200000);
    send_bytes(&pair, 700);
    send_bytes(&pair, 300);
    answer(&pair, 500); /* the server repeats what it sent before */
    send_bytes(&pair, 700);
    send_bytes(&pair, 300);
    assert_int_equal(arrived(&pair), 700);
    assert_int_equal(arrived(&pair), 300);
    assert_int_equal(arrived(&pair), -1);
    answer(&pair, 60);
    send_bytes(&pair, 200); /* another flight */
    assert_int_equal(arrived(&pair), 200);
    close_pair(&pair);
}

static void a_flight_is_repeated_when_our_own_timer_expires_or_the_round_trip_has_passed(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    transport_expect_round_trip(&pair.transport, 30000);
    pair.transport.pace_ms = 5;
    send_bytes(&pair, 700);
    transport_set_timer(&pair.transport, 250, 1000);
    sleep_ms(6);
    assert_int_equal(transport_get_timer(&pair.transport), 2);
    send_bytes(&pair, 700);
    sleep_ms(31);
    answer(&pair, 500);
    send_bytes(&pair, 700);
    for (int i = 0; i < 3; i++)
        assert_int_equal(arrived(&pair), 700);
    close_pair(&pair);
}

static void payloads_of_one_size_are_all_sent(void **state)
{
    pair_t pair;
    (void)state;
    open_pair(&pair);
    transport_expect_round_trip(&pair.transport, 1200000);
    pair.transport.measures = false; /* the handshake is complete */
    send_bytes(&pair, 100);
    answer(&pair, 100);
    send_bytes(&pair, 100);
    assert_int_equal(arrived(&pair), 100);
    assert_int_equal(arrived(&pair), 100);
    close_pair(&pair);
}

static void no_datagram_forbids_fragments(void **state)
{
    pair_t pair;
    int value = -1;
    socklen_t length = sizeof value;
    (void)state;
    open_pair(&pair);
    assert_int_equal(getsockopt(pair.transport.net.fd, IPPROTO_IP, IP_MTU_DISCOVER, &value, &length), 0);
    assert_int_equal(value, IP_PMTUDISC_DONT);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_trip_is_measured_from_what_was_sent_once),
        cmocka_unit_test(an_answer_to_what_was_sent_twice_measures_nothing),
        cmocka_unit_test(an_unknown_path_is_given_a_second_and_a_half),
        cmocka_unit_test(a_known_path_is_given_three_round_trips_within_bounds),
        cmocka_unit_test(an_empty_datagram_is_nothing),
        cmocka_unit_test(a_flight_that_is_repeated_before_an_answer_can_come_is_not_sent),
        cmocka_unit_test(a_flight_is_repeated_when_our_own_timer_expires_or_the_round_trip_has_passed),
        cmocka_unit_test(payloads_of_one_size_are_all_sent),
        cmocka_unit_test(no_datagram_forbids_fragments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
