#include "network.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "system/random.h"
#include "system/wait.h"

enum {
    DATAGRAM_MAX = 17000,
    TOGETHER_MAX = 16384, /* of several records: the library's buffer holds little more */
    WAY_MAX = 32,
    STEP_US = 1000,
};

/* What the clock on the wall says: in 2027, and in 2100, when no certificate is valid any more. */
static const time_t usual_time = 1800000000, late_time = 4102531200;

typedef struct {
    unsigned char bytes[DATAGRAM_MAX];
    size_t length;
} datagram_t;

static struct {
    const network_peer_t *peer;
    input_t *script;
    int64_t now_us;
    time_t time;
    uint64_t random;
    datagram_t way[WAY_MAX]; /* a ring: what is on the way to the client */
    size_t first, count;
    datagram_t held; /* waits for the next one: to be overtaken by it, or to be one with it */
    bool glues, has_glued;
    bool bound; /* the client asked for the address that it had, and is the same to its peer */
} network;

void network_begin(const network_peer_t *peer, input_t *script)
{
    network.peer = peer;
    network.script = script;
    network.now_us = INT64_C(1000000000);
    network.time = usual_time;
    network.random = 1;
    network.first = network.count = 0;
    network.held.length = 0;
    network.bound = network.has_glued = false;
}

void network_be_late(void)
{
    network.time = late_time;
}

/* --- The way to the client --- */

static bool put(const unsigned char *bytes, size_t length)
{
    if (network.count == WAY_MAX || length > DATAGRAM_MAX)
        return false;
    datagram_t *datagram = &network.way[(network.first + network.count++) % WAY_MAX];
    if (length > 0)
        memcpy(datagram->bytes, bytes, length);
    datagram->length = length;
    return true;
}

static bool put_input(input_t raw)
{
    return put(raw.bytes, raw.length);
}

static void append(datagram_t *datagram, const unsigned char *bytes, size_t length)
{
    if (length > DATAGRAM_MAX - datagram->length)
        length = DATAGRAM_MAX - datagram->length;
    if (length > 0)
        memcpy(datagram->bytes + datagram->length, bytes, length);
    datagram->length += length;
}

static bool hold(const datagram_t *datagram, bool glues)
{
    if (network.held.length > 0)
        return put(datagram->bytes, datagram->length);
    network.held = *datagram;
    network.glues = glues;
    return !glues && network.count + 4 < WAY_MAX; /* else the next one's fate may be its own */
}

static void release(void)
{
    put(network.held.bytes, network.held.length);
    network.held.length = 0;
}

static bool put_damaged(datagram_t *datagram)
{
    input_t *script = network.script;
    size_t place = input_number(script, 2) % datagram->length;
    input_t bytes = input_take(script, input_number(script, 1));
    if (bytes.length == 0)
        datagram->bytes[place] ^= (unsigned char)(1 + input_number(script, 1) % 255);
    for (size_t i = 0; i < bytes.length; i++)
        datagram->bytes[(place + i) % datagram->length] = bytes.bytes[i];
    put(datagram->bytes, datagram->length);
    return false;
}

/* A step of the script: most leave it as it is. */
static bool pass(datagram_t *datagram)
{
    input_t *script = network.script;
    switch (input_number(script, 1) % 16) {
    case 6:
        return false;
    case 7:
        put(datagram->bytes, datagram->length);
        return put(datagram->bytes, datagram->length);
    case 8:
    case 9:
        return put_damaged(datagram);
    case 10:
        put(datagram->bytes, input_number(script, 2) % datagram->length);
        return false;
    case 11:
        return hold(datagram, false);
    case 12:
        return hold(datagram, true);
    case 13:
        put_input(input_take(script, input_number(script, 2)));
        return put(datagram->bytes, datagram->length);
    case 14:
        put_input(input_take(script, input_number(script, 2)));
        return false;
    case 15: {
        input_t more = input_take(script, input_number(script, 2));
        append(datagram, more.bytes, more.length);
        put(datagram->bytes, datagram->length);
        return false;
    }
    default:
        return put(datagram->bytes, datagram->length);
    }
}

bool network_send(const unsigned char *bytes, size_t length)
{
    static datagram_t datagram;
    bool overtakes = network.held.length > 0;
    REQUIRE(length > 0 && length <= DATAGRAM_MAX);
    datagram.length = 0;
    if (overtakes && network.glues && network.held.length + length <= TOGETHER_MAX) {
        append(&datagram, network.held.bytes, network.held.length);
        network.held.length = 0;
        network.has_glued = true;
        overtakes = false;
    }
    append(&datagram, bytes, length);
    bool whole = pass(&datagram);
    if (overtakes)
        release();
    return whole;
}

bool network_has_glued(void)
{
    return network.has_glued;
}

/* Nothing is on the way. True: now something is. */
static bool send_unasked(void)
{
    if (network.held.length > 0)
        release();
    else if (network.script != NULL && network.script->length > 0 && input_number(network.script, 1) % 4 == 3)
        put_input(input_take(network.script, input_number(network.script, 2)));
    return network.count > 0;
}

/* --- Instead of src/system/wait.c and src/system/random.c --- */

int64_t wait_now_us(void)
{
    return network.now_us;
}

int64_t wait_now_ms(void)
{
    return network.now_us / 1000;
}

wait_limit_t wait_limit_in(int64_t delay_ms)
{
    return (wait_limit_t){.deadline_ms = wait_now_ms() + delay_ms, .cancel_fd = -1};
}

wait_limit_t wait_at_most(wait_limit_t limit, int64_t delay_ms)
{
    int64_t end_ms = wait_now_ms() + delay_ms;
    if (end_ms < limit.deadline_ms)
        limit.deadline_ms = end_ms;
    return limit;
}

wait_outcome_t wait_for(int fd, short events, wait_limit_t limit)
{
    network.now_us += STEP_US;
    if (fd >= 0 && ((events & POLLOUT) != 0 || network.count > 0 || send_unasked()))
        return WAIT_READY;
    if (network.now_us < limit.deadline_ms * 1000)
        network.now_us = limit.deadline_ms * 1000;
    return WAIT_TIMEOUT;
}

/* There is no input but the network's. */
wait_outcome_t wait_for_input(int fd, int other_fd, wait_limit_t limit, bool *first)
{
    (void)fd;
    *first = false;
    return wait_for(other_fd, POLLIN, limit);
}

bool wait_is_cancelled(wait_limit_t limit)
{
    (void)limit;
    return false;
}

int random_bytes(void *context, unsigned char *output, size_t length)
{
    (void)context;
    for (size_t i = 0; i < length; i++) {
        network.random = network.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        output[i] = (unsigned char)(network.random >> 56);
    }
    return 0;
}

/* --- Instead of the C library's --- */

/* The same for the library, which puts it into its random numbers; certificates are valid then. */
time_t time(time_t *now)
{
    if (now != NULL)
        *now = network.time;
    return network.time;
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
    (void)fd;
    (void)flags;
    network.now_us += STEP_US;
    if (network.peer != NULL)
        network.peer->receive(bytes, length);
    return (ssize_t)length;
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    (void)fd;
    (void)flags;
    if (network.count == 0) {
        errno = EAGAIN;
        return -1;
    }
    const datagram_t *datagram = &network.way[network.first];
    size_t length = datagram->length < size ? datagram->length : size;
    memcpy(buffer, datagram->bytes, length);
    network.first = (network.first + 1) % WAY_MAX;
    network.count--;
    return (ssize_t)length;
}

static bool is_internet(const struct sockaddr *address, socklen_t length)
{
    errno = EAFNOSUPPORT;
    return length <= sizeof(struct sockaddr_storage) && length >= sizeof(struct sockaddr_in) &&
           (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

/* Real ones, for their addresses are saved and bound again; but at any port, since others may have that one
 * by now, and never one of another kind, which would be a file. */
int bind_internet(int fd, const struct sockaddr *address, socklen_t length) __asm__("bind");
int connect_internet(int fd, const struct sockaddr *address, socklen_t length) __asm__("connect");

int bind_internet(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_storage any_port = {0};
    if (!is_internet(address, length))
        return -1;
    memcpy(&any_port, address, length);
    ((struct sockaddr_in *)&any_port)->sin_port = 0; /* in the same place for both families */
    network.bound = true;
    return (int)syscall(SYS_bind, fd, &any_port, length);
}

int connect_internet(int fd, const struct sockaddr *address, socklen_t length)
{
    bool bound = network.bound;
    network.bound = false;
    if (!is_internet(address, length) || syscall(SYS_connect, fd, address, length) != 0)
        return -1;
    if (network.peer != NULL && !bound)
        network.peer->begin();
    return 0;
}
