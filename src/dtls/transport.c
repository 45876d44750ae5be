#include "dtls/transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include <mbedtls/ssl.h>

#include "dtls/attempts.h"
#include "system/log.h"

enum {
    PACE_LEAST_MS = 250,
    PACE_MOST_MS = 1000,
    /* RFC 6347 section 4.2.4.1 asks for at least 1 s. Half a second more spares a satellite path the second
     * ClientHello, which would be answered too, and would double all that follows. */
    PACE_UNKNOWN_MS = 1500,
    DELAY_MOST_MS = 2000,
    /* Beyond the last word of a server that was heard. OpenSSL resends on its own timer alone, after 1, 2, 4
     * and 8 s, and serves nobody else meanwhile: the last of these must still be met. */
    HEARD_PATIENCE_MS = ATTEMPTS_PATIENCE_MS + 1000,
    IPV6_LEAST_MTU = 1280
};

void transport_init(transport_t *transport)
{
    *transport = (transport_t){.pace_ms = PACE_UNKNOWN_MS};
    mbedtls_net_init(&transport->net);
}

/* Best effort: without it only what is larger than a path that hides its MTU is lost. */
static void allow_fragments(int fd, int family)
{
    if (family == AF_INET) {
        setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &(int){IP_PMTUDISC_DONT}, sizeof(int));
    } else {
        setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &(int){IPV6_PMTUDISC_DONT}, sizeof(int));
        setsockopt(fd, IPPROTO_IPV6, IPV6_MTU, &(int){IPV6_LEAST_MTU}, sizeof(int));
    }
}

bool transport_open(transport_t *transport, const struct addrinfo *address, const struct addrinfo *local)
{
    char host[64], port[8];
    transport_close(transport);
    transport->error = 0;
    transport->final_ms = transport->flight_us = 0;
    transport->heard = transport->is_due = transport->is_untimely = false;
    transport->may_begin = true;
    transport->sent_length = 0;
    transport->heard_ms = wait_now_ms();
    if (getnameinfo(address->ai_addr, address->ai_addrlen, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(transport->peer, sizeof transport->peer,
                 address->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    transport->net.fd = socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (transport->net.fd >= 0)
        allow_fragments(transport->net.fd, address->ai_family);
    if (transport->net.fd < 0 ||
        (local != NULL && bind(transport->net.fd, local->ai_addr, local->ai_addrlen) != 0) ||
        connect(transport->net.fd, address->ai_addr, address->ai_addrlen) != 0)
        transport->error = errno;
    return transport->error == 0;
}

/* --- Pace --- */

static int64_t at_least(int64_t value, int64_t least)
{
    return value < least ? least : value;
}

static int64_t at_most(int64_t value, int64_t most)
{
    return value > most ? most : value;
}

/* A path that is slower than all bounds still needs more than its round trip. */
static int64_t patience_ms(int64_t round_trip_us)
{
    return round_trip_us * 3 / 2 / 1000;
}

static void set_pace(transport_t *transport, int64_t round_trip_us)
{
    int64_t pace_ms = at_least(at_most(3 * round_trip_us / 1000, PACE_MOST_MS), PACE_LEAST_MS);
    transport->pace_ms = at_least(pace_ms, patience_ms(round_trip_us));
}

void transport_expect_round_trip(transport_t *transport, int64_t round_trip_us)
{
    transport->round_trip_us = round_trip_us;
    transport->pace_ms = PACE_UNKNOWN_MS;
    if (round_trip_us != 0)
        set_pace(transport, round_trip_us);
}

/* An answer came. To a flight that was sent twice it measures nothing, since nobody knows which of the two it
 * answers; but it was not quicker than the first of them says, so that the pace may slow down. */
static void measure(transport_t *transport)
{
    int64_t sample_us = at_least(wait_now_us() - transport->flight_us, 1);
    int64_t before_us = transport->round_trip_us;
    if (transport->flight_us == 0 || !transport->measures)
        return;
    transport->flight_us = 0;
    if (!transport->flight_was_resent) {
        transport->round_trip_us = before_us == 0 ? sample_us : (7 * before_us + sample_us) / 8;
        set_pace(transport, at_least(transport->round_trip_us, sample_us));
    } else if (patience_ms(sample_us) > transport->pace_ms) {
        transport->pace_ms = at_most(patience_ms(sample_us), DELAY_MOST_MS);
    }
}

/* Whether this datagram, of a handshake, belongs to a flight that is repeated too soon. Records change when
 * they are repeated, but not their length, and no two flights of a handshake begin with the same. */
static bool is_untimely(transport_t *transport, size_t length)
{
    int64_t now_us = wait_now_us();
    if (transport->may_begin) {
        bool again = transport->sent_length == length && !transport->is_due;
        transport->is_untimely = again && now_us - transport->sent_us < transport->round_trip_us;
        transport->may_begin = transport->is_due = false;
        if (!transport->is_untimely) {
            transport->sent_us = now_us;
            transport->sent_length = length;
        }
    }
    return transport->is_untimely;
}

/* --- What mbed TLS calls --- */

int transport_send(void *context, const unsigned char *bytes, size_t length)
{
    transport_t *transport = context;
    if (transport->measures && is_untimely(transport, length))
        return (int)length;
    ssize_t sent = send(transport->net.fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    if (sent < 0) {
        transport->error = errno;
        return MBEDTLS_ERR_NET_SEND_FAILED;
    }
    if (transport->flight_us == 0) {
        transport->flight_us = wait_now_us();
        transport->flight_was_resent = false;
    }
    transport->datagrams_sent++;
    transport->bytes_sent += (size_t)sent;
    return (int)sent;
}

int transport_receive(void *context, unsigned char *buffer, size_t size)
{
    transport_t *transport = context;
    if (!transport->may_receive)
        return MBEDTLS_ERR_SSL_WANT_READ;
    ssize_t received = recv(transport->net.fd, buffer, size, 0);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (received < 0) {
        transport->error = errno;
        return MBEDTLS_ERR_NET_RECV_FAILED;
    }
    transport->may_receive = false;
    transport->datagrams_received++;
    transport->bytes_received += (size_t)received;
    transport->heard = transport->may_begin = true;
    transport->heard_ms = wait_now_ms();
    measure(transport);
    /* An empty datagram is ignored: 0 would mean the end of the connection, and anyone can send one. */
    return received == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)received;
}

void transport_set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms)
{
    transport_t *transport = context;
    int64_t most_ms = at_least(DELAY_MOST_MS, patience_ms(transport->round_trip_us));
    int64_t delay_ms = at_most(final_ms * transport->pace_ms / 1000, most_ms);
    int64_t now_ms = wait_now_ms();
    transport->final_ms = final_ms == 0 ? 0 : now_ms + delay_ms;
    transport->intermediate_ms = final_ms == 0 ? 0 : now_ms + delay_ms * intermediate_ms / final_ms;
}

int transport_get_timer(void *context)
{
    transport_t *transport = context;
    int64_t now_ms = wait_now_ms();
    if (transport->final_ms == 0)
        return -1;
    if (now_ms < transport->final_ms)
        return now_ms >= transport->intermediate_ms ? 1 : 0;
    transport->may_begin = transport->is_due = true;
    transport->flight_was_resent = true; /* by the library, which has just learned that it is time */
    return 2;
}

wait_outcome_t transport_wait(const transport_t *transport, short events, wait_limit_t limit)
{
    bool timer_first = transport->final_ms != 0 && transport->final_ms < limit.deadline_ms;
    if (timer_first)
        limit.deadline_ms = transport->final_ms;
    wait_outcome_t outcome = wait_for(transport->net.fd, events, limit);
    return outcome == WAIT_TIMEOUT && timer_first ? WAIT_READY : outcome;
}

wait_limit_t transport_bound(const transport_t *transport, int64_t patience_ms, wait_limit_t limit)
{
    if (transport->heard)
        patience_ms = at_least(3 * transport->round_trip_us / 1000, HEARD_PATIENCE_MS);
    if (transport->heard_ms + patience_ms < limit.deadline_ms)
        limit.deadline_ms = transport->heard_ms + patience_ms;
    return limit;
}

void transport_log_traffic(transport_t *transport)
{
    if (transport->datagrams_sent == 0)
        return;
    log_step("%llu bytes in %lu datagrams sent, %llu bytes in %lu datagrams received", transport->bytes_sent,
             transport->datagrams_sent, transport->bytes_received, transport->datagrams_received);
    transport->datagrams_sent = transport->datagrams_received = 0;
    transport->bytes_sent = transport->bytes_received = 0;
}

void transport_close(transport_t *transport)
{
    mbedtls_net_free(&transport->net);
}
