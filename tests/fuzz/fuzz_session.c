/* The saved session's file, and what is in it: an input is the file's content, or edits of a good one. The
 * checksum is made right where the first byte says so, for without it nothing goes deeper. What comes out is
 * used. */
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "../unit/scratch.h"
#include "exchange.h"
#include "server.h"
#include "store/file.h"
#include "store/session.h"

enum { IMAGE_MAX = 65536, WAYS = 4, RAW = 0, EDITED = 2, SUM_SIZE = 8 };

/* As src/store/session.c has them: where the file's header ends, and where in it device and inode and both
 * lengths begin. */
enum { HEADER_SIZE = 336, PLACE_OFFSET = 88, PLACE_SIZE = 16, LENGTHS_OFFSET = 160 };

typedef struct {
    unsigned char bytes[IMAGE_MAX];
    size_t length;
} image_t;

static const unsigned char binding[SESSION_BINDING_SIZE] = "what it is bound to";
static image_t good;
static dtls_blob_t good_association, good_session;

/* In place of the C library's: wherever the scratch directory is, associations are kept there. */
int fstatfs(int fd, struct statfs *status)
{
    (void)fd;
    memset(status, 0, sizeof *status);
    status->f_type = TMPFS_MAGIC;
    return 0;
}

static void clean_up(void)
{
    scratch_remove(NULL);
}

static const char *session_path(void)
{
    return scratch_path("session");
}

static void prepare(void)
{
    const char *reason;
    file_content_t content;
    if (good.length > 0)
        return;
    REQUIRE(scratch_make(NULL) == 0 && atexit(clean_up) == 0);
    server_prepare();
    exchange_make_blobs(&good_association, &good_session);
    session_t session = {.association = good_association.bytes,
                         .association_length = good_association.length,
                         .session = good_session.bytes,
                         .session_length = good_session.length,
                         .full_at = time(NULL),
                         .full_ms = session_clock_ms(),
                         .heard_ms = 1};
    REQUIRE(session_put(session_path(), binding, &session, &reason));
    REQUIRE(file_read(session_path(), sizeof good.bytes, &content, &reason));
    memcpy(good.bytes, content.bytes, content.length);
    good.length = content.length;
    file_content_free(&content);
}

/* Puts `bytes` in the place of `length` bytes at `place`. */
static void replace(image_t *image, size_t place, size_t length, input_t bytes)
{
    if (place > image->length)
        place = image->length;
    if (length > image->length - place)
        length = image->length - place;
    if (bytes.length > sizeof image->bytes - image->length)
        return;
    memmove(image->bytes + place + bytes.length, image->bytes + place + length,
            image->length - place - length);
    if (bytes.length > 0)
        memcpy(image->bytes + place, bytes.bytes, bytes.length);
    image->length += bytes.length - length;
}

/* Makes both lengths fit the file's, however far the first is beyond it. */
static void fit_lengths(image_t *image, int32_t first)
{
    uint64_t lengths[2] = {(uint64_t)(int64_t)first,
                           image->length - HEADER_SIZE - SUM_SIZE - (uint64_t)(int64_t)first};
    if (image->length >= HEADER_SIZE)
        memcpy(image->bytes + LENGTHS_OFFSET, lengths, sizeof lengths);
}

enum { INSERT, CUT, OVERWRITE, SET_BYTE, FIT_LENGTHS, EDITS };

static void take_edit(image_t *image, input_t *edits)
{
    unsigned kind = input_number(edits, 1) % EDITS;
    if (kind == FIT_LENGTHS) {
        fit_lengths(image, (int32_t)input_number(edits, 4));
        return;
    }
    size_t place = input_number(edits, 2), length = kind == SET_BYTE ? 1 : input_number(edits, 1);
    input_t bytes = input_take(edits, kind == CUT ? 0 : length);
    replace(image, place,
            kind == INSERT                       ? 0
            : kind == CUT && length == UINT8_MAX ? IMAGE_MAX
                                                 : length,
            bytes);
}

/* FNV-1a, as src/store/session.c has it. */
static void correct_sum(image_t *image)
{
    uint64_t sum = UINT64_C(14695981039346656037);
    if (image->length < SUM_SIZE)
        return;
    for (size_t i = 0; i < image->length - SUM_SIZE; i++)
        sum = (sum ^ image->bytes[i]) * UINT64_C(1099511628211);
    memcpy(image->bytes + image->length - SUM_SIZE, &sum, sizeof sum);
}

/* Names the file's own place in its header, but where the input has another there. */
static void correct_place(image_t *image, int fd)
{
    struct stat status;
    unsigned char *place = image->bytes + PLACE_OFFSET;
    REQUIRE(fstat(fd, &status) == 0);
    uint64_t own[] = {status.st_dev, status.st_ino};
    if (image->length >= HEADER_SIZE && memcmp(place, good.bytes + PLACE_OFFSET, PLACE_SIZE) == 0)
        memcpy(place, own, PLACE_SIZE);
}

static void write_file(image_t *image, bool corrected)
{
    int fd = open(session_path(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR);
    REQUIRE(fd >= 0);
    if (corrected) {
        correct_place(image, fd);
        correct_sum(image);
    }
    REQUIRE(write(fd, image->bytes, image->length) == (ssize_t)image->length);
    close(fd);
}

/* The library must bear any context that has the right sum. */
static void use_association(const session_t *session)
{
    dtls_state_t client;
    size_t length;
    unsigned char byte;
    dtls_blob_t saved, blob = {session->association, session->association_length};
    dtls_config_t config = {.host = "127.0.0.1", .port = "9", .limit = wait_limit_in(10)};
    dtls_init(&client);
    dtls_outcome_t outcome = dtls_resume(&client, &config, &blob);
    exchange_require_reason(&client, outcome);
    if (outcome == DTLS_OK) {
        exchange_require_reason(&client, dtls_send(&client, "hello", 5));
        exchange_require_reason(&client, dtls_receive(&client, &byte, 1, &length, 1));
        if (dtls_suspend(&client, &saved))
            dtls_blob_free(&saved);
    }
    dtls_close(&client);
}

static void use_session(const session_t *session)
{
    dtls_state_t client;
    dtls_config_t config;
    exchange_begin(&client, &config, 10);
    config.session = (dtls_blob_t){session->session, session->session_length};
    config.want_ticket = session->want_ticket;
    config.round_trip_us = session->round_trip_us;
    dtls_outcome_t outcome = dtls_connect(&client, &config);
    exchange_require_reason(&client, outcome);
    dtls_close(&client);
}

static bool is_blob(const unsigned char *bytes, size_t length, const dtls_blob_t *blob)
{
    return bytes != NULL && length == blob->length && memcmp(bytes, blob->bytes, length) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static image_t image;
    session_t session;
    struct stat status;
    input_t input = {data, size}, silent = {NULL, 0};
    prepare();
    unsigned way = input_number(&input, 1) % WAYS;
    image.length = 0;
    if (way < EDITED)
        replace(&image, 0, 0, input);
    else
        image = good;
    while (way >= EDITED && input.length > 0)
        take_edit(&image, &input);
    bool is_good = image.length == good.length && memcmp(image.bytes, good.bytes, good.length) == 0;
    write_file(&image, way != RAW);
    session_take(session_path(), binding, &session);
    REQUIRE(stat(session_path(), &status) != 0);
    REQUIRE((session.association != NULL) == (session.association_length > 0));
    REQUIRE((session.session != NULL) == (session.session_length > 0));
    if (is_good)
        REQUIRE(is_blob(session.association, session.association_length, &good_association) &&
                is_blob(session.session, session.session_length, &good_session));
    network_begin(server_peer((server_manner_t){.mute = true}), &silent);
    if (session.association != NULL)
        use_association(&session);
    if (session.session != NULL)
        use_session(&session);
    session_free(&session);
    return 0;
}
