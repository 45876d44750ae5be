/* A second program on dtls.h, as short as the header promises: sends a payload, prints one downlink. */
#include <stdio.h>
#include <string.h>

#include "dtls.h"

int main(int argc, char **argv)
{
    static unsigned char downlink[DTLS_PAYLOAD_MAX];
    size_t length = 0;
    if (argc != 6)
        return 64; /* HOST PORT CERT KEY PAYLOAD */
    credentials_source_t source = {.cert_file = argv[3], .key_file = argv[4]};
    dtls_config_t config = {.host = argv[1], .port = argv[2], .limit = wait_limit_in(10000)};

    dtls_state_t dtls;
    dtls_init(&dtls);
    bool done = credentials_load(&dtls.credentials, &source) && dtls_connect(&dtls, &config) == DTLS_OK &&
                dtls_send(&dtls, argv[5], strlen(argv[5])) == DTLS_OK &&
                dtls_receive(&dtls, downlink, sizeof downlink, &length, 10000) == DTLS_OK;
    if (done)
        done = fwrite(downlink, 1, length, stdout) == length && fflush(stdout) == 0;
    else
        fprintf(stderr, "ten_lines: %s%s\n", dtls.credentials.error, dtls_error_text(&dtls));
    dtls_close(&dtls);
    return done ? 0 : 1;
}
