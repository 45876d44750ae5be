/* inboxd: a DTLS 1.2 server that behaves as an IoT service does, for the tests and the demo. It demands a
 * client certificate (or a pre-shared key), keeps what devices send (service.h: how it answers; boxes.h: the
 * files), and runs until SIGTERM or SIGINT. SIGUSR1: it forgets all associations, as a restart would.
 *
 * Its standard output is one line an event: "listening ADDRESS PORT", then those of service.h.
 */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "boxes.h"
#include "coap_resource.h"
#include "coap_service.h"
#include "plain.h"
#include "service.h"
#include "system/wait.h"
#include "tls.h"

enum { RECEIVE_BUFFER = 4 << 20 }; /* bytes: a fleet's cron jobs all fire at :00 */

typedef struct {
    const char *address, *port;
    const char *records_file;
    const struct form *form;
    service_settings_t service;
} options_t;

static const char usage[] =
    "Usage: inboxd [OPTION]... STATE_DIR\n"
    "A DTLS 1.2 server that keeps what devices send in STATE_DIR/inbox/DEVICE, and answers\n"
    "with what waits in STATE_DIR/outbox/DEVICE. DEVICE is the certificate's common name.\n"
    "\n"
    "      --address ADDR      listen there (127.0.0.1)\n"
    "      --port N            and at this port (1234); 0: any that is free\n"
    "      --cert FILE         the server's certificate and intermediates, PEM\n"
    "      --key FILE          its private key, PEM\n"
    "      --ca FILE           what device certificates must chain to, PEM\n"
    "      --psk ID:HEXKEY     pre-shared key instead of these; the device's name is ID\n"
    "      --reply TEXT        answer an uplink with TEXT where its outbox is empty\n"
    "      --close             close_notify after the answer to an uplink\n"
    "      --drop-uplinks N    ignore the first N uplinks\n"
    "      --no-cache          do not resume sessions by id\n"
    "      --tickets           hand out session tickets\n"
    "      --no-cid            no connection ids (RFC 9146; mbed TLS 3 only)\n"
    "      --delay MS          answer everything that much later\n"
    "      --records FILE      append a line for every record that arrives, all numbers decimal:\n"
    "                            ADDRESS:PORT TYPE EPOCH SEQUENCE LENGTH ASSOCIATION TAIL\n"
    "                          LENGTH counts the header too; ASSOCIATION is the number of the one\n"
    "                          it was handed to, 0: none. TAIL is the record's last 8 bytes in\n"
    "                          hex, the end of its authentication tag: one number with two tails\n"
    "                          in an epoch above 0 means a nonce used twice. And one line for\n"
    "                          each association: association NUMBER ADDRESS:PORT\n"
    "  -h, --help              this text\n"
    "\n"
    "With --coap it speaks CoAP (RFC 7252): POST and PUT store their payload, and their response\n"
    "(2.04) bears the next message of the outbox; GET asks for that alone (2.05). The path can ask\n"
    "for errors and more, for tests: see coap_resource.h.\n"
    "      --separate          acknowledge at once, and respond later by a message of its own\n"
    "      --separate-delay MS so much later (50)\n"
    "      --non               respond by non-confirmable messages\n"
    "      --block N           ask for blocks of N bytes at most (1024)\n"
    "      --refuse-blocks     refuse larger ones with 4.13, instead of taking the first\n"
    "      --max-size BYTES    refuse larger payloads with 4.13 (65536)\n"
    "\n"
    "Prints one line an event. SIGUSR1 makes it forget all associations, but not the sessions\n"
    "that it would resume; SIGTERM and SIGINT end it.\n";

/* --- The command line --- */

_Noreturn static void fail(int status, const char *what, const char *why)
{
    fprintf(stderr, "inboxd: %s: %s\n", what, why);
    exit(status);
}

static unsigned long parse_number(const char *name, const char *text, unsigned long maximum)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (strspn(text, "0123456789") != strlen(text) || end == text || errno != 0 || number > maximum)
        fail(EX_USAGE, name, "not a number, or too large");
    return number;
}

static int hex_digit(char digit)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);
    return found == NULL ? -1 : (int)((found - digits) % 16);
}

/* Cuts the argument in two at its last colon. */
static void parse_psk(char *text, tls_settings_t *tls)
{
    char *colon = strrchr(text, ':');
    size_t digits = colon == NULL ? 0 : strlen(colon + 1);
    if (digits == 0 || digits % 2 != 0 || digits / 2 > sizeof tls->psk || colon == text)
        fail(EX_USAGE, "--psk", "IDENTITY:HEXKEY expected");
    for (size_t i = 0; i < digits / 2; i++) {
        int high = hex_digit(colon[1 + 2 * i]), low = hex_digit(colon[2 + 2 * i]);
        if (high < 0 || low < 0)
            fail(EX_USAGE, "--psk", "bad hex digit");
        tls->psk[i] = (unsigned char)(high << 4 | low);
    }
    *colon = '\0';
    tls->psk_identity = text;
    tls->psk_length = digits / 2;
}

enum {
    ADDRESS = 1,
    PORT,
    CERT,
    KEY,
    CA,
    PSK,
    REPLY,
    CLOSE,
    DROP_UPLINKS,
    NO_CACHE,
    TICKETS,
    NO_CID,
    RECORDS,
    DELAY,
    COAP,
    SEPARATE,
    SEPARATE_DELAY,
    NON,
    BLOCK,
    REFUSE_BLOCKS,
    MAX_SIZE
};

static const struct option long_options[] = {{"address", required_argument, NULL, ADDRESS},
                                             {"port", required_argument, NULL, PORT},
                                             {"cert", required_argument, NULL, CERT},
                                             {"key", required_argument, NULL, KEY},
                                             {"ca", required_argument, NULL, CA},
                                             {"psk", required_argument, NULL, PSK},
                                             {"reply", required_argument, NULL, REPLY},
                                             {"close", no_argument, NULL, CLOSE},
                                             {"drop-uplinks", required_argument, NULL, DROP_UPLINKS},
                                             {"no-cache", no_argument, NULL, NO_CACHE},
                                             {"tickets", no_argument, NULL, TICKETS},
                                             {"no-cid", no_argument, NULL, NO_CID},
                                             {"records", required_argument, NULL, RECORDS},
                                             {"delay", required_argument, NULL, DELAY},
                                             {"coap", no_argument, NULL, COAP},
                                             {"separate", no_argument, NULL, SEPARATE},
                                             {"separate-delay", required_argument, NULL, SEPARATE_DELAY},
                                             {"non", no_argument, NULL, NON},
                                             {"block", required_argument, NULL, BLOCK},
                                             {"refuse-blocks", no_argument, NULL, REFUSE_BLOCKS},
                                             {"max-size", required_argument, NULL, MAX_SIZE},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

/* Of a block's size, which is one of 16, 32 … 1024. */
static unsigned parse_block_exponent(const char *text)
{
    unsigned long size = parse_number("--block", text, 1024);
    for (unsigned exponent = 0; exponent <= 6; exponent++)
        if (size == 16UL << exponent)
            return exponent;
    fail(EX_USAGE, "--block", "16, 32, 64, 128, 256, 512 or 1024 expected");
}

/* False: it is none of the CoAP form's. */
static bool set_coap_option(options_t *options, int option, char *argument)
{
    coap_settings_t *coap = &options->service.coap;
    switch (option) {
    case COAP:
        options->form = &coap_form;
        return true;
    case SEPARATE:
        return coap->separate = true;
    case SEPARATE_DELAY:
        coap->separate_delay_ms = parse_number("--separate-delay", argument, 3600000);
        return true;
    case NON:
        return coap->non = true;
    case BLOCK:
        coap->block_exponent = parse_block_exponent(argument);
        return true;
    case REFUSE_BLOCKS:
        return coap->refuse_blocks = true;
    case MAX_SIZE:
        coap->max_size = parse_number("--max-size", argument, COAP_UPLOAD_MAX);
        return true;
    default:
        return false;
    }
}

static void set_option(options_t *options, int option, char *argument)
{
    service_settings_t *service = &options->service;
    tls_settings_t *tls = &service->tls;
    switch (option) {
    case ADDRESS:
        options->address = argument;
        break;
    case PORT:
        parse_number("--port", argument, 65535);
        options->port = argument;
        break;
    case CERT:
        tls->cert_file = argument;
        break;
    case KEY:
        tls->key_file = argument;
        break;
    case CA:
        tls->ca_file = argument;
        break;
    case PSK:
        parse_psk(argument, tls);
        break;
    case REPLY:
        service->reply = argument;
        break;
    case CLOSE:
        service->close = true;
        break;
    case DROP_UPLINKS:
        service->drop_uplinks = parse_number("--drop-uplinks", argument, 1000000);
        break;
    case NO_CACHE:
        tls->cache = false;
        break;
    case TICKETS:
        tls->tickets = true;
        break;
    case NO_CID:
        tls->cid = false;
        break;
    case RECORDS:
        options->records_file = argument;
        break;
    case DELAY:
        service->delay_ms = parse_number("--delay", argument, 3600000);
        break;
    case 'h':
        fputs(usage, stdout);
        exit(EXIT_SUCCESS);
    default:
        if (!set_coap_option(options, option, argument))
            exit(EX_USAGE);
    }
}

static void parse_options(options_t *options, int argc, char **argv)
{
    *options = (options_t){.address = "127.0.0.1", .port = "1234", .form = &plain_form};
    options->service.coap =
        (coap_settings_t){.separate_delay_ms = 50, .block_exponent = 6, .max_size = COAP_UPLOAD_MAX};
    options->service.tls.cache = options->service.tls.cid = true;
    for (int option; (option = getopt_long(argc, argv, "h", long_options, NULL)) != -1;)
        set_option(options, option, optarg);
    if (argc - optind != 1)
        fail(EX_USAGE, "STATE_DIR", "one is needed, see --help");
    options->service.state_dir = argv[optind];
    const tls_settings_t *tls = &options->service.tls;
    if (tls->psk_identity == NULL &&
        (tls->cert_file == NULL || tls->key_file == NULL || tls->ca_file == NULL))
        fail(EX_USAGE, "--cert, --key and --ca", "all are needed, or --psk");
}

/* --- What it stands on --- */

static int open_socket(const char *address, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    int status = getaddrinfo(address, port, &hints, &found);
    if (status != 0)
        fail(EX_USAGE, address, gai_strerror(status));
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0)
        fail(EX_OSERR, address, strerror(errno));
    freeaddrinfo(found);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){RECEIVE_BUFFER}, sizeof(int)); /* a wish */
    return fd;
}

static void announce(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0 ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        fail(EX_OSERR, "socket", "has no address");
    printf("listening %s %s\n", host, port);
}

static int open_signals(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        fail(EX_OSERR, "signals", strerror(errno));
    return fd;
}

static FILE *open_records(const char *path)
{
    if (path == NULL)
        return NULL;
    FILE *records = fopen(path, "ae");
    if (records == NULL)
        fail(EX_CANTCREAT, path, strerror(errno));
    setvbuf(records, NULL, _IOLBF, 0);
    return records;
}

/* --- The server --- */

/* False: it is time to leave. */
static bool handle_signals(int fd, service_t *service)
{
    struct signalfd_siginfo signal;
    while (read(fd, &signal, sizeof signal) == (ssize_t)sizeof signal) {
        if (signal.ssi_signo != SIGUSR1)
            return false;
        service_forget(service);
    }
    return true;
}

static void serve(service_t *service, int signals)
{
    bool ready;
    while (handle_signals(signals, service)) {
        wait_limit_t limit = {.deadline_ms = service_deadline_ms(service), .cancel_fd = -1};
        if (wait_for_input(service->fd, signals, limit, &ready) == WAIT_FAILED)
            fail(EX_OSERR, "poll", strerror(errno));
        service_receive(service);
        service_tick(service);
    }
    service_forget(service);
}

int main(int argc, char **argv)
{
    static service_t service; /* too large for some stacks */
    options_t options;
    tls_t tls;
    parse_options(&options, argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    tls_init(&tls);
    if (!tls_setup(&tls, &options.service.tls))
        fail(EX_CONFIG, "credentials", tls.error);
    if (!boxes_open(options.service.state_dir))
        fail(EX_CANTCREAT, options.service.state_dir, strerror(errno));

    int signals = open_signals();
    service.settings = &options.service;
    service.tls = &tls;
    service.form = options.form;
    service.records = open_records(options.records_file);
    service.fd = open_socket(options.address, options.port);
    announce(service.fd);
    serve(&service, signals);

    close(service.fd);
    close(signals);
    if (service.records != NULL)
        fclose(service.records);
    tls_free(&tls);
    return EXIT_SUCCESS;
}
