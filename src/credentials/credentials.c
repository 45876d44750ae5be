#include "credentials/credentials.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <mbedtls/platform_util.h>

#include "credentials/embedded.h"
#include "dtls/compat.h"
#include "store/file.h"
#include "system/log.h"
#include "system/random.h"

enum {
    CERTIFICATES_MAX = 4 << 20, /* bytes: Debian's whole bundle of public roots has 0.2 MB */
    KEY_MAX = 1 << 16,          /* bytes: an RSA key of 16384 bits has 13 kB */
    PASSPHRASE_MAX = 4096,
    PUBLIC_KEY_MAX = 4200, /* bytes: an RSA key of 16384 bits, twice over */
    CHAIN_MAX = 8          /* certificates sent: mbed TLS itself verifies no longer chain */
};

static bool fail(credentials_t *credentials, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(credentials_t *credentials, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(credentials->error, sizeof credentials->error, format, arguments);
    va_end(arguments);
    return false;
}

void credentials_init(credentials_t *credentials)
{
    mbedtls_x509_crt_init(&credentials->chain);
    mbedtls_pk_init(&credentials->key);
    mbedtls_x509_crt_init(&credentials->anchors);
    psk_wipe(&credentials->psk);
    credentials->error[0] = '\0';
}

void credentials_free(credentials_t *credentials)
{
    mbedtls_x509_crt_free(&credentials->chain);
    mbedtls_pk_free(&credentials->key);
    mbedtls_x509_crt_free(&credentials->anchors);
    credentials_init(credentials);
}

int64_t credentials_seconds(const mbedtls_x509_time *date)
{
    struct tm parts = {.tm_year = date->year - 1900,
                       .tm_mon = date->mon - 1,
                       .tm_mday = date->day,
                       .tm_hour = date->hour,
                       .tm_min = date->min,
                       .tm_sec = date->sec};
    time_t seconds = timegm(&parts);
    return seconds == (time_t)-1 ? INT64_MAX : (int64_t)seconds;
}

const char *credentials_clock_hint(void)
{
    return time(NULL) < (time_t)BUILD_EPOCH ? "; the clock of this machine is likely wrong: it stands before "
                                              "the day this program was built"
                                            : "";
}

static bool is_empty(const mbedtls_x509_crt *certificates)
{
    return certificates->raw.p == NULL;
}

static bool same_name(const mbedtls_x509_buf *a, const mbedtls_x509_buf *b)
{
    return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

static bool is_self_issued(const mbedtls_x509_crt *certificate)
{
    return same_name(&certificate->issuer_raw, &certificate->subject_raw);
}

/* DER certificates, one behind the other. */
static int parse_der(mbedtls_x509_crt *certificates, const unsigned char *bytes, size_t length)
{
    while (length > 0) {
        int status = mbedtls_x509_crt_parse_der(certificates, bytes, length);
        if (status != 0)
            return status;
        const mbedtls_x509_crt *last = certificates;
        while (last->next != NULL)
            last = last->next;
        bytes += last->raw.len;
        length -= last->raw.len;
    }
    return 0;
}

/* Adds the certificates of a file. Returns how many of them could not be read, or a negative mbed TLS error.
 */
static int parse_certificates(mbedtls_x509_crt *certificates, const file_content_t *content)
{
    /* Not strstr(3), which would stop at a NUL in DER. */
    static const char mark[] = "-----BEGIN CERTIFICATE-----";
    if (memmem(content->bytes, content->length, mark, sizeof mark - 1) != NULL)
        return mbedtls_x509_crt_parse(certificates, content->bytes, content->length + 1);
    return parse_der(certificates, content->bytes, content->length);
}

/* For messages. */
static const char *name_of(const char *path)
{
    return path != NULL ? path : "built-in credentials";
}

static bool load_bundle(credentials_t *credentials, const credentials_source_t *source,
                        mbedtls_x509_crt *bundle)
{
    file_content_t content;
    const char *reason = NULL, *path = name_of(source->cert_file);
    if (!embedded_or_file(source->cert_file, CERTIFICATES_MAX, embedded_certificates, &content, &reason))
        return fail(credentials, "%s: %s; --cert names this device's certificate", path, reason);
    int status = parse_certificates(bundle, &content);
    file_content_free(&content);
    if (status < 0 || is_empty(bundle))
        return fail(credentials, "%s: no certificate that can be read in it, neither PEM nor DER", path);
    if (status > 0)
        return fail(credentials, "%s: %d of its certificates cannot be read", path, status);
    return true;
}

static void anchor_file(credentials_t *credentials, const char *path, const file_content_t *content)
{
    int status = parse_certificates(&credentials->anchors, content);
    if (status != 0)
        log_step("%s: holds certificates that cannot be read, which are not trusted", path);
}

/* What cannot be read in a directory is passed over: system directories hold other files, and dangling links.
 */
static bool anchor_directory(credentials_t *credentials, const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return fail(credentials, "%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char name[4096];
        file_content_t content;
        const char *reason = NULL;
        struct stat status;
        if ((size_t)snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= sizeof name ||
            stat(name, &status) != 0 || !S_ISREG(status.st_mode) ||
            !file_read(name, CERTIFICATES_MAX, &content, &reason))
            continue;
        anchor_file(credentials, name, &content);
        file_content_free(&content);
    }
    closedir(directory);
    return true;
}

static bool load_anchors(credentials_t *credentials, const char *path)
{
    struct stat status;
    file_content_t content;
    const char *reason = NULL;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        if (!anchor_directory(credentials, path))
            return false;
    } else {
        if (!file_read(path, CERTIFICATES_MAX, &content, &reason))
            return fail(credentials, "%s: %s; --ca names the trust anchors", path, reason);
        anchor_file(credentials, path, &content);
        file_content_free(&content);
    }
    if (is_empty(&credentials->anchors))
        return fail(credentials, "%s: no certificate that can be read in it; --ca needs trust anchors", path);
    return true;
}

/* The first line of the file; false with the error set. */
static bool load_passphrase(credentials_t *credentials, const char *path, file_content_t *passphrase)
{
    const char *reason = NULL;
    *passphrase = (file_content_t){0};
    if (path == NULL)
        return true;
    if (!file_read(path, PASSPHRASE_MAX, passphrase, &reason))
        return fail(credentials, "%s: %s; --passphrase-file names the key's passphrase", path, reason);
    return true;
}

static bool explain_key(credentials_t *credentials, const char *path, int status, bool encrypted)
{
    if (status == MBEDTLS_ERR_PK_PASSWORD_REQUIRED)
        return fail(credentials, "%s: the key is encrypted; give its passphrase with --passphrase-file",
                    path);
    if (status == MBEDTLS_ERR_PK_PASSWORD_MISMATCH)
        return fail(credentials, "%s: the passphrase does not decrypt the key", path);
    if (encrypted)
        return fail(
            credentials,
            "%s: the passphrase is wrong, or mbed TLS %s does not know this encryption; convert the key with "
            "\"openssl pkey -in %s -traditional -aes128 -out NEW\"",
            path, MBEDTLS_VERSION_STRING, path);
    return fail(credentials,
                "%s: no private key that can be read in it (EC or RSA; PKCS#8, SEC1 or PKCS#1; PEM or "
                "DER; an encrypted one needs --passphrase-file)",
                path);
}

static bool parse_key(credentials_t *credentials, const char *path, const file_content_t *key,
                      const file_content_t *passphrase)
{
    const unsigned char *line = passphrase->bytes;
    size_t line_length = line != NULL ? strcspn((const char *)line, "\r\n") : 0;
    bool pem = memmem(key->bytes, key->length, "-----BEGIN ", 11) != NULL;
    int status = compat_parse_key(&credentials->key, key->bytes, pem ? key->length + 1 : key->length,
                                  line_length > 0 ? line : NULL, line_length, random_bytes);
    if (status == 0)
        return true;
    bool encrypted = memmem(key->bytes, key->length, "ENCRYPTED", 9) != NULL || (!pem && line_length > 0);
    return explain_key(credentials, path, status, encrypted);
}

static bool load_key(credentials_t *credentials, const credentials_source_t *source)
{
    const char *reason = NULL, *path = name_of(source->key_file);
    file_content_t key, passphrase;
    struct stat status;
    if (!embedded_or_file(source->key_file, KEY_MAX, embedded_key, &key, &reason))
        return fail(credentials, "%s: %s; --key names this device's private key", path, reason);
    if (source->key_file != NULL && stat(path, &status) == 0 && S_ISREG(status.st_mode) &&
        (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        log_step("%s: others than its owner can read it (mode %04o)", path, (unsigned)status.st_mode & 07777);
    bool loaded = load_passphrase(credentials, source->passphrase_file, &passphrase) &&
                  parse_key(credentials, path, &key, &passphrase);
    file_content_free(&passphrase);
    file_content_free(&key);
    return loaded;
}

static bool is_valid_now(const mbedtls_x509_crt *certificate)
{
    return !mbedtls_x509_time_is_past(&certificate->valid_to) &&
           !mbedtls_x509_time_is_future(&certificate->valid_from);
}

/* Whether the key's public half is the certificate's. mbedtls_pk_check_pair() would compute that half anew as
 * well, at the price of a signature, to find what only a damaged file has: two halves of a key that do not
 * belong together. */
static bool fits(const mbedtls_x509_crt *certificate, const mbedtls_pk_context *key)
{
    unsigned char own[PUBLIC_KEY_MAX], theirs[PUBLIC_KEY_MAX];               /* filled from the end */
    mbedtls_pk_context *public_key = (mbedtls_pk_context *)&certificate->pk; /* 2.28 asks for a mutable one */
    int length = mbedtls_pk_write_pubkey_der((mbedtls_pk_context *)key, own, sizeof own);
    return length > 0 && mbedtls_pk_write_pubkey_der(public_key, theirs, sizeof theirs) == length &&
           memcmp(own + sizeof own - length, theirs + sizeof theirs - length, (size_t)length) == 0;
}

/* The certificate that the key belongs to, wherever it stands. After a renewal with the same key there may be
 * two: the one that is valid wins. NULL: none. */
static const mbedtls_x509_crt *find_own(const credentials_t *credentials, const mbedtls_x509_crt *bundle)
{
    const mbedtls_x509_crt *own = NULL;
    for (const mbedtls_x509_crt *next = bundle; next != NULL; next = next->next) {
        if (!fits(next, &credentials->key))
            continue;
        if (is_valid_now(next))
            return next;
        if (own == NULL)
            own = next;
    }
    return own;
}

void credentials_format_date(const mbedtls_x509_time *date, char text[static CREDENTIALS_DATE_SIZE])
{
    snprintf(text, CREDENTIALS_DATE_SIZE, "%04d-%02d-%02d %02d:%02d:%02d UTC", date->year, date->mon,
             date->day, date->hour, date->min, date->sec);
}

static bool check_dates(credentials_t *credentials, const char *path, const mbedtls_x509_crt *own)
{
    char date[CREDENTIALS_DATE_SIZE];
    if (mbedtls_x509_time_is_past(&own->valid_to)) {
        credentials_format_date(&own->valid_to, date);
        return fail(credentials,
                    "%s: expired %s; get a new certificate (those of the Span service last 14 days)", path,
                    date);
    }
    if (mbedtls_x509_time_is_future(&own->valid_from)) {
        credentials_format_date(&own->valid_from, date);
        return fail(credentials, "%s: not yet valid: not valid before %s%s", path, date,
                    credentials_clock_hint());
    }
    return true;
}

static int add(mbedtls_x509_crt *list, const mbedtls_x509_crt *certificate)
{
    return mbedtls_x509_crt_parse_der(list, certificate->raw.p, certificate->raw.len);
}

/* Whether `issuer` alone makes `certificate` trustworthy, dates aside. */
static bool has_signed(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *certificate)
{
    mbedtls_x509_crt alone;
    uint32_t flags = MBEDTLS_X509_BADCERT_NOT_TRUSTED;
    mbedtls_x509_crt_init(&alone);
    if (add(&alone, issuer) == 0)
        mbedtls_x509_crt_verify((mbedtls_x509_crt *)certificate, &alone, NULL, NULL, &flags, NULL, NULL);
    mbedtls_x509_crt_free(&alone);
    return (flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) == 0;
}

/* Names settle it but where a CA has changed its key and kept its name; only then is a signature worth its
 * price. */
static const mbedtls_x509_crt *find_issuer(const mbedtls_x509_crt *bundle,
                                           const mbedtls_x509_crt *certificate)
{
    const mbedtls_x509_crt *found = NULL;
    for (; bundle != NULL; bundle = bundle->next) {
        if (!compat_is_ca(bundle) || !same_name(&bundle->subject_raw, &certificate->issuer_raw))
            continue;
        if (found == NULL || !has_signed(found, certificate))
            found = bundle;
    }
    return found;
}

static bool holds(const mbedtls_x509_crt *list, const mbedtls_x509_crt *certificate)
{
    for (; list != NULL; list = list->next) {
        if (list->raw.len == certificate->raw.len &&
            memcmp(list->raw.p, certificate->raw.p, certificate->raw.len) == 0)
            return true;
    }
    return false;
}

/* The device's certificate and its issuers in the order that RFC 5246 section 7.4.2 asks for, less the root,
 * which the server must have anyhow. CAs that have certified each other make no circle of it. */
static int build_chain(credentials_t *credentials, const mbedtls_x509_crt *bundle,
                       const mbedtls_x509_crt *own)
{
    int status = add(&credentials->chain, own);
    const mbedtls_x509_crt *last = own;
    for (int count = 1; status == 0 && count < CHAIN_MAX && !is_self_issued(last); count++) {
        last = find_issuer(bundle, last);
        if (last == NULL || is_self_issued(last) || holds(&credentials->chain, last))
            break;
        status = add(&credentials->chain, last);
    }
    return status;
}

/* The CA certificates beside the device's own. Never one of the device's own key, old or new, though it may
 * claim to be a CA: who holds that key could then pass for any server. */
static int anchor_bundle(credentials_t *credentials, const mbedtls_x509_crt *bundle)
{
    int status = 0;
    for (; bundle != NULL && status == 0; bundle = bundle->next) {
        if (compat_is_ca(bundle) && !fits(bundle, &credentials->key))
            status = add(&credentials->anchors, bundle);
    }
    return status;
}

static bool sort_bundle(credentials_t *credentials, const credentials_source_t *source,
                        const mbedtls_x509_crt *bundle)
{
    const char *path = name_of(source->cert_file);
    const mbedtls_x509_crt *own = find_own(credentials, bundle);
    if (own == NULL)
        return fail(credentials, "%s: the private key fits no certificate in %s", name_of(source->key_file),
                    path);
    if (build_chain(credentials, bundle, own) != 0 ||
        (source->ca == NULL && anchor_bundle(credentials, bundle) != 0))
        return fail(credentials, "%s: out of memory", path);
    if (!check_dates(credentials, path, own))
        return false;
    if (source->ca != NULL)
        return load_anchors(credentials, source->ca);
    if (is_empty(&credentials->anchors))
        return fail(credentials, "%s: no CA certificate in it to trust a server by; name one with --ca",
                    path);
    return true;
}

bool credentials_load(credentials_t *credentials, const credentials_source_t *source)
{
    mbedtls_x509_crt bundle;
    if (source->psk_file != NULL)
        return psk_load(&credentials->psk, source->psk_file, credentials->error, sizeof credentials->error);
    mbedtls_x509_crt_init(&bundle);
    bool loaded = load_bundle(credentials, source, &bundle) && load_key(credentials, source) &&
                  sort_bundle(credentials, source, &bundle);
    mbedtls_x509_crt_free(&bundle);
    return loaded;
}
