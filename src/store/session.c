#include "store/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mbedtls/md.h>
#include <mbedtls/platform_util.h>

#include "store/file.h"
#include "system/log.h"

enum { FILE_MAX = 256 << 10, BOOT_ID_SIZE = 36 };

/* What the file begins with; then come the association, the session, and a checksum of all that. The file is
 * read by the machine, and by virtue of its binding by the build, that wrote it, so the memory of this
 * structure is its format. Any bytes are valid in it. */
typedef struct {
    char magic[16];
    unsigned char binding[SESSION_BINDING_SIZE];
    char boot_id[BOOT_ID_SIZE + 4];
    uint64_t device, inode; /* the file's own: a copy of it has others */
    int64_t full_at, full_ms, heard_ms, expiry, round_trip_us, answer_us;
    uint64_t failures, association_length, session_length;
    uint32_t want_ticket;
    uint16_t message_id, token;
    unsigned char digest[SESSION_BINDING_SIZE], stamp[SESSION_STAMP_SIZE];
} header_t;
_Static_assert(sizeof(header_t) == 336, "no padding: all of it is written");

static const char magic[] = "dtls-send sess 3";

int64_t session_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Finds damage, of which every single byte is certain to be found (FNV-1a). Not made against people: who can
 * write the file could as well write a correct sum. SHA-256 would be a tenth of a whole repeat run. */
static uint64_t checksum(const unsigned char *bytes, size_t length)
{
    uint64_t sum = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < length; i++)
        sum = (sum ^ bytes[i]) * UINT64_C(1099511628211);
    return sum;
}

bool session_bind(unsigned char binding[static SESSION_BINDING_SIZE], const session_part_t *parts,
                  size_t count)
{
    mbedtls_md_context_t digest;
    mbedtls_md_init(&digest);
    int status = mbedtls_md_setup(&digest, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 0);
    if (status == 0)
        status = mbedtls_md_starts(&digest);
    for (size_t i = 0; i < count && status == 0; i++) {
        uint64_t length = parts[i].length;
        status = mbedtls_md_update(&digest, (const unsigned char *)&length, sizeof length);
        if (status == 0)
            status = mbedtls_md_update(&digest, parts[i].bytes, parts[i].length);
    }
    if (status == 0)
        status = mbedtls_md_finish(&digest, binding);
    mbedtls_md_free(&digest);
    return status == 0;
}

/* The kernel's name for this boot; all zero where it cannot be had, which fits no other boot and no second
 * run. */
static bool read_boot_id(char boot_id[static BOOT_ID_SIZE])
{
    file_content_t content;
    const char *reason = NULL;
    memset(boot_id, 0, BOOT_ID_SIZE);
    if (!file_read("/proc/sys/kernel/random/boot_id", 256, &content, &reason))
        return false;
    bool whole = content.length >= BOOT_ID_SIZE;
    if (whole)
        memcpy(boot_id, content.bytes, BOOT_ID_SIZE);
    file_content_free(&content);
    return whole;
}

/* NULL, or why what was read cannot be used. */
static const char *why_unusable(const file_content_t *content, const header_t *header,
                                const unsigned char binding[static SESSION_BINDING_SIZE])
{
    uint64_t sum;
    size_t body = content->length - sizeof *header - sizeof sum;
    int64_t now = time(NULL);
    if (memcmp(header->magic, magic, sizeof header->magic) != 0)
        return "is not a saved session of this version";
    if (header->association_length > body || header->session_length != body - header->association_length)
        return "is damaged";
    memcpy(&sum, content->bytes + content->length - sizeof sum, sizeof sum);
    if (sum != checksum(content->bytes, content->length - sizeof sum))
        return "is damaged";
    if (memcmp(header->binding, binding, SESSION_BINDING_SIZE) != 0)
        return "was saved for another server, or by another version";
    if (header->full_at > now || header->full_at < now - SESSION_AGE_MAX_S)
        return "is too old, or of the future";
    if (header->expiry != 0 && now >= header->expiry)
        return "has outlived a certificate";
    return NULL;
}

/* NULL, or why the association in a file that lay at `place` cannot be used. One that lay on a disk, comes
 * from another boot or from another file may be a copy of one that was used since. tmpfs gives no inode's
 * number twice, so that a copy's differs. The age is measured by the boot's clock too: nobody sets that. */
static const char *why_not_associated(const header_t *header, const file_place_t *place)
{
    char boot_id[BOOT_ID_SIZE];
    int64_t now_ms = session_clock_ms();
    if (!place->in_memory)
        return "lay on a disk";
    if (!read_boot_id(boot_id) || memcmp(boot_id, header->boot_id, BOOT_ID_SIZE) != 0)
        return "is of another boot";
    if (header->device != place->device || header->inode != place->inode)
        return "is a copy";
    if (header->full_ms > now_ms || header->full_ms < now_ms - SESSION_AGE_MAX_S * INT64_C(1000))
        return "is too old, or of the future";
    return NULL;
}

static unsigned char *copy(const unsigned char *bytes, size_t length)
{
    unsigned char *copied = length > 0 ? malloc(length) : NULL;
    if (copied != NULL)
        memcpy(copied, bytes, length);
    return copied;
}

static void unpack_association(session_t *session, const header_t *header, const unsigned char *bytes)
{
    session->association = copy(bytes, (size_t)header->association_length);
    if (session->association == NULL)
        return;
    session->association_length = (size_t)header->association_length;
    session->message_id = header->message_id;
    session->token = header->token;
}

static void unpack(session_t *session, const header_t *header, const unsigned char *body,
                   const file_place_t *place)
{
    session->full_at = header->full_at;
    session->full_ms = header->full_ms;
    session->heard_ms = header->heard_ms;
    session->expiry = header->expiry;
    session->round_trip_us = header->round_trip_us;
    session->answer_us = header->answer_us;
    session->failures = header->failures;
    session->want_ticket = header->want_ticket != 0;
    memcpy(session->digest, header->digest, sizeof session->digest);
    memcpy(session->stamp, header->stamp, sizeof session->stamp);
    session->session = copy(body + header->association_length, (size_t)header->session_length);
    session->session_length = session->session != NULL ? (size_t)header->session_length : 0;
    if (header->association_length == 0)
        return;
    const char *reason = why_not_associated(header, place);
    if (reason == NULL)
        unpack_association(session, header, body);
    else
        log_step("the saved association %s, and is not used", reason);
}

void session_take(const char *path, const unsigned char binding[static SESSION_BINDING_SIZE],
                  session_t *session)
{
    file_content_t content;
    file_place_t place;
    header_t header;
    const char *reason = NULL;
    *session = (session_t){0};
    if (file_take(path, FILE_MAX, &content, &place, &reason)) {
        reason = "is too short";
        if (content.length >= sizeof header + sizeof(uint64_t)) {
            memcpy(&header, content.bytes, sizeof header);
            reason = why_unusable(&content, &header, binding);
        }
        if (reason == NULL)
            unpack(session, &header, content.bytes + sizeof header, &place);
        file_content_free(&content);
    }
    if (reason != NULL)
        log_step("%s: no saved session: %s", path, reason);
}

bool session_keeps_associations(const char *path)
{
    return file_is_in_memory(path);
}

/* Whether the association may be kept in the file; notes in the header whose boot and which file that is. */
static bool keeps_association(header_t *header, const session_t *session, const char *path,
                              const file_place_t *place)
{
    if (session->association == NULL)
        return false;
    if (!place->in_memory) {
        log_step("%s: the association is not kept: this is not on tmpfs, as /run is", path);
        return false;
    }
    header->device = place->device;
    header->inode = place->inode;
    /* Without a boot id it could not be told from a copy of another boot's. */
    return read_boot_id(header->boot_id);
}

static void pack(header_t *header, const session_t *session,
                 const unsigned char binding[static SESSION_BINDING_SIZE])
{
    memcpy(header->magic, magic, sizeof header->magic);
    memcpy(header->binding, binding, SESSION_BINDING_SIZE);
    header->full_at = session->full_at;
    header->full_ms = session->full_ms;
    header->heard_ms = session->heard_ms;
    header->expiry = session->expiry;
    header->round_trip_us = session->round_trip_us;
    header->answer_us = session->answer_us;
    header->failures = session->failures;
    header->session_length = session->session_length;
    header->want_ticket = session->want_ticket;
    memcpy(header->digest, session->digest, sizeof header->digest);
    memcpy(header->stamp, session->stamp, sizeof header->stamp);
}

/* Fills in the whole file, and returns its size. */
static size_t assemble(unsigned char *bytes, header_t *header, const session_t *session, bool keeps)
{
    size_t size = sizeof *header;
    if (keeps) {
        header->association_length = session->association_length;
        header->message_id = session->message_id;
        header->token = session->token;
        memcpy(bytes + size, session->association, session->association_length);
        size += session->association_length;
    }
    if (session->session != NULL)
        memcpy(bytes + size, session->session, session->session_length);
    size += session->session_length;
    memcpy(bytes, header, sizeof *header);
    uint64_t sum = checksum(bytes, size);
    memcpy(bytes + size, &sum, sizeof sum);
    return size + sizeof sum;
}

bool session_put(const char *path, const unsigned char binding[static SESSION_BINDING_SIZE],
                 const session_t *session, const char **reason)
{
    header_t header = {0};
    file_draft_t draft;
    size_t room = sizeof header + session->association_length + session->session_length + sizeof(uint64_t);
    unsigned char *bytes = malloc(room);
    *reason = "out of memory";
    bool put = bytes != NULL && file_begin(&draft, path, reason);
    if (put) {
        pack(&header, session, binding);
        bool keeps = keeps_association(&header, session, path, &draft.place);
        put = file_finish(&draft, path, bytes, assemble(bytes, &header, session, keeps), reason);
    }
    if (bytes != NULL)
        mbedtls_platform_zeroize(bytes, room);
    free(bytes);
    return put;
}

static void wipe(unsigned char **bytes, size_t *length)
{
    if (*bytes != NULL)
        mbedtls_platform_zeroize(*bytes, *length);
    free(*bytes);
    *bytes = NULL;
    *length = 0;
}

void session_replace(session_t *session, unsigned char *bytes, size_t length)
{
    wipe(&session->session, &session->session_length);
    session->session = bytes;
    session->session_length = length;
}

void session_drop_association(session_t *session)
{
    wipe(&session->association, &session->association_length);
}

void session_free(session_t *session)
{
    session_drop_association(session);
    session_replace(session, NULL, 0);
}
