#include "credentials/psk.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mbedtls/platform_util.h>

#include "command/value.h"
#include "store/file.h"

enum { FILE_MAX = 4096 };

/* Whether others than its owner can read it. The group's bits of a credential that systemd gives to a service
 * are the mask of an access list that names us: it is root's own then, and only read. */
static bool is_exposed(const struct stat *status)
{
    bool from_root = status->st_uid == 0 && geteuid() != 0 && status->st_gid == 0;
    mode_t others = from_root ? S_IRWXO | S_IWGRP : S_IRWXO | S_IRWXG;
    return S_ISREG(status->st_mode) && (status->st_mode & others) != 0;
}

/* NULL, or why not. */
static const char *parse_key(psk_t *psk, const char *digits, size_t length)
{
    if (length == 0)
        return "the key is empty";
    if (length / 2 > sizeof psk->key) {
        static char too_long[64];
        snprintf(too_long, sizeof too_long, "the key is longer than %zu bytes, which mbed TLS can take",
                 sizeof psk->key);
        return too_long;
    }
    if (length % 2 != 0)
        return "the key has an odd number of hex digits";
    for (size_t i = 0; i < length; i += 2) {
        int high = value_hex_digit(digits[i]), low = value_hex_digit(digits[i + 1]);
        if (high < 0 || low < 0)
            return "the key is not hex";
        psk->key[i / 2] = (unsigned char)(high << 4 | low);
    }
    psk->key_length = length / 2;
    return NULL;
}

/* NULL, or why not. An identity may hold colons; a key does not. */
static const char *parse(psk_t *psk, const char *text, size_t length)
{
    static const char blanks[4] = {' ', '\t', '\r', '\n'};
    while (length > 0 && memchr(blanks, text[length - 1], sizeof blanks) != NULL)
        length--;
    if (memchr(text, '\n', length) != NULL || memchr(text, '\0', length) != NULL)
        return "more than one line of text";
    const char *colon = memrchr(text, ':', length);
    if (colon == NULL)
        return "no colon between identity and key";
    size_t identity_length = (size_t)(colon - text);
    if (identity_length == 0)
        return "the identity is empty";
    if (identity_length > sizeof psk->identity)
        return "the identity is longer than 128 bytes";
    memcpy(psk->identity, text, identity_length);
    psk->identity_length = identity_length;
    return parse_key(psk, colon + 1, length - identity_length - 1);
}

bool psk_load(psk_t *psk, const char *path, char *error, size_t size)
{
    file_content_t content;
    struct stat status;
    const char *reason = NULL;
    if (!file_read(path, FILE_MAX, &content, &reason)) {
        /* It may be the key itself, in the wrong place. */
        bool quotable = strchr(path, ':') == NULL && path[strspn(path, "0123456789abcdefABCDEF")] != '\0';
        snprintf(error, size, "%s: %s; --psk names a file of one line, identity:hexkey",
                 quotable ? path : "--psk", reason);
        return false;
    }
    if (stat(path, &status) == 0 && is_exposed(&status))
        reason = "others can read it; \"chmod 600\" it, and think of a new key";
    else
        reason = parse(psk, (const char *)content.bytes, content.length);
    file_content_free(&content);
    if (reason != NULL) {
        snprintf(error, size, "%s: %s (--psk wants one line, identity:hexkey)", path, reason);
        psk_wipe(psk);
    }
    return reason == NULL;
}

void psk_wipe(psk_t *psk)
{
    mbedtls_platform_zeroize(psk, sizeof *psk);
}
