#include "credentials/fingerprint.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <mbedtls/md.h>

#include "credentials/embedded.h"
#include "store/file.h"

enum {
    FILE_MAX = 4 << 20, /* bytes: Debian's whole bundle of public roots has 0.2 MB */
    SETTLED_S = 3       /* by then a change shows in a file's time, even on FAT */
};

/* Adds the length and the bytes: the length keeps two files from passing for two others. */
static bool digest_bytes(mbedtls_md_context_t *digest, const unsigned char *bytes, size_t size)
{
    uint64_t length = size;
    return mbedtls_md_update(digest, (const unsigned char *)&length, sizeof length) == 0 &&
           mbedtls_md_update(digest, bytes, size) == 0;
}

static bool digest_source(mbedtls_md_context_t *digest, const char *path, embedded_file_t *embedded)
{
    file_content_t content;
    const char *reason = NULL;
    if (!embedded_or_file(path, FILE_MAX, embedded, &content, &reason))
        return false;
    bool added = digest_bytes(digest, content.bytes, content.length);
    file_content_free(&content);
    return added;
}

static bool digest_file(mbedtls_md_context_t *digest, const char *path)
{
    return digest_source(digest, path, NULL);
}

static bool digest_directory(mbedtls_md_context_t *digest, const char *path)
{
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char name[4096];
        struct stat status;
        if ((size_t)snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name) < sizeof name &&
            stat(name, &status) == 0 && S_ISREG(status.st_mode))
            digest_file(digest, name);
        free(entries[i]);
    }
    free(entries);
    return count >= 0;
}

static bool digest_all(mbedtls_md_context_t *digest, const credentials_source_t *source)
{
    struct stat status;
    if (source->psk_file != NULL)
        return digest_file(digest, source->psk_file);
    credentials_source_t resolved = credentials_resolve(source);
    if (!digest_source(digest, resolved.cert_file, embedded_certificates) ||
        !digest_source(digest, resolved.key_file, embedded_key))
        return false;
    if (source->ca == NULL)
        return true;
    if (stat(source->ca, &status) == 0 && S_ISDIR(status.st_mode))
        return digest_directory(digest, source->ca);
    return digest_file(digest, source->ca);
}

bool fingerprint_digest(const credentials_source_t *source, unsigned char digest[static 32])
{
    mbedtls_md_context_t context;
    mbedtls_md_init(&context);
    bool made = mbedtls_md_setup(&context, mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), 0) == 0 &&
                mbedtls_md_starts(&context) == 0 && digest_all(&context, source) &&
                mbedtls_md_finish(&context, digest) == 0;
    mbedtls_md_free(&context);
    return made;
}

bool fingerprint_stamp(const credentials_source_t *source, fingerprint_stamp_t *stamp)
{
    credentials_source_t resolved = credentials_resolve(source);
    const char *paths[3] = {resolved.cert_file, resolved.key_file, resolved.ca};
    memset(stamp, 0, sizeof *stamp);
    if (source->psk_file != NULL) {
        paths[0] = source->psk_file;
        paths[1] = paths[2] = NULL;
    } else if (resolved.cert_file == NULL || resolved.key_file == NULL) {
        return false; /* built in: another build may hold others */
    }
    for (int i = 0; i < 3; i++) {
        struct stat status;
        if (paths[i] == NULL)
            continue;
        if (stat(paths[i], &status) != 0 || !S_ISREG(status.st_mode) ||
            status.st_ctim.tv_sec > time(NULL) - SETTLED_S)
            return false;
        stamp->files[i].device = status.st_dev;
        stamp->files[i].inode = status.st_ino;
        stamp->files[i].size = (uint64_t)status.st_size;
        stamp->files[i].changed_s = status.st_ctim.tv_sec;
        stamp->files[i].changed_ns = status.st_ctim.tv_nsec;
    }
    return true;
}
