/* What the fuzz targets share: a promise that is broken ends the process, and the fuzzer's bytes are taken
 * from the front, without an end: where there are no more, numbers are 0 and strings empty. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(promise)                                                                                     \
    do {                                                                                                     \
        if (!(promise)) {                                                                                    \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #promise);                    \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

typedef struct {
    const unsigned char *bytes;
    size_t length;
} input_t;

static inline input_t input_take(input_t *input, size_t length)
{
    input_t taken = {input->bytes, length < input->length ? length : input->length};
    if (taken.length > 0)
        input->bytes += taken.length;
    input->length -= taken.length;
    return taken;
}

/* Of one to four bytes, the first the highest. */
static inline uint32_t input_number(input_t *input, size_t bytes)
{
    uint32_t number = 0;
    input_t taken = input_take(input, bytes);
    for (size_t i = 0; i < taken.length; i++)
        number = number << 8 | taken.bytes[i];
    return number;
}

/* A string of its own, for the sanitizer to see where it ends. */
static inline char *input_string(input_t text)
{
    char *string = malloc(text.length + 1);
    REQUIRE(string != NULL);
    if (text.length > 0)
        memcpy(string, text.bytes, text.length);
    string[text.length] = '\0';
    return string;
}

/* What a message to people must be: something, and one line. */
static inline void require_message(const char *text, size_t size)
{
    REQUIRE(memchr(text, '\0', size) != NULL);
    REQUIRE(*text != '\0');
    REQUIRE(strchr(text, '\n') == NULL);
}

#endif
