/* Who this device is and whom it trusts: its certificate chain, its private key and its trust anchors, or a
 * pre-shared key; from files, or from the build. */
#ifndef CREDENTIALS_H
#define CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include <mbedtls/pk.h>
#include <mbedtls/x509_crt.h>

#include "credentials/psk.h"

#define CREDENTIALS_DATE_SIZE 80  /* bytes for a date, whatever is in the certificate */
#define CREDENTIALS_NAME_SIZE 512 /* bytes for a name; a longer one is not shown */

/* Where credentials come from. The strings stay the caller's. Where cert_file or key_file is NULL, it is the
 * one that was built in (embedded.h), and in a program without any "cert.crt" or "key.pem" in the working
 * directory. */
typedef struct {
    const char *cert_file; /* PEM or DER: the device's certificate and the CA certificates, in any order */
    const char *key_file;  /* PEM or DER: PKCS#8, SEC1 or PKCS#1, perhaps encrypted */
    const char *passphrase_file; /* its first line decrypts the key; NULL: none */
    const char *ca;       /* file or directory of trust anchors; NULL: the CA certificates in cert_file */
    const char *psk_file; /* one line, identity:hexkey, instead of all these; NULL: none */
} credentials_source_t;

/* Returns `source` with the default names filled in: what is still NULL is built in, or not used. All
 * functions that take a source do this themselves; a caller needs it to know which files they read. */
credentials_source_t credentials_resolve(const credentials_source_t *source);

typedef struct {
    mbedtls_x509_crt chain;   /* sent: the device's certificate, then its intermediates, no root */
    mbedtls_pk_context key;   /* the private key of the first of them */
    mbedtls_x509_crt anchors; /* what a server's chain must lead to */
    psk_t psk;                /* where it has a key, all these are empty */
    char error[512];          /* why credentials_load() returned false */
} credentials_t;

/* Makes every member safe to free. */
void credentials_init(credentials_t *credentials);

/* Reads, parses and checks all of `source`: that the key fits one certificate (RFC 5246 section 7.4.6), that
 * this certificate is valid now, and that there is something to trust. False: credentials->error says in one
 * line which file is at fault, why, and what to do, and what could be read is there to be looked at. Nothing
 * secret is ever in the message. Reads files only; nothing is sent. What was loaded serves any number of
 * handshakes. A key and certificates that do not match are read again 200 ms later, in case they are being
 * replaced. */
bool credentials_load(credentials_t *credentials, const credentials_source_t *source);

/* Wipes and frees everything; harmless when repeated after credentials_init(). */
void credentials_free(credentials_t *credentials);

/* The certificate of our own chain, the intermediates that are sent with it included, that expires first.
 * NULL: there is none, as with a pre-shared key. */
const mbedtls_x509_crt *credentials_first_to_expire(const credentials_t *credentials);

/* When that is, in Unix time; INT64_MAX: never. */
int64_t credentials_expiry(const credentials_t *credentials);

/* Writes a certificate's subject or issuer as "C=NO, CN=name", its control characters replaced: it comes from
 * elsewhere, and goes to a terminal. */
void credentials_format_name(const mbedtls_x509_name *name, char text[static CREDENTIALS_NAME_SIZE]);

/* Writes a certificate's date as "2026-11-20 13:05:59 UTC". */
void credentials_format_date(const mbedtls_x509_time *date, char text[static CREDENTIALS_DATE_SIZE]);

/* A certificate's date in seconds of Unix time; INT64_MAX where time_t cannot hold it. */
int64_t credentials_seconds(const mbedtls_x509_time *date);

/* Where the clock stands before the day this program was built, which is the likely cause of any certificate
 * that "is not yet valid", says so in a clause to append to a message; else "". A Raspberry Pi has no clock
 * of its own. */
const char *credentials_clock_hint(void);

#endif
