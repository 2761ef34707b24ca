/* test_watch.c: waiting for changes, and the ring that tells what they were.
 *
 * watch.c is built here with naps that may be made endless: a lost wake then hangs the test
 * instead of costing some ms.
 */
#include "test.h"

#include <sys/ptrace.h>
#include <sys/user.h>

#include "clock.h"

static bool endless_naps;

static struct timespec nap_time(uint64_t duration)
{
    return shk__timespec(endless_naps ? 1000 * SHK_SECOND : duration);
}
#define shk__timespec nap_time
#include "watch.c"
#undef shk__timespec

#define EVER UINT64_MAX

static shk_store *store; /* writable */
static shk_store *another, *target; /* static, so that no child leaks them */
static struct shk_info info;

static shk_store *create(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {.capacity = 64, .mode = 0600};
    struct shk_access access = {.open_timeout = SHK_SECOND, .lock_timeout = 30 * SHK_SECOND};
    shk_store *made;
    CHECK_CODE(shk_store_open(SHK_CREATE, &address, &shape, &access, &made), 0);
    shk_store_info(made, &info);
    test_keep_segment(info.id);
    test_keep_set(info.semaphore_id);
    return made;
}

static shk_store *open_reader(void)
{
    struct shk_access access = {.readonly = true};
    CHECK_CODE(shk_store_from_id(info.id, &access, &another), 0);
    return another;
}

static uint64_t revision_of(const shk_store *s)
{
    uint64_t revision;
    CHECK_CODE(shk_store_revision(s, &revision), 0);
    return revision;
}

static uint64_t wait_beyond(const shk_store *s, uint64_t since)
{
    uint64_t revision;
    CHECK_CODE(shk_store_wait(s, since, EVER, NULL, &revision), 0);
    CHECK(revision > since);
    return revision;
}

/* Change number n, if every change comes from here: an odd one inserts the pair of its own
 * number and the next one deletes it. */
static struct shk_pair pair_of(uint64_t n, char *client, char *server)
{
    uint64_t number = (n + 1) / 2;
    int client_size = snprintf(client, 24, "%llu", (unsigned long long)number);
    int server_size = snprintf(server, 24, "s%llu", (unsigned long long)(number * 7919 % 99991));
    return (struct shk_pair){{client, (size_t)client_size}, {server, (size_t)server_size}};
}

static int change(uint64_t n)
{
    char client[24], server[24];
    struct shk_pair pair = pair_of(n, client, server);
    struct shk_put what = {.key = {"secret", 6}, .key_id = SHK_KEY_ID_NEXT};
    return n % 2 ? shk_store_put(store, pair.client, pair.server, &what, NULL)
                 : shk_store_delete(store, pair.client, pair.server);
}

static void check_change(const struct shk_change *seen, uint64_t n)
{
    char client[24], server[24];
    (void)pair_of(n, client, server);
    CHECK_EQUAL(seen->revision, n);
    CHECK_EQUAL(seen->kind, n % 2 ? SHK_CHANGE_INSERT : SHK_CHANGE_DELETE);
    if (strcmp(seen->client, client) != 0 || strcmp(seen->server, server) != 0 ||
        seen->client_size != strlen(client) || seen->server_size != strlen(server))
        FAIL("change %llu is of (%s, %s), not (%s, %s)", (unsigned long long)n, seen->client,
             seen->server, client, server);
}

/* A call that takes the lock, and so recovers, and changes nothing itself. */
static void write_nothing(void)
{
    CHECK_CODE(shk_store_delete(store, (struct shk_bytes){"no", 2}, (struct shk_bytes){"no", 2}),
               SHK_E_ABSENT);
}

/* ---------------------------------------------------------------- many waiters -- */

static void many_waiters_see_each_change(void)
{
    enum { WAITERS = 16, CHANGES = 400 };
    pid_t pids[WAITERS];
    uint32_t *ready = test_shared(sizeof *ready);
    store = create();
    for (int i = 0; i < WAITERS; i++)
        if ((pids[i] = test_fork()) == 0) {
            const shk_store *mine = i % 2 ? open_reader() : store;
            test_step(ready);
            for (uint64_t seen = 0; seen < CHANGES;) {
                struct shk_change changes[CHANGES];
                uint64_t now = wait_beyond(mine, seen);
                int count = shk_store_changes(mine, seen, changes, CHANGES);
                CHECK(count >= (int)(now - seen));
                for (int c = 0; c < count; c++)
                    check_change(&changes[c], ++seen);
            }
            exit(0);
        }
    test_await(ready, WAITERS);
    for (uint64_t n = 1; n <= CHANGES; n++) {
        CHECK_CODE(change(n), 0);
        if (n % 3 == 0)
            test_sleep(n % 4 == 0 ? 7 : 1); /* beyond a tick, and within */
    }
    for (int i = 0; i < WAITERS; i++)
        test_join(pids[i]);
}

/* The writer commits just when the waiter goes to sleep, or has. */
static void no_wake_is_lost(void)
{
    const uint64_t rounds = TEST_TSAN ? 2000 : 60000;
    uint64_t *seen = test_shared(sizeof *seen);
    endless_naps = true;
    store = create();
    pid_t pid = test_fork();
    if (pid == 0)
        for (uint64_t since = 0;;) {
            since = wait_beyond(store, since);
            shk__store(seen, since);
        }
    srand(1);
    for (uint64_t n = 1; n <= rounds; n++) {
        for (int spins = rand() % (n % 64 ? 300 : 30000); spins > 0; spins--)
            shk__pause();
        CHECK_CODE(change(n), 0);
        for (unsigned tries = 0; shk__load(seen) < n; tries++)
            if (tries > 1000)
                sched_yield();
    }
    test_kill(pid);
}

static void waits_end_in_time(void)
{
    uint64_t out = 77;
    store = create();
    CHECK_CODE(shk_store_wait(store, 0, 0, NULL, &out), 0);
    CHECK_EQUAL(out, 0);
    uint64_t begun = shk__monotonic();
    CHECK_CODE(shk_store_wait(store, 0, 30 * SHK_MILLISECOND, NULL, &out), 0);
    CHECK_EQUAL(out, 0);
    CHECK(shk__monotonic() - begun >= 30 * SHK_MILLISECOND);
    out = 77;
    CHECK_CODE(shk_store_wait(store, 1, EVER, NULL, &out), SHK_E_INVALID);
    CHECK_EQUAL(out, 77);
}

/* ------------------------------------------------------------ the ends of a wait -- */

static uint32_t stop;

static void *wait_until_stopped(void *done)
{
    uint64_t out;
    CHECK_CODE(shk_store_wait(store, 0, EVER, &stop, &out), -ECANCELED);
    test_step(done);
    return NULL;
}

static void stopped_by_a_word_and_a_wake(void)
{
    endless_naps = true;
    store = create();
    for (int round = 0; round < 50; round++) {
        uint32_t done = 0;
        stop = 0;
        pthread_t thread = test_thread(wait_until_stopped, &done);
        if (round % 2)
            test_sleep(2);
        shk__store(&stop, 1);
        while (!shk__load(&done))
            shk_store_wake(store);
        test_join_thread(thread);
    }
}

static void the_end_of_a_store_wakes_all(void)
{
    endless_naps = true;
    for (int round = 0; round < 40; round++) {
        pid_t pids[3];
        uint32_t *ready = test_shared(sizeof *ready);
        bool moves = round % 2;
        target = create();
        store = create();
        for (int i = 0; i < 3; i++)
            if ((pids[i] = test_fork()) == 0) {
                const shk_store *mine = i ? open_reader() : store;
                uint64_t out;
                test_step(ready);
                CHECK_CODE(shk_store_wait(mine, 0, EVER, NULL, &out),
                           moves ? SHK_E_MOVED : SHK_E_REMOVED);
                exit(0);
            }
        test_await(ready, 3);
        for (int spins = round * 100; spins > 0; spins--)
            shk__pause();
        if (moves)
            CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
        CHECK_CODE(moves ? 0 : shk_store_destroy(store), 0);
        for (int i = 0; i < 3; i++)
            test_join(pids[i]);
        shk_store_close(store);
        shk_store_close(target);
    }
}

static void removal_by_hand_is_noticed(void)
{
    uint64_t out;
    store = create();
    const shk_store *reader = open_reader();
    CHECK(shmctl(info.id, IPC_RMID, NULL) == 0);
    CHECK_CODE(shk_store_wait(store, 0, EVER, NULL, &out), SHK_E_REMOVED);
    CHECK_CODE(shk_store_wait(reader, 0, EVER, NULL, &out), SHK_E_REMOVED);
}

static void an_id_of_another_namespace_says_nothing(void)
{
    uint64_t out;
    store = create();
    if (unshare(CLONE_NEWIPC) < 0)
        SKIP("only root gets a namespace of its own");
    CHECK_CODE(shk_store_wait(store, 0, 500 * SHK_MILLISECOND, NULL, &out), 0);
    CHECK_EQUAL(out, 0);
}

static void the_low_half_wraps(void)
{
    const uint64_t first = UINT32_MAX - 3; /* odd numbers insert: keep their sense */
    uint32_t *ready = test_shared(sizeof *ready);
    endless_naps = true;
    store = create();
    shk__store(&shk__changes(store)->revision, first);
    pid_t pid = test_fork();
    if (pid == 0) {
        uint64_t seen = first;
        for (test_step(ready); seen < first + 8;) {
            struct shk_change changes[8];
            (void)wait_beyond(store, seen);
            int count = shk_store_changes(store, seen, changes, 8);
            CHECK(count > 0);
            for (int i = 0; i < count; i++)
                check_change(&changes[i], ++seen);
        }
        exit(0);
    }
    test_await(ready, 1);
    for (uint64_t n = first + 1; n <= first + 8; n++) {
        test_sleep(2);
        CHECK_CODE(change(n), 0);
    }
    CHECK(revision_of(store) > UINT32_MAX);
    test_join(pid);
}

/* ---------------------------------------------------------------------- the ring -- */

static void overrun_is_told_and_nothing_is_torn(void)
{
    enum { READERS = 3 };
    struct counts {
        uint64_t right, lost;
    } *counts = test_shared(READERS * sizeof *counts);
    uint32_t *over = test_shared(sizeof *over);
    pid_t pids[READERS];
    store = create();
    for (int i = 0; i < READERS; i++)
        if ((pids[i] = test_fork()) == 0) {
            static struct shk_change changes[SHK_RING];
            const shk_store *mine = i ? open_reader() : store;
            srand((unsigned)i);
            while (!shk__load(over)) {
                /* The oldest that are still there, or just no longer. */
                uint64_t now = revision_of(mine), back = SHK_RING + 8 - (unsigned)rand() % 64;
                uint64_t since = now > back ? now - back : 0;
                int count = shk_store_changes(mine, since, changes, 1 + (unsigned)rand() % 64);
                if (count < 0)
                    CHECK_CODE(count, SHK_E_CHANGES_LOST);
                counts[i].lost += count < 0;
                for (int c = 0; c < count; c++)
                    check_change(&changes[c], since + 1 + (uint64_t)c);
                counts[i].right += count > 0 ? (uint64_t)count : 0;
            }
            exit(0);
        }
    uint64_t n = 0, end = shk__monotonic() + 2 * SHK_SECOND;
    while (shk__monotonic() < end)
        for (int i = 0; i < 100; i++)
            CHECK_CODE(change(++n), 0);
    shk__store(over, 1);
    for (int i = 0; i < READERS; i++) {
        test_join(pids[i]);
        printf("beside %llu changes: %llu read rightly, %llu times lost\n", (unsigned long long)n,
               (unsigned long long)counts[i].right, (unsigned long long)counts[i].lost);
        CHECK(counts[i].right > 0 && counts[i].lost > 0);
    }
}

static void exactly_the_ring_is_kept(void)
{
    static struct shk_change changes[SHK_RING + 1];
    store = create();
    for (uint64_t n = 1; n <= SHK_RING + 1; n++)
        CHECK_CODE(change(n), 0);
    CHECK_CODE(shk_store_changes(store, 0, changes, 1), SHK_E_CHANGES_LOST);
    CHECK_CODE(shk_store_changes(store, 1, changes, SHK_RING + 1), SHK_RING);
    for (uint64_t i = 0; i < SHK_RING; i++)
        check_change(&changes[i], i + 2);
    CHECK_CODE(shk_store_changes(store, SHK_RING + 1, changes, 9), 0);
    CHECK_CODE(shk_store_changes(store, SHK_RING + 2, changes, 9), SHK_E_INVALID);
    shk__ring_at(store, 7)->kind = 99;
    CHECK_CODE(shk_store_changes(store, 7, changes, 1), SHK_E_CORRUPT);
}

/* Each commit on a pair is one change of its kind; keys kept for a grace are none. */
static void each_kind_is_told_once(void)
{
    static const struct shk_bytes a = {"a", 1}, b = {"b", 1}, s = {"s", 1};
    static const struct {
        enum shk_change_kind kind;
        char client;
    } expected[] = {
        {SHK_CHANGE_INSERT, 'a'},    {SHK_CHANGE_OVERWRITE, 'a'}, {SHK_CHANGE_TOUCH, 'a'},
        {SHK_CHANGE_ROTATE, 'a'},    {SHK_CHANGE_ROTATE, 'a'},    {SHK_CHANGE_INSERT, 'b'},
        {SHK_CHANGE_EXPIRE, 'b'},    {SHK_CHANGE_REVOKE, 'a'},    {SHK_CHANGE_OVERWRITE, 'a'},
        {SHK_CHANGE_INSERT, 'b'},    {SHK_CHANGE_DELETE, 'a'},    {SHK_CHANGE_INSERT, 'a'},
        {SHK_CHANGE_DELETE, 'a'},    {SHK_CHANGE_DELETE, 'b'},
    };
    enum { COUNT = sizeof expected / sizeof *expected };
    struct shk_put what = {.key = {"secret", 6}, .key_id = SHK_KEY_ID_NEXT}, brief = what;
    struct shk_rotation how = {.grace = SHK_MILLISECOND};
    struct shk_pair pairs[] = {{a, s}, {{"no", 2}, s}};
    struct shk_item items[] = {{.pair = {a, s}, .what = what}, {.pair = {b, s}, .what = what}};
    struct shk_record record;
    struct shk_change changes[COUNT + 1];
    char key[SHK_KEY_SIZE_DEFAULT];
    uint64_t count;
    brief.ttl = SHK_MILLISECOND;
    store = create();
    CHECK_CODE(shk_store_put(store, a, s, &what, NULL), 0);
    CHECK_CODE(shk_store_put(store, a, s, &what, NULL), 0);
    CHECK_CODE(shk_store_touch(store, a, s, 100 * SHK_SECOND), 0);
    CHECK_CODE(shk_store_rotate(store, a, s, &how, &record, key, sizeof key), 0);
    how.grace = 100 * SHK_SECOND;
    CHECK_CODE(shk_store_rotate(store, a, s, &how, &record, key, sizeof key), 0);
    CHECK_CODE(shk_store_put(store, b, s, &brief, NULL), 0);
    test_sleep(20);
    CHECK_CODE(shk_store_purge_expired(store, &count), 0);
    CHECK_CODE(shk_store_revoke(store, a, s), 0);
    CHECK_CODE(shk_store_revoke(store, a, s), 0);
    CHECK_CODE(shk_store_put_many(store, items, 2), 0);
    CHECK_CODE(shk_store_delete_many(store, pairs, 2, &count), 0);
    CHECK_CODE(shk_store_put(store, a, s, &what, NULL), 0);
    CHECK_CODE(shk_store_clear(store, &count), 0);
    CHECK_CODE(shk_store_changes(store, 0, changes, COUNT + 1), COUNT);
    for (int i = 0; i < COUNT; i++) {
        /* clear() goes by the index, whose order a random key decides. */
        bool cleared = i >= COUNT - 2;
        CHECK_EQUAL(changes[i].kind, expected[i].kind);
        CHECK(cleared || changes[i].client[0] == expected[i].client);
    }
    CHECK(changes[COUNT - 1].client[0] != changes[COUNT - 2].client[0]);
}

/* --------------------------------------------------------------- killed writers -- */

/* A traced child that has a token and stands right before change n, or before it writes
 * nothing (n is 0). */
static pid_t start_writer(uint64_t n, uint32_t *done)
{
    *done = 0;
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk_report report;
        CHECK_CODE(shk_store_verify(store, &report), 0);
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        CHECK(raise(SIGSTOP) == 0);
        if (n)
            CHECK_CODE(change(n), 0);
        else
            write_nothing();
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

#define SKIP_UNDER_TSAN()                                                                          \
    do {                                                                                           \
        if (TEST_TSAN)                                                                             \
            SKIP("single steps take minutes under the thread sanitizer");                          \
    } while (0)

#ifdef __x86_64__
/* It stands right before its futex(FUTEX_WAIT or FUTEX_WAKE) on the revision. */
static bool is_at_futex(pid_t pid, unsigned long long operation)
{
    struct user_regs_struct at;
    CHECK(ptrace(PTRACE_GETREGS, pid, NULL, &at) == 0);
    long code = ptrace(PTRACE_PEEKTEXT, pid, at.rip, NULL);
    return (code & 0xFFFF) == 0x050F && at.rax == SYS_futex &&
           at.rdi == (uintptr_t)futex_of(store) && at.rsi == operation;
}
#else
static bool is_at_futex(pid_t pid, unsigned long long operation)
{
    (void)pid, (void)operation;
    SKIP("knows the system calls of x86-64 only");
}
#endif

static void step_to_futex(pid_t pid, unsigned long long operation)
{
    while (!is_at_futex(pid, operation))
        step(pid);
}

/* Steps until the revision is n. */
static void step_to_revision(pid_t pid, uint64_t n)
{
    while (revision_of(store) < n)
        step(pid);
}

/* How many instructions change n takes from its revision to its end, which it comes to. */
static unsigned steps_to_end(uint64_t n, uint32_t *done)
{
    unsigned steps = 0;
    pid_t pid = start_writer(n, done);
    for (step_to_revision(pid, n); !shk__load(done); steps++)
        step(pid);
    test_kill(pid);
    return steps;
}

static void kill_after_revision(uint64_t n, unsigned steps, uint32_t *done)
{
    pid_t pid = start_writer(n, done);
    step_to_revision(pid, n);
    for (unsigned i = 0; i < steps; i++)
        step(pid);
    test_kill(pid);
}

static void start_waiters(pid_t pids[2], uint64_t since, uint32_t *ready)
{
    uint32_t before = shk__load(ready);
    for (int i = 0; i < 2; i++)
        if ((pids[i] = test_fork()) == 0) {
            const shk_store *mine = i ? open_reader() : store;
            test_step(ready);
            CHECK_EQUAL(wait_beyond(mine, since), since + 1);
            struct shk_change seen;
            CHECK_CODE(shk_store_changes(mine, since, &seen, 1), 1);
            check_change(&seen, since + 1);
            exit(0);
        }
    test_await(ready, before + 2);
    test_sleep(2); /* asleep by now, or about to be */
}

/* Nobody else writes: a nap ends. */
static void a_change_is_seen_though_its_writer_is_dead(void)
{
    SKIP_UNDER_TSAN();
    uint32_t *done = test_shared(sizeof *done), *ready = test_shared(sizeof *ready);
    store = create();
    uint64_t n = 1;
    unsigned steps = steps_to_end(n++, done);
    for (unsigned point = 0; point < steps; point += steps / 12, n++) {
        pid_t pids[2];
        start_waiters(pids, n - 1, ready);
        kill_after_revision(n, point, done);
        test_join(pids[0]);
        test_join(pids[1]);
    }
    write_nothing();
    CHECK_EQUAL(revision_of(store), n - 1);
    printf("killed at %u points of %u instructions\n", (unsigned)n - 2, steps);
}

/* Naps never end: the wake that the dead one owed is made by the next writer, whatever
 * that one's own call comes to. */
static void a_dead_writers_wake_becomes_the_next_ones(void)
{
    SKIP_UNDER_TSAN();
    uint32_t *done = test_shared(sizeof *done), *ready = test_shared(sizeof *ready);
    endless_naps = true;
    store = create();
    uint64_t n = 1;
    unsigned steps = steps_to_end(n++, done);
    for (unsigned point = 0; point < steps; point += steps / 15, n++) {
        pid_t pids[2];
        start_waiters(pids, n - 1, ready);
        kill_after_revision(n, point, done);
        test_sleep(12); /* a tick: for the one who may not announce itself */
        write_nothing();
        test_join(pids[0]);
        test_join(pids[1]);
    }
}

static void killed_right_before_its_wake(void)
{
    uint32_t *done = test_shared(sizeof *done), *ready = test_shared(sizeof *ready);
    pid_t pids[2];
    SKIP_UNDER_TSAN();
    endless_naps = true;
    store = create();
    start_waiters(pids, 0, ready);
    pid_t pid = start_writer(1, done);
    step_to_futex(pid, FUTEX_WAKE);
    test_kill(pid);
    CHECK_EQUAL(shk__load(&shk__lock_word(store)->word), 0);
    test_sleep(12); /* a tick */
    write_nothing();
    test_join(pids[0]);
    test_join(pids[1]);
}

/* It has looked at everything and does not sleep yet. */
static void whoever_is_about_to_sleep_misses_nothing(void)
{
    SKIP_UNDER_TSAN();
    endless_naps = true;
    for (int event = 0; event < 3; event++) {
        static const int ends[] = {0, SHK_E_REMOVED, SHK_E_MOVED};
        int status;
        target = create();
        store = create();
        pid_t pid = test_fork();
        if (pid == 0) {
            uint64_t out;
            CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
            CHECK(raise(SIGSTOP) == 0);
            CHECK_CODE(shk_store_wait(store, 0, EVER, NULL, &out), ends[event]);
            exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
        step_to_futex(pid, FUTEX_WAIT);
        if (event == 0)
            CHECK_CODE(change(1), 0);
        else if (event == 1)
            CHECK_CODE(shk_store_destroy(store), 0);
        else
            CHECK_CODE(shk_store_copy_to(store, target, NULL), 0);
        CHECK(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
        test_join(pid);
        shk_store_close(store);
        shk_store_close(target);
    }
}

/* A change that was announced stays readable while its writer's death is repaired. */
static void recovery_hides_no_change(void)
{
    SKIP_UNDER_TSAN();
    uint32_t *done = test_shared(sizeof *done), *recovered = test_shared(sizeof *recovered);
    unsigned looks = 0;
    store = create();
    uint64_t n = 1;
    unsigned steps = steps_to_end(n++, done);
    for (unsigned point = 0; point < steps; point += steps / 4, n++) {
        pid_t pid = start_writer(0, recovered);
        kill_after_revision(n, point, done);
        for (; !shk__load(recovered); looks++) {
            struct shk_change seen;
            step(pid);
            CHECK_CODE(shk_store_changes(store, n - 1, &seen, 1), 1);
            check_change(&seen, n);
        }
        test_kill(pid);
        CHECK_EQUAL(revision_of(store), n);
    }
    printf("looked at %u instructions of recoveries\n", looks);
}

static const struct test tests[] = {
    TEST(many_waiters_see_each_change),
    TEST(no_wake_is_lost),
    TEST(waits_end_in_time),
    TEST(stopped_by_a_word_and_a_wake),
    TEST(the_end_of_a_store_wakes_all),
    TEST(removal_by_hand_is_noticed),
    TEST(an_id_of_another_namespace_says_nothing),
    TEST(the_low_half_wraps),
    TEST(overrun_is_told_and_nothing_is_torn),
    TEST(exactly_the_ring_is_kept),
    TEST(each_kind_is_told_once),
    TEST(a_change_is_seen_though_its_writer_is_dead),
    TEST(a_dead_writers_wake_becomes_the_next_ones),
    TEST(killed_right_before_its_wake),
    TEST(whoever_is_about_to_sleep_misses_nothing),
    TEST(recovery_hides_no_change),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
