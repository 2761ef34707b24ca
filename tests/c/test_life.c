/* test_life.c: creators and destroyers stopped or killed anywhere on their way.
 *
 * A traced child runs to a random one of its system calls, where it is stopped before or
 * after the call, and then a random number of single steps on. There it is killed, or
 * left standing while others come, or let go again. Whatever happens, whoever comes next
 * has a working store under the key, and at the end no segment and no set is left: they
 * are counted in an IPC namespace of the test's own.
 */
#include "test.h"

#include <sys/ptrace.h>

#include "clock.h"
#include "store.h"

#define ROUNDS 120
#define STEPS_LOG 9 /* at most 2^(this - 1) single steps behind a system call */
#define CAPACITY 20
#define SECRET "the-bytes-of-a-key-to-be-wiped!"

static key_t key;
static struct child {
    uint32_t done;
    int rc;
    uint8_t store_id[16];
} *child;

static struct shk_bytes text(const char *string)
{
    return (struct shk_bytes){string, strlen(string)};
}

static void isolate(void)
{
    if (unshare(CLONE_NEWIPC) < 0)
        SKIP("only in an IPC namespace of its own can it count what is left");
    child = test_shared(sizeof *child);
    CHECK_CODE(shk_random_key(&key), 0);
    unsigned seed = (unsigned)key;
    printf("seed %u\n", seed);
    srand(seed);
}

static int count_segments(void)
{
    struct shm_info info;
    CHECK(shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&info) >= 0);
    return info.used_ids;
}

static int count_sets(void)
{
    struct seminfo info;
    CHECK(semctl(0, 0, SEM_INFO, &info) >= 0);
    return info.semusz;
}

/* ------------------------------------------------------------------- stores -- */

/* Condemns at once whatever is not published. */
static int open_store(enum shk_intent intent, shk_store **out)
{
    struct shk_address address = {.key = key};
    struct shk_shape shape = {.capacity = CAPACITY, .mode = 0600};
    struct shk_access access = {.open_timeout = 0, .lock_timeout = 20 * SHK_SECOND};
    return shk_store_open(intent, &address, &shape, &access, out);
}

static void put_secret(shk_store *store)
{
    struct shk_put what = {.key = text(SECRET), .key_id = SHK_KEY_ID_NEXT};
    CHECK_CODE(shk_store_put(store, text("client"), text("server"), &what, NULL), 0);
}

static void check_working(shk_store *store)
{
    struct shk_report report;
    struct shk_stats stats;
    CHECK_CODE(shk_store_verify(store, &report), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++)
        CHECK_EQUAL(report.faults[i], 0);
    put_secret(store);
    CHECK_CODE(shk_store_stats(store, &stats), 0);
    CHECK_EQUAL(stats.records, 1);
}

static void check_only_one(void)
{
    CHECK_EQUAL(count_segments(), 1);
    CHECK_EQUAL(count_sets(), 1);
}

static void destroy(shk_store *store)
{
    CHECK_CODE(shk_store_destroy(store), 0);
    shk_store_close(store);
    CHECK_EQUAL(count_segments(), 0);
    CHECK_EQUAL(count_sets(), 0);
}

static bool holds_secret(const void *memory, size_t size)
{
    return memmem(memory, size, SECRET, strlen(SECRET)) != NULL;
}

/* ------------------------------------------------------------- traced children -- */

static int create(void)
{
    shk_store *store;
    int rc = open_store(rand() % 2 ? SHK_CREATE : SHK_OPEN_OR_CREATE, &store);
    if (rc == 0)
        memcpy(child->store_id, store->info.store_id, sizeof child->store_id);
    return rc;
}

static shk_store *inherited;

static int destroy_inherited(void)
{
    return shk_store_destroy(inherited);
}

/* Stands right before `run`. */
static pid_t start(int (*run)(void))
{
    child->done = 0;
    pid_t pid = test_fork();
    if (pid == 0) {
        srand((unsigned)rand());
        CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
        CHECK(raise(SIGSTOP) == 0);
        child->rc = run();
        test_step(&child->done);
        for (;;)
            pause();
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    return pid;
}

/* False: its work is done. */
static bool resume(pid_t pid, bool by_step)
{
    int status;
    CHECK(ptrace(by_step ? PTRACE_SINGLESTEP : PTRACE_SYSCALL, pid, NULL, NULL) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    return shk__load(&child->done) == 0;
}

/* How often it stops at a system call until its work is done. */
static unsigned count_stops(int (*run)(void))
{
    unsigned stops = 1;
    pid_t pid = start(run);
    while (resume(pid, false))
        stops++;
    test_kill(pid);
    return stops;
}

static void run_on(pid_t pid, unsigned stops)
{
    bool busy = shk__load(&child->done) == 0;
    for (unsigned left = (unsigned)rand() % stops; busy && left > 0; left--)
        busy = resume(pid, false);
    for (int left = rand() % (1 << rand() % STEPS_LOG); busy && left > 0; left--)
        busy = resume(pid, true);
}

static void let_go(pid_t pid)
{
    CHECK(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
    test_await(&child->done, 1);
}

/* -------------------------------------------------------------------- creators -- */

static unsigned count_stops_of_creation(void)
{
    shk_store *store;
    unsigned stops = count_stops(create);
    CHECK_CODE(open_store(SHK_OPEN, &store), 0);
    destroy(store);
    return stops;
}

static void killed_creator_is_replaced_and_leaves_nothing(void)
{
    isolate();
    unsigned stops = count_stops_of_creation(), published = 0, half_made = 0;
    for (int round = 0; round < ROUNDS; round++) {
        shk_store *store;
        pid_t pid = start(create);
        run_on(pid, stops);
        test_kill(pid);
        half_made += count_sets() == 1;
        int found = open_store(SHK_OPEN, &store);
        if (found == 0) {
            published++;
            half_made--;
        } else if (found != -ENOENT)
            CHECK_CODE(found, SHK_E_INCOMPATIBLE); /* untouched: a creator alone may judge it */
        if (found != 0)
            CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, &store), 0);
        check_working(store);
        check_only_one();
        destroy(store);
    }
    printf("%d creators killed, %u after publication, %u of the others had made a set: 0 left\n",
           ROUNDS, published, half_made);
    CHECK(half_made > 0);
}

static void stopped_creator_is_condemned_and_starts_over(void)
{
    isolate();
    unsigned stops = count_stops_of_creation(), replaced = 0;
    for (int round = 0; round < ROUNDS; round++) {
        shk_store *store;
        pid_t pid = start(create);
        run_on(pid, stops);
        CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, &store), 0);
        check_working(store);
        let_go(pid);
        if (child->rc == -EEXIST)
            replaced++;
        else {
            CHECK_CODE(child->rc, 0);
            CHECK(memcmp(child->store_id, store->info.store_id, sizeof child->store_id) == 0);
        }
        check_working(store);
        check_only_one();
        test_kill(pid);
        destroy(store);
    }
    printf("%d creators stopped, %u then found another's store\n", ROUNDS, replaced);
    CHECK(replaced > 0);
}

/* The one gap: a creator condemned right between its last look and semget makes a set
 * that nobody knows, and takes it to its grave if it is killed before it cleans up. */
static void creator_killed_after_its_condemnation_harms_no_successor(void)
{
    isolate();
    unsigned stops = count_stops_of_creation(), left = 0;
    for (int round = 0; round < ROUNDS; round++) {
        shk_store *store;
        pid_t pid = start(create);
        run_on(pid, stops);
        CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, &store), 0);
        run_on(pid, stops);
        test_kill(pid);
        check_working(store);
        CHECK_EQUAL(count_segments(), 1);
        CHECK_CODE(shk_store_destroy(store), 0);
        shk_store_close(store);
        CHECK_EQUAL(count_segments(), 0);
        for (int i = 0, last = semctl(0, 0, SEM_INFO, &(struct seminfo){0}); i <= last; i++) {
            struct semid_ds about;
            int id = semctl(i, 0, SEM_STAT, &about);
            if (id < 0)
                continue;
            CHECK(semctl(id, 0, IPC_RMID) == 0);
            left++;
        }
    }
    printf("%d creators stopped, condemned, let go and killed: %u sets left\n", ROUNDS, left);
    CHECK(left <= ROUNDS / 4);
}

/* ------------------------------------------------------------------- destroyers -- */

static unsigned count_stops_of_destruction(void)
{
    CHECK_CODE(open_store(SHK_CREATE, &inherited), 0);
    put_secret(inherited);
    unsigned stops = count_stops(destroy_inherited);
    shk_store_close(inherited);
    return stops;
}

/* Who may come after a destroyer's death; each must finish its work. */
static int next_is_destroyer(void)
{
    int rc = shk_store_destroy(inherited);
    return rc == SHK_E_REMOVED ? 0 : rc;
}

static int next_is_writer(void)
{
    struct shk_put what = {.key = text(SECRET), .key_id = SHK_KEY_ID_NEXT};
    int rc = shk_store_put(inherited, text("other"), text("server"), &what, NULL);
    return rc == SHK_E_REMOVED ? 0 : rc == 0 ? shk_store_destroy(inherited) : rc;
}

/* Who knows the key alone. */
static int next_is_opener(void)
{
    shk_store_close(inherited);
    int rc = open_store(SHK_OPEN, &inherited);
    if (rc == -ENOENT)
        inherited = NULL;
    return rc == 0 ? shk_store_destroy(inherited) : rc == -ENOENT ? 0 : rc;
}

static void killed_destroyer_is_finished_by_the_next(void)
{
    static int (*const next[])(void) = {next_is_destroyer, next_is_writer, next_is_opener};
    isolate();
    unsigned stops = count_stops_of_destruction(), unfinished = 0;
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_CODE(open_store(SHK_CREATE, &inherited), 0);
        put_secret(inherited);
        size_t size = inherited->geometry.total_size;
        void *memory = shmat(inherited->info.id, NULL, SHM_RDONLY);
        CHECK(memory != (void *)-1);
        CHECK(holds_secret(memory, size));
        pid_t pid = start(destroy_inherited);
        run_on(pid, stops);
        test_kill(pid);
        unfinished += shk__load(&shk__header(inherited)->state) == SHK_STATE_REMOVED &&
                      (count_sets() > 0 || holds_secret(memory, size));
        CHECK_CODE(next[round % 3](), 0);
        CHECK(!holds_secret(memory, size));
        CHECK(shmdt(memory) == 0);
        shk_store_close(inherited);
        CHECK_EQUAL(count_segments(), 0);
        CHECK_EQUAL(count_sets(), 0);
    }
    printf("%d destroyers killed, %u with their work half done\n", ROUNDS, unfinished);
    CHECK(unfinished > 0);
}

static void stopped_destroyer_removes_no_successor(void)
{
    isolate();
    unsigned stops = count_stops_of_destruction(), replaced = 0;
    for (int round = 0; round < ROUNDS; round++) {
        shk_store *successor;
        CHECK_CODE(open_store(SHK_CREATE, &inherited), 0);
        put_secret(inherited);
        pid_t pid = start(destroy_inherited);
        run_on(pid, stops);
        CHECK_CODE(open_store(SHK_OPEN_OR_CREATE, &successor), 0);
        bool is_new = memcmp(successor->info.store_id, inherited->info.store_id, 16) != 0;
        let_go(pid);
        CHECK_CODE(child->rc, 0);
        CHECK(!holds_secret(inherited->base, inherited->geometry.total_size));
        test_kill(pid);
        shk_store_close(inherited);
        if (is_new) {
            replaced++;
            check_working(successor);
            check_only_one();
            destroy(successor);
        } else
            shk_store_close(successor);
    }
    printf("%d destroyers stopped, %u beside a successor\n", ROUNDS, replaced);
    CHECK(replaced > 0);
    CHECK_EQUAL(count_segments() + count_sets(), 0);
}

static const struct test tests[] = {
    TEST(killed_creator_is_replaced_and_leaves_nothing),
    TEST(stopped_creator_is_condemned_and_starts_over),
    TEST(creator_killed_after_its_condemnation_harms_no_successor),
    TEST(killed_destroyer_is_finished_by_the_next),
    TEST(stopped_destroyer_removes_no_successor),
};

int main(int argc, char **argv)
{
    return TEST_MAIN(argc, argv, tests);
}
