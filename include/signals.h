/* The signals that end a run: SIGINT, SIGTERM, SIGHUP, and the alarm that keeps --timeout where nothing else
 * can. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <stdint.h>

/* From now on the first signal is noted, for the run to end cleanly, and a second ends the process at once,
 * with 128 plus its number. One that was ignored stays so; SIGPIPE is ignored. */
void signals_catch(void);

/* A run that hangs beyond `delay_ms` from now elsewhere than in a wait, as on a disk, is ended with `status`.
 * Replaces what was asked before. */
void signals_watch(int64_t delay_ms, int status);

/* The number of the signal that came first; 0: none did. */
int signals_caught(void);

/* A descriptor that becomes readable with it: for wait_limit_t. */
int signals_fd(void);

#endif
