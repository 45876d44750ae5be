/* The queue's directory. An input says what lies there before the run comes, and what the run does. Whatever
 * it is: each payload that lay there as the queue itself would have put it, and each that was accepted, is
 * given out whole, in order, and once a run, until it was removed or has failed ten times, with what its name
 * remembers; and nothing outside of the directory is touched. */
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
    entry_t entry; /* its place: the queue's own name where it lay there before */
    size_t length;
    unsigned char seed;
    bool outside; /* it is another name of the file outside */
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
static void expect(payload_t payload)
{
    size_t place = expected.count++;
    REQUIRE(place < PAYLOADS_MAX);
    for (; place > 0 && expected.payloads[place - 1].entry.number > payload.entry.number; place--)
        expected.payloads[place] = expected.payloads[place - 1];
    expected.payloads[place] = payload;
}

static void make_payload(const char *name, const entry_t *entry, input_t *script)
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
    if (entry->number != 0 && mode == PRIVATE && length <= ENTRY_PAYLOAD_MAX)
        expect((payload_t){*entry, length, seed, false});
}

/* A second name is one more payload, as a backup's does not make it less of one. Of the counter it would be
 * no foreign file, but the counter. */
static void make_second_name(const char *name, const entry_t *entry)
{
    if (strcmp(name, ".last") != 0 && link(scratch_path("outside"), in_queue(name)) == 0 &&
        entry->number != 0)
        expect((payload_t){*entry, sizeof outside_text, 0, true});
}

/* Some are near the ends of what there can be. */
static uint64_t number_for(input_t *script)
{
    uint64_t number = input_number(script, 2);
    return number >= 0xff00 ? UINT64_C(9999999999999999) - (0xffff - number) : number;
}

/* Of two entries with one number, which a power cut may leave, either may come first; so there is one here.
 */
static bool is_taken(uint64_t number)
{
    char name[ENTRY_NAME_SIZE];
    struct stat status;
    for (int kind = 0; kind < 2 * (ENTRY_TRIES_MAX + 2); kind++) {
        entry_format(&(entry_t){number, kind % 2 != 0, kind / 2 - 1}, name);
        if (lstat(in_queue(name), &status) == 0)
            return true;
    }
    return false;
}

/* A name of the queue's own, or of the fuzzer's. The number is 0 where it is none of a payload. */
static entry_t name_for(input_t *script, char name[static NAME_MAX + 1])
{
    static const char *const special[] = {".new", ".last", "failed", "failed/0000000000000001"};
    unsigned kind = input_number(script, 1) % 8;
    entry_t entry = {.tries = ENTRY_UNMARKED};
    if (kind < 3) {
        unsigned tries = input_number(script, 1);
        entry.number = number_for(script);
        entry.confirm = tries >= 128;
        entry.tries = (int)(tries % 128 % (ENTRY_TRIES_MAX + 2)) - 1;
        if (is_taken(entry.number))
            entry = (entry_t){.tries = ENTRY_UNMARKED};
        entry_format(&entry, name);
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
    /* Else it would not matter what is expected of it. */
    entry_t parsed;
    REQUIRE(entry_parse(name, &parsed) == (entry.number != 0) || kind == 7);
    if (kind == 7 && entry_parse(name, &parsed) && !is_taken(parsed.number))
        entry = parsed;
    else if (kind == 7 && entry_parse(name, &parsed))
        snprintf(name, NAME_MAX + 1, "x");
    return entry;
}

static void make_entry(input_t *script)
{
    char name[NAME_MAX + 1];
    struct stat status;
    entry_t entry = name_for(script, name);
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
    case 4:
        make_second_name(name, &entry);
        return;
    default:
        make_payload(name, &entry, script);
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
    size_t length = input_number(script, 2) % (ENTRY_PAYLOAD_MAX + 1);
    if (expected.count == PAYLOADS_MAX)
        return false;
    bool confirm = seed % 2 != 0;
    if (queue_add(queue, bytes_of(seed), length, confirm, wait_limit_in(WAIT_MS)) != QUEUE_OK) {
        require_reason(queue);
        return false;
    }
    /* Behind all others, whatever its number. */
    expect((payload_t){{UINT64_MAX, confirm, ENTRY_UNMARKED}, length, seed, false});
    expected.entries++;
    return true;
}

/* It is the one that must come now. */
static void require_payload(const payload_t *wanted, const unsigned char *payload, size_t length,
                            const entry_t *entry)
{
    const void *bytes = wanted->outside ? (const void *)outside_text : bytes_of(wanted->seed);
    REQUIRE(wanted->length == length && memcmp(payload, bytes, length) == 0);
    REQUIRE(wanted->entry.number == UINT64_MAX || wanted->entry.number == entry->number);
    REQUIRE(wanted->entry.confirm == entry->confirm && wanted->entry.tries == entry->tries);
}

static void forget(size_t place)
{
    memmove(&expected.payloads[place], &expected.payloads[place + 1],
            (--expected.count - place) * sizeof expected.payloads[0]);
}

static bool still_waits(const entry_t *entry)
{
    char name[ENTRY_NAME_SIZE];
    struct stat status;
    entry_format(entry, name);
    return lstat(in_queue(name), &status) == 0;
}

/* What becomes of a payload that was given out. True: it stays, in its place. */
static bool decide(queue_t *queue, size_t place, entry_t *entry, unsigned verdict)
{
    if (verdict == 0) {
        REQUIRE(queue_doubt(queue, entry));
    } else if (verdict == 1) {
        queue_outcome_t outcome = queue_count(queue, entry);
        REQUIRE(outcome == (entry->tries >= QUEUE_TRIES_MAX ? QUEUE_UNSENDABLE : QUEUE_OK));
    } else if (verdict == 2) {
        queue_set_aside(queue, entry, "refused");
        require_reason(queue);
    } else {
        REQUIRE(queue_remove(queue, entry));
        expected.entries--;
    }
    expected.payloads[place].entry.tries = entry->tries;
    if (still_waits(entry)) { /* set aside too, where "failed" is no directory */
        REQUIRE(verdict < 3);
        return true;
    }
    forget(place);
    return false;
}

/* Sends what waits, but for what was added since the turn began, or at most so many. */
static void send_some(queue_t *queue, size_t since, size_t most, input_t *script)
{
    unsigned char *payload = malloc(ENTRY_PAYLOAD_MAX);
    queue_outcome_t outcome = QUEUE_OK;
    size_t place = 0;
    REQUIRE(payload != NULL);
    for (size_t steps = 0; most > 0 && outcome != QUEUE_END; steps++) {
        size_t length = 0;
        entry_t entry;
        outcome = queue_next(queue, payload, &length, &entry);
        REQUIRE(outcome == QUEUE_OK || outcome == QUEUE_END || outcome == QUEUE_UNSENDABLE);
        REQUIRE(steps < PAYLOADS_MAX + ENTRIES_MAX + 2);
        if (outcome == QUEUE_UNSENDABLE)
            require_reason(queue);
        if (outcome != QUEUE_OK)
            continue;
        REQUIRE(place < expected.count);
        require_payload(&expected.payloads[place], payload, length, &entry);
        place += decide(queue, place, &entry, input_number(script, 1) % 8);
        most--;
    }
    if (outcome == QUEUE_END)
        REQUIRE(expected.count == place + since);
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
        send_some(queue, since, most, script);
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
