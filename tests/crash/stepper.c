/* stepper.c: a kill at every instruction that changed the segment.
 *
 * A child performs one operation under PTRACE_SINGLESTEP. After each instruction its
 * segment is compared with what it was before; each new image is what a SIGKILL there
 * would leave. The image is put into a second segment, the laboratory, where
 *   - a read-only handle must see the old or the new state of the pair, and once new
 *     never old again; verify() through it must be clean, journal and all;
 *   - a writable handle must recover: verify() clean, the state as the reader saw it,
 *     the key of the other state nowhere in the segment, and the next write works.
 *
 * The recovery is stepped too: from each of the images of one operation (thinned out by
 * --every), each image of its recovery goes through the same laboratory.
 *
 *   stepper [--every N]     prints the points; exit 1 at the first that is wrong
 */
#include "test.h"

#include <sys/ptrace.h>

#include "store.h"

#define PAIRS 12
#define OLD_KEY "OLD-key-of-the-pair-being-changed"
#define NEW_KEY "new-KEY-of-the-pair-being-changed"
#define OTHER_KEY "key-of-a-bystander"

static struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

static int put(shk_store *store, const char *client, const char *key)
{
    struct shk_put what = {.key = text(key), .key_id = SHK_KEY_ID_NEXT};
    return shk_store_put(store, text(client), text("s"), &what, NULL);
}

static int insert(shk_store *store)
{
    return put(store, "absent", NEW_KEY);
}

static int overwrite(shk_store *store)
{
    return put(store, "target", NEW_KEY);
}

static int rotate(shk_store *store)
{
    struct shk_record about;
    char key[128];
    return shk_store_rotate(store, text("target"), text("s"),
                            &(struct shk_rotation){.new_key = text(NEW_KEY)}, &about, key, sizeof key);
}

static int revoke_pair(shk_store *store)
{
    return shk_store_revoke(store, text("target"), text("s"));
}

static int delete_pair(shk_store *store)
{
    return shk_store_delete(store, text("target"), text("s"));
}

static int recover(shk_store *store)
{
    int rc = shk__store_begin(store);
    if (rc == 0)
        shk__store_end(store);
    return rc;
}

/* What a reader finds: the key, "revoked", or "" where the pair is absent. */
static const struct operation {
    const char *name, *client, *before, *after;
    int (*run)(shk_store *);
} operations[] = {
    {"insert", "absent", "", NEW_KEY, insert},
    {"overwrite", "target", OLD_KEY, NEW_KEY, overwrite},
    {"rotate", "target", OLD_KEY, NEW_KEY, rotate},
    {"revoke", "target", OLD_KEY, "revoked", revoke_pair},
    {"delete", "target", OLD_KEY, "", delete_pair},
};

static int segment, laboratory; /* ids */
static unsigned char *lab;      /* the laboratory's mapping */
static size_t size;
static const struct shk_access access_rw = {.lock_timeout = 5000000000};
static const struct shk_access access_ro = {.readonly = true};

static void read_state(const shk_store *store, const char *client, char state[129])
{
    size_t length = 0;
    int rc = shk_store_get_key(store, text(client), text("s"), state, 128, &length);
    if (rc == SHK_E_REVOKED)
        strcpy(state, "revoked");
    else if (rc == SHK_E_ABSENT)
        *state = 0;
    else {
        CHECK_CODE(rc, 0);
        state[length] = 0;
    }
}

static void check_sound(shk_store *store, const char *where)
{
    struct shk_report report;
    CHECK_CODE(shk_store_verify(store, &report), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        if (report.faults[i])
            FAIL("%s: %s: %llu faults, the first at %llu", where, shk_check_name((enum shk_check)i),
                 (unsigned long long)report.faults[i], (unsigned long long)report.first[i]);
}

static void check_bystanders(const shk_store *store)
{
    char client[12], state[129];
    for (unsigned i = 0; i < PAIRS; i++) {
        (void)snprintf(client, sizeof client, "c%u", i);
        read_state(store, client, state);
        CHECK(strcmp(state, OTHER_KEY) == 0);
    }
}

/* One image through the laboratory. *is_new: what the images before it have shown. */
static void examine(const struct operation *op, const unsigned char *image, bool *is_new)
{
    char state[129], again[129];
    shk_store *store;
    memcpy(lab, image, size);
    ((struct shk_lock_shm *)(lab + 1024))->word = 0; /* its owner's death was noticed */

    CHECK_CODE(shk_store_from_id(laboratory, &access_ro, &store), 0);
    read_state(store, op->client, state);
    bool now_new = strcmp(state, op->after) == 0;
    if (!now_new && strcmp(state, op->before) != 0)
        FAIL("%s: a reader sees '%s'", op->name, state);
    if (*is_new && !now_new)
        FAIL("%s: a reader sees the old state again", op->name);
    *is_new = now_new;
    check_bystanders(store);
    check_sound(store, "before recovery");
    shk_store_close(store);

    CHECK_CODE(shk_store_from_id(laboratory, &access_rw, &store), 0);
    check_sound(store, "after recovery");
    read_state(store, op->client, again);
    if (strcmp(state, again) != 0)
        FAIL("%s: recovery turned '%s' into '%s'", op->name, state, again);
    check_bystanders(store);
    const char *gone = now_new ? op->before : op->after;
    if (strcmp(gone, OLD_KEY) == 0 && op->run == revoke_pair)
        gone = ""; /* a revoked pair keeps its key */
    if (*gone && strcmp(gone, "revoked") != 0 && memmem(lab, size, gone, strlen(gone)))
        FAIL("%s: the key of the %s state is still there", op->name, now_new ? "old" : "new");
    CHECK_CODE(put(store, "next", "next"), 0);
    CHECK_CODE(shk_store_delete(store, text("next"), text("s")), 0);
    check_sound(store, "after the next writes");
    shk_store_close(store);
}

/* ------------------------------------------------------------------ stepping -- */

struct images {
    unsigned char *bytes;
    size_t count, room;
};

static void keep(struct images *images, const unsigned char *image)
{
    if (images->count == images->room) {
        images->room = images->room ? 2 * images->room : 256;
        images->bytes = realloc(images->bytes, images->room * size);
        CHECK(images->bytes);
    }
    memcpy(images->bytes + images->count++ * size, image, size);
}

static void wait_for_stop(pid_t pid, int *signal_number)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFSTOPPED(status))
        FAIL("the stepped child ended with wait status %#x", (unsigned)status);
    *signal_number = WSTOPSIG(status);
}

/* Runs op on what `start` holds; every image that it makes, in order. */
static size_t step(int (*run)(shk_store *), const unsigned char *start, struct images *out)
{
    unsigned char *shared = shmat(segment, NULL, 0);
    unsigned char *last = malloc(size);
    size_t steps = 0;
    int signal_number;
    CHECK(shared != (void *)-1 && last);
    memcpy(shared, start, size);
    ((struct shk_lock_shm *)(shared + 1024))->word = 0;
    pid_t pid = test_fork();
    if (pid == 0) {
        /* The token, without the recovery that a write would begin with. */
        struct shk_journal_shm *journal = (struct shk_journal_shm *)(shared + 1088);
        uint64_t kind = journal->kind;
        shk_store *store;
        CHECK_CODE(shk_store_from_id(segment, &access_rw, &store), 0);
        journal->kind = 0;
        CHECK_CODE(shk__store_begin(store), 0);
        shk__store_end(store);
        journal->kind = kind;
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        CHECK(raise(SIGSTOP) == 0);
        int rc = run(store);
        (void)raise(SIGSTOP);
        _exit(rc < 0);
    }
    wait_for_stop(pid, &signal_number);
    memcpy(last, shared, size);
    do {
        CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
        wait_for_stop(pid, &signal_number);
        steps++;
        if (memcmp(last, shared, size) != 0) {
            memcpy(last, shared, size);
            keep(out, last);
        }
    } while (signal_number == SIGTRAP);
    CHECK_EQUAL(signal_number, SIGSTOP);
    CHECK(ptrace(PTRACE_CONT, pid, NULL, NULL) == 0);
    test_join(pid);
    CHECK(shmdt(shared) == 0);
    free(last);
    return steps;
}

static size_t every = 8;

static void every_instruction(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {.capacity = 21, .mode = 0600};
    struct shk_info info;
    shk_store *store;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access_rw, &store), 0);
    shk_store_info(store, &info);
    segment = test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    size = store->geometry.total_size;
    laboratory = test_keep_segment(shmget(IPC_PRIVATE, size, 0600));
    lab = shmat(laboratory, NULL, 0);
    CHECK(lab != (void *)-1);
    for (unsigned i = 0; i < PAIRS; i++) {
        char client[12];
        (void)snprintf(client, sizeof client, "c%u", i);
        CHECK_CODE(put(store, client, OTHER_KEY), 0);
        CHECK_CODE(put(store, client, OTHER_KEY), 0);
    }
    CHECK_CODE(put(store, "target", OLD_KEY), 0);
    unsigned char *base = malloc(size);
    CHECK(base);
    memcpy(base, store->base, size);
    shk_store_close(store);

    size_t points = 0, crossed = 0;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        const struct operation *op = &operations[i];
        struct images images = {0};
        bool is_new = false;
        size_t steps = step(op->run, base, &images);
        for (size_t at = 0; at < images.count; at++)
            examine(op, images.bytes + at * size, &is_new);
        CHECK(is_new);
        printf("%-10s %6zu instructions, %4zu images\n", op->name, steps, images.count);
        points += images.count;
        for (size_t at = 0; at < images.count; at += every) {
            struct images recovery = {0};
            (void)step(recover, images.bytes + at * size, &recovery);
            is_new = false;
            for (size_t r = 0; r < recovery.count; r++)
                examine(op, recovery.bytes + r * size, &is_new);
            crossed += recovery.count;
            free(recovery.bytes);
        }
        free(images.bytes);
    }
    printf("%zu points of operations, all of them; %zu of recoveries (from every %zu. image)\n",
           points, crossed, every);
    (void)fflush(stdout);
    CHECK(points >= 150 && crossed >= 150);
    free(base);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(every_instruction)};
    if (argc == 3 && strcmp(argv[1], "--every") == 0)
        every = (size_t)strtoul(argv[2], NULL, 10);
    return TEST_MAIN(1, argv, tests);
}
