#include "peer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/error.h>
#include <mbedtls/oid.h>

#include "credentials/compat.h"
#include "record.h"
#include "system/random.h"
#include "system/wait.h"

enum {
    HANDSHAKE_MTU = 1232, /* IPv6's least MTU less its headers and UDP's */
    SEND_PATIENCE_MS = 100,
    ACK_TIMEOUT_MS = 2000, /* RFC 7252 section 4.8 */
    TRANSMISSIONS_MAX = 5
};

struct outgoing {
    outgoing_t *next;
    int64_t due_ms;
    sending_t sending;
    unsigned transmissions; /* so far */
    size_t length;
    unsigned char bytes[];
};

/* --- What mbed TLS calls --- */

/* A datagram that cannot leave is a datagram lost, and the timers see to those. */
static int send_datagram(void *context, const unsigned char *bytes, size_t length)
{
    const peer_t *peer = context;
    int fd = peer->service->fd;
    const struct sockaddr *address = (const struct sockaddr *)&peer->address.storage;
    if (sendto(fd, bytes, length, 0, address, peer->address.length) < 0 && errno == EAGAIN &&
        wait_for(fd, POLLOUT, wait_limit_in(SEND_PATIENCE_MS)) == WAIT_READY)
        (void)sendto(fd, bytes, length, 0, address, peer->address.length);
    return (int)length;
}

static int receive_record(void *context, unsigned char *buffer, size_t size)
{
    peer_t *peer = context;
    if (peer->record == NULL)
        return MBEDTLS_ERR_SSL_WANT_READ;
    size_t length = peer->record_length < size ? peer->record_length : size;
    memcpy(buffer, peer->record, length);
    peer->record = NULL;
    return (int)length;
}

static void set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms)
{
    peer_t *peer = context;
    int64_t now_ms = wait_now_ms();
    peer->intermediate_ms = now_ms + intermediate_ms;
    peer->final_ms = final_ms == 0 ? 0 : now_ms + final_ms;
}

/* -1: not running; 0, 1, 2: neither, the intermediate, the final delay has passed. */
static int get_timer(void *context)
{
    const peer_t *peer = context;
    int64_t now_ms = wait_now_ms();
    if (peer->final_ms == 0)
        return -1;
    return now_ms >= peer->final_ms ? 2 : now_ms >= peer->intermediate_ms ? 1 : 0;
}

/* --- The life of an association --- */

static void report_failure(const peer_t *peer, int status)
{
    char address[ADDRESS_TEXT], reason[512];
    uint32_t flaws = mbedtls_ssl_get_verify_result(&peer->ssl);
    bool is_refusal =
        status == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED || status == MBEDTLS_ERR_SSL_BAD_CERTIFICATE;
    address_format(&peer->address, address);
    if (is_refusal && flaws != 0 && flaws != UINT32_MAX)
        mbedtls_x509_crt_verify_info(reason, sizeof reason, "", flaws);
    else if (status == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        snprintf(reason, sizeof reason, "the device sent alert %d", compat_alert(&peer->ssl));
    else
        mbedtls_strerror(status, reason, sizeof reason);
    reason[strcspn(reason, "\n")] = '\0';
    printf("failed %s %s\n", address, reason);
}

/* What was to be sent over an association that is no more. */
static void forget_association(peer_t *peer)
{
    for (outgoing_t *next; peer->outgoing != NULL; peer->outgoing = next) {
        next = peer->outgoing->next;
        free(peer->outgoing);
    }
    free(peer->form_state);
    peer->form_state = NULL;
    peer->closing = false;
}

void peer_free(peer_t *peer)
{
    forget_association(peer);
    mbedtls_ssl_free(&peer->ssl);
    free(peer);
}

static int set_address(peer_t *peer, const address_t *address)
{
    peer->address = *address;
    return mbedtls_ssl_set_client_transport_id(&peer->ssl, (const unsigned char *)&address->storage,
                                               address->length);
}

peer_t *peer_new(service_t *service)
{
    peer_t *peer = calloc(1, sizeof *peer);
    if (peer == NULL)
        return NULL;
    peer->service = service;
    mbedtls_ssl_init(&peer->ssl);
    int status = random_bytes(NULL, peer->cid, sizeof peer->cid);
    if (status == 0)
        status = tls_prepare(service->tls, &service->settings->tls, &peer->ssl, peer->cid);
    if (status == 0)
        status = set_address(peer, &service->from);
    if (status != 0) {
        report_failure(peer, status);
        peer_free(peer);
        return NULL;
    }
    mbedtls_ssl_set_bio(&peer->ssl, peer, send_datagram, receive_record, NULL);
    mbedtls_ssl_set_timer_cb(&peer->ssl, peer, set_timer, get_timer);
    mbedtls_ssl_set_mtu(&peer->ssl, HANDSHAKE_MTU);
    return peer;
}

void peer_begin_association(peer_t *peer)
{
    char address[ADDRESS_TEXT];
    peer->association = ++peer->service->associations;
    address_format(&peer->address, address);
    if (peer->service->records != NULL)
        fprintf(peer->service->records, "association %lu %s\n", peer->association, address);
}

/* Copies a name so that it is safe as a file's: no slash, no leading dot, not empty. */
static void sanitise(char name[static PEER_DEVICE_MAX + 1], const unsigned char *bytes, size_t length)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t used = 0;
    for (; used < length && used < PEER_DEVICE_MAX; used++)
        name[used] = (char)(memchr(allowed, bytes[used], sizeof allowed - 1) != NULL ? bytes[used] : '_');
    if (used == 0 || name[0] == '.')
        name[0] = '_';
    name[used == 0 ? 1 : used] = '\0';
}

/* The certificate's last, that is most specific, common name; or the PSK's identity, of which there is only
 * one. */
static void name_device(peer_t *peer)
{
    const char *identity = peer->service->settings->tls.psk_identity;
    const mbedtls_x509_crt *certificate = mbedtls_ssl_get_peer_cert(&peer->ssl);
    if (identity != NULL) {
        sanitise(peer->device, (const unsigned char *)identity, strlen(identity));
        return;
    }
    sanitise(peer->device, (const unsigned char *)"", 0);
    for (const mbedtls_x509_name *part = certificate == NULL ? NULL : &certificate->subject; part != NULL;
         part = part->next)
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &part->oid) == 0)
            sanitise(peer->device, part->val.p, part->val.len);
}

/* --- What is sent --- */

/* False: not even later. */
static bool transmit(peer_t *peer, const outgoing_t *message)
{
    int status = mbedtls_ssl_write(&peer->ssl, message->bytes, message->length);
    if (status < 0)
        report_failure(peer, status);
    else if (message->sending.downlink && message->transmissions == 0)
        printf("downlink %s %zu\n", peer->device, message->sending.size);
    return status >= 0;
}

/* Behind all that are due no later. */
static void put_aside(peer_t *peer, outgoing_t *message)
{
    outgoing_t **place = &peer->outgoing;
    while (*place != NULL && (*place)->due_ms <= message->due_ms)
        place = &(*place)->next;
    message->next = *place;
    *place = message;
}

/* Sends the first of those that wait. */
static void send_first(peer_t *peer)
{
    outgoing_t *message = peer->outgoing;
    peer->outgoing = message->next;
    bool sent = transmit(peer, message);
    if (!sent || !message->sending.confirmable || ++message->transmissions == TRANSMISSIONS_MAX) {
        free(message);
        return;
    }
    message->due_ms += (int64_t)ACK_TIMEOUT_MS << (message->transmissions - 1);
    put_aside(peer, message);
}

/* Sends what is due. False: that was the last, and the association has ended. */
static bool send_due(peer_t *peer)
{
    int64_t now_ms = wait_now_ms();
    while (peer->outgoing != NULL && peer->outgoing->due_ms <= now_ms)
        send_first(peer);
    if (!peer->closing || peer->outgoing != NULL)
        return true;
    mbedtls_ssl_close_notify(&peer->ssl);
    printf("closed %s\n", peer->device);
    return false;
}

bool peer_send(peer_t *peer, const unsigned char *bytes, size_t length, sending_t sending)
{
    int most = mbedtls_ssl_get_max_out_record_payload(&peer->ssl);
    if (most < 0 || length > (size_t)most) {
        report_failure(peer, MBEDTLS_ERR_SSL_BAD_INPUT_DATA);
        return false;
    }
    outgoing_t *message = malloc(sizeof *message + length);
    if (message == NULL)
        return false;
    unsigned long delay_ms = peer->service->settings->delay_ms + sending.delay_ms;
    *message =
        (outgoing_t){.due_ms = wait_now_ms() + (int64_t)delay_ms, .sending = sending, .length = length};
    memcpy(message->bytes, bytes, length);
    put_aside(peer, message);
    return true;
}

bool peer_acknowledged(peer_t *peer, uint16_t id)
{
    for (outgoing_t **place = &peer->outgoing; *place != NULL; place = &(*place)->next) {
        outgoing_t *message = *place;
        if (!message->sending.confirmable || message->sending.id != id)
            continue;
        *place = message->next;
        free(message);
        return true;
    }
    return false;
}

/* --- What is received --- */

/* Handles an uplink that was just decrypted. Its sender is the device, wherever that is now: a NAT may have
 * moved it (RFC 9146 section 6). False: the association has ended. */
static bool take_uplink(peer_t *peer, size_t length)
{
    service_t *service = peer->service;
    if (!address_is_same(&peer->address, &service->from))
        (void)set_address(peer, &service->from);
    if (service->uplinks++ < service->settings->drop_uplinks) {
        printf("dropped %s %zu\n", peer->device, length);
        return true;
    }
    service->form->take(peer, service->uplink, length);
    peer->closing = service->settings->close;
    return send_due(peer);
}

static bool is_wanting(int status)
{
    return status == MBEDTLS_ERR_SSL_WANT_READ || status == MBEDTLS_ERR_SSL_WANT_WRITE;
}

static bool shake_hands(peer_t *peer);

/* The device has lost its association and begins anew from the same port; the library has already thrown the
 * old one away and holds the ClientHello. */
static bool start_over(peer_t *peer)
{
    peer->connected = peer->full = false;
    forget_association(peer);
    mbedtls_ssl_set_mtu(&peer->ssl, HANDSHAKE_MTU);
    peer_begin_association(peer);
    return shake_hands(peer);
}

/* Takes in what came over an association. False: it has ended. */
static bool take_records(peer_t *peer)
{
    service_t *service = peer->service;
    for (;;) {
        int status = mbedtls_ssl_read(&peer->ssl, service->uplink, sizeof service->uplink);
        bool empty = compat_take_empty_record(&peer->ssl);
        if ((status > 0 || empty) && !take_uplink(peer, status > 0 ? (size_t)status : 0))
            return false;
        if (status > 0)
            continue;
        if (status == 0 || is_wanting(status))
            return true;
        if (status == MBEDTLS_ERR_SSL_CLIENT_RECONNECT)
            return start_over(peer);
        if (status == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
            mbedtls_ssl_close_notify(&peer->ssl); /* owed: RFC 5246 section 7.2.1 */
            printf("closed %s\n", peer->device);
        } else {
            report_failure(peer, status);
        }
        return false;
    }
}

/* Whether the library waits for what only a full handshake has. */
static bool is_in_full_handshake(const mbedtls_ssl_context *ssl)
{
    int state = ssl->MBEDTLS_PRIVATE(state);
    return state >= MBEDTLS_SSL_CLIENT_CERTIFICATE && state <= MBEDTLS_SSL_CERTIFICATE_VERIFY;
}

/* Continues a handshake. False: it has failed, or its ClientHello bears no cookie yet. */
static bool shake_hands(peer_t *peer)
{
    int status = mbedtls_ssl_handshake(&peer->ssl);
    if (status == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED)
        return false;
    if (is_wanting(status)) {
        peer->full = peer->full || is_in_full_handshake(&peer->ssl);
        return true;
    }
    if (status ==
        MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE) /* the one refusal that the library keeps to itself */
        mbedtls_ssl_send_alert_message(&peer->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                       MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
    if (status != 0) {
        report_failure(peer, status);
        return false;
    }
    peer->connected = true;
    mbedtls_ssl_set_mtu(&peer->ssl, 0); /* it would cap downlinks too */
    name_device(peer);
    printf("handshake %s %s %s\n", peer->device, peer->full ? "full" : "resumed",
           mbedtls_ssl_get_ciphersuite(&peer->ssl));
    return take_records(peer);
}

/* Gives the library one record, or (NULL) the time. One at a time, since an empty one can be noticed only
 * until the next. False: the association has ended. */
static bool feed(peer_t *peer, const unsigned char *record, size_t length)
{
    bool alive = true;
    peer->record = record;
    peer->record_length = length;
    /* Twice where a timer has run out, which the library sees to first. */
    for (int i = 0; i < 2 && alive && (i == 0 || peer->record != NULL); i++)
        alive = peer->connected ? take_records(peer) : shake_hands(peer);
    peer->record = NULL;
    return alive;
}

bool peer_take_datagram(peer_t *peer, size_t length)
{
    service_t *service = peer->service;
    const unsigned char *bytes = service->datagram;
    bool alive = true;
    for (size_t taken = 0; taken < length && alive;) {
        size_t record = record_length(bytes + taken, length - taken, service_cid_length(service));
        service_log_record(service, peer->association, bytes + taken, record);
        alive = feed(peer, bytes + taken, record);
        taken += record;
    }
    return alive;
}

/* --- Time --- */

int64_t peer_deadline_ms(const peer_t *peer)
{
    if (peer->connected)
        return peer->outgoing != NULL ? peer->outgoing->due_ms : INT64_MAX;
    return peer->final_ms != 0 ? peer->final_ms : INT64_MAX;
}

bool peer_tick(peer_t *peer)
{
    return peer->connected ? send_due(peer) : feed(peer, NULL, 0);
}
