/* The server's flights. The first two bytes of an input say how the server and the client begin; the rest is
 * the script of the network, in which datagrams are lost, damaged, put in another order and made up, and,
 * once connected, of what both ends do. */
#include "credentials/compat.h"
#include "exchange.h"
#include "server.h"

enum {
    COOKIES = 1,
    TICKETS = 2,
    SESSIONS = 4,
    MUTE = 8,
    OFFER_SESSION = 16,
    WANT_TICKET = 32,
    WRONG_NAME = 64,
    SMALL_DATAGRAMS = 128,
    PSK = 256,
    LATE = 512
};

enum { TIMEOUT_MS = 40000, LATE_MS = 1000 };

/* The library is not instrumented: where a handshake came to tells the fuzzer what is new. */
__attribute__((section("__libfuzzer_extra_counters"))) static unsigned char reached[16][32];

static dtls_blob_t association, session;

static void prepare(void)
{
    if (session.bytes != NULL)
        return;
    server_prepare();
    exchange_make_blobs(&association, &session);
}

static void begin(dtls_state_t *client, dtls_config_t *config, input_t *script, unsigned how)
{
    server_manner_t manner = {.cookies = (how & COOKIES) != 0,
                              .tickets = (how & TICKETS) != 0,
                              .sessions = (how & SESSIONS) != 0,
                              .mute = (how & MUTE) != 0,
                              .psk = (how & PSK) != 0};
    network_begin(server_peer(manner), script);
    exchange_begin(client, config, TIMEOUT_MS);
    if ((how & OFFER_SESSION) != 0)
        config->session = session;
    if ((how & WRONG_NAME) != 0)
        config->server_name = "192.0.2.1"; /* not in its certificate */
    if ((how & PSK) != 0)
        server_give_psk(&client->credentials);
    if ((how & LATE) != 0)
        network_be_late();
    config->want_ticket = (how & WANT_TICKET) != 0;
    config->mtu = (how & SMALL_DATAGRAMS) != 0 ? 256 : 0;
}

static void require_connected(dtls_state_t *client, unsigned how)
{
    dtls_blob_t saved;
    REQUIRE(server_is_connected());
    REQUIRE(dtls_round_trip_us(client) >= 0); /* 0: every flight was sent twice, which measures nothing */
    /* Who resumes a session has seen no certificate; that it is the right server's is the caller's to know.
     */
    if ((how & (WRONG_NAME | LATE)) != 0 && (how & PSK) == 0)
        REQUIRE((how & OFFER_SESSION) != 0 && dtls_expiry(client) == 0);
    dtls_save_session(client, &saved);
    dtls_blob_free(&saved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dtls_state_t client;
    dtls_config_t config;
    input_t script = {data, size};
    prepare();
    unsigned how = input_number(&script, 1);
    how |= input_number(&script, 1) << 8;
    begin(&client, &config, &script, how);

    dtls_outcome_t outcome = dtls_connect(&client, &config);
    reached[outcome % 16][client.ssl.MBEDTLS_PRIVATE(state) % 32]++;
    exchange_require_reason(&client, outcome);
    REQUIRE(outcome != DTLS_CLOSED); /* it was never open */
    REQUIRE(wait_now_ms() <= config.limit.deadline_ms + LATE_MS);
    if (outcome == DTLS_OK) {
        require_connected(&client, how);
        exchange_run(&client, &config, &script);
    }
    dtls_close(&client);
    return 0;
}
