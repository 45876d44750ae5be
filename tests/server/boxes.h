/* Inboxes and outboxes, as plain files that a person can list and read:
 *
 *     STATE_DIR/inbox/DEVICE/000001            what the device sent: the bytes, nothing else
 *     STATE_DIR/outbox/DEVICE/000001.pending   what waits for it
 *     STATE_DIR/outbox/DEVICE/000001.sent      what was sent to it
 *     STATE_DIR/outbox/DEVICE/000001.refused   what no record can carry
 *
 * Whoever writes into an outbox writes under another name and renames. All functions block for the disk only.
 */
#ifndef BOXES_H
#define BOXES_H

#include <stdbool.h>
#include <stddef.h>

/* Sends one message. False: it cannot be sent, now or later. */
typedef bool boxes_send_t(void *context, const unsigned char *bytes, size_t length);

/* Makes the directories where they are missing. False: errno says why not. */
bool boxes_open(const char *state_dir);

/* Puts a payload into the device's inbox, whole or not at all. `*last` is the number of the one before, to
 * save a search; 0: not known. False: errno says why not. */
bool boxes_store(const char *state_dir, const char *device, unsigned long *last, const void *bytes,
                 size_t length);

/* Gives what is pending for the device to `send`, at most so many in the order of the names, and renames
 * each. Returns how many there were, sent or refused; 0 too where there is no such outbox. */
size_t boxes_deliver(const char *state_dir, const char *device, size_t most, boxes_send_t *send,
                     void *context);

#endif
