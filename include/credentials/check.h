/* --check: a report on the credentials, without a network. */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "credentials/credentials.h"

/* Loads `source` and writes on `stream` who this device is, until when, and whom it trusts; no secrets.
 * False: the credentials cannot be used, or not for `renew_days` more days, and `error`, of `size` bytes,
 * says in one line why. Whether `stream` took it all is the caller's to find out. */
bool check_credentials(const credentials_source_t *source, uint64_t renew_days, FILE *stream, char *error,
                       size_t size);

#endif
