/* The pre-shared key's file. An input is what it holds. */
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "credentials/psk.h"
#include "fuzz.h"

enum { ERROR_SIZE = 256 };

/* The identity is what stands before the last colon, and the key the digits behind it. */
static void require_pair(const psk_t *psk, input_t text)
{
    char digits[3];
    REQUIRE(psk->identity_length >= 1 && psk->identity_length <= sizeof psk->identity);
    REQUIRE(psk->key_length >= 1 && psk->key_length <= sizeof psk->key);
    REQUIRE(text.length > psk->identity_length + 2 * psk->key_length);
    REQUIRE(memcmp(text.bytes, psk->identity, psk->identity_length) == 0);
    REQUIRE(text.bytes[psk->identity_length] == ':');
    for (size_t i = 0; i < psk->key_length; i++) {
        const unsigned char *pair = text.bytes + psk->identity_length + 1 + 2 * i;
        snprintf(digits, sizeof digits, "%02x", psk->key[i]);
        REQUIRE(strncasecmp(digits, (const char *)pair, 2) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *error = malloc(ERROR_SIZE);
    psk_t *psk = malloc(sizeof *psk);
    char path[32];
    int fd = memfd_create("psk", MFD_CLOEXEC);
    REQUIRE(error != NULL && psk != NULL && fd >= 0 && fchmod(fd, S_IRUSR | S_IWUSR) == 0);
    REQUIRE(write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    memset(error, 'x', ERROR_SIZE);
    if (psk_load(psk, path, error, ERROR_SIZE))
        require_pair(psk, (input_t){data, size});
    else
        require_message(error, ERROR_SIZE);
    psk_wipe(psk);
    close(fd);
    free(psk);
    free(error);
    return 0;
}
