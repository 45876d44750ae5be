#include "coap_service.h"

#include <stdlib.h>
#include <string.h>

#include "coap_resource.h"
#include "run/coap.h"
#include "system/random.h"

enum {
    SEEN_MAX = 64,         /* requests that a duplicate of is known of */
    MESSAGE_MAX = 1280,    /* bytes in one of ours */
    UNKNOWN_OPTION = 2049, /* critical, and registered by nobody */
    TOKEN_TEXT = 2 * COAP_TOKEN_MAX + 1
};

/* A request of this association, and what it was answered with at once. */
typedef struct {
    bool used;
    uint16_t id;
    size_t length; /* 0: with nothing */
    unsigned char reply[MESSAGE_MAX];
} seen_t;

typedef struct {
    seen_t seen[SEEN_MAX];
    size_t next_seen;
    uint16_t next_id; /* for messages that we begin */
    coap_resource_t resource;
} association_t;

/* NULL: no memory. */
static association_t *find_association(peer_t *peer)
{
    if (peer->form_state == NULL) {
        association_t *association = calloc(1, sizeof *association);
        if (association == NULL)
            return NULL;
        (void)random_bytes(NULL, (unsigned char *)&association->next_id, sizeof association->next_id);
        coap_resource_init(&association->resource);
        peer->form_state = association;
    }
    return peer->form_state;
}

/* --- Events --- */

static const char *format_token(const coap_message_t *message, char text[static TOKEN_TEXT])
{
    snprintf(text, TOKEN_TEXT, "-");
    for (size_t i = 0; i < message->token_length; i++)
        snprintf(text + 2 * i, 3, "%02x", message->token[i]);
    return text;
}

static const char *format_method(uint8_t code, char text[static 8])
{
    static const char *const names[] = {[COAP_GET] = "GET", [COAP_POST] = "POST", [COAP_PUT] = "PUT"};
    if (code < sizeof names / sizeof names[0] && names[code] != NULL)
        return names[code];
    snprintf(text, 8, "0.%02d", COAP_DETAIL(code));
    return text;
}

static void print_path(const coap_message_t *message)
{
    coap_options_t options = coap_options(message);
    coap_option_t option;
    bool any = false;
    while (coap_next_option(&options, &option)) {
        if (option.number != COAP_URI_PATH)
            continue;
        putchar('/');
        any = true;
        for (size_t i = 0; i < option.length; i++)
            putchar(option.value[i] > ' ' && option.value[i] < 0x7f ? option.value[i] : '?');
    }
    puts(any ? "" : "/");
}

static void report_request(const peer_t *peer, const coap_message_t *request)
{
    char token[TOKEN_TEXT], method[8];
    printf("coap %s %s %s %u %s ", peer->device, request->type == COAP_CONFIRMABLE ? "CON" : "NON",
           format_method(request->code, method), request->id, format_token(request, token));
    print_path(request);
}

/* --- Answering --- */

static size_t write_empty(unsigned char bytes[static MESSAGE_MAX], coap_type_t type, uint16_t id)
{
    coap_writer_t writer;
    coap_begin(&writer, bytes, MESSAGE_MAX, type, COAP_EMPTY, id, NULL, 0);
    return coap_end(&writer);
}

static void send_empty(peer_t *peer, coap_type_t type, uint16_t id)
{
    unsigned char bytes[MESSAGE_MAX];
    peer_send(peer, bytes, write_empty(bytes, type, id), (sending_t){0});
}

static size_t write_response(unsigned char bytes[static MESSAGE_MAX], coap_type_t type, uint16_t id,
                             const coap_message_t *request, const coap_answer_t *answer)
{
    coap_writer_t writer;
    coap_begin(&writer, bytes, MESSAGE_MAX, type, answer->code, id, request->token, request->token_length);
    if (answer->has_format)
        coap_add_uint(&writer, COAP_CONTENT_FORMAT, answer->format);
    if (answer->max_age > 0)
        coap_add_uint(&writer, COAP_MAX_AGE, answer->max_age);
    if (answer->has_block2)
        coap_add_uint(&writer, COAP_BLOCK2, coap_block_value(answer->block2));
    if (answer->has_block1)
        coap_add_uint(&writer, COAP_BLOCK1, coap_block_value(answer->block1));
    if (answer->size2 > 0)
        coap_add_uint(&writer, COAP_SIZE2, answer->size2);
    if (answer->size1 > 0)
        coap_add_uint(&writer, COAP_SIZE1, answer->size1);
    if (answer->echo != NULL)
        coap_add_option(&writer, COAP_ECHO, answer->echo, COAP_RESOURCE_ECHO);
    if (answer->critical)
        coap_add_option(&writer, UNKNOWN_OPTION, "", 0);
    coap_add_payload(&writer, answer->body, answer->length);
    return coap_end(&writer);
}

/* Sends what answers the request at once, and keeps it for duplicates of a confirmable one. */
static void reply(peer_t *peer, const coap_message_t *request, seen_t *seen, size_t length, sending_t sending)
{
    peer_send(peer, seen->reply, length, sending);
    seen->length = request->type == COAP_CONFIRMABLE ? length : 0;
}

static void answer_request(peer_t *peer, association_t *association, const coap_message_t *request,
                           seen_t *seen, const coap_answer_t *answer)
{
    const coap_settings_t *settings = &peer->service->settings->coap;
    sending_t sending = {.downlink = answer->downlink > 0, .size = answer->downlink};
    bool confirmable = request->type == COAP_CONFIRMABLE;
    if (!confirmable || (settings->non && !settings->separate)) {
        reply(peer, request, seen,
              write_response(seen->reply, COAP_NON_CONFIRMABLE, association->next_id++, request, answer),
              sending);
        return;
    }
    if (!settings->separate) {
        reply(peer, request, seen,
              write_response(seen->reply, COAP_ACKNOWLEDGEMENT, request->id, request, answer), sending);
        return;
    }
    unsigned char bytes[MESSAGE_MAX];
    coap_type_t type = settings->non ? COAP_NON_CONFIRMABLE : COAP_CONFIRMABLE;
    sending.delay_ms = settings->separate_delay_ms;
    sending.confirmable = !settings->non;
    sending.id = association->next_id++;
    reply(peer, request, seen, write_empty(seen->reply, COAP_ACKNOWLEDGEMENT, request->id), (sending_t){0});
    peer_send(peer, bytes, write_response(bytes, type, sending.id, request, answer), sending);
}

/* --- Messages --- */

static seen_t *find_seen(association_t *association, uint16_t id)
{
    for (size_t i = 0; i < SEEN_MAX; i++)
        if (association->seen[i].used && association->seen[i].id == id)
            return &association->seen[i];
    return NULL;
}

/* In the place of the oldest one. */
static seen_t *remember(association_t *association, uint16_t id)
{
    seen_t *seen = &association->seen[association->next_seen];
    association->next_seen = (association->next_seen + 1) % SEEN_MAX;
    seen->used = true;
    seen->id = id;
    seen->length = 0;
    return seen;
}

static void take_request(peer_t *peer, const coap_message_t *request)
{
    association_t *association = find_association(peer);
    coap_answer_t answer;
    if (association == NULL)
        return;
    report_request(peer, request);
    seen_t *seen = find_seen(association, request->id);
    if (seen != NULL) { /* RFC 7252 section 4.5 */
        printf("duplicate %s %u\n", peer->device, request->id);
        if (seen->length > 0)
            peer_send(peer, seen->reply, seen->length, (sending_t){0});
        return;
    }
    seen = remember(association, request->id);
    switch (coap_resource_act(&association->resource, peer, request, &answer)) {
    case COAP_ANSWER:
        answer_request(peer, association, request, seen, &answer);
        break;
    case COAP_ANSWER_RESET:
        reply(peer, request, seen, write_empty(seen->reply, COAP_RESET, request->id), (sending_t){0});
        break;
    case COAP_ANSWER_NOTHING:
        break;
    }
}

static void take_empty(peer_t *peer, const coap_message_t *message)
{
    if (message->type == COAP_CONFIRMABLE) {
        printf("ping %s %u\n", peer->device, message->id);
        send_empty(peer, COAP_RESET, message->id);
        return;
    }
    if (!peer_acknowledged(peer, message->id) && message->type != COAP_RESET)
        return;
    printf("%s %s %u\n", message->type == COAP_RESET ? "reset" : "acknowledged", peer->device, message->id);
}

static void take_message(peer_t *peer, const unsigned char *bytes, size_t length)
{
    coap_message_t message;
    bool parsed = coap_parse(&message, bytes, length);
    if (parsed && coap_is_request(message.code)) {
        take_request(peer, &message);
        return;
    }
    if (parsed && message.code == COAP_EMPTY) {
        take_empty(peer, &message);
        return;
    }
    printf("malformed %s %zu\n", peer->device, length); /* or a response, which nobody here waits for */
    if (message.type == COAP_CONFIRMABLE)
        send_empty(peer, COAP_RESET, message.id);
}

const struct form coap_form = {take_message};
