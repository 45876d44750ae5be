#include "coap_resource.h"

#include <errno.h>
#include <string.h>

#include "boxes.h"
#include "system/random.h"

enum {
    URI_HOST = 3,
    URI_PORT = 7,
    ACCEPT = 17,
    FORMAT_TEXT = 0,
    FORMAT_OCTETS = 42,
    LARGEST_EXPONENT = 6, /* 1024 bytes */
    LARGE_EXPONENT = 4,
    LARGE_LENGTH = 5000,
    BUSY_SECONDS = 30,
    PART_MAX = 32
};

/* A request, and what is asked of it here. */
typedef struct {
    coap_resource_t *resource;
    peer_t *peer;
    const coap_message_t *message;
    coap_answer_t *answer;
    char part[2][PART_MAX]; /* of the path, cut if they are longer */
} request_t;

void coap_resource_init(coap_resource_t *resource)
{
    memset(resource, 0, sizeof *resource);
    (void)random_bytes(NULL, resource->echo, sizeof resource->echo);
}

/* --- Requests --- */

static void find_parts(request_t *request)
{
    coap_options_t options = coap_options(request->message);
    coap_option_t option;
    size_t count = 0;
    while (count < 2 && coap_next_option(&options, &option)) {
        if (option.number != COAP_URI_PATH)
            continue;
        size_t length = option.length < PART_MAX ? option.length : PART_MAX - 1;
        memcpy(request->part[count], option.value, length);
        request->part[count++][length] = '\0';
    }
}

static bool is_path(const request_t *request, const char *part)
{
    return strcmp(request->part[0], part) == 0;
}

static coap_outcome_t fail(const request_t *request, uint8_t code, const char *diagnostic)
{
    request->answer->code = code;
    request->answer->body = (const unsigned char *)diagnostic;
    request->answer->length = strlen(diagnostic);
    return COAP_ANSWER;
}

/* Whether there is a critical option that means nothing here. */
static bool has_unknown_option(const coap_message_t *message)
{
    static const unsigned char known[] = {URI_HOST, URI_PORT,    COAP_URI_PATH, COAP_URI_QUERY,
                                          ACCEPT,   COAP_BLOCK1, COAP_BLOCK2};
    coap_options_t options = coap_options(message);
    coap_option_t option;
    while (coap_next_option(&options, &option))
        if (coap_is_critical(option.number) &&
            (option.number > UINT8_MAX || memchr(known, (int)option.number, sizeof known) == NULL))
            return true;
    return false;
}

/* --- Bodies --- */

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length;) {
        unsigned char first = bytes[i];
        size_t more = first < 0x80   ? 0
                      : first < 0xc2 ? 4
                      : first < 0xe0 ? 1
                      : first < 0xf0 ? 2
                      : first < 0xf5 ? 3
                                     : 4;
        if (more == 4 || more >= length - i)
            return false;
        unsigned long point = more == 0 ? first : first & (0x3fUL >> more);
        for (size_t j = 1; j <= more; j++) {
            if ((bytes[i + j] & 0xc0) != 0x80)
                return false;
            point = point << 6 | (bytes[i + j] & 0x3fU);
        }
        if ((more == 2 && (point < 0x800 || (point >= 0xd800 && point < 0xe000))) ||
            (more == 3 && (point < 0x10000 || point > 0x10ffff)))
            return false;
        i += more + 1;
    }
    return true;
}

/* Puts the part of the body that is asked for into the answer. */
static coap_outcome_t cut_body(const request_t *request, coap_block_t block)
{
    coap_resource_t *resource = request->resource;
    coap_answer_t *answer = request->answer;
    size_t size = (size_t)16 << block.size_exponent, offset = block.number * size;
    if (offset > 0 && offset >= resource->body_length)
        return fail(request, COAP_BAD_REQUEST, "no such block");
    answer->code = resource->body_code;
    answer->body = resource->body + offset;
    answer->length = resource->body_length - offset;
    answer->has_format = resource->body_length > 0;
    answer->format = is_utf8(resource->body, resource->body_length) ? FORMAT_TEXT : FORMAT_OCTETS;
    if (resource->body_length <= size)
        return COAP_ANSWER;
    block.more = answer->length > size;
    answer->length = block.more ? size : answer->length;
    answer->has_block2 = true;
    answer->block2 = block;
    answer->size2 = block.number == 0 ? (uint32_t)resource->body_length : 0;
    return COAP_ANSWER;
}

/* Answers with the body, in blocks of at most that size, and no larger ones than the device asks for. */
static coap_outcome_t answer_body(const request_t *request, uint8_t code, unsigned exponent)
{
    coap_block_t block = {.size_exponent = exponent}, wanted;
    coap_option_t option;
    if (coap_find_option(request->message, COAP_BLOCK2, &option) && coap_parse_block(&option, &wanted) &&
        wanted.size_exponent < exponent)
        block.size_exponent = wanted.size_exponent;
    request->resource->body_code = code;
    return cut_body(request, block);
}

static coap_outcome_t answer_large(const request_t *request)
{
    for (size_t i = 0; i < LARGE_LENGTH; i++)
        request->resource->body[i] = (unsigned char)('a' + i % 26);
    request->resource->body_length = LARGE_LENGTH;
    return answer_body(request, COAP_CONTENT, LARGE_EXPONENT);
}

static bool copy_message(void *context, const unsigned char *bytes, size_t length)
{
    coap_resource_t *resource = context;
    if (length > sizeof resource->body)
        return false;
    memcpy(resource->body, bytes, length);
    resource->body_length = length;
    return true;
}

/* The next message of the outbox, or what --reply says, or nothing. */
static coap_outcome_t answer_downlink(const request_t *request, uint8_t code)
{
    const service_settings_t *settings = request->peer->service->settings;
    coap_resource_t *resource = request->resource;
    resource->body_length = 0;
    size_t count = boxes_deliver(settings->state_dir, request->peer->device, 1, copy_message, resource);
    if (count == 0 && settings->reply != NULL)
        copy_message(resource, (const unsigned char *)settings->reply, strlen(settings->reply));
    request->answer->downlink = resource->body_length;
    return answer_body(request, code, LARGEST_EXPONENT);
}

/* --- Payloads --- */

static coap_outcome_t refuse_size(const request_t *request)
{
    request->answer->has_block1 = false; /* it would ask for smaller blocks */
    request->answer->size1 = (uint32_t)request->peer->service->settings->coap.max_size;
    return fail(request, COAP_REQUEST_ENTITY_TOO_LARGE, "");
}

static coap_outcome_t lose_blocks(const request_t *request)
{
    request->resource->uploaded = 0;
    return fail(request, COAP_REQUEST_ENTITY_INCOMPLETE, "");
}

/* Answers a block that is not the last (RFC 7959 section 2.5). */
static coap_outcome_t go_on(const request_t *request)
{
    return fail(request, is_path(request, "early") ? COAP_CHANGED : COAP_CONTINUE, "");
}

/* Whether the payload, or with this block all of it, is more than is wanted. */
static bool is_too_large(const request_t *request, size_t before)
{
    size_t most = request->peer->service->settings->coap.max_size;
    coap_option_t option;
    uint32_t announced = 0;
    if (coap_find_option(request->message, COAP_SIZE1, &option))
        (void)coap_option_uint(&option, 4, &announced);
    return announced > most || before + request->message->payload_length > most;
}

/* Takes one block. `*complete`: it was the last of them, and there is no answer yet. */
static coap_outcome_t take_block(const request_t *request, coap_block_t block, bool *complete)
{
    const coap_settings_t *settings = &request->peer->service->settings->coap;
    coap_resource_t *resource = request->resource;
    size_t size = (size_t)16 << block.size_exponent, length = request->message->payload_length;
    unsigned wanted =
        block.size_exponent < settings->block_exponent ? block.size_exponent : settings->block_exponent;
    request->answer->has_block1 = true;
    request->answer->block1 = (coap_block_t){block.number, block.more, wanted};
    if (block.more ? length != size : length > size)
        return fail(request, COAP_BAD_REQUEST, "a block of another size than it says");
    if (settings->refuse_blocks && wanted < block.size_exponent)
        return fail(request, COAP_REQUEST_ENTITY_TOO_LARGE, "");
    if (block.number == 0)
        resource->uploaded = 0;
    if (block.number * size != resource->uploaded)
        return lose_blocks(request);
    if (is_path(request, "lost") && block.number == 2 && !resource->lost) {
        resource->lost = true;
        return lose_blocks(request);
    }
    if (is_too_large(request, resource->uploaded))
        return refuse_size(request);
    memcpy(resource->upload + resource->uploaded, request->message->payload, length);
    resource->uploaded += length;
    *complete = !block.more;
    return block.more ? go_on(request) : COAP_ANSWER;
}

static coap_outcome_t store(const request_t *request, const unsigned char *payload, size_t length)
{
    peer_t *peer = request->peer;
    if (!boxes_store(peer->service->settings->state_dir, peer->device, &peer->last_stored, payload, length))
        fprintf(stderr, "inboxd: inbox of %s: %s\n", peer->device, strerror(errno));
    printf("uplink %s %zu\n", peer->device, length);
    request->answer->critical = is_path(request, "critical");
    return answer_downlink(request, COAP_CHANGED);
}

static coap_outcome_t take_payload(const request_t *request)
{
    const coap_message_t *message = request->message;
    coap_option_t option;
    coap_block_t block;
    bool complete = false;
    if (!coap_find_option(message, COAP_BLOCK1, &option)) {
        if (is_too_large(request, 0))
            return refuse_size(request);
        return store(request, message->payload, message->payload_length);
    }
    if (!coap_parse_block(&option, &block))
        return fail(request, COAP_BAD_OPTION, "Block1");
    coap_outcome_t outcome = take_block(request, block, &complete);
    return complete ? store(request, request->resource->upload, request->resource->uploaded) : outcome;
}

/* --- What is asked for --- */

/* False: the path asks for no error. */
static bool answer_error(const request_t *request)
{
    const char *code = request->part[1];
    if (!is_path(request, "error") || strlen(code) != 4 || strspn(code, "0123456789.") != 4 || code[1] != '.')
        return false;
    int detail = (code[2] - '0') * 10 + code[3] - '0';
    fail(request, (uint8_t)COAP_CODE((code[0] - '0') & 7, detail & 31), "asked for");
    return true;
}

/* Whether the request is as fresh as the path wants it to be (RFC 9175 section 2.3). */
static bool is_fresh(const request_t *request)
{
    coap_resource_t *resource = request->resource;
    coap_option_t option;
    if (!is_path(request, "echo"))
        return true;
    if (coap_find_option(request->message, COAP_ECHO, &option) && option.length == sizeof resource->echo &&
        memcmp(option.value, resource->echo, option.length) == 0)
        resource->fresh = true;
    return resource->fresh && strcmp(request->part[1], "always") != 0;
}

static coap_outcome_t act(const request_t *request)
{
    if (request->message->code == COAP_POST || request->message->code == COAP_PUT)
        return take_payload(request);
    if (request->message->code != COAP_GET)
        return fail(request, COAP_METHOD_NOT_ALLOWED, "");
    request->answer->critical = is_path(request, "critical");
    return is_path(request, "large") ? answer_large(request) : answer_downlink(request, COAP_CONTENT);
}

/* Whether the request asks for a later block of the last body. */
static bool is_continuation(const request_t *request, coap_block_t *block)
{
    coap_option_t option;
    return coap_find_option(request->message, COAP_BLOCK2, &option) && coap_parse_block(&option, block) &&
           block->number > 0;
}

coap_outcome_t coap_resource_act(coap_resource_t *resource, peer_t *peer, const coap_message_t *message,
                                 coap_answer_t *answer)
{
    request_t request = {resource, peer, message, answer, {"", ""}};
    coap_block_t block;
    *answer = (coap_answer_t){0};
    find_parts(&request);
    if (is_path(&request, "silent"))
        return COAP_ANSWER_NOTHING;
    if (is_path(&request, "reset"))
        return COAP_ANSWER_RESET;
    if (answer_error(&request))
        return COAP_ANSWER;
    if (has_unknown_option(message))
        return fail(&request, COAP_BAD_OPTION, "a critical option that is not known");
    if (is_path(&request, "busy")) {
        answer->max_age = BUSY_SECONDS;
        return fail(&request, COAP_SERVICE_UNAVAILABLE, "");
    }
    if (!is_fresh(&request)) {
        answer->echo = resource->echo;
        return fail(&request, COAP_UNAUTHORIZED, "");
    }
    return is_continuation(&request, &block) ? cut_body(&request, block) : act(&request);
}
