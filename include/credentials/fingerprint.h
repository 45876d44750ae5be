/* By what credentials are known again, without parsing them. */
#ifndef FINGERPRINT_H
#define FINGERPRINT_H

#include <stdbool.h>
#include <stdint.h>

#include "credentials/credentials.h"

/* Puts the SHA-256 of all that `source` names, the passphrase aside, into `digest`, without parsing any of
 * it. False: something cannot be read. */
bool fingerprint_digest(const credentials_source_t *source, unsigned char digest[static 32]);

/* What the files of a source look like from outside. */
typedef struct {
    struct {
        uint64_t device, inode, size;
        int64_t changed_s, changed_ns; /* when the inode changed last, which nobody can set */
    } files[3];
} fingerprint_stamp_t;

/* Takes the stamp of all that `source` names, the passphrase aside: equal stamps, equal content, without
 * reading it. False: there can be none, since something is missing, is no plain file, or was changed so
 * lately that a second change might leave no trace. */
bool fingerprint_stamp(const credentials_source_t *source, fingerprint_stamp_t *stamp);

#endif
