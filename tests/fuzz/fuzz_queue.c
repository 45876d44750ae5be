/* The queue's directory. An input says what lies there before the run comes, and what the run does. Whatever
 * it is: each payload that lay there as the queue itself would have put it, and each that was accepted, is
 * given out whole, in order, and once; and nothing outside of the directory is touched. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../unit/scratch.h"
#include "fuzz.h"
#include "store/queue.h"

enum { PAYLOADS_MAX = 64, ENTRIES_MAX = 24, STEPS_MAX = 48, WAIT_MS = 60000, PRIVATE = S_IRUSR | S_IWUSR };

/* A payload that must come out. What it holds is told by its seed. */
typedef struct {
    uint64_t number; /* its place; the queue's own name where it lay there before */
    size_t length;
    unsigned char seed;
} payload_t;

static struct {
    payload_t payloads[PAYLOADS_MAX]; /* in order */
    size_t count;
    size_t entries; /* in the directory and in the one for those that failed, but for the queue's own */
} expected;

static const char outside_text[] = "nobody's business";

/* --- The directory --- */

static void clean_up(void)
{
    scratch_remove(NULL);
}

static const char *in_queue(const char *name)
{
    static char path[600];
    REQUIRE((size_t)snprintf(path, sizeof path, "%s/queue/%s", scratch_directory, name) < sizeof path);
    return path;
}

static void remove_tree(const char *path)
{
    struct stat status;
    if (lstat(path, &status) == 0)
        REQUIRE(nftw(path, scratch_unlink, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

static void prepare(void)
{
    if (scratch_directory[0] != '\0')
        return;
    umask(077);
    REQUIRE(scratch_make(NULL) == 0 && atexit(clean_up) == 0);
    scratch_write("outside", outside_text, sizeof outside_text);
    REQUIRE(mkdir(scratch_path("elsewhere"), S_IRWXU) == 0);
}

/* Without the queue's own, and where it is no directory 0. */
static size_t entries_of(const char *path)
{
    size_t count = 0;
    const struct dirent *entry;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strcmp(entry->d_name, ".new") != 0 && strcmp(entry->d_name, ".last") != 0 &&
                 strcmp(entry->d_name, "failed") != 0;
    if (directory != NULL)
        closedir(directory);
    return count;
}

static size_t entries_of_queue(void)
{
    return entries_of(scratch_path("queue")) + entries_of(in_queue("failed"));
}

static void require_outside_untouched(void)
{
    char text[sizeof outside_text + 1];
    struct stat status;
    int fd = open(scratch_path("outside"), O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && read(fd, text, sizeof text) == (ssize_t)sizeof outside_text);
    REQUIRE(memcmp(text, outside_text, sizeof outside_text) == 0);
    REQUIRE(fstat(fd, &status) == 0 && (status.st_mode & 07777) == PRIVATE);
    close(fd);
    REQUIRE(entries_of(scratch_path("elsewhere")) == 0);
    REQUIRE(entries_of(scratch_directory) <= 3); /* these two and the queue */
}

static const unsigned char *bytes_of(unsigned char seed)
{
    static unsigned char bytes[UINT16_MAX];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(seed + i / 7);
    return bytes;
}

/* --- What lies there before --- */

/* In its place; where the number is taken already, the file was not made. */
static void expect(uint64_t number, size_t length, unsigned char seed)
{
    size_t place = expected.count++;
    REQUIRE(place < PAYLOADS_MAX);
    for (; place > 0 && expected.payloads[place - 1].number > number; place--)
        expected.payloads[place] = expected.payloads[place - 1];
    expected.payloads[place] = (payload_t){number, length, seed};
}

static void make_payload(const char *name, uint64_t number, input_t *script)
{
    static const mode_t modes[] = {PRIVATE, PRIVATE, PRIVATE, 0644, 0400, 0, 04600, 0700};
    unsigned char seed = (unsigned char)input_number(script, 1);
    mode_t mode = modes[seed % 8];
    size_t length = input_number(script, 2);
    int fd = open(in_queue(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, PRIVATE);
    if (fd < 0)
        return;
    REQUIRE(write(fd, bytes_of(seed), length) == (ssize_t)length && fchmod(fd, mode) == 0);
    close(fd);
    if (number != 0 && mode == PRIVATE && length <= PAYLOAD_MAX)
        expect(number, length, seed);
}

/* Some are near the ends of what there can be. */
static uint64_t number_for(input_t *script)
{
    uint64_t number = input_number(script, 2);
    return number >= 0xff00 ? UINT64_C(9999999999999999) - (0xffff - number) : number;
}

/* A name of the queue's own, or of the fuzzer's. */
static uint64_t name_for(input_t *script, char name[static NAME_MAX + 1])
{
    static const char *const special[] = {".new", ".last", "failed", "failed/0000000000000001"};
    unsigned kind = input_number(script, 1) % 8;
    uint64_t number = kind < 3 ? number_for(script) : 0;
    if (kind < 3) {
        snprintf(name, NAME_MAX + 1, "%016llu", (unsigned long long)number);
    } else if (kind < 7) {
        snprintf(name, NAME_MAX + 1, "%s", special[kind - 3]);
    } else {
        input_t bytes = input_take(script, 1 + input_number(script, 1));
        snprintf(name, NAME_MAX + 1, "x");
        for (size_t i = 0; i < bytes.length && i < NAME_MAX; i++) {
            name[i] = (char)bytes.bytes[i];
            if (bytes.bytes[i] <= ' ' || bytes.bytes[i] == '/')
                name[i] = '_';
            name[i + 1] = '\0';
        }
    }
    return number;
}

static void make_entry(input_t *script)
{
    char name[NAME_MAX + 1];
    struct stat status;
    uint64_t number = name_for(script, name);
    if (strchr(name, '/') != NULL && (lstat(in_queue("failed"), &status) != 0 || !S_ISDIR(status.st_mode)))
        return; /* we too must not be led elsewhere */
    switch (input_number(script, 1) % 8) {
    case 0:
        (void)!mkdir(in_queue(name), S_IRWXU);
        return;
    case 1:
        (void)!symlink("../outside", in_queue(name));
        return;
    case 2:
        (void)!symlink("../elsewhere", in_queue(name));
        return;
    case 3:
        (void)!mkfifo(in_queue(name), PRIVATE);
        return;
    case 4: /* a second name; of the counter it would be no foreign file, but the counter */
        if (strcmp(name, ".last") != 0)
            (void)!link(scratch_path("outside"), in_queue(name));
        return;
    default:
        make_payload(name, number, script);
    }
}

static void furnish(input_t *script)
{
    unsigned how = input_number(script, 1), entries = input_number(script, 1) % ENTRIES_MAX;
    expected.count = 0;
    remove_tree(scratch_path("queue"));
    if (how % 16 == 15)
        scratch_write("queue", "", 0);
    else if (how % 16 == 14)
        REQUIRE(symlink("elsewhere", scratch_path("queue")) == 0);
    if (how % 16 >= 13) /* 13: it is not there yet */
        return;
    REQUIRE(mkdir(scratch_path("queue"), S_IRWXU) == 0);
    for (unsigned i = 0; i < entries; i++)
        make_entry(script);
    if (how % 16 == 12)
        REQUIRE(chmod(scratch_path("queue"), 0777) == 0);
}

/* --- The run --- */

static void require_reason(const queue_t *queue)
{
    require_message(queue->error, sizeof queue->error);
}

/* True: it is expected to come out. */
static bool add(queue_t *queue, input_t *script)
{
    unsigned char seed = (unsigned char)input_number(script, 1);
    size_t length = input_number(script, 2) % (PAYLOAD_MAX + 1);
    if (expected.count == PAYLOADS_MAX)
        return false;
    if (queue_add(queue, bytes_of(seed), length, wait_limit_in(WAIT_MS)) != QUEUE_OK) {
        require_reason(queue);
        return false;
    }
    expect(UINT64_MAX, length, seed); /* behind all others, whatever its number */
    expected.entries++;
    return true;
}

static void require_first(const unsigned char *payload, size_t length)
{
    REQUIRE(expected.count > 0);
    REQUIRE(expected.payloads[0].length == length);
    REQUIRE(memcmp(payload, bytes_of(expected.payloads[0].seed), length) == 0);
}

static void forget_first(void)
{
    memmove(&expected.payloads[0], &expected.payloads[1], --expected.count * sizeof expected.payloads[0]);
}

/* Delivers what waits, but for what was added since the turn began, or at most so many. */
static void send_some(queue_t *queue, size_t since, size_t most)
{
    unsigned char *payload = malloc(PAYLOAD_MAX);
    queue_outcome_t outcome = QUEUE_OK;
    REQUIRE(payload != NULL);
    for (size_t steps = 0; most > 0 && outcome != QUEUE_END; steps++) {
        size_t length = 0;
        outcome = queue_next(queue, payload, &length);
        REQUIRE(outcome == QUEUE_OK || outcome == QUEUE_END || outcome == QUEUE_UNSENDABLE);
        REQUIRE(steps < PAYLOADS_MAX + ENTRIES_MAX + 2);
        if (outcome == QUEUE_UNSENDABLE)
            require_reason(queue);
        if (outcome != QUEUE_OK)
            continue;
        require_first(payload, length);
        REQUIRE(queue_remove(queue));
        forget_first();
        expected.entries--;
        most--;
    }
    if (outcome == QUEUE_END)
        REQUIRE(expected.count == since);
    free(payload);
}

/* One process's use of the queue. */
static void run(input_t *script)
{
    queue_t *queue = malloc(sizeof *queue);
    REQUIRE(queue != NULL);
    queue_init(queue);
    unsigned additions = input_number(script, 1) % 4, most = input_number(script, 1) % STEPS_MAX;
    if (!queue_open(queue, scratch_path(additions == 3 ? "queue/" : "queue"), 1 + input_number(script, 1))) {
        require_reason(queue);
    } else {
        for (unsigned i = 0; i < additions; i++)
            add(queue, script);
        REQUIRE(queue_take_turn(queue, wait_limit_in(WAIT_MS)) == QUEUE_OK);
        size_t since = 0;
        for (unsigned i = 0; i < most % 3; i++)
            since += add(queue, script);
        send_some(queue, since, most);
    }
    queue_close(queue);
    queue_close(queue);
    free(queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t script = {data, size};
    prepare();
    furnish(&script);
    expected.entries = entries_of_queue();
    do {
        run(&script);
        REQUIRE(entries_of_queue() == expected.entries);
    } while (script.length > 0);
    require_outside_untouched();
    return 0;
}
