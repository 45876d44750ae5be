#include "command/value.h"

#include <string.h>

bool value_number(const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || value > most)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *number = value;
    return value >= least && value <= most;
}

bool value_seconds(const char *text, int64_t least_ms, int64_t most_ms, int64_t *milliseconds)
{
    char whole[16];
    size_t digits = strcspn(text, ".");
    uint64_t seconds = 0;
    if (digits >= sizeof whole)
        return false;
    memcpy(whole, text, digits);
    whole[digits] = '\0';
    if (!value_number(whole, 0, (uint64_t)most_ms / 1000, &seconds))
        return false;
    int64_t value = (int64_t)seconds * 1000;
    if (text[digits] == '.') {
        const char *fraction = text + digits + 1;
        if (*fraction == '\0' || fraction[strspn(fraction, "0123456789")] != '\0')
            return false;
        for (int64_t unit = 100; unit > 0 && *fraction != '\0'; unit /= 10)
            value += unit * (*fraction++ - '0');
    }
    *milliseconds = value;
    return value >= least_ms && value <= most_ms;
}

int value_hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}
