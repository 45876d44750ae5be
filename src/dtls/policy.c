#include "dtls/policy.h"

#include "credentials/compat.h"

enum { FORGERIES_MAX = 100 };

/* ECDHE with AEAD only. ChaCha20-Poly1305 first: without AES instructions, as on a Pi Zero, it is the
 * fastest, and its records are 8 bytes shorter than those of GCM. CCM is what constrained servers have (RFC
 * 7925 section 4.2): with the full tag where they can, and CCM_8 last, since its tag has only 8 bytes. */
static const int cipher_suites[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                                    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                                    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                                    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
                                    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
                                    0};

/* With a pre-shared key. Without ECDHE, whoever learns the key can read what was sent before; but constrained
 * servers often have nothing else. */
static const int psk_cipher_suites[] = {MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256,
                                        MBEDTLS_TLS_PSK_WITH_CHACHA20_POLY1305_SHA256,
                                        MBEDTLS_TLS_PSK_WITH_AES_128_GCM_SHA256,
                                        MBEDTLS_TLS_PSK_WITH_AES_256_GCM_SHA384,
                                        MBEDTLS_TLS_PSK_WITH_AES_128_CCM,
                                        MBEDTLS_TLS_PSK_WITH_AES_128_CCM_8,
                                        0};

/* What a certificate on the way to an anchor may be made of. */
static const mbedtls_x509_crt_profile certificate_profile = {
    .allowed_mds = MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA256) | MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA384) |
                   MBEDTLS_X509_ID_FLAG(MBEDTLS_MD_SHA512),
    .allowed_pks = 0xFFFFFFF, /* any */
    .allowed_curves = MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP256R1) |
                      MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP384R1) |
                      MBEDTLS_X509_ID_FLAG(MBEDTLS_ECP_DP_SECP521R1),
    .rsa_min_bitlen = 2048,
};

const int *policy_cipher_suites(bool psk)
{
    return psk ? psk_cipher_suites : cipher_suites;
}

int policy_apply(mbedtls_ssl_config *config, bool psk, bool want_ticket)
{
    int status = mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                             MBEDTLS_SSL_PRESET_DEFAULT);
    if (status != 0)
        return status;
    compat_dtls12_only(config);
    compat_groups_and_signatures(config);
    mbedtls_ssl_conf_ciphersuites(config, policy_cipher_suites(psk));
    mbedtls_ssl_conf_cert_profile(config, &certificate_profile);
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    mbedtls_ssl_conf_encrypt_then_mac(config, MBEDTLS_SSL_ETM_DISABLED); /* for CBC, which is not offered */
    mbedtls_ssl_conf_session_tickets(config, want_ticket ? MBEDTLS_SSL_SESSION_TICKETS_ENABLED
                                                         : MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    return compat_connection_id(config);
}

int policy_apply_to_resumed(mbedtls_ssl_config *config)
{
    mbedtls_ssl_conf_endpoint(config, MBEDTLS_SSL_IS_CLIENT);
    mbedtls_ssl_conf_transport(config, MBEDTLS_SSL_TRANSPORT_DATAGRAM);
    compat_dtls12_only(config);
    mbedtls_ssl_conf_dtls_anti_replay(config, MBEDTLS_SSL_ANTI_REPLAY_ENABLED);
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    return compat_connection_id(config);
}

/* A tag of 8 bytes can be hit by chance, once in 2^64 tries. The limit keeps anyone from trying for long, as
 * draft-ietf-uta-tls13-iot-profile asks. With full tags there is no limit: forging is hopeless there, and a
 * limit would let anyone who can send 100 datagrams end a connection. mbed TLS counts only while a limit is
 * set, saves the count with the connection, and by itself ends a handshake at the first such record. */
void policy_limit_forgeries(mbedtls_ssl_config *config, int suite)
{
    bool short_tag =
        suite == MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8 || suite == MBEDTLS_TLS_PSK_WITH_AES_128_CCM_8;
    mbedtls_ssl_conf_dtls_badmac_limit(config, short_tag ? FORGERIES_MAX : 0);
}
