/* The command line and the configuration file. An input is the arguments, one a line, and behind a NUL the
 * file. */
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "command/options.h"
#include "fuzz.h"
#include "system/log.h"

enum { ARGUMENTS_MAX = 64, ERROR_SIZE = 256, WEEK_MS = 604800000 };

static int split(input_t input, char *argv[static ARGUMENTS_MAX + 1])
{
    int argc = 0;
    argv[argc++] = input_string((input_t){(const unsigned char *)"dtls-send", 9});
    while (input.length > 0 && argc < ARGUMENTS_MAX) {
        const unsigned char *newline = memchr(input.bytes, '\n', input.length);
        argv[argc++] = input_string(
            input_take(&input, newline != NULL ? (size_t)(newline - input.bytes) : input.length));
        input_take(&input, newline != NULL);
    }
    argv[argc] = NULL;
    return argc;
}

static void require_path(const char *path)
{
    REQUIRE(path == NULL || *path != '\0');
}

static void require_sound(const options_t *options)
{
    long port = strtol(options->port, NULL, 10);
    REQUIRE(memchr(options->host, '\0', sizeof options->host) != NULL && options->host[0] != '\0');
    REQUIRE(memchr(options->port, '\0', sizeof options->port) != NULL && port >= 1 && port <= 65535);
    REQUIRE(options->family == AF_UNSPEC || options->family == AF_INET || options->family == AF_INET6);
    require_path(options->server_name);
    REQUIRE(options->server_name == NULL || strlen(options->server_name) <= 255);
    require_path(options->cert_file);
    require_path(options->key_file);
    require_path(options->passphrase_file);
    require_path(options->ca);
    require_path(options->psk_file);
    require_path(options->session);
    require_path(options->queue);
    REQUIRE(options->queue_limit >= 1 && options->queue_limit <= 1000000000);
    REQUIRE(options->splay_ms >= 0 && options->splay_ms <= WEEK_MS);
    REQUIRE(options->lease_ms >= 0 && options->lease_ms <= WEEK_MS);
    REQUIRE(options->wait_ms >= -1 && options->wait_ms <= WEEK_MS);
    REQUIRE(options->timeout_ms >= 1 && options->timeout_ms <= WEEK_MS);
    REQUIRE(options->count <= 1000000000);
    REQUIRE(options->format >= OUTPUT_TEXT && options->format <= OUTPUT_JSON);
    REQUIRE(options->mtu >= 256 && options->mtu <= 16384);
    REQUIRE(options->verbosity >= LOG_QUIET && options->verbosity <= LOG_DEBUG);
}

/* Path and query: whole options, the path's first, no segment that a resolved path cannot have. */
static void require_uri(const options_t *options)
{
    const unsigned char *bytes = options->uri_options;
    unsigned before = 11;
    size_t position = 0;
    REQUIRE(options->uri_options_length <= sizeof options->uri_options);
    REQUIRE(options->coaps || options->uri_options_length == 0);
    while (position < options->uri_options_length) {
        REQUIRE(options->uri_options_length - position >= 2);
        unsigned number = bytes[position];
        size_t length = bytes[position + 1];
        const unsigned char *value = bytes + position + 2;
        REQUIRE((number == 11 || number == 15) && number >= before);
        REQUIRE(length <= options->uri_options_length - position - 2);
        REQUIRE(memchr(value, '\0', length) == NULL);
        REQUIRE(number != 11 || length == 0 || length > 2 || memcmp(value, "..", length) != 0);
        before = number;
        position += length + 2;
    }
}

/* An option that has no meaning is no part of a run. */
static void require_meaning(const options_t *options)
{
    bool get = options->method == METHOD_GET;
    REQUIRE(options->content_format >= -1 && options->content_format <= 65535);
    REQUIRE(!get || options->payload.kind == PAYLOAD_NONE);
    if (options->check)
        return; /* it may use any run's file */
    REQUIRE(options->coaps || (options->method == METHOD_POST && options->content_format == -1));
    REQUIRE(!get || (options->queue == NULL && !options->confirm && options->content_format == -1));
    REQUIRE(options->lease_ms == 0 ||
            (options->session != NULL && options->queue == NULL && !options->confirm && !options->coaps));
    REQUIRE(!options->payload.hex || options->payload.kind != PAYLOAD_NONE);
}

static void require_source(const options_t *options)
{
    bool has_text = options->payload.kind == PAYLOAD_ARGUMENT || options->payload.kind == PAYLOAD_FILE;
    REQUIRE(options->payload.kind != PAYLOAD_NONE || options->queue != NULL || options->check ||
            options->method == METHOD_GET);
    REQUIRE(!has_text || options->payload.text != NULL);
    REQUIRE(options->payload.kind != PAYLOAD_FILE || *options->payload.text != '\0');
}

static void require_outcome(options_outcome_t outcome, const options_t *options, const char *error)
{
    if (outcome == OPTIONS_BAD || outcome == OPTIONS_BAD_CONFIG)
        require_message(error, ERROR_SIZE);
    if (outcome == OPTIONS_BAD_CONFIG)
        REQUIRE(options->config.path[0] != '\0');
    if (outcome != OPTIONS_RUN)
        return;
    require_sound(options);
    require_uri(options);
    require_meaning(options);
    require_source(options);
}

/* What stands behind the first NUL becomes the configuration file that the environment names. */
static void write_config(input_t content)
{
    static int fd = -1;
    char path[32];
    if (fd < 0) {
        fd = memfd_create("config", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        REQUIRE(fd >= 0 && setenv("DTLS_SEND_CONFIG", path, 1) == 0);
    }
    REQUIRE(ftruncate(fd, 0) == 0 && pwrite(fd, content.bytes, content.length, 0) == (ssize_t)content.length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[ARGUMENTS_MAX + 1], *given[ARGUMENTS_MAX + 1];
    char *error = malloc(ERROR_SIZE);
    options_t *options = malloc(sizeof *options);
    input_t config = {data, size};
    const unsigned char *end = size > 0 ? memchr(data, '\0', size) : NULL;
    input_t arguments = input_take(&config, end != NULL ? (size_t)(end - data) : size);
    input_take(&config, 1);
    write_config(config);
    int argc = split(arguments, argv);
    REQUIRE(error != NULL && options != NULL);
    memcpy(given, argv, sizeof given); /* argv may be reordered */
    memset(error, 'x', ERROR_SIZE);
    memset(options, 0xaa, sizeof *options);
    require_outcome(options_parse(argc, argv, options, error, ERROR_SIZE), options, error);
    options_free(options);
    options_free(options);
    for (int i = 0; i < argc; i++)
        free(given[i]);
    free(options);
    free(error);
    return 0;
}
