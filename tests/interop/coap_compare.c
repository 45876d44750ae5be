/* Compares run/coap.h with libcoap, which nobody here wrote: each parses what the other has written, and both
 * parse messages that were damaged. `make interop` runs it.
 *
 *     coap_compare [MESSAGES [SEED]]
 *
 * Of valid messages all fields must be equal, and the bytes too. Of damaged ones, all fields where both
 * accept; where only one does, the difference must be of a kind that is known, below, and each kind is
 * counted. */
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Names that libcoap has too. */
#define coap_option_t   our_option_t
#define coap_block_t    our_block_t
#define coap_add_option our_add_option
#include "../../src/run/coap.c" /* NOLINT(bugprone-suspicious-include) */
#undef coap_option_t
#undef coap_block_t
#undef coap_add_option

#include <coap3/coap.h>

enum {
    MESSAGE_MAX = 4096,
    MADE_MAX = 16,
    OPTIONS_MAX = MESSAGE_MAX,
    VALUE_MAX = 400,
    PAYLOAD_MAX = 1200,
    UDP_HEADER = 4,
    SHOWN_MAX = 300
};

/* libcoap's own, which its headers for programs leave out: writes the header before the token. */
size_t coap_pdu_encode_header(coap_pdu_t *pdu, coap_proto_t proto);

/* A message as either of them sees it. The pointers are the parser's. */
typedef struct {
    unsigned type, code, id;
    const unsigned char *token, *payload;
    size_t token_length, payload_length, option_count;
    unsigned long deltas; /* of libcoap's options, which it adds up in 16 bits */
    struct {
        unsigned number;
        const unsigned char *value;
        size_t length;
    } options[OPTIONS_MAX];
} view_t;

/* All but the options, which are many. */
static void clear(view_t *view)
{
    memset(view, 0, offsetof(view_t, options));
}

/* --- At random --- */

static uint64_t random_state;

static unsigned random_below(unsigned limit)
{
    random_state = random_state * 6364136223846793005U + 1442695040888963407U;
    return (unsigned)(random_state >> 33) % limit;
}

static size_t random_length(size_t most)
{
    static const unsigned limits[] = {1, 9, 14, 30, 300, PAYLOAD_MAX};
    unsigned limit = limits[random_below(6)];
    return random_below(limit < most ? limit : (unsigned)most + 1);
}

static const unsigned char *fill_randomly(unsigned char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)random_below(256);
    return bytes;
}

/* Where the values of a message lie that is made here. */
typedef struct {
    unsigned char token[COAP_TOKEN_MAX], payload[PAYLOAD_MAX], values[MADE_MAX][VALUE_MAX];
} store_t;

/* The lengths that an option's value can have (RFC 7252 section 5.10, RFC 7959, RFC 9175), for messages that
 * libcoap calls valid; it knows these. */
static void find_lengths(unsigned number, unsigned *least, unsigned *most)
{
    static const struct {
        unsigned number, least, most;
    } known[] = {{1, 0, 8},   {3, 1, 255}, {4, 1, 8},     {5, 0, 0},    {6, 0, 3},  {7, 0, 2},
                 {8, 0, 255}, {9, 0, 255}, {11, 0, 255},  {12, 0, 2},   {14, 0, 4}, {15, 1, 255},
                 {16, 1, 1},  {17, 0, 2},  {19, 0, 3},    {20, 0, 255}, {23, 0, 3}, {27, 0, 3},
                 {28, 0, 4},  {31, 0, 3},  {35, 1, 1034}, {39, 1, 255}, {60, 0, 4}, {252, 1, 40},
                 {258, 0, 1}, {292, 0, 8}};
    *least = 0;
    *most = UINT_MAX;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].number == number) {
            *least = known[i].least;
            *most = known[i].most;
        }
}

/* libcoap drops the second of any others. */
static bool is_repeatable(unsigned number)
{
    static const unsigned char repeatable[] = {1, 4, COAP_LOCATION_PATH, COAP_URI_PATH, COAP_URI_QUERY, 20};
    return number < 256 && memchr(repeatable, (int)number, sizeof repeatable) != NULL;
}

static void make_options(view_t *view, store_t *store)
{
    static const unsigned numbers[] = {1,  3,  4,  5,  6,  7,  8,   11,  12,  14,   15,
                                       17, 20, 23, 27, 28, 60, 252, 258, 292, 2049, 65000};
    unsigned number = 0, least, most;
    view->option_count = random_below(random_below(2) == 0 ? 4 : MADE_MAX);
    for (size_t i = 0; i < view->option_count; i++) {
        if (random_below(3) > 0)
            number += random_below(40);
        for (size_t j = 0; j < sizeof numbers / sizeof numbers[0] && random_below(4) > 0; j++)
            if (numbers[j] >= number) {
                number = numbers[j];
                break;
            }
        if (i > 0 && number == view->options[i - 1].number && !is_repeatable(number))
            number++;
        if (number == 35 || number == 39) /* libcoap adds a Hop-Limit of its own to these */
            number++;
        find_lengths(number, &least, &most);
        view->options[i].number = number;
        view->options[i].length = least + random_length((most < VALUE_MAX ? most : VALUE_MAX) - least);
        view->options[i].value = fill_randomly(store->values[i], view->options[i].length);
    }
}

static void make_message(view_t *view, store_t *store)
{
    static const uint8_t codes[] = {COAP_GET,       COAP_POST,         COAP_PUT, COAP_CONTENT, COAP_CHANGED,
                                    COAP_NOT_FOUND, COAP_UNAUTHORIZED, 0x05,     0x5f,         0xa3};
    clear(view);
    view->type = random_below(8) == 0 ? COAP_NON_CONFIRMABLE : COAP_CONFIRMABLE;
    view->id = random_below(65536);
    if (random_below(20) == 0) { /* a ping, an acknowledgement, a reset */
        static const unsigned types[] = {COAP_CONFIRMABLE, COAP_ACKNOWLEDGEMENT, COAP_RESET};
        view->type = types[random_below(3)];
        return;
    }
    view->code = codes[random_below(sizeof codes)];
    if (COAP_CLASS(view->code) > 0 && random_below(2) == 0)
        view->type = COAP_ACKNOWLEDGEMENT;
    view->token_length = random_below(COAP_TOKEN_MAX + 1);
    view->token = fill_randomly(store->token, view->token_length);
    make_options(view, store);
    view->payload_length = random_length(PAYLOAD_MAX);
    view->payload = fill_randomly(store->payload, view->payload_length);
}

/* Returns the new length. */
static size_t damage(unsigned char bytes[static MESSAGE_MAX], size_t length)
{
    for (unsigned left = 1 + random_below(3); left > 0 && length > 0; left--) {
        /* Most often where the structure is. */
        size_t at = random_below((unsigned)(random_below(3) > 0 && length > 24 ? 24 : length));
        switch (random_below(5)) {
        case 0:
            bytes[at] ^= (unsigned char)(1 << random_below(8));
            break;
        case 1:
            bytes[at] = (unsigned char)random_below(256);
            break;
        case 2:
            bytes[at] = 0xff;
            break;
        case 3:
            length = at;
            break;
        default:
            memmove(bytes + at, bytes + at + 1, length - at - 1);
            length--;
        }
    }
    return length;
}

/* --- Ours --- */

static size_t write_ours(const view_t *view, unsigned char bytes[static MESSAGE_MAX])
{
    coap_writer_t writer;
    coap_begin(&writer, bytes, MESSAGE_MAX, (coap_type_t)view->type, (uint8_t)view->code, (uint16_t)view->id,
               view->token, view->token_length);
    for (size_t i = 0; i < view->option_count; i++)
        our_add_option(&writer, view->options[i].number, view->options[i].value, view->options[i].length);
    coap_add_payload(&writer, view->payload, view->payload_length);
    return coap_end(&writer);
}

static bool parse_ours(coap_message_t *message, view_t *view, const unsigned char *bytes, size_t length)
{
    our_option_t option;
    clear(view);
    if (!coap_parse(message, bytes, length))
        return false;
    view->type = message->type;
    view->code = message->code;
    view->id = message->id;
    view->token = message->token;
    view->token_length = message->token_length;
    view->payload = message->payload;
    view->payload_length = message->payload_length;
    coap_options_t options = coap_options(message);
    while (view->option_count < OPTIONS_MAX && coap_next_option(&options, &option)) {
        view->options[view->option_count].number = option.number;
        view->options[view->option_count].value = option.value;
        view->options[view->option_count++].length = option.length;
    }
    return true;
}

/* --- Theirs --- */

static unsigned long delta_of(const coap_opt_t *option)
{
    unsigned nibble = option[0] >> 4;
    return nibble == 14   ? 269 + ((unsigned long)option[1] << 8 | option[2])
           : nibble == 13 ? 13UL + option[1]
                          : nibble;
}

static void see_theirs(const coap_pdu_t *pdu, view_t *view)
{
    coap_bin_const_t token = coap_pdu_get_token(pdu);
    coap_opt_iterator_t iterator;
    clear(view);
    view->type = coap_pdu_get_type(pdu);
    view->code = coap_pdu_get_code(pdu);
    view->id = (uint16_t)coap_pdu_get_mid(pdu);
    view->token = token.s;
    view->token_length = token.length;
    (void)coap_option_iterator_init(pdu, &iterator, COAP_OPT_ALL);
    for (coap_opt_t *option;
         view->option_count < OPTIONS_MAX && (option = coap_option_next(&iterator)) != NULL;) {
        view->deltas += delta_of(option);
        view->options[view->option_count].number = iterator.number;
        view->options[view->option_count].value = coap_opt_value(option);
        view->options[view->option_count++].length = coap_opt_length(option);
    }
    if (!coap_get_data(pdu, &view->payload_length, &view->payload))
        view->payload_length = 0;
}

/* The length of a message that lies in one piece: header, token, options that were seen, payload. */
static size_t length_of(const view_t *theirs)
{
    const unsigned char *end = theirs->token + theirs->token_length;
    if (theirs->option_count > 0)
        end = theirs->options[theirs->option_count - 1].value +
              theirs->options[theirs->option_count - 1].length;
    size_t marker = theirs->payload_length > 0 ? 1 : 0;
    return UDP_HEADER + (size_t)(end - theirs->token) + marker + theirs->payload_length;
}

static size_t write_theirs(const view_t *view, unsigned char bytes[static MESSAGE_MAX])
{
    coap_pdu_t *pdu = coap_pdu_init((coap_pdu_type_t)view->type, (coap_pdu_code_t)view->code,
                                    (coap_mid_t)view->id, MESSAGE_MAX);
    bool written =
        pdu != NULL && (view->token_length == 0 || coap_add_token(pdu, view->token_length, view->token) != 0);
    for (size_t i = 0; written && i < view->option_count; i++)
        written = coap_add_option(pdu, (coap_option_num_t)view->options[i].number, view->options[i].length,
                                  view->options[i].value) != 0;
    if (written && view->payload_length > 0)
        written = coap_add_data(pdu, view->payload_length, view->payload) != 0;
    size_t length = 0;
    if (written && coap_pdu_encode_header(pdu, COAP_PROTO_UDP) == UDP_HEADER) {
        view_t back;
        see_theirs(pdu, &back);
        length = length_of(&back);
        memcpy(bytes, back.token - UDP_HEADER, length);
    }
    coap_delete_pdu(pdu);
    return length;
}

/* --- Comparing --- */

static bool is_same(const unsigned char *left, size_t left_length, const unsigned char *right,
                    size_t right_length)
{
    return left_length == right_length && (left_length == 0 || memcmp(left, right, left_length) == 0);
}

static bool is_equal(const view_t *left, const view_t *right)
{
    bool equal = left->type == right->type && left->code == right->code && left->id == right->id &&
                 left->option_count == right->option_count &&
                 is_same(left->token, left->token_length, right->token, right->token_length) &&
                 is_same(left->payload, left->payload_length, right->payload, right->payload_length);
    for (size_t i = 0; equal && i < left->option_count; i++)
        equal = left->options[i].number == right->options[i].number &&
                is_same(left->options[i].value, left->options[i].length, right->options[i].value,
                        right->options[i].length);
    return equal;
}

static _Noreturn void fail(const char *what, const unsigned char *bytes, size_t length)
{
    fprintf(stderr, "coap_compare: %s:", what);
    for (size_t i = 0; i < length && i < SHOWN_MAX; i++)
        fprintf(stderr, " %02x", bytes[i]);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

static coap_pdu_t *new_pdu(void)
{
    coap_pdu_t *pdu = coap_pdu_init(COAP_MESSAGE_CON, COAP_EMPTY_CODE, 0, MESSAGE_MAX);
    if (pdu == NULL)
        fail("no memory", NULL, 0);
    return pdu;
}

/* A message that is valid: both write the same bytes, and read the same from them. */
static void compare_valid(const view_t *view)
{
    unsigned char ours[MESSAGE_MAX], theirs[MESSAGE_MAX];
    size_t our_length = write_ours(view, ours), their_length = write_theirs(view, theirs);
    coap_message_t message;
    view_t seen;
    coap_pdu_t *pdu = new_pdu();
    if (their_length == 0 || !is_same(ours, our_length, theirs, their_length))
        fail("libcoap writes another message than ours", ours, our_length);
    if (!parse_ours(&message, &seen, theirs, their_length) || !is_equal(&seen, view))
        fail("ours does not read what libcoap wrote", theirs, their_length);
    if (!coap_pdu_parse(COAP_PROTO_UDP, ours, our_length, pdu))
        fail("libcoap refuses what ours wrote", ours, our_length);
    see_theirs(pdu, &seen);
    if (!is_equal(&seen, view))
        fail("libcoap does not read what ours wrote", ours, our_length);
    coap_delete_pdu(pdu);
}

/* --- Damaged messages --- */

/* How the two may differ about what they accept. */
typedef enum {
    BOTH_ACCEPT,
    BOTH_REFUSE,
    /* Ours refuses codes that nobody has defined (RFC 7252 section 3); libcoap leaves these to whoever calls.
     */
    RESERVED_CLASS,
    /* Ours refuses types that do not go with the code (section 4.3); libcoap sees to some of them later. */
    WRONG_TYPE,
    /* Ours refuses option numbers above 65535. libcoap lets them begin at 0 again. */
    HIGH_NUMBER,
    /* libcoap refuses a message for a known option's length. Section 5.4.3 has it treated like an option that
     * is not known, so ours leaves it to whoever reads that option. */
    OPTION_LENGTH,
    KINDS
} kind_t;

static bool has_odd_length(const view_t *view)
{
    unsigned least, most;
    for (size_t i = 0; i < view->option_count; i++) {
        find_lengths(view->options[i].number, &least, &most);
        if (view->options[i].length < least || view->options[i].length > most)
            return true;
    }
    return false;
}

/* Why ours refuses a message that libcoap accepts; BOTH_ACCEPT: it should not. */
static kind_t explain_refusal(const view_t *theirs)
{
    unsigned class = COAP_CLASS(theirs->code);
    if (class == 1 || class == 3 || class > 5)
        return RESERVED_CLASS;
    if (!is_allowed((coap_type_t)theirs->type, (uint8_t)theirs->code))
        return WRONG_TYPE;
    return theirs->deltas > COAP_OPTION_MAX ? HIGH_NUMBER : BOTH_ACCEPT;
}

static kind_t compare_damaged(const unsigned char *bytes, size_t length)
{
    coap_message_t message;
    view_t ours, theirs;
    coap_pdu_t *pdu = new_pdu();
    bool we = parse_ours(&message, &ours, bytes, length);
    bool they = coap_pdu_parse(COAP_PROTO_UDP, bytes, length, pdu) != 0;
    see_theirs(pdu, &theirs);
    kind_t kind = we ? BOTH_ACCEPT : BOTH_REFUSE;
    if (we && they && !is_equal(&ours, &theirs))
        fail("both accept, and see different fields", bytes, length);
    if (they && !we) {
        kind = explain_refusal(&theirs);
        if (kind == BOTH_ACCEPT)
            fail("libcoap accepts what ours refuses", bytes, length);
    }
    if (we && !they) {
        kind = OPTION_LENGTH;
        if (!has_odd_length(&ours))
            fail("ours accepts what libcoap refuses", bytes, length);
    }
    coap_delete_pdu(pdu);
    return kind;
}

int main(int argc, char **argv)
{
    static const char *const names[KINDS] = {
        [BOTH_ACCEPT] = "accepted by both, all fields equal",
        [BOTH_REFUSE] = "refused by both",
        [RESERVED_CLASS] = "reserved class of codes: only ours refuses",
        [WRONG_TYPE] = "type that does not go with its code: only ours refuses",
        [HIGH_NUMBER] = "option number above 65535: only ours refuses",
        [OPTION_LENGTH] = "length that a known option cannot have: only libcoap refuses"};
    static store_t store;
    unsigned char bytes[MESSAGE_MAX];
    unsigned long messages = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000, counts[KINDS] = {0};
    unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 10) : (unsigned long)time(NULL);
    view_t view;
    printf("%s, %lu messages, seed %lu\n", coap_package_version(), messages, seed);
    coap_set_log_level(LOG_EMERG);
    random_state = seed;
    for (unsigned long i = 0; i < messages; i++) {
        make_message(&view, &store);
        compare_valid(&view);
        size_t length = damage(bytes, write_ours(&view, bytes));
        counts[compare_damaged(bytes, length)]++;
    }
    printf("%8lu valid: written alike, read alike, both ways\n", messages);
    for (int kind = 0; kind < KINDS; kind++)
        printf("%8lu damaged: %s\n", counts[kind], names[kind]);
    return EXIT_SUCCESS;
}
