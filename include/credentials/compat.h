/* What differs between mbed TLS 2.28 (Debian 12) and 3.6 (Debian 13), and the few private members for which
 * neither has a getter. The only place that asks for the version.
 *
 * What a port to mbed TLS 4 needs: random numbers come from PSA alone there. So psa_crypto_init() is called
 * first in main.c, and ctr_drbg in callbacks.h, mbedtls_ssl_conf_rng() and the generator that is passed to
 * mbedtls_pk_parse_key() go, with random.c left to our own two uses. The digests in store/session.c and
 * credentials/ become psa_hash_*(). The few private members that are read here must be found anew, and the
 * repeat run, which needs no random number, must be measured again, since PSA seeds its generator at once. */
#ifndef COMPAT_H
#define COMPAT_H

#include <stdbool.h>

#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

#if MBEDTLS_VERSION_NUMBER < 0x021C0000
#error "mbed TLS 2.28 or later is needed"
#elif MBEDTLS_VERSION_MAJOR > 3
#error "mbed TLS 4 has no public ctr_drbg; 2.28 or 3.6 is needed"
#endif

#if MBEDTLS_VERSION_MAJOR < 3
#define MBEDTLS_PRIVATE(member)              member
#define MBEDTLS_ERR_SSL_BAD_CERTIFICATE      MBEDTLS_ERR_SSL_BAD_HS_CERTIFICATE
#define MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION
#endif

typedef int compat_random_t(void *context, unsigned char *output, size_t length);

/* 3.x wants randomness to blind the arithmetic. */
static inline int compat_parse_key(mbedtls_pk_context *key, const unsigned char *bytes, size_t length,
                                   const unsigned char *passphrase, size_t passphrase_length,
                                   compat_random_t *f_rng)
{
#if MBEDTLS_VERSION_MAJOR < 3
    (void)f_rng;
    return mbedtls_pk_parse_key(key, bytes, length, passphrase, passphrase_length);
#else
    return mbedtls_pk_parse_key(key, bytes, length, passphrase, passphrase_length, f_rng, NULL);
#endif
}

static inline void compat_dtls12_only(mbedtls_ssl_config *config)
{
#if MBEDTLS_VERSION_MAJOR < 3
    mbedtls_ssl_conf_min_version(config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_max_version(config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
#else
    mbedtls_ssl_conf_min_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_max_tls_version(config, MBEDTLS_SSL_VERSION_TLS1_2);
#endif
}

/* The groups for the key exchange, cheapest first, and the signatures that are accepted: SHA-256 and better.
 * The same list of groups limits the curve of the server's key. No P-521: every entry is sent twice a
 * handshake, and this one is hardly ever met. */
static inline void compat_groups_and_signatures(mbedtls_ssl_config *config)
{
#if MBEDTLS_VERSION_MAJOR < 3
    static const mbedtls_ecp_group_id groups[] = {MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1,
                                                  MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_NONE};
    static const int hashes[] = {MBEDTLS_MD_SHA256, MBEDTLS_MD_SHA384, MBEDTLS_MD_NONE};
    mbedtls_ssl_conf_curves(config, groups);
    mbedtls_ssl_conf_sig_hashes(config, hashes);
#else
    static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                      MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
    static const uint16_t signatures[] = {MBEDTLS_TLS1_3_SIG_ECDSA_SECP256R1_SHA256,
                                          MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA256,
                                          MBEDTLS_TLS1_3_SIG_ECDSA_SECP384R1_SHA384,
                                          MBEDTLS_TLS1_3_SIG_RSA_PKCS1_SHA384, MBEDTLS_TLS1_3_SIG_NONE};
    mbedtls_ssl_conf_groups(config, groups);
    mbedtls_ssl_conf_sig_algs(config, signatures);
#endif
}

/* Whether the basic constraints say CA (RFC 5280 section 4.2.1.9); a certificate of version 1 has none. */
static inline bool compat_is_ca(const mbedtls_x509_crt *certificate)
{
    return certificate->MBEDTLS_PRIVATE(ca_istrue) != 0;
}

/* Whether the server gave the session an id, or a ticket, to resume it by. */
static inline int compat_can_resume(const mbedtls_ssl_session *session)
{
    return session->MBEDTLS_PRIVATE(id_len) > 0 || session->MBEDTLS_PRIVATE(ticket_len) > 0;
}

static inline int compat_suite(const mbedtls_ssl_session *session)
{
    return session->MBEDTLS_PRIVATE(ciphersuite);
}

/* The secret that a session and those resumed from it have in common. */
static inline const unsigned char *compat_master(const mbedtls_ssl_session *session)
{
    return session->MBEDTLS_PRIVATE(master);
}

static inline const mbedtls_ssl_session *compat_session(const mbedtls_ssl_context *ssl)
{
    return ssl->MBEDTLS_PRIVATE(session);
}

/* Connection ids (RFC 9146), which 2.28 as Debian ships it has not: we ask for none for ourselves, since the
 * socket tells connections apart, and offer to write one for the server. */
static inline int compat_connection_id(mbedtls_ssl_config *config)
{
#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
    return mbedtls_ssl_conf_cid(config, 0, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE);
#else
    (void)config;
    return 0;
#endif
}

static inline int compat_offer_connection_id(mbedtls_ssl_context *ssl)
{
#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
    return mbedtls_ssl_set_cid(ssl, MBEDTLS_SSL_CID_ENABLED, NULL, 0);
#else
    (void)ssl;
    return 0;
#endif
}

/* Whether the server knows the connection by an id, from whatever address it comes. */
static inline bool compat_has_connection_id(mbedtls_ssl_context *ssl)
{
#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
    int enabled = MBEDTLS_SSL_CID_DISABLED;
    size_t length = 0;
    unsigned char id[MBEDTLS_SSL_CID_OUT_LEN_MAX];
    return mbedtls_ssl_get_peer_cid(ssl, &enabled, id, &length) == 0 && enabled == MBEDTLS_SSL_CID_ENABLED &&
           length > 0;
#else
    (void)ssl;
    return false;
#endif
}

/* The number of the fatal alert that made the last call return MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE. */
static inline int compat_alert(const mbedtls_ssl_context *ssl)
{
    return ssl->MBEDTLS_PRIVATE(in_msg)[1];
}

/* Whether an empty record of application data arrived since the last call. mbedtls_ssl_read() drops those
 * without a word, and the connection at the fourth in a row; but an empty downlink is a downlink. */
static inline int compat_take_empty_record(mbedtls_ssl_context *ssl)
{
    int seen = ssl->MBEDTLS_PRIVATE(nb_zero) > 0;
    ssl->MBEDTLS_PRIVATE(nb_zero) = 0;
    return seen;
}

#endif
