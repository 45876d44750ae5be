#include "dtls/transport.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include <mbedtls/ssl.h>

enum { PACE_LEAST_MS = 250, PACE_MOST_MS = 1000 };

void transport_init(transport_t *transport)
{
    *transport = (transport_t){.retransmit_ms = PACE_MOST_MS};
    mbedtls_net_init(&transport->net);
}

bool transport_open(transport_t *transport, const struct addrinfo *address, const struct addrinfo *local)
{
    char host[64], port[8];
    transport_close(transport);
    transport->error = 0;
    transport->final_ms = 0;
    transport->sent_us = transport->round_trip_us = 0;
    if (getnameinfo(address->ai_addr, address->ai_addrlen, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        snprintf(transport->peer, sizeof transport->peer,
                 address->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    transport->net.fd = socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (transport->net.fd < 0 ||
        (local != NULL && bind(transport->net.fd, local->ai_addr, local->ai_addrlen) != 0) ||
        connect(transport->net.fd, address->ai_addr, address->ai_addrlen) != 0)
        transport->error = errno;
    return transport->error == 0;
}

void transport_expect_round_trip(transport_t *transport, int64_t round_trip_us)
{
    int64_t pace_ms = round_trip_us == 0 ? PACE_MOST_MS : 3 * round_trip_us / 1000;
    transport->retransmit_ms = pace_ms < PACE_LEAST_MS  ? PACE_LEAST_MS
                               : pace_ms > PACE_MOST_MS ? PACE_MOST_MS
                                                        : pace_ms;
}

int transport_send(void *context, const unsigned char *bytes, size_t length)
{
    transport_t *transport = context;
    ssize_t sent = send(transport->net.fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        return MBEDTLS_ERR_SSL_WANT_WRITE;
    if (sent < 0) {
        transport->error = errno;
        return MBEDTLS_ERR_NET_SEND_FAILED;
    }
    if (transport->round_trip_us == 0)
        transport->sent_us = wait_now_us();
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
    if (transport->round_trip_us == 0) {
        int64_t round_trip_us = wait_now_us() - transport->sent_us;
        transport->round_trip_us = round_trip_us > 0 ? round_trip_us : 1;
        transport_expect_round_trip(transport, transport->round_trip_us);
    }
    /* An empty datagram is nothing; to the library 0 would be the end of the connection, for anyone to send.
     */
    return received == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)received;
}

void transport_set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms)
{
    transport_t *transport = context;
    int64_t now_ms = wait_now_ms();
    transport->intermediate_ms = now_ms + intermediate_ms * transport->retransmit_ms / 1000;
    transport->final_ms = final_ms == 0 ? 0 : now_ms + final_ms * transport->retransmit_ms / 1000;
}

int transport_get_timer(void *context)
{
    const transport_t *transport = context;
    int64_t now_ms = wait_now_ms();
    if (transport->final_ms == 0)
        return -1;
    if (now_ms >= transport->final_ms)
        return 2;
    return now_ms >= transport->intermediate_ms ? 1 : 0;
}

wait_outcome_t transport_wait(const transport_t *transport, short events, wait_limit_t limit)
{
    bool timer_first = transport->final_ms != 0 && transport->final_ms < limit.deadline_ms;
    if (timer_first)
        limit.deadline_ms = transport->final_ms;
    wait_outcome_t outcome = wait_for(transport->net.fd, events, limit);
    return outcome == WAIT_TIMEOUT && timer_first ? WAIT_READY : outcome;
}

void transport_close(transport_t *transport)
{
    mbedtls_net_free(&transport->net);
}
