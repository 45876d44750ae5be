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

#include "credentials/bundle.h"
#include "credentials/compat.h"
#include "credentials/embedded.h"
#include "store/file.h"
#include "system/log.h"
#include "system/random.h"
#include "system/wait.h"

enum {
    CERTIFICATES_MAX = 4 << 20, /* bytes: Debian's whole bundle of public roots has 0.2 MB */
    KEY_MAX = 1 << 16,          /* bytes: an RSA key of 16384 bits has 13 kB */
    PASSPHRASE_MAX = 4096,
    REPLACING_MS = 200 /* by then whoever replaces a certificate has replaced its key too */
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

credentials_source_t credentials_resolve(const credentials_source_t *source)
{
    credentials_source_t resolved = *source;
    if (source->psk_file != NULL || embedded_is_present())
        return resolved;
    if (resolved.cert_file == NULL)
        resolved.cert_file = "cert.crt";
    if (resolved.key_file == NULL)
        resolved.key_file = "key.pem";
    return resolved;
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

/* Adds the certificates of a file. Returns how many of them could not be read, or an mbed TLS error. */
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

/* False: out of memory. What is no anchor is passed over: a bundle of roots may hold some of it. */
static bool anchor_file(credentials_t *credentials, const char *path, const file_content_t *content)
{
    mbedtls_x509_crt bundle;
    bool refused = false;
    mbedtls_x509_crt_init(&bundle);
    if (parse_certificates(&bundle, content) != 0)
        log_step("%s: holds certificates that cannot be read, which are not trusted", path);
    int status = is_empty(&bundle) ? 0 : bundle_add_named_anchors(&bundle, &credentials->anchors, &refused);
    if (refused)
        log_step("%s: holds certificates that are not a CA's, which are not trusted", path);
    mbedtls_x509_crt_free(&bundle);
    return status == 0 || fail(credentials, "%s: out of memory", path);
}

/* System directories hold other files too, and dangling links: what cannot be read is passed over. */
static bool anchor_directory(credentials_t *credentials, const char *path)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return fail(credentials, "%s: %s", path, strerror(errno));
    bool loaded = true;
    for (const struct dirent *entry; loaded && (entry = readdir(directory)) != NULL;) {
        char name[4096];
        file_content_t content;
        const char *reason = NULL;
        struct stat status;
        if ((size_t)snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= sizeof name ||
            stat(name, &status) != 0 || !S_ISREG(status.st_mode) ||
            !file_read(name, CERTIFICATES_MAX, &content, &reason))
            continue;
        loaded = anchor_file(credentials, name, &content);
        file_content_free(&content);
    }
    closedir(directory);
    return loaded;
}

static bool load_anchors(credentials_t *credentials, const char *path)
{
    struct stat status;
    file_content_t content;
    const char *reason = NULL;
    bool loaded;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        loaded = anchor_directory(credentials, path);
    } else {
        if (!file_read(path, CERTIFICATES_MAX, &content, &reason))
            return fail(credentials, "%s: %s; --ca names the trust anchors", path, reason);
        loaded = anchor_file(credentials, path, &content);
        file_content_free(&content);
    }
    if (loaded && is_empty(&credentials->anchors))
        return fail(credentials, "%s: no CA certificate that can be read in it; --ca needs trust anchors",
                    path);
    return loaded;
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
    if (!embedded_or_file(source->key_file, KEY_MAX, embedded_key, &key, &reason))
        return fail(credentials, "%s: %s; --key names this device's private key", path, reason);
    bool loaded = load_passphrase(credentials, source->passphrase_file, &passphrase) &&
                  parse_key(credentials, path, &key, &passphrase);
    file_content_free(&passphrase);
    file_content_free(&key);
    return loaded;
}

void credentials_format_date(const mbedtls_x509_time *date, char text[static CREDENTIALS_DATE_SIZE])
{
    snprintf(text, CREDENTIALS_DATE_SIZE, "%04d-%02d-%02d %02d:%02d:%02d UTC", date->year, date->mon,
             date->day, date->hour, date->min, date->sec);
}

void credentials_format_name(const mbedtls_x509_name *name, char text[static CREDENTIALS_NAME_SIZE])
{
    if (mbedtls_x509_dn_gets(text, CREDENTIALS_NAME_SIZE, name) < 0)
        snprintf(text, CREDENTIALS_NAME_SIZE, "(too long to be shown)");
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
    }
}

const mbedtls_x509_crt *credentials_first_to_expire(const credentials_t *credentials)
{
    const mbedtls_x509_crt *first = &credentials->chain;
    if (is_empty(first))
        return NULL;
    for (const mbedtls_x509_crt *next = first->next; next != NULL; next = next->next) {
        if (credentials_seconds(&next->valid_to) < credentials_seconds(&first->valid_to))
            first = next;
    }
    return first;
}

int64_t credentials_expiry(const credentials_t *credentials)
{
    const mbedtls_x509_crt *first = credentials_first_to_expire(credentials);
    return first != NULL ? credentials_seconds(&first->valid_to) : INT64_MAX;
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

static bool sort_bundle(credentials_t *credentials, const credentials_source_t *source,
                        const mbedtls_x509_crt *bundle, const mbedtls_x509_crt *own)
{
    const char *path = name_of(source->cert_file);
    if (own == NULL)
        return fail(credentials, "%s: the private key fits no certificate in %s", name_of(source->key_file),
                    path);
    if (bundle_build_chain(bundle, own, &credentials->chain) != 0 ||
        (source->ca == NULL && bundle_add_anchors(bundle, &credentials->key, &credentials->anchors) != 0))
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

/* A pipe gives what it holds only once. */
static bool can_be_read_again(const char *path)
{
    struct stat status;
    return path == NULL || (stat(path, &status) == 0 && S_ISREG(status.st_mode));
}

static bool read_pair(credentials_t *credentials, const credentials_source_t *source,
                      mbedtls_x509_crt *bundle, const mbedtls_x509_crt **own)
{
    mbedtls_x509_crt_free(bundle);
    mbedtls_x509_crt_init(bundle);
    mbedtls_pk_free(&credentials->key);
    mbedtls_pk_init(&credentials->key);
    if (!load_bundle(credentials, source, bundle) || !load_key(credentials, source))
        return false;
    *own = bundle_find_own(bundle, &credentials->key);
    return true;
}

/* A renewal replaces one file after the other; a run that comes between them finds a pair that does not fit.
 * So such a pair is read once more. */
static bool load_pair(credentials_t *credentials, const credentials_source_t *source,
                      mbedtls_x509_crt *bundle, const mbedtls_x509_crt **own)
{
    if (!read_pair(credentials, source, bundle, own))
        return false;
    if (*own != NULL || !can_be_read_again(source->cert_file) || !can_be_read_again(source->key_file) ||
        !can_be_read_again(source->passphrase_file))
        return true;
    wait_for(-1, 0, wait_limit_in(REPLACING_MS));
    return read_pair(credentials, source, bundle, own);
}

static void note_exposure(const char *key_file)
{
    struct stat status;
    if (key_file != NULL && stat(key_file, &status) == 0 && S_ISREG(status.st_mode) &&
        (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        log_step("%s: others than its owner can read it (mode %04o)", key_file,
                 (unsigned)status.st_mode & 07777);
}

bool credentials_load(credentials_t *credentials, const credentials_source_t *source)
{
    mbedtls_x509_crt bundle;
    const mbedtls_x509_crt *own = NULL;
    if (source->psk_file != NULL)
        return psk_load(&credentials->psk, source->psk_file, credentials->error, sizeof credentials->error);
    credentials_source_t resolved = credentials_resolve(source);
    note_exposure(resolved.key_file);
    mbedtls_x509_crt_init(&bundle);
    bool loaded =
        load_pair(credentials, &resolved, &bundle, &own) && sort_bundle(credentials, &resolved, &bundle, own);
    mbedtls_x509_crt_free(&bundle);
    return loaded;
}
