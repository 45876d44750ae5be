#include "credentials/check.h"

#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "credentials/embedded.h"

enum { DAY_S = 86400, SECURE_PSK_BYTES = 16 };

static const char *name_of(const char *path)
{
    return path != NULL ? path : "built in";
}

/* Whole days until then; negative: it has been. */
static int64_t days_until(const mbedtls_x509_time *date)
{
    int64_t seconds = credentials_seconds(date) - (int64_t)time(NULL);
    return seconds >= 0 ? seconds / DAY_S : -1;
}

static const char *days_word(int64_t days)
{
    return days == 1 ? "day" : "days";
}

static void print_validity(FILE *stream, const mbedtls_x509_crt *certificate)
{
    char from[CREDENTIALS_DATE_SIZE], to[CREDENTIALS_DATE_SIZE];
    credentials_format_date(&certificate->valid_from, from);
    credentials_format_date(&certificate->valid_to, to);
    fprintf(stream, "  valid:    %s to %s, ", from, to);
    if (mbedtls_x509_time_is_future(&certificate->valid_from))
        fprintf(stream, "not yet valid%s\n", credentials_clock_hint());
    else if (mbedtls_x509_time_is_past(&certificate->valid_to))
        fprintf(stream, "expired\n");
    else
        fprintf(stream, "%lld %s left\n", (long long)days_until(&certificate->valid_to),
                days_word(days_until(&certificate->valid_to)));
}

static void print_name(FILE *stream, const char *label, const mbedtls_x509_name *name)
{
    char text[CREDENTIALS_NAME_SIZE];
    credentials_format_name(name, text);
    fprintf(stream, "  %-9s %s\n", label, text);
}

static void print_own(FILE *stream, const credentials_source_t *source, const credentials_t *credentials)
{
    char serial[128];
    const mbedtls_x509_crt *own = &credentials->chain;
    fprintf(stream, "certificate: %s\n", name_of(source->cert_file));
    print_name(stream, "subject:", &own->subject);
    print_name(stream, "issuer:", &own->issuer);
    if (mbedtls_x509_serial_gets(serial, sizeof serial, &own->serial) > 0)
        fprintf(stream, "  serial:   %s\n", serial);
    print_validity(stream, own);
}

static void print_key(FILE *stream, const credentials_source_t *source, const credentials_t *credentials)
{
    struct stat status;
    fprintf(stream, "key: %s\n  kind:     %s, %u bits\n", name_of(source->key_file),
            mbedtls_pk_get_name(&credentials->key), (unsigned)mbedtls_pk_get_bitlen(&credentials->key));
    fprintf(stream, "  matches:  %s\n",
            credentials->chain.raw.p != NULL ? "the certificate" : "no certificate");
    if (source->key_file != NULL && stat(source->key_file, &status) == 0 &&
        (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        fprintf(stream, "  warning:  others than its owner can read it (mode %04o)\n",
                (unsigned)status.st_mode & 07777);
}

static void print_list(FILE *stream, const char *title, const char *where, const mbedtls_x509_crt *list)
{
    fprintf(stream, "%s: ", title);
    if (list == NULL || list->raw.p == NULL) {
        fputs("none\n", stream);
        return;
    }
    fprintf(stream, "%s\n", where);
    for (; list != NULL; list = list->next) {
        print_name(stream, "subject:", &list->subject);
        print_validity(stream, list);
    }
}

static void print_psk(FILE *stream, const credentials_source_t *source, const psk_t *psk)
{
    fprintf(stream, "pre-shared key: %s\n  identity: %zu bytes\n  key:      %zu bits\n", source->psk_file,
            psk->identity_length, 8 * psk->key_length);
    if (psk->key_length < SECURE_PSK_BYTES)
        fprintf(stream, "  warning:  a key of less than 128 bits can be guessed\n");
}

static bool lasts(const credentials_source_t *source, const credentials_t *credentials, uint64_t renew_days,
                  char *error, size_t size)
{
    char date[CREDENTIALS_DATE_SIZE];
    const mbedtls_x509_crt *first = credentials_first_to_expire(credentials);
    int64_t days = days_until(&first->valid_to);
    if (days >= (int64_t)renew_days)
        return true;
    credentials_format_date(&first->valid_to, date);
    const char *path = name_of(source->cert_file);
    const char *which = first == &credentials->chain ? "" : "an intermediate certificate in it ";
    if (days < 0)
        snprintf(error, size, "%s: %sexpired %s; get a new certificate", path, which, date);
    else
        snprintf(error, size, "%s: %sexpires %s, in less than %lld %s; get a new certificate", path, which,
                 date, (long long)days + 1, days_word(days + 1));
    return false;
}

static bool check_certificates(const credentials_source_t *source, const credentials_t *credentials,
                               FILE *stream)
{
    if (credentials->chain.raw.p != NULL)
        print_own(stream, source, credentials);
    if (mbedtls_pk_get_type(&credentials->key) != MBEDTLS_PK_NONE)
        print_key(stream, source, credentials);
    if (credentials->chain.raw.p == NULL)
        return false;
    print_list(stream, "intermediates sent with it", name_of(source->cert_file), credentials->chain.next);
    print_list(stream, "trust anchors", name_of(source->ca != NULL ? source->ca : source->cert_file),
               &credentials->anchors);
    return true;
}

bool check_credentials(const credentials_source_t *source, uint64_t renew_days, FILE *stream, char *error,
                       size_t size)
{
    credentials_t credentials;
    credentials_source_t resolved = credentials_resolve(source);
    credentials_init(&credentials);
    bool usable = credentials_load(&credentials, &resolved);
    if (!usable)
        snprintf(error, size, "%s", credentials.error);
    if (resolved.psk_file == NULL)
        usable = check_certificates(&resolved, &credentials, stream) && usable &&
                 lasts(&resolved, &credentials, renew_days, error, size);
    else if (usable)
        print_psk(stream, &resolved, &credentials.psk);
    credentials_free(&credentials);
    return usable;
}
