/* What the program does instead of a run: --help, --version, --check. Each prints on standard output and
 * returns the exit status. */
#ifndef INSPECT_H
#define INSPECT_H

#include "command/options.h"
#include "credentials/credentials.h"

int inspect_help(void);

int inspect_version(void);

/* Reports on the credentials, and on what the session's file can keep. */
int inspect_credentials(const options_t *options, const credentials_source_t *source);

#endif
