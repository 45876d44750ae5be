/* Credentials that were built into the program (make EMBED=DIR), for devices without a file system to speak
 * of. */
#ifndef EMBEDDED_H
#define EMBEDDED_H

#include <stdbool.h>
#include <stddef.h>

#include "store/file.h"

/* Whether there are any. */
bool embedded_is_present(void);

typedef const unsigned char *embedded_file_t(size_t *length);

/* The bytes of DIR/cert.crt and DIR/key.pem. As in a file_content_t a NUL, not counted in `*length`, follows
 * the last. */
embedded_file_t embedded_certificates;
embedded_file_t embedded_key;

/* Reads the file `path`, or, where that is NULL, `embedded`: as file_read(). */
bool embedded_or_file(const char *path, size_t maximum, embedded_file_t *embedded, file_content_t *content,
                      const char **reason);

#endif
