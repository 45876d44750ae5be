/* What comes over an association that a run resumes: an input is the script of both ends and of the network
 * between them. Without a handshake, so that there are thousands a second. */
#include "exchange.h"
#include "server.h"

static dtls_blob_t association, session;

static void prepare(void)
{
    if (session.bytes != NULL)
        return;
    server_prepare();
    exchange_make_blobs(&association, &session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dtls_state_t client;
    input_t script = {data, size};
    prepare();
    network_begin(server_peer((server_manner_t){0}), &script);
    server_resume();
    dtls_init(&client);
    dtls_config_t config = {.host = "127.0.0.1", .port = "9", .limit = wait_limit_in(60000)};
    REQUIRE(dtls_resume(&client, &config, &association) == DTLS_OK);
    exchange_run(&client, &config, &script);
    dtls_close(&client);
    return 0;
}
