#include "run/inspect.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "credentials/check.h"
#include "credentials/embedded.h"
#include "dtls.h"
#include "store/session.h"
#include "system/log.h"

static int finish_printing(int status)
{
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return status;
    log_error("standard output: %s", strerror(errno));
    return EX_IOERR;
}

int inspect_help(void)
{
    options_print_help(stdout);
    return finish_printing(EX_OK);
}

int inspect_version(void)
{
    printf("dtls-send " VERSION " (%s)%s\n", dtls_library(),
           embedded_is_present() ? ", with built-in credentials" : "");
    return finish_printing(EX_OK);
}

static void print_session(const char *path)
{
    const char *kept = session_keeps_associations(path)
                           ? "the association: a repeat run needs no handshake"
                           : "the session alone, since this is not on tmpfs, as /run is: every run makes a "
                             "handshake";
    printf("session: %s\n  keeps:    %s\n", path, kept);
}

int inspect_credentials(const options_t *options, const credentials_source_t *source)
{
    char error[512];
    bool usable = check_credentials(source, options->renew_days, stdout, error, sizeof error);
    if (options->session != NULL)
        print_session(options->session);
    if (!usable)
        log_error("%s", error);
    return finish_printing(usable ? EX_OK : EX_CONFIG);
}
