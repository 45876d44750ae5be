#include "plain.h"

#include <errno.h>
#include <string.h>

#include "boxes.h"

static bool send_downlink(void *context, const unsigned char *bytes, size_t length)
{
    return peer_send(context, bytes, length, (sending_t){.downlink = true, .size = length});
}

static void take_payload(peer_t *peer, const unsigned char *bytes, size_t length)
{
    const service_settings_t *settings = peer->service->settings;
    if (!boxes_store(settings->state_dir, peer->device, &peer->last_stored, bytes, length))
        fprintf(stderr, "inboxd: inbox of %s: %s\n", peer->device, strerror(errno));
    printf("uplink %s %zu\n", peer->device, length);
    size_t count = boxes_deliver(settings->state_dir, peer->device, SIZE_MAX, send_downlink, peer);
    if (count == 0 && settings->reply != NULL)
        send_downlink(peer, (const unsigned char *)settings->reply, strlen(settings->reply));
}

const struct form plain_form = {take_payload};
