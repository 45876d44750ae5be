#include "command/value.h"

#include <arpa/inet.h>
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

/* An IPv6 address, perhaps with a zone ("fe80::1%eth0"). */
static bool is_ipv6(const char *text, size_t length)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr parsed;
    const char *zone = memchr(text, '%', length);
    if (zone != NULL)
        length = (size_t)(zone - text);
    if (length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = '\0';
    return inet_pton(AF_INET6, address, &parsed) == 1;
}

bool value_server(const char *value, const char **host, size_t *length, const char **port)
{
    const char *end;
    *host = value;
    if (*value == '[') {
        *host = value + 1;
        *length = strcspn(*host, "]");
        end = *host + *length;
        if (*end++ != ']' || !is_ipv6(*host, *length))
            return false;
    } else if (strchr(value, ':') != strrchr(value, ':')) {
        *length = strlen(value);
        end = value + *length;
        if (!is_ipv6(value, *length))
            return false;
    } else {
        *length = strcspn(value, ":");
        end = value + *length;
    }
    *port = *end == ':' ? end + 1 : NULL;
    return *end == ':' || *end == '\0';
}
