#include "credentials/embedded.h"

#include <stdlib.h>
#include <string.h>

#ifdef EMBED_DIR

#define EMBED(symbol, path)                                                                                  \
    __asm__(".section .rodata\n" #symbol ": .incbin \"" path "\"\n" #symbol "_end: .byte 0\n.previous\n")

EMBED(embedded_certificates_file, EMBED_DIR "/cert.crt");
EMBED(embedded_key_file, EMBED_DIR "/key.pem");

extern const unsigned char embedded_certificates_file[], embedded_certificates_file_end[];
extern const unsigned char embedded_key_file[], embedded_key_file_end[];

bool embedded_is_present(void)
{
    return true;
}

const unsigned char *embedded_certificates(size_t *length)
{
    *length = (size_t)(embedded_certificates_file_end - embedded_certificates_file);
    return embedded_certificates_file;
}

const unsigned char *embedded_key(size_t *length)
{
    *length = (size_t)(embedded_key_file_end - embedded_key_file);
    return embedded_key_file;
}

#else

bool embedded_is_present(void)
{
    return false;
}

const unsigned char *embedded_certificates(size_t *length)
{
    *length = 0;
    return NULL;
}

const unsigned char *embedded_key(size_t *length)
{
    *length = 0;
    return NULL;
}

#endif

bool embedded_or_file(const char *path, size_t maximum, embedded_file_t *embedded, file_content_t *content,
                      const char **reason)
{
    if (path != NULL)
        return file_read(path, maximum, content, reason);
    size_t length = 0;
    const unsigned char *bytes = embedded(&length);
    *reason = "out of memory";
    content->bytes = malloc(length + 1);
    content->length = length;
    if (content->bytes != NULL)
        memcpy(content->bytes, bytes, length + 1);
    return content->bytes != NULL;
}
