/* What client and server do once they are connected, as the fuzzer's script says, and what must hold then. */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include "dtls.h"
#include "fuzz.h"

/* A client with credentials and the defaults, and a configuration for it. */
void exchange_begin(dtls_state_t *client, dtls_config_t *config, int64_t timeout_ms);

/* Goes on until the script or the connection ends. What the client receives is what the server sent, once;
 * what it says it sent arrives; and where the connection lives on, nothing is lost that was given whole to
 * the network. */
void exchange_run(dtls_state_t *client, const dtls_config_t *config, input_t *script);

/* That a failure is explained. */
void exchange_require_reason(const dtls_state_t *client, dtls_outcome_t outcome);

/* An association and a session, as an honest handshake leaves them; the server remembers both. */
void exchange_make_blobs(dtls_blob_t *association, dtls_blob_t *session);

#endif
