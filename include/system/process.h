/* What the process arranges with the kernel for itself: its standard descriptors, the mode of what it makes,
 * the signals that end it (SIGINT, SIGTERM, SIGHUP), and the alarm that keeps --timeout where nothing else
 * can. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdint.h>

/* First of all: descriptors 0, 1 and 2 are open from now on, and what the process makes is private. A
 * descriptor that was closed would be given to the socket, and messages or downlinks would go to the server.
 * A crash leaves no core file, which would hold keys. */
void process_prepare(void);

/* From now on the first signal is noted, for the run to end cleanly, and a second ends the process at once,
 * with 128 plus its number. One that was ignored stays so; SIGPIPE is ignored. What the parent had blocked
 * of these, and the alarm, is blocked no more: else nothing would end a run that hangs. */
void process_catch_signals(void);

/* A run that hangs beyond `delay_ms` from now elsewhere than in a wait, as on a disk, is ended with `status`.
 * Replaces what was asked before. */
void process_watch(int64_t delay_ms, int status);

/* The number of the signal that came first; 0: none did. */
int process_signal(void);

/* A descriptor that becomes readable with it: for wait_limit_t. */
int process_signal_fd(void);

#endif
