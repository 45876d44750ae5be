/* credentials.h: who this device is and whom it trusts, out of whatever files a person has. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "credentials/credentials.h"
#include "make_certs.h"
#include "scratch.h"

#define PASSPHRASE "correct horse battery"

/* A clock that a test can set: it takes the place of the C library's. 0: the true one. */
static time_t set_clock;

time_t time(time_t *result)
{
    struct timespec now = {.tv_sec = set_clock};
    if (set_clock == 0)
        clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}

/* One small world: a root, an intermediate below it, a device below that. */
static mbedtls_pk_context root_key, intermediate_key, device_key, other_key, rsa_key, p384_key;
static blob_t root, intermediate, device, other;

static credentials_t credentials;

/* What a key of `key` has in a file: PEM of SEC1 or PKCS#1. */
static blob_t key_pem(mbedtls_pk_context *key)
{
    blob_t der = make_key_der(key);
    return make_pem(mbedtls_pk_get_type(key) == MBEDTLS_PK_RSA ? "RSA PRIVATE KEY" : "EC PRIVATE KEY", &der);
}

static const char *write_blob(const char *name, const blob_t *blob)
{
    return scratch_write(name, blob->bytes, blob->length);
}

static blob_t text_blob(const char *text)
{
    blob_t blob = {.length = strlen(text)};
    memcpy(blob.bytes, text, blob.length);
    return blob;
}

/* Writes certificates, a NULL at their end, to a file: as PEM, or as DER one behind the other. */
static const char *write_certificates(const char *name, bool pem, const blob_t *const *certificates)
{
    blob_t all = {.length = 0};
    for (; *certificates != NULL; certificates++) {
        blob_t part = pem ? make_pem("CERTIFICATE", *certificates) : **certificates;
        blob_add(&all, &part);
    }
    return write_blob(name, &all);
}

#define PEM_FILE(name, ...) write_certificates(name, true, (const blob_t *const[]){__VA_ARGS__, NULL})
#define DER_FILE(name, ...) write_certificates(name, false, (const blob_t *const[]){__VA_ARGS__, NULL})

static const char *device_key_file(void)
{
    blob_t pem = key_pem(&device_key);
    return write_blob("key.pem", &pem);
}

static bool load_all(const char *cert_file, const char *key_file, const char *passphrase_file, const char *ca)
{
    credentials_free(&credentials); /* a test may load more than once */
    return credentials_load(&credentials, &(credentials_source_t){.cert_file = cert_file,
                                                                  .key_file = key_file,
                                                                  .passphrase_file = passphrase_file,
                                                                  .ca = ca});
}

static void loads(const char *cert_file, const char *key_file)
{
    if (!load_all(cert_file, key_file, NULL, NULL))
        fail_msg("%s", credentials.error);
}

/* The error is one line that has `mention` in it. */
static void tells(const char *mention)
{
    if (strstr(credentials.error, mention) == NULL || strchr(credentials.error, '\n') != NULL)
        fail_msg("'%s' in one line is missing from: %s", mention, credentials.error);
}

static void is_refused(const char *cert_file, const char *key_file, const char *mention)
{
    assert_false(load_all(cert_file, key_file, NULL, NULL));
    tells(mention);
}

static bool is_certificate(const mbedtls_x509_crt *certificate, const blob_t *der)
{
    return certificate->raw.len == der->length && memcmp(certificate->raw.p, der->bytes, der->length) == 0;
}

static size_t count(const mbedtls_x509_crt *list)
{
    size_t number = 0;
    for (; list != NULL && list->raw.p != NULL; list = list->next)
        number++;
    return number;
}

/* The chain has these certificates, in this order. */
static void chain_is_exactly(const blob_t *const *expected)
{
    const mbedtls_x509_crt *next = &credentials.chain;
    size_t number = 0;
    while (expected[number] != NULL && next != NULL && is_certificate(next, expected[number])) {
        next = next->next;
        number++;
    }
    if (expected[number] != NULL)
        fail_msg("certificate %zu of the chain is another, or missing", number);
    assert_int_equal(count(&credentials.chain), number);
}

/* These are the anchors, in any order. */
static void anchors_are_exactly(const blob_t *const *expected)
{
    size_t number = 0;
    for (; expected[number] != NULL; number++) {
        const mbedtls_x509_crt *next = &credentials.anchors;
        while (next != NULL && !is_certificate(next, expected[number]))
            next = next->next;
        if (next == NULL)
            fail_msg("certificate %zu is no anchor", number);
    }
    assert_int_equal(count(&credentials.anchors), number);
}

#define CHAIN_IS(...)    chain_is_exactly((const blob_t *const[]){__VA_ARGS__, NULL})
#define ANCHORS_ARE(...) anchors_are_exactly((const blob_t *const[]){__VA_ARGS__, NULL})

/* Which certificate is whose. */

static void the_devices_certificate_is_found_wherever_it_stands(void **state)
{
    (void)state;
    const char *key = device_key_file();
    const blob_t *const orders[][5] = {{&device, &intermediate, &root, &other, NULL},
                                       {&root, &intermediate, &device, &other, NULL},
                                       {&other, &intermediate, &root, &device, NULL},
                                       {&other, &root, &device, &intermediate, NULL}};
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        loads(write_certificates("cert.crt", true, orders[i]), key);
        CHAIN_IS(&device, &intermediate);
        ANCHORS_ARE(&root, &intermediate);
        loads(write_certificates("cert.der", false, orders[i]), key);
        CHAIN_IS(&device, &intermediate);
        ANCHORS_ARE(&root, &intermediate);
    }
}

static void the_chain_has_the_intermediates_in_order_but_never_the_root(void **state)
{
    (void)state;
    mbedtls_pk_context *keys[] = {&other_key, &p384_key};
    blob_t upper = make_certificate(&(certificate_plan_t){
        .subject = "CN=upper", .key = keys[0], .issuer = "CN=root", .issuer_key = &root_key, .ca = true});
    blob_t lower = make_certificate(&(certificate_plan_t){
        .subject = "CN=lower", .key = keys[1], .issuer = "CN=upper", .issuer_key = keys[0], .ca = true});
    blob_t leaf = make_certificate(&(certificate_plan_t){
        .subject = "CN=leaf", .key = &device_key, .issuer = "CN=lower", .issuer_key = keys[1]});
    loads(PEM_FILE("cert.crt", &root, &upper, &leaf, &lower), device_key_file());
    CHAIN_IS(&leaf, &lower, &upper);
    ANCHORS_ARE(&root, &upper, &lower);
}

static void a_device_directly_below_the_root_sends_itself_alone(void **state)
{
    (void)state;
    blob_t leaf = make_certificate(&(certificate_plan_t){
        .subject = "CN=leaf", .key = &device_key, .issuer = "CN=root", .issuer_key = &root_key});
    loads(PEM_FILE("cert.crt", &leaf, &root), device_key_file());
    CHAIN_IS(&leaf);
    ANCHORS_ARE(&root);
}

static void certificates_of_others_are_neither_sent_nor_trusted(void **state)
{
    (void)state;
    blob_t unrelated = make_certificate(&(certificate_plan_t){.subject = "CN=unrelated",
                                                              .key = &other_key,
                                                              .issuer = "CN=root",
                                                              .issuer_key = &root_key,
                                                              .ca = true});
    loads(PEM_FILE("cert.crt", &unrelated, &other, &intermediate, &device, &root), device_key_file());
    CHAIN_IS(&device, &intermediate);
    ANCHORS_ARE(&unrelated, &intermediate, &root);
}

static void a_certificate_that_is_no_ca_is_not_sent_for_its_name(void **state)
{
    (void)state;
    blob_t impostor = make_certificate(&(certificate_plan_t){
        .subject = "CN=intermediate", .key = &other_key, .issuer = "CN=root", .issuer_key = &root_key});
    loads(PEM_FILE("cert.crt", &impostor, &device, &intermediate, &root), device_key_file());
    CHAIN_IS(&device, &intermediate);
    ANCHORS_ARE(&intermediate, &root);
}

static void of_two_cas_of_one_name_the_one_that_signed_is_sent(void **state)
{
    (void)state;
    /* As after a CA took a new key and kept its name. */
    blob_t renewed = make_certificate(&(certificate_plan_t){.subject = "CN=intermediate",
                                                            .key = &other_key,
                                                            .issuer = "CN=root",
                                                            .issuer_key = &root_key,
                                                            .ca = true});
    loads(PEM_FILE("cert.crt", &device, &renewed, &intermediate, &root), device_key_file());
    CHAIN_IS(&device, &intermediate);
    loads(PEM_FILE("cert.crt", &device, &intermediate, &renewed, &root), device_key_file());
    CHAIN_IS(&device, &intermediate);
}

static void no_certificate_is_sent_twice(void **state)
{
    (void)state;
    /* Two CAs that certify each other, and no root. */
    blob_t one = make_certificate(&(certificate_plan_t){.subject = "CN=one",
                                                        .key = &intermediate_key,
                                                        .issuer = "CN=two",
                                                        .issuer_key = &other_key,
                                                        .ca = true});
    blob_t two = make_certificate(&(certificate_plan_t){.subject = "CN=two",
                                                        .key = &other_key,
                                                        .issuer = "CN=one",
                                                        .issuer_key = &intermediate_key,
                                                        .ca = true});
    blob_t leaf = make_certificate(&(certificate_plan_t){
        .subject = "CN=leaf", .key = &device_key, .issuer = "CN=one", .issuer_key = &intermediate_key});
    loads(PEM_FILE("cert.crt", &leaf, &one, &two), device_key_file());
    CHAIN_IS(&leaf, &one, &two);
}

static void a_key_that_fits_no_certificate_is_refused_and_both_files_named(void **state)
{
    (void)state;
    static mbedtls_pk_context *const keys[] = {&other_key, &rsa_key, &p384_key};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        blob_t pem = key_pem(keys[i]);
        const char *key = write_blob("wrong.pem", &pem);
        const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
        is_refused(cert, key, key);
        tells(cert);
    }
}

/* Renames `name` to `target` soon after, while the caller goes on. */
static pid_t replace_soon(const char *name, const char *target)
{
    pid_t child = fork();
    if (child == 0) {
        struct timespec soon = {.tv_nsec = 50000000};
        nanosleep(&soon, NULL);
        _exit(rename(name, target) == 0 ? 0 : 1);
    }
    return child;
}

static void a_pair_that_is_being_replaced_is_read_again(void **state)
{
    (void)state;
    blob_t pem = key_pem(&other_key);
    const char *key = device_key_file(), *new_key = write_blob("new.pem", &pem);
    const char *cert = PEM_FILE("cert.crt", &other, &intermediate, &root);
    pid_t child = replace_soon(new_key, key);
    loads(cert, key);
    CHAIN_IS(&other, &intermediate);
    const char *new_cert = PEM_FILE("new.crt", &device, &intermediate, &root);
    device_key_file();
    pid_t other_child = replace_soon(new_cert, cert);
    loads(cert, key);
    CHAIN_IS(&device, &intermediate);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(waitpid(other_child, NULL, 0), other_child);
}

static void p384_and_rsa_keys_are_taken_too(void **state)
{
    (void)state;
    static mbedtls_pk_context *const keys[] = {&p384_key, &rsa_key};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        blob_t leaf = make_certificate(&(certificate_plan_t){
            .subject = "CN=leaf", .key = keys[i], .issuer = "CN=root", .issuer_key = &root_key});
        blob_t pem = key_pem(keys[i]), der = make_key_der(keys[i]);
        loads(PEM_FILE("cert.crt", &leaf, &root), write_blob("key.pem", &pem));
        CHAIN_IS(&leaf);
        loads(PEM_FILE("cert.crt", &leaf, &root), write_blob("key.der", &der));
        CHAIN_IS(&leaf);
    }
}

static void sec1_and_pkcs8_keys_are_taken_as_pem_and_as_der(void **state)
{
    (void)state;
    blob_t sec1 = make_key_der(&device_key);
    blob_t pkcs8 = make_pkcs8(&sec1);
    blob_t sec1_pem = make_pem("EC PRIVATE KEY", &sec1);
    blob_t pkcs8_pem = make_pem("PRIVATE KEY", &pkcs8);
    const blob_t *const forms[] = {&sec1, &sec1_pem, &pkcs8, &pkcs8_pem};
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        loads(cert, write_blob("key", forms[i]));
        assert_int_equal(mbedtls_pk_get_bitlen(&credentials.key), 256);
    }
}

static void text_around_pem_does_no_harm(void **state)
{
    (void)state;
    blob_t all = text_blob("Certificate:\n    Data:\n        Version: 3 (0x2)\r\n");
    const blob_t *const parts[] = {&device, &intermediate, &root};
    blob_t gap = text_blob("\n# the next one\n");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        blob_t pem = make_pem("CERTIFICATE", parts[i]);
        blob_add(&all, &pem);
        blob_add(&all, &gap);
    }
    loads(write_blob("cert.crt", &all), device_key_file());
    CHAIN_IS(&device, &intermediate);
    ANCHORS_ARE(&root, &intermediate);
}

static void of_two_certificates_for_the_key_the_valid_one_is_sent(void **state)
{
    (void)state;
    blob_t old = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                        .key = &device_key,
                                                        .issuer = "CN=intermediate",
                                                        .issuer_key = &intermediate_key,
                                                        .to = "20200102030405"});
    loads(PEM_FILE("cert.crt", &old, &device, &intermediate, &root), device_key_file());
    CHAIN_IS(&device, &intermediate);
    loads(PEM_FILE("cert.crt", &device, &old, &intermediate, &root), device_key_file());
    CHAIN_IS(&device, &intermediate);
}

/* Whom it trusts. */

static void the_devices_own_certificate_is_never_an_anchor(void **state)
{
    (void)state;
    blob_t own =
        make_certificate(&(certificate_plan_t){.subject = "CN=device", .key = &device_key, .ca = true});
    loads(PEM_FILE("cert.crt", &own, &root), device_key_file());
    CHAIN_IS(&own);
    ANCHORS_ARE(&root);
    is_refused(PEM_FILE("cert.crt", &own), device_key_file(), scratch_path("cert.crt"));
    tells("--ca");
}

static void an_older_certificate_of_the_devices_key_is_no_anchor_either(void **state)
{
    (void)state;
    blob_t old = make_certificate(&(certificate_plan_t){
        .subject = "CN=device", .key = &device_key, .ca = true, .from = "20100101000000"});
    blob_t own =
        make_certificate(&(certificate_plan_t){.subject = "CN=device", .key = &device_key, .ca = true});
    loads(PEM_FILE("cert.crt", &own, &old, &root), device_key_file());
    ANCHORS_ARE(&root);
    loads(PEM_FILE("cert.crt", &own, &own, &root), device_key_file());
    ANCHORS_ARE(&root);
}

static void with_nobody_to_trust_credentials_are_refused(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &other);
    is_refused(cert, device_key_file(), cert);
    tells("--ca");
}

static void a_ca_file_names_the_anchors_instead(void **state)
{
    (void)state;
    blob_t authority =
        make_certificate(&(certificate_plan_t){.subject = "CN=authority", .key = &other_key, .ca = true});
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *key = device_key_file();
    assert_true(load_all(cert, key, NULL, PEM_FILE("ca.pem", &authority)));
    CHAIN_IS(&device, &intermediate);
    ANCHORS_ARE(&authority);
    assert_true(load_all(cert, key, NULL, DER_FILE("ca.der", &authority, &root)));
    ANCHORS_ARE(&authority, &root);
    assert_true(load_all(PEM_FILE("cert.crt", &device), key, NULL, PEM_FILE("ca.pem", &root, &authority)));
    CHAIN_IS(&device);
    ANCHORS_ARE(&authority, &root);
}

static void a_ca_directory_names_the_anchors_and_other_files_in_it_do_no_harm(void **state)
{
    (void)state;
    blob_t authority =
        make_certificate(&(certificate_plan_t){.subject = "CN=authority", .key = &other_key, .ca = true});
    const char *key = device_key_file();
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    assert_int_equal(mkdir(scratch_path("roots"), 0700), 0);
    assert_int_equal(mkdir(scratch_path("roots/below"), 0700), 0);
    assert_int_equal(symlink("nowhere", scratch_path("roots/dangling")), 0);
    assert_int_equal(mkfifo(scratch_path("roots/fifo"), 0600), 0);
    scratch_write("roots/empty", "", 0);
    scratch_write("roots/README", "not a certificate\n", 18);
    assert_false(load_all(cert, key, NULL, scratch_path("roots")));
    tells(scratch_path("roots"));
    PEM_FILE("roots/a.pem", &authority);
    DER_FILE("roots/b.der", &root);
    assert_true(load_all(cert, key, NULL, scratch_path("roots")));
    CHAIN_IS(&device, &intermediate);
    ANCHORS_ARE(&authority, &root);
}

/* "openssl x509 -req" makes such where it is not told of any extensions: also of devices. */
static void a_certificate_of_version_1_beside_the_devices_own_is_no_anchor(void **state)
{
    (void)state;
    blob_t former = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                           .key = &other_key,
                                                           .issuer = "CN=intermediate",
                                                           .issuer_key = &intermediate_key,
                                                           .version_1 = true});
    blob_t old_root =
        make_certificate(&(certificate_plan_t){.subject = "CN=old", .key = &other_key, .version_1 = true});
    const char *key = device_key_file();
    loads(PEM_FILE("cert.crt", &former, &device, &old_root, &intermediate, &root), key);
    CHAIN_IS(&device, &intermediate);
    ANCHORS_ARE(&intermediate, &root);
    is_refused(PEM_FILE("cert.crt", &device, &former, &old_root), key, "--ca");
}

static void a_device_of_version_1_is_sent_with_its_issuer(void **state)
{
    (void)state;
    blob_t plain = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                          .key = &device_key,
                                                          .issuer = "CN=intermediate",
                                                          .issuer_key = &intermediate_key,
                                                          .version_1 = true});
    loads(PEM_FILE("cert.crt", &plain, &intermediate, &root), device_key_file());
    CHAIN_IS(&plain, &intermediate);
}

static void of_what_ca_names_only_cas_and_self_issued_certificates_of_version_1_are_anchors(void **state)
{
    (void)state;
    blob_t old_root =
        make_certificate(&(certificate_plan_t){.subject = "CN=old", .key = &other_key, .version_1 = true});
    blob_t old_device = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                               .key = &p384_key,
                                                               .issuer = "CN=intermediate",
                                                               .issuer_key = &intermediate_key,
                                                               .version_1 = true});
    blob_t no_ca = make_certificate(&(certificate_plan_t){.subject = "CN=no CA", .key = &other_key});
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *key = device_key_file();
    assert_true(load_all(cert, key, NULL, PEM_FILE("ca.pem", &other, &old_device, &no_ca, &old_root, &root)));
    ANCHORS_ARE(&old_root, &root);
    assert_int_equal(mkdir(scratch_path("mixed"), 0700), 0);
    DER_FILE("mixed/a", &other);
    DER_FILE("mixed/b", &old_root, &old_device);
    assert_true(load_all(cert, key, NULL, scratch_path("mixed")));
    ANCHORS_ARE(&old_root);
    const char *none = PEM_FILE("none.pem", &other, &old_device, &no_ca);
    assert_false(load_all(cert, key, NULL, none));
    tells(none);
    tells("no CA certificate");
}

static void anchors_that_cannot_be_read_are_refused_and_named(void **state)
{
    (void)state;
    const char *key = device_key_file();
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *missing = scratch_path("no-such-ca");
    assert_false(load_all(cert, key, NULL, missing));
    tells(missing);
    const char *empty = scratch_write("empty.pem", "", 0);
    assert_false(load_all(cert, key, NULL, empty));
    tells(empty);
    const char *garbage = scratch_write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", 33);
    assert_false(load_all(cert, key, NULL, garbage));
    tells(garbage);
}

/* Dates. */

static void an_expired_certificate_is_refused_with_its_date(void **state)
{
    (void)state;
    blob_t old = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                        .key = &device_key,
                                                        .issuer = "CN=root",
                                                        .issuer_key = &root_key,
                                                        .to = "20200102030405"});
    const char *cert = PEM_FILE("cert.crt", &old, &root);
    is_refused(cert, device_key_file(), cert);
    tells("expired");
    tells("2020-01-02 03:04:05");
}

static void a_certificate_not_yet_valid_is_refused_with_its_date(void **state)
{
    (void)state;
    blob_t early = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                          .key = &device_key,
                                                          .issuer = "CN=root",
                                                          .issuer_key = &root_key,
                                                          .from = "20890102030405"});
    const char *cert = PEM_FILE("cert.crt", &early, &root);
    is_refused(cert, device_key_file(), cert);
    tells("2089-01-02 03:04:05");
    assert_null(strstr(credentials.error, "clock"));
}

static void a_certificate_is_good_to_its_last_second(void **state)
{
    (void)state;
    blob_t leaf = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                         .key = &device_key,
                                                         .issuer = "CN=root",
                                                         .issuer_key = &root_key,
                                                         .from = "20360102030405",
                                                         .to = "20360116030405"});
    const char *cert = PEM_FILE("cert.crt", &leaf, &root);
    const char *key = device_key_file();
    /* No later: a 32-bit time_t ends in 2038. */
    struct tm date = {.tm_year = 136, .tm_mon = 0, .tm_mday = 2, .tm_hour = 3, .tm_min = 4, .tm_sec = 5};
    const time_t first = timegm(&date), two_weeks = 1209600;
    set_clock = first;
    loads(cert, key);
    set_clock = first + two_weeks - 1;
    loads(cert, key);
    set_clock = first - 1;
    is_refused(cert, key, "2036-01-02 03:04:05");
    set_clock = first + two_weeks + 1;
    is_refused(cert, key, "2036-01-16 03:04:05");
}

static void a_clock_before_the_build_is_hinted_at(void **state)
{
    (void)state;
    const time_t year = 31536000; /* the module may have been compiled at an earlier commit than this test */
    assert_string_equal(credentials_clock_hint(), "");
    set_clock = (time_t)BUILD_EPOCH + year;
    assert_string_equal(credentials_clock_hint(), "");
    set_clock = (time_t)BUILD_EPOCH - year;
    assert_non_null(strstr(credentials_clock_hint(), "clock"));
    set_clock = 86400; /* a Pi that lost its power */
    assert_non_null(strstr(credentials_clock_hint(), "clock"));
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root); /* valid from the year 2000 */
    is_refused(cert, device_key_file(), "2000-01-01");
    tells("clock");
}

static void a_date_is_written_with_its_zone(void **state)
{
    (void)state;
    char text[CREDENTIALS_DATE_SIZE];
    credentials_format_date(
        &(mbedtls_x509_time){.year = 2026, .mon = 11, .day = 20, .hour = 13, .min = 5, .sec = 59}, text);
    assert_string_equal(text, "2026-11-20 13:05:59 UTC");
    credentials_format_date(&(mbedtls_x509_time){.year = 1999, .mon = 1, .day = 2}, text);
    assert_string_equal(text, "1999-01-02 00:00:00 UTC");
}

/* Files that hold something else. */

/* In Unix time: those of 2020-01-02 03:04:05 and of 2036-01-02 03:04:05, both UTC. */
#define IN_2020 1577934245
#define IN_2036 2082855845

static void credentials_expire_with_the_first_certificate_that_is_sent(void **state)
{
    (void)state;
    blob_t soon_intermediate = make_certificate(&(certificate_plan_t){.subject = "CN=intermediate",
                                                                      .key = &intermediate_key,
                                                                      .issuer = "CN=root",
                                                                      .issuer_key = &root_key,
                                                                      .ca = true,
                                                                      .to = "20200102030405"});
    blob_t soon = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                         .key = &device_key,
                                                         .issuer = "CN=intermediate",
                                                         .issuer_key = &intermediate_key,
                                                         .to = "20360102030405"});
    blob_t soon_anchor = make_certificate(&(certificate_plan_t){
        .subject = "CN=another", .key = &other_key, .ca = true, .to = "20200102030405"});
    const char *key = device_key_file();
    assert_true(credentials_expiry(&credentials) == INT64_MAX); /* none yet, or a pre-shared key */
    loads(PEM_FILE("cert.crt", &soon_anchor, &soon, &intermediate, &root), key);
    assert_true(credentials_expiry(&credentials) == IN_2036);
    loads(PEM_FILE("cert.crt", &soon, &soon_intermediate, &root), key);
    assert_true(credentials_expiry(&credentials) == IN_2020);
}

static void a_pre_shared_key_never_expires(void **state)
{
    (void)state;
    const char *path = scratch_write("psk", "device:00112233445566778899aabbccddeeff\n", 40);
    assert_int_equal(chmod(path, 0600), 0);
    assert_true(credentials_load(&credentials, &(credentials_source_t){.psk_file = path}));
    assert_true(credentials_expiry(&credentials) == INT64_MAX);
}

static void a_name_is_written_without_control_characters_and_never_beyond_its_size(void **state)
{
    (void)state;
    char text[CREDENTIALS_NAME_SIZE];
    loads(PEM_FILE("cert.crt", &device, &intermediate, &root), device_key_file());
    credentials_format_name(&credentials.chain.issuer, text);
    assert_string_equal(text, "CN=intermediate");
    unsigned char evil[] = "de\x1b[31m\r\nvi\x7f\x01";
    mbedtls_x509_name name = credentials.chain.subject;
    name.next = NULL;
    name.val.p = evil;
    name.val.len = sizeof evil - 1;
    credentials_format_name(&name, text);
    for (const char *next = text; *next != '\0'; next++)
        assert_true((unsigned char)*next >= ' ' && *next != 0x7f);
    unsigned char long_name[2 * CREDENTIALS_NAME_SIZE];
    memset(long_name, 'n', sizeof long_name);
    mbedtls_x509_name parts[5];
    for (size_t i = 0; i < 5; i++) {
        parts[i] = name;
        parts[i].val.p = long_name;
        parts[i].val.len = 200;
        parts[i].next = i < 4 ? &parts[i + 1] : NULL;
    }
    credentials_format_name(parts, text);
    assert_true(strlen(text) < sizeof text);
}

/* Where nothing is built in, as in this program. */
static void files_that_are_not_named_have_their_default_names(void **state)
{
    (void)state;
    credentials_source_t source = credentials_resolve(&(credentials_source_t){.ca = "roots"});
    assert_string_equal(source.cert_file, "cert.crt");
    assert_string_equal(source.key_file, "key.pem");
    assert_string_equal(source.ca, "roots");
    source = credentials_resolve(&(credentials_source_t){.cert_file = "a", .key_file = "b"});
    assert_string_equal(source.cert_file, "a");
    assert_string_equal(source.key_file, "b");
    source = credentials_resolve(&(credentials_source_t){.psk_file = "psk"});
    assert_null(source.cert_file);
    assert_null(source.key_file);
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    PEM_FILE("cert.crt", &device, &intermediate, &root);
    device_key_file();
    assert_int_equal(chdir(scratch_directory), 0);
    bool loaded = load_all(NULL, NULL, NULL, NULL);
    bool gone = remove("key.pem") == 0 && !load_all(NULL, NULL, NULL, NULL);
    assert_int_equal(fchdir(here), 0);
    close(here);
    assert_true(loaded && gone);
    tells("key.pem: No such file");
}

static void a_certificate_file_that_cannot_be_used_is_refused_and_named(void **state)
{
    (void)state;
    const char *key = device_key_file();
    static const char *const contents[] = {"",
                                           "\n",
                                           "hello\n",
                                           "-----BEGIN CERTIFICATE-----\n",
                                           "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
                                           "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                                           "\x30\x82\xff\xff",
                                           "\x30\x80"};
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        const char *cert = scratch_write("bad.crt", contents[i], strlen(contents[i]));
        is_refused(cert, key, cert);
    }
    const char *missing = scratch_path("missing.crt");
    is_refused(missing, key, missing);
    tells("No such file");
    is_refused(scratch_directory, key, scratch_directory);
    tells("directory");
    is_refused(key, key, key); /* the key in place of the certificate */
}

static void a_key_file_that_cannot_be_used_is_refused_and_named(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    /* In two parts: a search for keys that were committed finds none here. */
    static const char bare_ec[] = "-----BEGIN EC "
                                  "PRIVATE KEY-----\n";
    static const char bare[] = "-----BEGIN "
                               "PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    static const char *const contents[] = {"",        "\n", "hello\n", bare_ec, bare, "\x30\x82\xff\xff",
                                           "\x30\x80"};
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        const char *key = scratch_write("bad.pem", contents[i], strlen(contents[i]));
        is_refused(cert, key, key);
    }
    const char *missing = scratch_path("missing.pem");
    is_refused(cert, missing, missing);
    tells("No such file");
    is_refused(cert, scratch_directory, scratch_directory);
    tells("directory");
    is_refused(cert, cert, cert); /* the certificate in place of the key */
}

static void files_cut_short_anywhere_are_refused(void **state)
{
    (void)state;
    const char *key = device_key_file();
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    blob_t key_der = make_key_der(&device_key);
    for (size_t length = 0; length < device.length; length += 7) {
        const char *path = scratch_write("cut.crt", device.bytes, length);
        is_refused(path, key, path);
    }
    for (size_t length = 0; length < key_der.length; length += 3) {
        const char *path = scratch_write("cut.pem", key_der.bytes, length);
        is_refused(cert, path, path);
    }
}

static void one_unreadable_certificate_among_good_ones_is_told(void **state)
{
    (void)state;
    blob_t broken = intermediate;
    broken.bytes[4] = 0xff; /* the tag of what is signed */
    const char *path = PEM_FILE("cert.crt", &device, &broken, &root);
    is_refused(path, device_key_file(), path);
    path = DER_FILE("cert.der", &device, &broken, &root);
    is_refused(path, device_key_file(), path);
}

static void files_without_permission_are_refused_and_named(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("locked.crt", &device, &intermediate, &root);
    const char *key = device_key_file();
    uid_t user = geteuid();
    assert_int_equal(chmod(cert, 0), 0);
    if (user == 0 && seteuid(65534) != 0)
        skip();
    bool loaded = load_all(cert, key, NULL, NULL);
    assert_int_equal(seteuid(user), 0);
    assert_false(loaded);
    tells(cert);
}

/* Grows a file with zeros to what nobody's certificates and keys need. */
static void inflate(const char *path)
{
    assert_int_equal(truncate(path, 5 << 20), 0);
}

static void files_too_large_are_refused_and_named(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *key = device_key_file();
    const char *large_cert = PEM_FILE("large.crt", &device, &intermediate, &root);
    inflate(large_cert);
    is_refused(large_cert, key, large_cert);
    tells("larger than");
    blob_t pem = key_pem(&device_key);
    const char *large_key = write_blob("large.pem", &pem);
    inflate(large_key);
    is_refused(cert, large_key, large_key);
    tells("larger than");
    const char *large_ca = PEM_FILE("large-ca.pem", &root);
    inflate(large_ca);
    assert_false(load_all(cert, key, NULL, large_ca));
    tells(large_ca);
    const char *endless = "/dev/zero";
    is_refused(endless, key, endless);
    is_refused(cert, endless, endless);
}

/* Passphrases. */

/* The device's key in a file, encrypted. */
static const char *encrypted_key_file(void)
{
    blob_t sec1 = make_key_der(&device_key);
    blob_t pem = make_encrypted_pem("EC PRIVATE KEY", &sec1, PASSPHRASE);
    return write_blob("encrypted.pem", &pem);
}

static void tells_no_passphrase(void)
{
    assert_null(strstr(credentials.error, "horse"));
}

static void the_right_passphrase_opens_the_key(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *key = encrypted_key_file();
    static const char *const contents[] = {PASSPHRASE, PASSPHRASE "\n", PASSPHRASE "\r\n",
                                           PASSPHRASE "\nsecond line\n"};
    for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
        const char *passphrase = scratch_write("passphrase", contents[i], strlen(contents[i]));
        if (!load_all(cert, key, passphrase, NULL))
            fail_msg("%zu: %s", i, credentials.error);
        CHAIN_IS(&device, &intermediate);
    }
}

static void pkcs8_keys_may_be_encrypted_too(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *passphrase = scratch_write("passphrase", PASSPHRASE "\n", sizeof PASSPHRASE);
    blob_t sec1 = make_key_der(&device_key);
    blob_t pkcs8 = make_pkcs8(&sec1);
    blob_t der = make_encrypted_pkcs8(&pkcs8, PASSPHRASE, false);
    blob_t pem = make_pem("ENCRYPTED PRIVATE KEY", &der);
    const blob_t *const forms[] = {&pem, &der};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (!load_all(cert, write_blob("key", forms[i]), passphrase, NULL))
            fail_msg("%s", credentials.error);
        CHAIN_IS(&device, &intermediate);
    }
}

static void an_encryption_that_the_library_lacks_is_told_with_the_way_out(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *passphrase = scratch_write("passphrase", PASSPHRASE "\n", sizeof PASSPHRASE);
    blob_t sec1 = make_key_der(&device_key);
    blob_t pkcs8 = make_pkcs8(&sec1);
    blob_t der = make_encrypted_pkcs8(&pkcs8, PASSPHRASE, true);
    blob_t pem = make_pem("ENCRYPTED PRIVATE KEY", &der);
    const char *key = write_blob("aes.pem", &pem);
    if (load_all(cert, key, passphrase, NULL)) /* a newer library has it */
        return;
    tells(key);
    tells("openssl pkey");
    tells_no_passphrase();
}

static void a_wrong_passphrase_is_told_but_not_quoted(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *key = encrypted_key_file();
    static const char *const wrong[] = {"horse\n", PASSPHRASE " \n", "\n" PASSPHRASE "\n",
                                        " correct horse battery", "Correct horse battery"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        const char *passphrase = scratch_write("passphrase", wrong[i], strlen(wrong[i]));
        assert_false(load_all(cert, key, passphrase, NULL));
        tells(key);
        tells("passphrase");
        tells_no_passphrase();
    }
    blob_t sec1 = make_key_der(&device_key);
    blob_t pkcs8 = make_pkcs8(&sec1);
    blob_t der = make_encrypted_pkcs8(&pkcs8, PASSPHRASE, false);
    blob_t pem = make_pem("ENCRYPTED PRIVATE KEY", &der);
    key = write_blob("pkcs8.pem", &pem);
    assert_false(load_all(cert, key, scratch_write("passphrase", "horse\n", 6), NULL));
    tells(key);
    tells("passphrase");
    tells_no_passphrase();
}

static void an_encrypted_key_without_passphrase_asks_for_one(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *key = encrypted_key_file();
    is_refused(cert, key, key);
    tells("--passphrase-file");
    blob_t sec1 = make_key_der(&device_key);
    blob_t pkcs8 = make_pkcs8(&sec1);
    blob_t der = make_encrypted_pkcs8(&pkcs8, PASSPHRASE, false);
    blob_t pem = make_pem("ENCRYPTED PRIVATE KEY", &der);
    key = write_blob("pkcs8.pem", &pem);
    is_refused(cert, key, key);
    tells("--passphrase-file");
}

static void a_missing_passphrase_file_is_refused_and_named(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *missing = scratch_path("no-passphrase");
    assert_false(load_all(cert, encrypted_key_file(), missing, NULL));
    tells(missing);
    assert_false(load_all(cert, encrypted_key_file(), scratch_directory, NULL));
    tells(scratch_directory);
}

static void a_passphrase_for_a_plain_key_does_no_harm(void **state)
{
    (void)state;
    const char *cert = PEM_FILE("cert.crt", &device, &intermediate, &root);
    const char *passphrase = scratch_write("passphrase", PASSPHRASE "\n", sizeof PASSPHRASE);
    blob_t der = make_key_der(&device_key);
    assert_true(load_all(cert, device_key_file(), passphrase, NULL));
    assert_true(load_all(cert, write_blob("key.der", &der), passphrase, NULL));
}

/* The error is one line, however long the names in it are. */
static void long_names_fit_the_error(void **state)
{
    (void)state;
    char name[4000];
    memset(name, 'p', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    is_refused(name, name, "pppp");
    assert_true(strlen(credentials.error) < sizeof credentials.error);
}

static void freeing_twice_is_harmless(void **state)
{
    (void)state;
    loads(PEM_FILE("cert.crt", &device, &intermediate, &root), device_key_file());
    credentials_free(&credentials);
    credentials_free(&credentials);
    assert_int_equal(count(&credentials.chain), 0);
    assert_int_equal(count(&credentials.anchors), 0);
    credentials_t unused;
    credentials_init(&unused);
    credentials_free(&unused);
    credentials_free(&unused);
}

static int make_world(void **state)
{
    make_ec_key(&root_key, MBEDTLS_ECP_DP_SECP256R1);
    make_ec_key(&intermediate_key, MBEDTLS_ECP_DP_SECP256R1);
    make_ec_key(&device_key, MBEDTLS_ECP_DP_SECP256R1);
    make_ec_key(&other_key, MBEDTLS_ECP_DP_SECP256R1);
    make_ec_key(&p384_key, MBEDTLS_ECP_DP_SECP384R1);
    make_rsa_key(&rsa_key);
    root = make_certificate(&(certificate_plan_t){.subject = "CN=root", .key = &root_key, .ca = true});
    intermediate = make_certificate(&(certificate_plan_t){.subject = "CN=intermediate",
                                                          .key = &intermediate_key,
                                                          .issuer = "CN=root",
                                                          .issuer_key = &root_key,
                                                          .ca = true});
    device = make_certificate(&(certificate_plan_t){.subject = "CN=device",
                                                    .key = &device_key,
                                                    .issuer = "CN=intermediate",
                                                    .issuer_key = &intermediate_key});
    other = make_certificate(&(certificate_plan_t){.subject = "CN=other",
                                                   .key = &other_key,
                                                   .issuer = "CN=intermediate",
                                                   .issuer_key = &intermediate_key});
    return scratch_make(state);
}

static int free_world(void **state)
{
    static mbedtls_pk_context *const keys[] = {&root_key,  &intermediate_key, &device_key,
                                               &other_key, &rsa_key,          &p384_key};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        mbedtls_pk_free(keys[i]);
    return scratch_remove(state);
}

static int before_each(void **state)
{
    (void)state;
    credentials_init(&credentials);
    return 0;
}

static int after_each(void **state)
{
    (void)state;
    set_clock = 0;
    credentials_free(&credentials);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, before_each, after_each)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_devices_certificate_is_found_wherever_it_stands),
        TEST(the_chain_has_the_intermediates_in_order_but_never_the_root),
        TEST(a_device_directly_below_the_root_sends_itself_alone),
        TEST(certificates_of_others_are_neither_sent_nor_trusted),
        TEST(a_certificate_that_is_no_ca_is_not_sent_for_its_name),
        TEST(of_two_cas_of_one_name_the_one_that_signed_is_sent),
        TEST(no_certificate_is_sent_twice),
        TEST(a_key_that_fits_no_certificate_is_refused_and_both_files_named),
        TEST(a_pair_that_is_being_replaced_is_read_again),
        TEST(p384_and_rsa_keys_are_taken_too),
        TEST(sec1_and_pkcs8_keys_are_taken_as_pem_and_as_der),
        TEST(text_around_pem_does_no_harm),
        TEST(of_two_certificates_for_the_key_the_valid_one_is_sent),
        TEST(the_devices_own_certificate_is_never_an_anchor),
        TEST(an_older_certificate_of_the_devices_key_is_no_anchor_either),
        TEST(with_nobody_to_trust_credentials_are_refused),
        TEST(a_ca_file_names_the_anchors_instead),
        TEST(a_ca_directory_names_the_anchors_and_other_files_in_it_do_no_harm),
        TEST(a_certificate_of_version_1_beside_the_devices_own_is_no_anchor),
        TEST(a_device_of_version_1_is_sent_with_its_issuer),
        TEST(of_what_ca_names_only_cas_and_self_issued_certificates_of_version_1_are_anchors),
        TEST(anchors_that_cannot_be_read_are_refused_and_named),
        TEST(an_expired_certificate_is_refused_with_its_date),
        TEST(a_certificate_not_yet_valid_is_refused_with_its_date),
        TEST(a_certificate_is_good_to_its_last_second),
        TEST(a_clock_before_the_build_is_hinted_at),
        TEST(a_date_is_written_with_its_zone),
        TEST(credentials_expire_with_the_first_certificate_that_is_sent),
        TEST(a_pre_shared_key_never_expires),
        TEST(a_name_is_written_without_control_characters_and_never_beyond_its_size),
        TEST(files_that_are_not_named_have_their_default_names),
        TEST(a_certificate_file_that_cannot_be_used_is_refused_and_named),
        TEST(a_key_file_that_cannot_be_used_is_refused_and_named),
        TEST(files_cut_short_anywhere_are_refused),
        TEST(one_unreadable_certificate_among_good_ones_is_told),
        TEST(files_without_permission_are_refused_and_named),
        TEST(files_too_large_are_refused_and_named),
        TEST(the_right_passphrase_opens_the_key),
        TEST(pkcs8_keys_may_be_encrypted_too),
        TEST(an_encryption_that_the_library_lacks_is_told_with_the_way_out),
        TEST(a_wrong_passphrase_is_told_but_not_quoted),
        TEST(an_encrypted_key_without_passphrase_asks_for_one),
        TEST(a_missing_passphrase_file_is_refused_and_named),
        TEST(a_passphrase_for_a_plain_key_does_no_harm),
        TEST(long_names_fit_the_error),
        TEST(freeing_twice_is_harmless),
    };
    return cmocka_run_group_tests_name("credentials", tests, make_world, free_world);
}
