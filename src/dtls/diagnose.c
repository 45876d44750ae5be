#include "dtls/diagnose.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/asn1.h>
#include <mbedtls/bignum.h>
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>

#include "credentials/compat.h"

/* RFC 5246 section 7.2, and its successors. */
static const struct {
    int number;
    const char *name;
    bool about_our_certificate;
} alerts[] = {
    {10, "unexpected_message", false},
    {20, "bad_record_mac", false},
    {22, "record_overflow", false},
    {40, "handshake_failure", false},
    {42, "bad_certificate", true},
    {43, "unsupported_certificate", true},
    {44, "certificate_revoked", true},
    {45, "certificate_expired", true},
    {46, "certificate_unknown", true},
    {47, "illegal_parameter", false},
    {48, "unknown_ca", true},
    {49, "access_denied", true},
    {50, "decode_error", false},
    {51, "decrypt_error", false},
    {70, "protocol_version", false},
    {71, "insufficient_security", false},
    {80, "internal_error", false},
    {90, "user_canceled", false},
    {100, "no_renegotiation", false},
    {110, "unsupported_extension", false},
    {112, "unrecognized_name", false},
    {115, "unknown_psk_identity", false},
    {116, "certificate_required", true},
};

/* With a pre-shared key these say that the server has another (RFC 4279 section 2). */
static bool is_about_psk(int number)
{
    return number == MBEDTLS_SSL_ALERT_MSG_UNKNOWN_PSK_IDENTITY ||
           number == MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR || number == MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC;
}

static dtls_outcome_t diagnose_alert(const failure_t *failure, char *reason, size_t size)
{
    int number = failure->alert;
    const char *name = "unknown";
    bool about_our_certificate = false;
    for (size_t i = 0; i < sizeof alerts / sizeof alerts[0]; i++) {
        if (alerts[i].number == number) {
            name = alerts[i].name;
            about_our_certificate = alerts[i].about_our_certificate;
        }
    }
    const char *what = "the server ended the connection";
    bool with_psk = failure->psk && !failure->connected;
    bool about_our_psk = with_psk && is_about_psk(number);
    if (about_our_psk)
        what = "the server refused this device's pre-shared key or identity";
    else if (about_our_certificate)
        what = "the server refused this device's certificate";
    else if (number == MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION)
        what = "the server does not speak version 1.2 of DTLS";
    else if (number == MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE)
        what = "the server has no protocol version or cipher suite in common with this program";
    /* Some servers know no better word for an identity that they do not know. */
    bool perhaps_psk = with_psk && number == MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR;
    snprintf(reason, size, "%s (alert %d, %s)%s", what, number, name,
             perhaps_psk ? "; perhaps it does not know the identity in --psk" : "");
    return about_our_certificate || about_our_psk ? DTLS_REJECTED : DTLS_PROTOCOL;
}

/* What is wrong with a certificate, without what is filled in. */
static const struct {
    uint32_t flag;
    const char *text;
} distrusts[] = {
    {MBEDTLS_X509_BADCERT_EXPIRED, "expired "},
    {MBEDTLS_X509_BADCERT_FUTURE, "not yet valid: not valid before "},
    {MBEDTLS_X509_BADCERT_CN_MISMATCH, "not issued for the name "},
    {MBEDTLS_X509_BADCERT_NOT_TRUSTED, "not signed by a trusted CA; its issuer is "},
    {MBEDTLS_X509_BADCERT_EXT_KEY_USAGE, "not meant for servers (extended key usage)"},
    {MBEDTLS_X509_BADCERT_OTHER,
     "without a subjectAltName, and not said to be a server's (extended key usage)"},
    {MBEDTLS_X509_BADCERT_KEY_USAGE, "not meant for this use (key usage)"},
    {MBEDTLS_X509_BADCERT_BAD_MD, "signed with a weak hash"},
    {MBEDTLS_X509_BADCERT_BAD_PK, "signed with an unacceptable algorithm"},
    {MBEDTLS_X509_BADCERT_BAD_KEY, "its key is too weak or of another curve"},
};

static dtls_outcome_t diagnose_distrust(const failure_t *failure, char *reason, size_t size)
{
    const verification_t *verification = failure->verification;
    uint32_t flags = failure->flaws;
    char list[600] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof distrusts / sizeof distrusts[0] && used < sizeof list; i++) {
        uint32_t flag = distrusts[i].flag;
        if ((flags & flag) == 0)
            continue;
        const char *value = "";
        if (flag == MBEDTLS_X509_BADCERT_CN_MISMATCH)
            value = verification->identity.name;
        else if (flag == MBEDTLS_X509_BADCERT_EXPIRED || flag == MBEDTLS_X509_BADCERT_FUTURE)
            value = verification->bad_date;
        else if (flag == MBEDTLS_X509_BADCERT_NOT_TRUSTED)
            value = verification->issuer;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s%s", used > 0 ? ", " : "",
                                 distrusts[i].text, value);
    }
    snprintf(reason, size, "the server's certificate is refused: %s%s", used > 0 ? list : "it is not valid",
             (flags & MBEDTLS_X509_BADCERT_FUTURE) != 0 ? credentials_clock_hint() : "");
    return DTLS_UNTRUSTED;
}

static dtls_outcome_t diagnose_socket(const failure_t *failure, char *reason, size_t size)
{
    switch (failure->socket_error) {
    case ECONNREFUSED:
        snprintf(reason, size, "nobody listens there (%s refused)", failure->peer);
        return DTLS_REFUSED;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        snprintf(reason, size, "no socket: %s", strerror(failure->socket_error));
        return DTLS_SYSTEM;
    default: /* no route, no such address family, forbidden by a firewall, … */
        snprintf(reason, size, "%s cannot be reached: %s", failure->peer, strerror(failure->socket_error));
        return DTLS_REFUSED;
    }
}

static dtls_outcome_t diagnose_silence(const failure_t *failure, char *reason, size_t size)
{
    /* RFC 6347 section 4.1.2.7: what does not decrypt is dropped without a word. */
    const char *guess = failure->psk ? "; perhaps its key is not the one in --psk" : "";
    if (failure->heard)
        snprintf(reason, size, "the handshake with %s was not completed in time%s", failure->peer, guess);
    else
        snprintf(reason, size, "no answer from %s", failure->peer);
    return DTLS_TIMEOUT;
}

static dtls_outcome_t diagnose_other(const failure_t *failure, char *reason, size_t size)
{
    char text[200];
    /* All ones: no certificate was looked at. */
    if (!failure->connected && failure->flaws != 0 && failure->flaws != UINT32_MAX)
        return diagnose_distrust(failure, reason, size);
    mbedtls_strerror(failure->status, text, sizeof text);
    snprintf(reason, size, "%s: %s (mbed TLS error -0x%04x)",
             failure->connected ? "the connection broke" : "the handshake failed", text,
             (unsigned)-failure->status);
    return DTLS_PROTOCOL;
}

/* The codes of the library's lower modules come alone, or added to those of the upper ones. */
static bool is_out_of_memory(int status)
{
    static const int upper[] = {MBEDTLS_ERR_SSL_ALLOC_FAILED, MBEDTLS_ERR_X509_ALLOC_FAILED,
                                MBEDTLS_ERR_PK_ALLOC_FAILED, MBEDTLS_ERR_ECP_ALLOC_FAILED};
    int low = -(-status & 0x7f), high = status - low;
    for (size_t i = 0; i < sizeof upper / sizeof upper[0]; i++) {
        if (high == upper[i])
            return true;
    }
    return low == MBEDTLS_ERR_MPI_ALLOC_FAILED || low == MBEDTLS_ERR_ASN1_ALLOC_FAILED;
}

dtls_outcome_t diagnose(const failure_t *failure, char *reason, size_t size)
{
    if (failure->socket_error != 0)
        return diagnose_socket(failure, reason, size);
    if (is_out_of_memory(failure->status)) {
        snprintf(reason, size, "out of memory");
        return DTLS_SYSTEM;
    }
    switch (failure->status) {
    case MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE:
        return diagnose_alert(failure, reason, size);
    case MBEDTLS_ERR_SSL_TIMEOUT:
        return diagnose_silence(failure, reason, size);
    case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
        snprintf(reason, size, "the server closed the connection");
        return DTLS_CLOSED;
    case MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION:
        snprintf(reason, size, "the server does not speak version 1.2 of DTLS");
        return DTLS_PROTOCOL;
    case MBEDTLS_ERR_ENTROPY_SOURCE_FAILED:
    case MBEDTLS_ERR_CTR_DRBG_ENTROPY_SOURCE_FAILED:
        snprintf(reason, size, "the system's random generator failed");
        return DTLS_SYSTEM;
    default:
        return diagnose_other(failure, reason, size);
    }
}
