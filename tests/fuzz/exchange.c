#include "exchange.h"

#include "server.h"

enum { APPLICATION_DATA = 23, ALERT = 21, HANDSHAKE = 22, SMALL = 16 };

void exchange_require_reason(const dtls_state_t *client, dtls_outcome_t outcome)
{
    if (outcome != DTLS_OK)
        require_message(dtls_error_text(client), sizeof client->error);
}

void exchange_begin(dtls_state_t *client, dtls_config_t *config, int64_t timeout_ms)
{
    dtls_init(client);
    server_give_credentials(&client->credentials);
    *config = (dtls_config_t){
        .host = "127.0.0.1", .port = "9", .server_name = SERVER_NAME, .limit = wait_limit_in(timeout_ms)};
}

/* False: the connection is at its end. */
static bool receive(dtls_state_t *client, size_t size, int64_t timeout_ms)
{
    size_t length = 0;
    unsigned char *buffer = malloc(size);
    REQUIRE(buffer != NULL);
    dtls_outcome_t outcome = dtls_receive(client, buffer, size, &length, timeout_ms);
    exchange_require_reason(client, outcome);
    if (outcome == DTLS_OK)
        REQUIRE(length <= size && server_sent(buffer, length));
    if (outcome == DTLS_TOO_LARGE)
        REQUIRE(length > size);
    free(buffer);
    return outcome == DTLS_OK || outcome == DTLS_TIMEOUT || outcome == DTLS_TOO_LARGE;
}

static bool send_uplink(dtls_state_t *client, size_t length)
{
    static const unsigned char payload[UINT16_MAX] = "an uplink";
    size_t maximum = dtls_payload_maximum(client);
    dtls_outcome_t outcome = dtls_send(client, payload, length);
    exchange_require_reason(client, outcome);
    REQUIRE((outcome == DTLS_TOO_LARGE) == (length > maximum));
    if (outcome == DTLS_OK && server_is_connected())
        REQUIRE(server_got(payload, length));
    return outcome == DTLS_OK || outcome == DTLS_TOO_LARGE;
}

/* To the next process, as it were. */
static bool move(dtls_state_t *client, const dtls_config_t *config)
{
    dtls_blob_t blob;
    dtls_config_t next = *config;
    bool connected = server_is_connected();
    if (!dtls_suspend(client, &blob)) {
        REQUIRE(blob.bytes == NULL);
        return true;
    }
    dtls_close(client);
    next.limit = wait_limit_in(60000);
    dtls_outcome_t outcome = dtls_resume(client, &next, &blob);
    exchange_require_reason(client, outcome);
    REQUIRE(outcome == DTLS_OK);
    REQUIRE(server_is_connected() == connected); /* it was told nothing */
    dtls_blob_free(&blob);
    return true;
}

/* Another handshake with the same credentials, if there are any: the script may make it fail. */
static bool connect_again(dtls_state_t *client, const dtls_config_t *config)
{
    dtls_config_t next = *config;
    const credentials_t *credentials = &client->credentials;
    if (credentials->chain.raw.p == NULL && credentials->psk.key_length == 0)
        return true;
    next.limit = wait_limit_in(60000);
    dtls_outcome_t outcome = dtls_connect(client, &next);
    exchange_require_reason(client, outcome);
    REQUIRE(outcome != DTLS_CLOSED);
    REQUIRE((outcome == DTLS_OK) == (dtls_payload_maximum(client) > 0));
    return outcome == DTLS_OK;
}

/* No two alike. */
static void send_downlink(size_t length)
{
    static unsigned char bytes[SERVER_RECORD_MAX];
    static unsigned char number;
    memset(bytes, ++number, sizeof bytes);
    server_send_record(APPLICATION_DATA, (input_t){bytes, length < sizeof bytes ? length : sizeof bytes});
}

static bool take_step(dtls_state_t *client, const dtls_config_t *config, input_t *script)
{
    static const unsigned char hello_request[12] = {0};
    unsigned char type;
    switch (input_number(script, 1) % 10) {
    case 0:
        send_downlink(input_number(script, 1));
        return true;
    case 1:
        send_downlink(input_number(script, 2));
        return true;
    case 2: /* not so honest any more */
        type = (unsigned char)(20 + input_number(script, 1) % 8);
        server_send_record(type, input_take(script, input_number(script, 1)));
        return true;
    case 3:
        server_send_record(ALERT, input_take(script, 2));
        return true;
    case 4:
        server_send_record(HANDSHAKE, (input_t){hello_request, sizeof hello_request});
        return true;
    case 5:
        return receive(client, DTLS_PAYLOAD_MAX, input_number(script, 1));
    case 6:
        return receive(client, SMALL, input_number(script, 1));
    case 7:
        return send_uplink(client, input_number(script, 2));
    case 8:
        return move(client, config);
    default:
        return connect_again(client, config);
    }
}

void exchange_run(dtls_state_t *client, const dtls_config_t *config, input_t *script)
{
    bool lives = true;
    while (lives && script->length > 0)
        lives = take_step(client, config, script);
    client->config.limit = wait_limit_in(60000);
    while (lives) {
        int64_t before_ms = wait_now_ms();
        lives = receive(client, DTLS_PAYLOAD_MAX, 1000);
        if (lives && wait_now_ms() - before_ms >= 1000)
            break;
    }
    if (lives && server_is_connected())
        REQUIRE(!server_misses_a_downlink());
}

void exchange_make_blobs(dtls_blob_t *association, dtls_blob_t *session)
{
    dtls_state_t client;
    dtls_config_t config;
    input_t honest = {NULL, 0};
    network_begin(server_peer((server_manner_t){.cookies = true}), &honest);
    exchange_begin(&client, &config, 60000);
    if (dtls_connect(&client, &config) != DTLS_OK) {
        fprintf(stderr, "%s\n", dtls_error_text(&client));
        abort();
    }
    REQUIRE(send_uplink(&client, 1000));
    server_remember_session();
    server_remember_association();
    REQUIRE(dtls_save_session(&client, session) && dtls_suspend(&client, association));
    dtls_close(&client);
}
