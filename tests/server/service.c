#include "service.h"

#include <string.h>

#include "peer.h"
#include "record.h"
#include "system/wait.h"

enum { DATAGRAMS_AT_ONCE = 64 /* a flood must not hold up timers and signals */ };

static void remove_peer(service_t *service, size_t index)
{
    peer_free(service->peers[index]);
    service->peers[index] = service->peers[--service->peer_count];
}

/* Makes room, if needed, at the cost of the one that was silent for longest. */
static void add_peer(service_t *service, peer_t *peer)
{
    if (service->peer_count == SERVICE_PEERS_MAX) {
        size_t oldest = 0;
        for (size_t i = 1; i < service->peer_count; i++)
            if (service->peers[i]->heard < service->peers[oldest]->heard)
                oldest = i;
        remove_peer(service, oldest);
    }
    service->peers[service->peer_count++] = peer;
}

size_t service_cid_length(const service_t *service)
{
    return service->settings->tls.cid ? TLS_CID_LENGTH : 0;
}

void service_log_record(const service_t *service, unsigned long association, const unsigned char *record,
                        size_t length)
{
    char address[ADDRESS_TEXT];
    if (service->records == NULL)
        return;
    address_format(&service->from, address);
    record_log(service->records, address, association, record, length);
}

/* The index of the peer that the datagram at hand is for; peer_count: none. */
static size_t find_peer(const service_t *service, size_t length)
{
    const unsigned char *cid = record_cid(service->datagram, length, service_cid_length(service));
    size_t i = 0;
    for (; i < service->peer_count; i++) {
        const peer_t *peer = service->peers[i];
        if (cid != NULL ? memcmp(peer->cid, cid, TLS_CID_LENGTH) == 0
                        : address_is_same(&peer->address, &service->from))
            break;
    }
    return i;
}

static void greet_stranger(service_t *service, size_t length)
{
    const unsigned char *bytes = service->datagram;
    peer_t *peer = record_is_client_hello(bytes, length) ? peer_new(service) : NULL;
    if (peer == NULL) {
        service_log_record(service, 0, bytes, record_length(bytes, length, service_cid_length(service)));
        return;
    }
    if (!peer_take_datagram(peer, length)) {
        peer_free(peer);
        return;
    }
    peer_begin_association(peer);
    peer->heard = service->datagrams;
    add_peer(service, peer);
}

static void handle_datagram(service_t *service, size_t length)
{
    size_t index = find_peer(service, length);
    service->datagrams++;
    if (index == service->peer_count) {
        greet_stranger(service, length);
        return;
    }
    service->peers[index]->heard = service->datagrams;
    if (!peer_take_datagram(service->peers[index], length))
        remove_peer(service, index);
}

void service_receive(service_t *service)
{
    for (int i = 0; i < DATAGRAMS_AT_ONCE; i++) {
        service->from = (address_t){.length = sizeof service->from.storage};
        ssize_t length = recvfrom(service->fd, service->datagram, sizeof service->datagram, 0,
                                  (struct sockaddr *)&service->from.storage, &service->from.length);
        if (length < 0)
            return;
        if (length > 0)
            handle_datagram(service, (size_t)length);
    }
}

int64_t service_deadline_ms(const service_t *service)
{
    int64_t deadline_ms = INT64_MAX;
    for (size_t i = 0; i < service->peer_count; i++) {
        int64_t due_ms = peer_deadline_ms(service->peers[i]);
        if (due_ms < deadline_ms)
            deadline_ms = due_ms;
    }
    return deadline_ms;
}

void service_tick(service_t *service)
{
    int64_t now_ms = wait_now_ms();
    /* Backwards, since the last one takes the place of one that is removed. */
    for (size_t i = service->peer_count; i-- > 0;)
        if (peer_deadline_ms(service->peers[i]) <= now_ms && !peer_tick(service->peers[i]))
            remove_peer(service, i);
}

void service_forget(service_t *service)
{
    while (service->peer_count > 0)
        remove_peer(service, service->peer_count - 1);
}
