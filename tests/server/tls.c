#include "tls.h"

#include <stdio.h>
#include <string.h>

#include <mbedtls/error.h>

#include "credentials/compat.h"
#include "store/file.h"
#include "system/random.h"

enum { FILE_MAX = 1 << 20, CACHE_ENTRIES = 1024, TICKET_LIFETIME_S = 86400 };

static const int certificate_suites[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                                         MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
                                         MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                                         MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                                         MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                                         MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                                         MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM,
                                         MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8,
                                         0};

static const int psk_suites[] = {MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256,
                                 MBEDTLS_TLS_PSK_WITH_CHACHA20_POLY1305_SHA256,
                                 MBEDTLS_TLS_PSK_WITH_AES_128_GCM_SHA256,
                                 MBEDTLS_TLS_PSK_WITH_AES_256_GCM_SHA384,
                                 MBEDTLS_TLS_PSK_WITH_AES_128_CCM,
                                 MBEDTLS_TLS_PSK_WITH_AES_128_CCM_8,
                                 0};

void tls_init(tls_t *tls)
{
    memset(tls, 0, sizeof *tls);
    mbedtls_ssl_config_init(&tls->config);
    mbedtls_x509_crt_init(&tls->chain);
    mbedtls_x509_crt_init(&tls->anchors);
    mbedtls_pk_init(&tls->key);
    mbedtls_ssl_cookie_init(&tls->cookies);
    mbedtls_ssl_cache_init(&tls->cache);
    mbedtls_ssl_ticket_init(&tls->tickets);
}

static bool fail(tls_t *tls, const char *what, int status)
{
    char reason[128];
    mbedtls_strerror(status, reason, sizeof reason);
    snprintf(tls->error, sizeof tls->error, "%s: %s", what, reason);
    return false;
}

/* mbed TLS wants the NUL after PEM counted. */
static bool read_file(tls_t *tls, const char *path, file_content_t *content)
{
    const char *reason;
    if (file_read(path, FILE_MAX, content, &reason))
        return true;
    snprintf(tls->error, sizeof tls->error, "%s: %s", path, reason);
    return false;
}

static bool load_certificates(tls_t *tls, const char *path, mbedtls_x509_crt *certificates)
{
    file_content_t content;
    if (!read_file(tls, path, &content))
        return false;
    int status = mbedtls_x509_crt_parse(certificates, content.bytes, content.length + 1);
    file_content_free(&content);
    return status == 0 || fail(tls, path, status);
}

static bool load_key(tls_t *tls, const char *path)
{
    file_content_t content;
    if (!read_file(tls, path, &content))
        return false;
    int status = compat_parse_key(&tls->key, content.bytes, content.length + 1, NULL, 0, random_bytes);
    file_content_free(&content);
    return status == 0 || fail(tls, path, status);
}

static bool use_certificates(tls_t *tls, const tls_settings_t *settings)
{
    if (!load_certificates(tls, settings->cert_file, &tls->chain) || !load_key(tls, settings->key_file) ||
        !load_certificates(tls, settings->ca_file, &tls->anchors))
        return false;
    mbedtls_ssl_conf_ciphersuites(&tls->config, certificate_suites);
    mbedtls_ssl_conf_authmode(&tls->config, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(&tls->config, &tls->anchors, NULL);
    int status = mbedtls_ssl_conf_own_cert(&tls->config, &tls->chain, &tls->key);
    return status == 0 || fail(tls, settings->cert_file, status);
}

static bool use_psk(tls_t *tls, const tls_settings_t *settings)
{
    mbedtls_ssl_conf_ciphersuites(&tls->config, psk_suites);
    int status =
        mbedtls_ssl_conf_psk(&tls->config, settings->psk, settings->psk_length,
                             (const unsigned char *)settings->psk_identity, strlen(settings->psk_identity));
    return status == 0 || fail(tls, "pre-shared key", status);
}

/* HelloVerifyRequests prove a device's address before anything is kept for it (RFC 6347 section 4.2.1). */
static int use_cookies(tls_t *tls)
{
    mbedtls_ssl_conf_dtls_cookies(&tls->config, mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check,
                                  &tls->cookies);
    return mbedtls_ssl_cookie_setup(&tls->cookies, random_bytes, NULL);
}

static int use_resumption(tls_t *tls, const tls_settings_t *settings)
{
    if (settings->cache) {
        mbedtls_ssl_cache_set_max_entries(&tls->cache, CACHE_ENTRIES);
        mbedtls_ssl_conf_session_cache(&tls->config, &tls->cache, mbedtls_ssl_cache_get,
                                       mbedtls_ssl_cache_set);
    }
    if (!settings->tickets)
        return 0;
    mbedtls_ssl_conf_session_tickets_cb(&tls->config, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
                                        &tls->tickets);
    return mbedtls_ssl_ticket_setup(&tls->tickets, random_bytes, NULL, MBEDTLS_CIPHER_AES_256_GCM,
                                    TICKET_LIFETIME_S);
}

/* A record with somebody else's connection id is no reason to end an association. */
static int use_cids(mbedtls_ssl_config *config, const tls_settings_t *settings)
{
#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
    if (settings->cid)
        return mbedtls_ssl_conf_cid(config, TLS_CID_LENGTH, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE);
#else
    (void)config;
    (void)settings;
#endif
    return 0;
}

bool tls_setup(tls_t *tls, const tls_settings_t *settings)
{
    mbedtls_ssl_config *config = &tls->config;
    int status = mbedtls_ssl_config_defaults(config, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_DATAGRAM,
                                             MBEDTLS_SSL_PRESET_DEFAULT);
    if (status != 0)
        return fail(tls, "defaults", status);
    compat_dtls12_only(config);
    compat_groups_and_signatures(config);
    mbedtls_ssl_conf_rng(config, random_bytes, NULL);
    mbedtls_ssl_conf_renegotiation(config, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#if defined(MBEDTLS_SSL_SRV_CIPHERSUITE_ORDER_CLIENT)
    mbedtls_ssl_conf_preference_order(config, MBEDTLS_SSL_SRV_CIPHERSUITE_ORDER_CLIENT);
#endif
    if ((status = use_cookies(tls)) != 0)
        return fail(tls, "cookies", status);
    if ((status = use_resumption(tls, settings)) != 0)
        return fail(tls, "session tickets", status);
    if ((status = use_cids(config, settings)) != 0)
        return fail(tls, "connection ids", status);
    return settings->psk_identity != NULL ? use_psk(tls, settings) : use_certificates(tls, settings);
}

int tls_prepare(const tls_t *tls, const tls_settings_t *settings, mbedtls_ssl_context *ssl,
                const unsigned char cid[static TLS_CID_LENGTH])
{
    int status = mbedtls_ssl_setup(ssl, &tls->config);
#if defined(MBEDTLS_SSL_DTLS_CONNECTION_ID)
    if (status == 0 && settings->cid)
        status = mbedtls_ssl_set_cid(ssl, MBEDTLS_SSL_CID_ENABLED, cid, TLS_CID_LENGTH);
#else
    (void)settings;
    (void)cid;
#endif
    return status;
}

void tls_free(tls_t *tls)
{
    mbedtls_ssl_ticket_free(&tls->tickets);
    mbedtls_ssl_cache_free(&tls->cache);
    mbedtls_ssl_cookie_free(&tls->cookies);
    mbedtls_pk_free(&tls->key);
    mbedtls_x509_crt_free(&tls->anchors);
    mbedtls_x509_crt_free(&tls->chain);
    mbedtls_ssl_config_free(&tls->config);
}
