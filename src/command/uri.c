#include "command/uri.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "command/value.h"

enum { URI_PATH = 11, URI_QUERY = 15, PART_MAX = 255 };

/* What RFC 3986 allows everywhere beside letters and digits: its unreserved characters and sub-delims. */
static const char always_allowed[] = "-._~!$&'()*+,;=";
static const char also_in_path[] = ":@";
static const char also_in_query[] = ":@/?";

static const char long_host[] = "has a host name of more than 255 characters";
static const char long_segment[] = "has a path segment of more than 255 bytes, which CoAP cannot carry";
static const char long_argument[] = "has a query part of more than 255 bytes, which CoAP cannot carry";

/* A part of the text. */
typedef struct {
    const char *text;
    size_t length;
} part_t;

/* Takes the percent-encoding off `part`. NULL, or why not; `too_long`: it is more than PART_MAX bytes. */
static const char *decode(part_t part, const char *also_allowed, const char *too_long,
                          unsigned char bytes[static PART_MAX], size_t *length)
{
    *length = 0;
    for (size_t i = 0; i < part.length; i++) {
        unsigned char byte = (unsigned char)part.text[i];
        if (byte == '%') {
            int high = i + 2 < part.length ? value_hex_digit(part.text[i + 1]) : -1;
            int low = i + 2 < part.length ? value_hex_digit(part.text[i + 2]) : -1;
            if (high < 0 || low < 0)
                return "has a % that two hex digits do not follow; % itself is written as %25";
            byte = (unsigned char)(high << 4 | low);
            if (byte == '\0')
                return "has a NUL (%00)";
            i += 2;
        } else if (!((byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z') ||
                     strchr(always_allowed, byte) != NULL || strchr(also_allowed, byte) != NULL)) {
            return "has a character that a URI cannot have; write each of its bytes as % and two hex digits";
        }
        if (*length == PART_MAX)
            return too_long;
        bytes[(*length)++] = byte;
    }
    return NULL;
}

/* --- Host and port --- */

/* An IPv6 address, perhaps with a zone ("fe80::1%eth0"). */
static bool is_ipv6(part_t host)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr parsed;
    const char *zone = memchr(host.text, '%', host.length);
    size_t length = zone != NULL ? (size_t)(zone - host.text) : host.length;
    if (length >= sizeof address)
        return false;
    memcpy(address, host.text, length);
    address[length] = '\0';
    return inet_pton(AF_INET6, address, &parsed) == 1;
}

/* Finds host and port; port->text is NULL where there is no colon before it. False: there is no such form. */
static bool split(part_t server, part_t *host, part_t *port)
{
    const char *end = server.text + server.length, *after;
    *host = server;
    *port = (part_t){0};
    if (server.length > 0 && *server.text == '[') {
        host->text++;
        after = memchr(host->text, ']', server.length - 1);
        if (after == NULL)
            return false;
        host->length = (size_t)(after++ - host->text);
        if (!is_ipv6(*host))
            return false;
    } else {
        after = memchr(server.text, ':', server.length);
        if (after == NULL || memchr(after + 1, ':', (size_t)(end - after) - 1) != NULL)
            return after == NULL || is_ipv6(server);
        host->length = (size_t)(after - server.text);
    }
    if (after == end)
        return true;
    *port = (part_t){after + 1, (size_t)(end - after) - 1};
    return *after == ':';
}

static const char *set_host(uri_t *uri, part_t host)
{
    if (host.length == 0)
        return "has no host";
    if (host.length >= sizeof uri->host)
        return long_host;
    memcpy(uri->host, host.text, host.length);
    uri->host[host.length] = '\0';
    return NULL;
}

static const char *set_port(uri_t *uri, part_t port)
{
    char digits[16];
    uint64_t number = 0;
    snprintf(digits, sizeof digits, "%.*s", (int)port.length, port.text);
    if (port.length >= sizeof digits || !value_number(digits, 1, UINT16_MAX, &number))
        return "must have a port from 1 to 65535 after its colon";
    snprintf(uri->port, sizeof uri->port, "%u", (unsigned)number);
    return NULL;
}

/* What is no URI: a host is taken as it stands. */
static const char *parse_plain(const char *text, uri_t *uri)
{
    part_t host, port;
    if (strpbrk(text, "/?#@") != NULL)
        return "must be HOST, HOST:PORT or [IPV6]:PORT; only a coaps:// URI can have a path or a query";
    if (!split((part_t){text, strlen(text)}, &host, &port))
        return "must be HOST, HOST:PORT or [IPV6]:PORT";
    const char *problem = set_host(uri, host);
    return problem == NULL && port.text != NULL ? set_port(uri, port) : problem;
}

/* The zone of an address stands behind %25 in a URI (RFC 6874 section 2). */
static const char *set_address(uri_t *uri, part_t host)
{
    const char *problem = set_host(uri, host);
    char *zone = problem == NULL ? strstr(uri->host, "%25") : NULL;
    if (zone != NULL)
        memmove(zone + 1, zone + 3, strlen(zone + 3) + 1);
    return problem;
}

static const char *set_name(uri_t *uri, part_t host)
{
    unsigned char bytes[PART_MAX];
    size_t length = 0;
    const char *problem = decode(host, "", long_host, bytes, &length);
    if (problem != NULL)
        return problem;
    for (size_t i = 0; i < length; i++)
        bytes[i] |= bytes[i] >= 'A' && bytes[i] <= 'Z' ? 0x20 : 0;
    return set_host(uri, (part_t){(const char *)bytes, length});
}

static const char *parse_authority(part_t authority, uri_t *uri)
{
    part_t host, port;
    if (memchr(authority.text, '@', authority.length) != NULL)
        return "must have no user before an @";
    if (!split(authority, &host, &port) ||
        (host.text == authority.text && memchr(host.text, ':', host.length)))
        return "must have HOST, HOST:PORT or [IPV6]:PORT behind its //";
    const char *problem = host.text == authority.text ? set_name(uri, host) : set_address(uri, host);
    /* RFC 3986 section 3.2.3 allows a colon without a port. */
    return problem == NULL && port.length > 0 ? set_port(uri, port) : problem;
}

/* --- Path and query --- */

static const char *add_option(uri_t *uri, unsigned char number, const unsigned char *bytes, size_t length)
{
    if (length + 2 > sizeof uri->options - uri->options_length)
        return "has a path and query of more than 1024 bytes, counting 2 more for each of their parts";
    unsigned char *option = uri->options + uri->options_length;
    option[0] = number;
    option[1] = (unsigned char)length;
    memcpy(option + 2, bytes, length);
    uri->options_length += length + 2;
    return NULL;
}

/* Takes the last option off again, if there is one. */
static void drop_last_option(uri_t *uri)
{
    size_t last = 0;
    for (size_t next = 0; next < uri->options_length; next += (size_t)uri->options[next + 1] + 2)
        last = next;
    uri->options_length = last;
}

/* "." and ".." are never sent: the path is resolved first (RFC 3986 section 5.2.4), and they leave a slash
 * where they come last. */
static const char *add_segment(uri_t *uri, const unsigned char *bytes, size_t length, bool last)
{
    bool here = length == 1 && bytes[0] == '.';
    bool up = length == 2 && bytes[0] == '.' && bytes[1] == '.';
    if (up)
        drop_last_option(uri);
    if (!here && !up)
        return add_option(uri, URI_PATH, bytes, length);
    return last ? add_option(uri, URI_PATH, bytes, 0) : NULL;
}

/* `path` is empty or begins with a slash. */
static const char *parse_path(part_t path, uri_t *uri)
{
    const char *next = path.text, *end = path.text + path.length, *problem = NULL;
    while (next < end && problem == NULL) {
        unsigned char bytes[PART_MAX];
        size_t length = 0;
        part_t segment = {.text = ++next};
        while (next < end && *next != '/')
            next++;
        segment.length = (size_t)(next - segment.text);
        problem = decode(segment, also_in_path, long_segment, bytes, &length);
        if (problem == NULL)
            problem = add_segment(uri, bytes, length, next == end);
    }
    /* A single slash says as little as none. */
    if (uri->options_length == 2)
        uri->options_length = 0;
    return problem;
}

/* `query` is empty or begins with a question mark. */
static const char *parse_query(const char *query, uri_t *uri)
{
    const char *problem = NULL;
    while (*query != '\0' && problem == NULL) {
        unsigned char bytes[PART_MAX];
        size_t length = 0;
        part_t argument = {.text = ++query};
        argument.length = strcspn(query, "&");
        query += argument.length;
        problem = decode(argument, also_in_query, long_argument, bytes, &length);
        if (problem == NULL)
            problem = add_option(uri, URI_QUERY, bytes, length);
    }
    return problem;
}

/* --- The whole --- */

static bool is_scheme(const char *text, size_t length, const char *scheme)
{
    return length == strlen(scheme) && strncasecmp(text, scheme, length) == 0;
}

const char *uri_parse(const char *text, uri_t *uri)
{
    const char *colon = strstr(text, "://");
    size_t scheme = colon != NULL ? (size_t)(colon - text) : 0;
    *uri = (uri_t){.coaps = colon != NULL && is_scheme(text, scheme, "coaps")};
    snprintf(uri->port, sizeof uri->port, "%s", uri->coaps ? "5684" : "1234");
    if (colon == NULL)
        return parse_plain(text, uri);
    if (is_scheme(text, scheme, "coap"))
        return "must begin with coaps://, CoAP over DTLS: coap:// would not be encrypted";
    if (!uri->coaps && !is_scheme(text, scheme, "dtls"))
        return "has an unknown scheme; of URIs only coaps:// and dtls:// are supported";
    part_t authority = {.text = colon + 3};
    if (strchr(authority.text, '#') != NULL)
        return "must have no fragment behind a #: it is never sent to a server";
    authority.length = strcspn(authority.text, "/?");
    part_t path = {.text = authority.text + authority.length};
    path.length = strcspn(path.text, "?");
    if (!uri->coaps && *path.text != '\0')
        return "must be dtls://HOST[:PORT]; only a coaps:// URI can have a path or a query";
    const char *problem = parse_authority(authority, uri);
    if (problem == NULL)
        problem = parse_path(path, uri);
    return problem == NULL ? parse_query(path.text + path.length, uri) : problem;
}
