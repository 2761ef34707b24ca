/* test_reader.c: a reader waits for nobody and needs few copies.
 *
 * Beside a writer that is stopped or killed at any instruction a read takes exactly one
 * copy of a record; beside one that rewrites the record in a loop, about one. Copies are
 * counted in index.c itself, built here with a reading function that counts.
 */
#include "test.h"

#include <sys/ptrace.h>

#include "clock.h"
#include "record.h"

static unsigned copies_taken;

static enum shk__reading counted_read(const shk_store *store, uint64_t entry, const uint64_t *at,
                                      uint64_t *words, bool all)
{
    copies_taken++;
    return shk__slot_copy(store, entry, at, words, all);
}
#define shk__slot_copy counted_read
#include "index.c"
#undef shk__slot_copy

#define KEY_SIZE 64u
#define SECONDS 2u
#define KILLS_MAX 20u       /* for each kind of mutation */
#define STEPS_EACH 40000u   /* about so many for the kills: sanitizers make long ways */

static shk_store *store;        /* writable */
static const shk_store *reader; /* read-only */

static const struct shk_bytes client = {"client", 6}, server = {"server", 6};

static void open_both(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {4, 0, KEY_SIZE, 0600, SHK_MEMORY_LOCK_TRY};
    struct shk_access access = {.open_timeout = SHK_SECOND, .lock_timeout = 10 * SHK_SECOND};
    struct shk_info info;
    shk_store *opened;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access, &store), 0);
    shk_store_info(store, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    access.readonly = true;
    CHECK_CODE(shk_store_from_id(info.id, &access, &opened), 0);
    reader = opened;
}

/* All bytes of a key are the same. */
static int put(unsigned char byte)
{
    unsigned char key[KEY_SIZE];
    memset(key, byte, sizeof key);
    struct shk_put what = {.key = {key, sizeof key}, .key_id = SHK_KEY_ID_NEXT};
    return shk_store_put(store, client, server, &what, NULL);
}

/* What the pair is: ABSENT, or its status above the byte that its whole key consists of. */
static int look(void)
{
    struct shk__query query;
    uint64_t words[64];
    CHECK(reader->geometry.record_size <= sizeof words);
    CHECK_CODE(shk__query_make(reader, client, server, &query), 0);
    copies_taken = 0;
    int rc = shk__index_read(reader, &query, words);
    if (rc < 0)
        return rc;
    struct shk_record record;
    shk__image_describe(reader, words, &record);
    const unsigned char *key = shk__image_key(reader, words);
    CHECK_EQUAL(record.key_length, KEY_SIZE);
    for (unsigned i = 1; i < KEY_SIZE; i++)
        if (key[i] != key[0])
            FAIL("a torn key: byte %u is %#x, the first %#x", i, key[i], key[0]);
    return record.status << 8 | key[0];
}

static void check_sound(void)
{
    struct shk_report report;
    CHECK_CODE(shk_store_verify(store, &report), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        CHECK_EQUAL(report.faults[i], 0);
}

/* -------------------------------------------------- a stopped or dead writer -- */

static int put_a(void)
{
    return put('a');
}
static int put_b(void)
{
    return put('b');
}
static int rotate_to_b(void)
{
    unsigned char key[KEY_SIZE], out[KEY_SIZE];
    struct shk_record about;
    memset(key, 'b', sizeof key);
    return shk_store_rotate(store, client, server, &(struct shk_rotation){.new_key = {key, sizeof key}}, &about, out,
                            sizeof out);
}
static int revoke_a(void)
{
    return shk_store_revoke(store, client, server);
}
static int drop(void)
{
    return shk_store_delete(store, client, server);
}

static const struct mutation {
    const char *name;
    int (*prepare)(void);
    int before;
    int (*run)(void);
    int after;
} mutations[] = {
    {"insert", drop, SHK_E_ABSENT, put_b, 'b'},
    {"overwrite", put_a, 'a', put_b, 'b'},
    {"rotate", put_a, 'a', rotate_to_b, 'b'},
    {"revoke", put_a, 'a', revoke_a, SHK_REVOKED << 8 | 'a'},
    {"delete", put_a, 'a', drop, SHK_E_ABSENT},
};
#define MUTATIONS (sizeof mutations / sizeof *mutations)

/* A traced child that stands right before its mutation. */
static pid_t start_writer(const struct mutation *mutation, uint32_t *done)
{
    CHECK_CODE(put('a'), 0);
    CHECK_CODE(mutation->prepare(), 0);
    *done = 0;
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk_report report;
        CHECK_CODE(shk_store_verify(store, &report), 0); /* which claims its token */
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        CHECK(raise(SIGSTOP) == 0);
        CHECK_CODE(mutation->run(), 0);
        test_step(done);
        for (;;)
            pause();
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    return pid;
}

static void step(pid_t pid)
{
    int status;
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
}

/* One answer, with one copy: the state before, or, once `*committed`, the one after. */
static void check_answer(const struct mutation *mutation, bool *committed)
{
    int seen = look();
    if (seen == mutation->after)
        *committed = true;
    if (seen != (*committed ? mutation->after : mutation->before))
        FAIL("%s: the pair is %d, %s %d", mutation->name, seen,
             *committed ? "and was" : "neither the new state nor", mutation->before);
    CHECK_EQUAL(copies_taken, seen == SHK_E_ABSENT ? 0 : 1);
}

static void one_copy_beside_a_writer_stopped_at_any_instruction(void)
{
    uint32_t *done = test_shared(sizeof *done);
    open_both();
    for (size_t m = 0; m < MUTATIONS; m++) {
        bool committed = false;
        unsigned steps = 0, before = 0;
        pid_t pid = start_writer(&mutations[m], done);
        for (; shk__load(done) == 0; steps++) {
            step(pid);
            check_answer(&mutations[m], &committed);
            before += !committed;
        }
        CHECK(committed && before > 0);
        test_kill(pid);
        check_sound();
        printf("%s: stopped at each of %u instructions, %u of them before the commit\n",
               mutations[m].name, steps, before);
    }
}

static void one_copy_beside_a_killed_writer(void)
{
    uint32_t *done = test_shared(sizeof *done);
    unsigned killed = 0, happened = 0, recovered = 0;
    srand(1);
    open_both();
    for (size_t m = 0; m < MUTATIONS; m++) {
        unsigned steps = 0, before = 0; /* as many as lead up to the commit */
        bool committed = false;
        pid_t pid = start_writer(&mutations[m], done);
        for (; shk__load(done) == 0; steps++) {
            step(pid);
            check_answer(&mutations[m], &committed);
            before += !committed;
        }
        test_kill(pid);
        unsigned kills = 2 * STEPS_EACH / steps < KILLS_MAX ? 2 * STEPS_EACH / steps : KILLS_MAX;
        kills = kills < 2 ? 2 : kills;
        killed += kills;
        for (unsigned i = 0; i < kills; i++) {
            /* Right before the commit, right after it, then as often before as after. */
            unsigned left = i < 2   ? before + i
                            : i % 2 ? before + (unsigned)rand() % (steps - before)
                                    : (unsigned)rand() % before;
            pid = start_writer(&mutations[m], done);
            for (; left > 0 && shk__load(done) == 0; left--)
                step(pid);
            test_kill(pid);
            committed = false;
            check_answer(&mutations[m], &committed);
            bool as_before = !committed;
            struct shk_stats old, new;
            CHECK_CODE(shk_store_stats(store, &old), 0);
            check_sound(); /* which recovers */
            CHECK_CODE(shk_store_stats(store, &new), 0);
            check_answer(&mutations[m], &committed);
            CHECK(as_before == !committed);
            happened += committed;
            recovered += new.recoveries > old.recoveries;
        }
    }
    printf("%u writers killed: %u mutations happened, %u had to be recovered\n", killed, happened,
           recovered);
    CHECK(happened > 0 && recovered > 0);
}

/* ----------------------------------------------------------- a looping writer -- */

static void reader_gets_on_beside_a_looping_writer(void)
{
    static const unsigned bounds[] = {1, 2, 3, 4, 8, 16, 64, UINT32_MAX};
    uint64_t counts[sizeof bounds / sizeof *bounds] = {0}, reads = 0, sum = 0;
    unsigned worst = 0, changes = 0;
    int last = 'a';
    open_both();
    CHECK_CODE(put('a'), 0);
    pid_t pid = test_fork();
    if (pid == 0)
        for (unsigned i = 1;; i++)
            CHECK_CODE(put((unsigned char)('a' + i % 26)), 0);

    uint64_t end = shk__monotonic() + SECONDS * SHK_SECOND;
    /* On a machine that never ran both at once there was nothing to see: go on. */
    while (shk__monotonic() < end || changes < 1000) {
        int seen = look();
        CHECK(seen >= 'a' && seen <= 'z');
        changes += seen != last;
        last = seen;
        reads++;
        sum += copies_taken;
        worst = copies_taken > worst ? copies_taken : worst;
        for (unsigned i = 0;; i++)
            if (copies_taken <= bounds[i]) {
                counts[i]++;
                break;
            }
    }
    test_kill(pid);
    check_sound();
    struct shk_stats stats;
    CHECK_CODE(shk_store_stats(store, &stats), 0);
    printf("%llu reads beside %llu writes of one record, mean %.4f copies, worst %u\n",
           (unsigned long long)reads, (unsigned long long)stats.revision,
           (double)sum / (double)reads, worst);
    for (unsigned i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (counts[i])
            printf("  up to %u: %llu (%.4f %%)\n", bounds[i], (unsigned long long)counts[i],
                   100.0 * (double)counts[i] / (double)reads);
    CHECK(sum <= 2 * reads);
}

static const struct test tests[] = {
    TEST(one_copy_beside_a_writer_stopped_at_any_instruction),
    TEST(one_copy_beside_a_killed_writer),
    TEST(reader_gets_on_beside_a_looping_writer),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
