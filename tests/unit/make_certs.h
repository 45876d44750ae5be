/* Keys and certificates for a test, made as it runs: none is ever committed. Everything aborts on failure. */
#ifndef MAKE_CERTS_H
#define MAKE_CERTS_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/asn1write.h>
#include <mbedtls/cipher.h>
#include <mbedtls/ecp.h>
#include <mbedtls/md.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pk.h>
#include <mbedtls/rsa.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

#include "system/random.h"

/* What a file holds, or a part of it. */
typedef struct {
    unsigned char bytes[16384];
    size_t length;
} blob_t;

/* What a certificate says. */
typedef struct {
    const char *subject;            /* "CN=name" */
    mbedtls_pk_context *key;        /* the subject's */
    const char *issuer;             /* NULL: the subject, it is self-signed */
    mbedtls_pk_context *issuer_key; /* NULL: the subject's */
    bool ca;
    bool both_ends;        /* the extended key usage of a server and of a client */
    bool version_1;        /* it cannot say then whether it is a CA */
    const char *from, *to; /* "YYYYMMDDhhmmss"; NULL: long past, far ahead */
} certificate_plan_t;

static inline void must(bool condition)
{
    if (!condition)
        abort();
}

/* Appends `more`. */
static inline void blob_add(blob_t *blob, const blob_t *more)
{
    must(more->length <= sizeof blob->bytes - blob->length);
    memcpy(blob->bytes + blob->length, more->bytes, more->length);
    blob->length += more->length;
}

static inline void make_ec_key(mbedtls_pk_context *key, mbedtls_ecp_group_id group)
{
    mbedtls_pk_init(key);
    must(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) == 0);
    must(mbedtls_ecp_gen_key(group, mbedtls_pk_ec(*key), random_bytes, NULL) == 0);
}

/* 1024 bits: quick to make, and enough to be parsed. */
static inline void make_rsa_key(mbedtls_pk_context *key)
{
    mbedtls_pk_init(key);
    must(mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_RSA)) == 0);
    must(mbedtls_rsa_gen_key(mbedtls_pk_rsa(*key), random_bytes, NULL, 1024, 65537) == 0);
}

/* The writers of mbed TLS fill a buffer from its end. */
static inline blob_t blob_of_end(const blob_t *buffer, int length)
{
    blob_t blob;
    must(length > 0);
    blob.length = (size_t)length;
    memcpy(blob.bytes, buffer->bytes + sizeof buffer->bytes - blob.length, blob.length);
    return blob;
}

/* SEC1 for an EC key, PKCS#1 for an RSA key. */
static inline blob_t make_key_der(mbedtls_pk_context *key)
{
    blob_t buffer = {.length = 0};
    return blob_of_end(&buffer, mbedtls_pk_write_key_der(key, buffer.bytes, sizeof buffer.bytes));
}

static inline blob_t make_pem(const char *label, const blob_t *der)
{
    blob_t pem;
    char header[80], footer[80];
    snprintf(header, sizeof header, "-----BEGIN %s-----\n", label);
    snprintf(footer, sizeof footer, "-----END %s-----\n", label);
    must(mbedtls_pem_write_buffer(header, footer, der->bytes, der->length, pem.bytes, sizeof pem.bytes,
                                  &pem.length) == 0);
    pem.length--; /* its NUL */
    return pem;
}

/* Writes one part of an ASN.1 structure, from its end. */
static inline void put(size_t *total, int length)
{
    must(length >= 0);
    *total += (size_t)length;
}

/* Gives the `*total` bytes written so far a tag and a length. */
static inline void wrap(unsigned char **next, unsigned char *start, size_t *total, unsigned char tag)
{
    put(total, mbedtls_asn1_write_len(next, start, *total));
    put(total, mbedtls_asn1_write_tag(next, start, tag));
}

enum { DER_SEQUENCE = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE };

/* PKCS#8 (RFC 5208) around the SEC1 form of a P-256 key. */
static inline blob_t make_pkcs8(const blob_t *sec1)
{
    blob_t buffer = {.length = 0};
    unsigned char *start = buffer.bytes, *next = start + sizeof buffer.bytes;
    size_t total = 0, algorithm = 0;
    put(&total, mbedtls_asn1_write_octet_string(&next, start, sec1->bytes, sec1->length));
    put(&algorithm, mbedtls_asn1_write_oid(&next, start, MBEDTLS_OID_EC_GRP_SECP256R1,
                                           MBEDTLS_OID_SIZE(MBEDTLS_OID_EC_GRP_SECP256R1)));
    put(&algorithm, mbedtls_asn1_write_oid(&next, start, MBEDTLS_OID_EC_ALG_UNRESTRICTED,
                                           MBEDTLS_OID_SIZE(MBEDTLS_OID_EC_ALG_UNRESTRICTED)));
    wrap(&next, start, &algorithm, DER_SEQUENCE);
    total += algorithm;
    put(&total, mbedtls_asn1_write_int(&next, start, 0));
    wrap(&next, start, &total, DER_SEQUENCE);
    return blob_of_end(&buffer, (int)total);
}

static inline blob_t encrypt(mbedtls_cipher_type_t type, const unsigned char *key, const unsigned char *iv,
                             const blob_t *plain)
{
    blob_t secret;
    mbedtls_cipher_context_t cipher;
    const mbedtls_cipher_info_t *info = mbedtls_cipher_info_from_type(type);
    mbedtls_cipher_init(&cipher);
    must(plain->length + 32 <= sizeof secret.bytes && mbedtls_cipher_setup(&cipher, info) == 0);
    must(mbedtls_cipher_setkey(&cipher, key, mbedtls_cipher_get_key_bitlen(&cipher), MBEDTLS_ENCRYPT) == 0 &&
         mbedtls_cipher_set_padding_mode(&cipher, MBEDTLS_PADDING_PKCS7) == 0);
    must(mbedtls_cipher_crypt(&cipher, iv, (size_t)mbedtls_cipher_get_iv_size(&cipher), plain->bytes,
                              plain->length, secret.bytes, &secret.length) == 0);
    mbedtls_cipher_free(&cipher);
    return secret;
}

static const unsigned char make_salt[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* PKCS#8 encrypted with PBES2 (RFC 8018): one round of PBKDF2 with HMAC-SHA-256, and AES-256 or else 3DES. */
static inline blob_t make_encrypted_pkcs8(const blob_t *pkcs8, const char *passphrase, bool aes)
{
    unsigned char block[sizeof make_salt + 4] = {0}, key[32];
    memcpy(block, make_salt, sizeof make_salt);
    block[sizeof block - 1] = 1;
    must(mbedtls_md_hmac(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), (const unsigned char *)passphrase,
                         strlen(passphrase), block, sizeof block, key) == 0);
    blob_t secret =
        encrypt(aes ? MBEDTLS_CIPHER_AES_256_CBC : MBEDTLS_CIPHER_DES_EDE3_CBC, key, make_salt, pkcs8);
    const char *cipher_oid =
        aes ? "\x60\x86\x48\x01\x65\x03\x04\x01\x2a" : "\x2a\x86\x48\x86\xf7\x0d\x03\x07";

    blob_t buffer = {.length = 0};
    unsigned char *start = buffer.bytes, *next = start + sizeof buffer.bytes;
    size_t total = 0, algorithm = 0, scheme = 0, derivation = 0, hash = 0;
    put(&total, mbedtls_asn1_write_octet_string(&next, start, secret.bytes, secret.length));
    put(&scheme, mbedtls_asn1_write_octet_string(&next, start, make_salt, aes ? 16 : 8));
    put(&scheme, mbedtls_asn1_write_oid(&next, start, cipher_oid, strlen(cipher_oid)));
    wrap(&next, start, &scheme, DER_SEQUENCE);
    put(&hash, mbedtls_asn1_write_null(&next, start));
    put(&hash, mbedtls_asn1_write_oid(&next, start, "\x2a\x86\x48\x86\xf7\x0d\x02\x09", 8));
    wrap(&next, start, &hash, DER_SEQUENCE);
    derivation = hash;
    put(&derivation, mbedtls_asn1_write_int(&next, start, 1));
    put(&derivation, mbedtls_asn1_write_octet_string(&next, start, make_salt, sizeof make_salt));
    wrap(&next, start, &derivation, DER_SEQUENCE);
    put(&derivation, mbedtls_asn1_write_oid(&next, start, "\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c", 9));
    wrap(&next, start, &derivation, DER_SEQUENCE);
    algorithm = derivation + scheme;
    wrap(&next, start, &algorithm, DER_SEQUENCE);
    put(&algorithm, mbedtls_asn1_write_oid(&next, start, "\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d", 9));
    wrap(&next, start, &algorithm, DER_SEQUENCE);
    total += algorithm;
    wrap(&next, start, &total, DER_SEQUENCE);
    return blob_of_end(&buffer, (int)total);
}

/* PEM encrypted the traditional way (RFC 1421): AES-128, its key the MD5 of passphrase and salt. */
static inline blob_t make_encrypted_pem(const char *label, const blob_t *der, const char *passphrase)
{
    unsigned char text[128], key[16];
    size_t length = strlen(passphrase);
    must(length <= sizeof text - 8);
    memcpy(text, passphrase, length);
    memcpy(text + length, make_salt, 8);
    must(mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_MD5), text, length + 8, key) == 0);
    blob_t secret = encrypt(MBEDTLS_CIPHER_AES_128_CBC, key, make_salt, der);
    blob_t plain = make_pem(label, &secret), pem = {.length = 0};
    const char *body = memchr(plain.bytes, '\n', plain.length);
    must(body != NULL);
    int size = snprintf((char *)pem.bytes, sizeof pem.bytes,
                        "-----BEGIN %s-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"
                        "0102030405060708090A0B0C0D0E0F10\n%.*s",
                        label, (int)(plain.length - (size_t)(body - (char *)plain.bytes)), body);
    must(size > 0 && (size_t)size < sizeof pem.bytes);
    pem.length = (size_t)size;
    return pem;
}

/* 3.x took the big number out of the interface. */
static inline int set_serial(mbedtls_x509write_cert *writer, unsigned char number)
{
#if MBEDTLS_VERSION_MAJOR < 3
    mbedtls_mpi serial;
    mbedtls_mpi_init(&serial);
    int status = mbedtls_mpi_lset(&serial, number);
    if (status == 0)
        status = mbedtls_x509write_crt_set_serial(writer, &serial);
    mbedtls_mpi_free(&serial);
    return status;
#else
    return mbedtls_x509write_crt_set_serial_raw(writer, &number, 1);
#endif
}

/* A certificate in DER. */
static inline blob_t make_certificate(const certificate_plan_t *plan)
{
    static unsigned char next_serial = 1;
    /* A sequence of id-kp-serverAuth and id-kp-clientAuth. */
    static const unsigned char usages[] = {0x30, 20,   0x06, 8,    0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03,
                                           0x01, 0x06, 8,    0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02};
    mbedtls_x509write_cert writer;
    blob_t buffer = {.length = 0};
    mbedtls_x509write_crt_init(&writer);
    mbedtls_x509write_crt_set_md_alg(&writer, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&writer, plan->key);
    mbedtls_x509write_crt_set_issuer_key(&writer, plan->issuer_key != NULL ? plan->issuer_key : plan->key);
    must(set_serial(&writer, next_serial++) == 0 &&
         mbedtls_x509write_crt_set_subject_name(&writer, plan->subject) == 0 &&
         mbedtls_x509write_crt_set_issuer_name(&writer,
                                               plan->issuer != NULL ? plan->issuer : plan->subject) == 0 &&
         mbedtls_x509write_crt_set_validity(&writer, plan->from != NULL ? plan->from : "20000101000000",
                                            plan->to != NULL ? plan->to : "20991231235959") == 0);
    if (plan->version_1)
        mbedtls_x509write_crt_set_version(&writer, MBEDTLS_X509_CRT_VERSION_1);
    else
        must(mbedtls_x509write_crt_set_basic_constraints(&writer, plan->ca, -1) == 0);
    if (plan->both_ends)
        must(mbedtls_x509write_crt_set_extension(&writer, MBEDTLS_OID_EXTENDED_KEY_USAGE,
                                                 MBEDTLS_OID_SIZE(MBEDTLS_OID_EXTENDED_KEY_USAGE), 0, usages,
                                                 sizeof usages) == 0);
    blob_t certificate = blob_of_end(
        &buffer, mbedtls_x509write_crt_der(&writer, buffer.bytes, sizeof buffer.bytes, random_bytes, NULL));
    mbedtls_x509write_crt_free(&writer);
    return certificate;
}

#endif
