/* test_lock.c: each rule of the writers' lock, with real processes. */
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "atomic.h"
#include "clock.h"
#include "lock_fixture.h"

#define NOBODY 65534

/* A process that holds every free token but these two. */
static pid_t start_hog(uint32_t but, uint32_t but_too)
{
    uint32_t before = shk__load(&arena->ready);
    pid_t pid = test_fork();
    if (pid == 0) {
        for (uint32_t token = 0; token < SHK_WRITERS_MAX; token++)
            if (token != but && token != but_too)
                CHECK(shk__set_claim(&set, token) >= 0);
        test_step(&arena->ready);
        sleep_for_ever();
    }
    test_await(&arena->ready, before + 1);
    return pid;
}

/* ------------------------------------------------------- mutual exclusion -- */

#define WRITES 20000

static void take_turns(struct shk__lock *lock)
{
    for (int i = 0; i < WRITES; i++) {
        CHECK_CODE(shk__lock_acquire(lock, LONG), SHK__FREE);
        arena->counter++;
        shk__lock_release(lock);
    }
}

static void *take_turns_in_thread(void *lock)
{
    take_turns(lock);
    return NULL;
}

static void threads_of_one_handle_exclude_each_other(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = test_thread(take_turns_in_thread, &lock);
    for (int i = 0; i < 4; i++)
        test_join_thread(threads[i]);
    CHECK_EQUAL(arena->counter, 4 * WRITES);
    CHECK_EQUAL(arena->word, 0);
    CHECK_EQUAL(taken(), 1);
    shk__lock_close(&lock);
    CHECK_EQUAL(taken(), 0);
}

static void handles_of_one_process_exclude_each_other(void)
{
    set_up();
    struct shk__lock locks[] = {open_lock(), open_lock()};
    pthread_t threads[] = {test_thread(take_turns_in_thread, &locks[0]),
                           test_thread(take_turns_in_thread, &locks[1])};
    test_join_thread(threads[0]);
    test_join_thread(threads[1]);
    CHECK_EQUAL(arena->counter, 2 * WRITES);
    CHECK_EQUAL(taken(), 2);
    /* A waiter can't tell by the pid that the other handle lives. */
    CHECK_CODE(shk__lock_acquire(&locks[0], 0), SHK__FREE);
    CHECK_CODE(shk__lock_acquire(&locks[1], SHORT), SHK_E_TIMEOUT);
    CHECK_CODE(shk__lock_acquire(&locks[0], SHORT), SHK_E_TIMEOUT);
    shk__lock_release(&locks[0]);
}

static void processes_exclude_each_other(void)
{
    set_up();
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = test_fork();
        if (pids[i] == 0) {
            struct shk__lock lock = open_lock();
            take_turns(&lock);
            exit(0); /* without closing: the kernel takes the token back */
        }
    }
    for (int i = 0; i < 4; i++)
        test_join(pids[i]);
    CHECK_EQUAL(arena->counter, 4 * WRITES);
    CHECK_EQUAL(arena->word, 0);
    CHECK_EQUAL(taken(), 0);
}

/* ---------------------------------------------------------------- waiting -- */

static void waiter_under_a_timer_takes_over(void)
{
    set_up();
    pid_t victim = start_owner();
    pid_t waiter = test_fork();
    if (waiter == 0) {
        struct shk__lock lock = open_lock();
        start_timer(1000);
        test_step(&arena->ready);
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
        exit(0);
    }
    test_await(&arena->ready, 1);
    test_await(&arena->ticks, 30);
    test_kill(victim);
    test_join(waiter);
}

static void waiter_under_a_timer_times_out(void)
{
    set_up();
    (void)start_owner();
    struct shk__lock lock = open_lock();
    start_timer(1000);
    uint64_t start = shk__monotonic();
    CHECK_CODE(shk__lock_acquire(&lock, 2 * SHORT), SHK_E_TIMEOUT);
    CHECK(shk__monotonic() - start >= 2 * SHORT);
    CHECK(arena->ticks > 0);
    CHECK_EQUAL(taken(), 2);
}

static void zero_timeout_tries_once(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    shk__lock_release(&lock);
    pid_t pid = start_owner();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK_E_TIMEOUT);
    test_kill(pid);
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FROM_THE_DEAD);
    shk__lock_release(&lock);
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
}

/* In each round two waiters have just begun a nap of 50 ms when the lock is released: it
 * wakes one, and that one's release the other. Most rounds, not all: the machine may be busy. */
static void release_wakes_one_waiter_after_another(void)
{
    enum { ROUNDS = 8 };
    set_up();
    pid_t waiters[2];
    for (int i = 0; i < 2; i++) {
        waiters[i] = test_fork();
        if (waiters[i] != 0)
            continue;
        struct shk__lock lock = open_lock();
        for (uint32_t round = 1; round <= ROUNDS; round++) {
            test_await(&arena->go, round);
            test_step(&arena->ready);
            CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
            arena->stamp = shk__monotonic();
            shk__lock_release(&lock);
            test_step(&arena->done);
        }
        exit(0);
    }
    struct shk__lock lock = open_lock();
    unsigned prompt = 0;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        test_step(&arena->go);
        test_await(&arena->ready, 2 * round);
        test_sleep(68); /* naps end after 2, 6, 14, 30, 62 and 112 ms */
        uint64_t released = shk__monotonic();
        shk__lock_release(&lock);
        test_await(&arena->done, 2 * round);
        prompt += arena->stamp - released < 20 * SHK_MILLISECOND;
    }
    test_join(waiters[0]);
    test_join(waiters[1]);
    if (prompt < ROUNDS / 2)
        FAIL("only %u of %d releases woke the waiters before their naps ended", prompt, ROUNDS);
}

/* --------------------------------------------------------------- the hook -- */

static uint32_t hook_calls;

/* Returns 1 at the call that the context tells, 0 at others. */
static int on_wait(void *stop_at)
{
    return ++hook_calls == *(uint32_t *)stop_at;
}

static void hook_runs_before_sleep_and_after_naps(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    uint32_t stop_at = 0;
    shk_thread_on_wait(on_wait, &stop_at);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
    shk__lock_release(&lock);
    CHECK_EQUAL(hook_calls, 0);

    pid_t pid = start_owner();
    CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    CHECK(hook_calls >= 2); /* before the first sleep, and after naps */

    uint32_t before = hook_calls;
    stop_at = before + 1;
    CHECK_CODE(shk__lock_acquire(&lock, LONG), -EINTR);
    CHECK_EQUAL(hook_calls, before + 1);

    stop_at = before + 100; /* naps grow to 50 ms: only signals can end so many so soon */
    start_timer(1000);
    uint64_t start = shk__monotonic();
    CHECK_CODE(shk__lock_acquire(&lock, LONG), -EINTR);
    CHECK_EQUAL(hook_calls, before + 100);
    CHECK(arena->ticks >= 50 && shk__monotonic() - start < LONG);
    CHECK(owner() != UINT32_MAX);

    shk_thread_on_wait(NULL, NULL);
    CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    CHECK_EQUAL(hook_calls, before + 100);
    test_kill(pid);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
}

/* ------------------------------------------------------------------ turns -- */

#define TURN (10 * SHK_MILLISECOND) /* as in lock.c */
#define GLANCE (SHK_MILLISECOND / 20)
#define MANY 10000u /* writes, one after the other */

/* It waits once, writes so often, and waits again, which is timed. */
struct writer {
    struct shk__lock lock;
    unsigned between;
    uint64_t waited;
    uint32_t waits, ready, comes, done;
};

static void wait_once(struct writer *writer)
{
    test_step(&writer->ready);
    test_await(&arena->go, ++writer->waits);
    test_step(&writer->comes);
    uint64_t start = shk__monotonic();
    CHECK_CODE(shk__lock_acquire(&writer->lock, LONG), SHK__FREE);
    writer->waited = shk__monotonic() - start;
    shk__lock_release(&writer->lock);
    test_step(&writer->done);
}

static void *write_and_wait(void *writer_)
{
    struct writer *writer = writer_;
    CHECK_CODE(shk__lock_acquire(&writer->lock, LONG), SHK__FREE); /* has its token */
    shk__lock_release(&writer->lock);
    wait_once(writer);
    for (unsigned i = 0; i < writer->between; i++) {
        CHECK_CODE(shk__lock_acquire(&writer->lock, LONG), SHK__FREE);
        shk__lock_release(&writer->lock);
    }
    wait_once(writer);
    return NULL;
}

static void hold_a_moment(struct shk__lock *lock, struct writer *writer, uint32_t wait)
{
    test_await(&writer->ready, wait);
    CHECK_CODE(shk__lock_acquire(lock, LONG), SHK__FREE);
    test_step(&arena->go);
    while (shk__load(&writer->comes) < wait)
        continue;
    for (uint64_t until = shk__monotonic() + 20000; shk__monotonic() < until;)
        continue; /* meanwhile the writer finds it taken */
}

enum then { IS_DONE, WRITES_ON };

/* A writer beside another one, who has the lock when it comes, and then does that. */
static struct writer wait_beside(enum then other_then, unsigned between)
{
    struct writer writer = {.lock = open_lock(), .between = between};
    struct shk__lock other = open_lock();
    shk__store(&arena->go, 0);
    pthread_t thread = test_thread(write_and_wait, &writer);
    hold_a_moment(&other, &writer, 1);
    shk__lock_release(&other);
    hold_a_moment(&other, &writer, 2);
    shk__lock_release(&other);
    while (other_then == WRITES_ON && shk__load(&writer.done) < 2) {
        shk__store(&arena->progress, arena->progress + 1);
        for (int i = 0; i < 10; i++)
            shk__pause(); /* no write is faster */
    }
    test_join_thread(thread);
    shk__lock_close(&other);
    shk__lock_close(&writer.lock);
    return writer;
}

/* Whether one of many waits takes at least and less than so long: on a busy machine not each
 * does, for either may be held up. */
static bool some_wait(enum then other_then, unsigned between, uint64_t least, uint64_t limit)
{
    for (int i = 0; i < 400; i++) {
        struct writer writer = wait_beside(other_then, between);
        if (writer.waited >= least && writer.waited < limit)
            return true;
    }
    return false;
}

static void busy_writer_leaves_a_turn_to_a_busy_one(void)
{
    set_up();
    CHECK(some_wait(WRITES_ON, MANY, TURN, LONG));
}

static void busy_writer_glances_and_finds_that_nobody_writes(void)
{
    set_up();
    CHECK(some_wait(IS_DONE, MANY, GLANCE, TURN / 2));
}

static void writer_that_is_not_busy_leaves_no_turn(void)
{
    set_up();
    CHECK(some_wait(WRITES_ON, 3, 0, GLANCE));
}

/* Whoever sleeps tells the hook before, and a waiter sets its bit before its first nap. So where
 * the bit is not set when the hook runs again, the first sleep was no nap: a turn was left. */
struct twice {
    struct shk__lock *owner; /* the second call releases it */
    unsigned calls;
    bool left_turn;
};

static int on_wait_twice(void *twice_)
{
    struct twice *twice = twice_;
    if (++twice->calls == 2) {
        twice->left_turn = !(shk__load(&arena->word) & SHK_LOCK_WAITERS);
        shk__lock_release(twice->owner);
    }
    return 0;
}

/* Of a writer that did nothing but write, and then finds that the owner has the lock. */
static bool leaves_turn(struct shk__lock *writer, struct shk__lock *owner, uint64_t timeout)
{
    struct twice twice = {.owner = owner};
    CHECK_CODE(shk__lock_acquire(owner, LONG), SHK__FREE);
    CHECK_CODE(shk__lock_acquire(writer, 2 * TURN), SHK_E_TIMEOUT); /* it counts from now on */
    shk__lock_release(owner);
    for (unsigned i = 0; i < 100 * MANY; i++) {
        CHECK_CODE(shk__lock_acquire(writer, LONG), SHK__FREE);
        shk__lock_release(writer);
    }
    CHECK_CODE(shk__lock_acquire(owner, LONG), SHK__FREE);
    shk_thread_on_wait(on_wait_twice, &twice);
    CHECK_CODE(shk__lock_acquire(writer, timeout), SHK__FREE);
    shk_thread_on_wait(NULL, NULL);
    shk__lock_release(writer);
    CHECK_EQUAL(twice.calls, 2);
    return twice.left_turn;
}

static void hook_runs_before_a_turn_is_left(void)
{
    set_up();
    struct shk__lock writer = open_lock(), owner = open_lock();
    CHECK(leaves_turn(&writer, &owner, LONG));
}

static void writer_with_little_time_leaves_no_turn(void)
{
    set_up();
    struct shk__lock writer = open_lock(), owner = open_lock();
    CHECK(!leaves_turn(&writer, &owner, 2 * TURN - 1));
}

/* A thread that has the lock stands for another one, as the lock can't tell. */
static void threads_of_one_handle_leave_no_turn(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    CHECK(!leaves_turn(&lock, &lock, LONG));
}

/* --------------------------------------------------- takeover from the dead -- */

static void waiter_takes_over_though_another_sets_its_bit(void)
{
    set_up();
    pid_t setter = test_fork();
    if (setter == 0)
        for (uint32_t round = 1;; round++) {
            test_await(&arena->go, round);
            for (uint32_t i = 0; i < round % 50 * 20; i++)
                shk__pause();
            uint32_t seen = shk__load(&arena->word);
            if (seen != 0)
                (void)shk__cas32(&arena->word, &seen, seen | SHK_LOCK_WAITERS);
            test_step(&arena->done);
        }
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    shk__lock_release(&lock);
    for (uint32_t round = 1; round <= 100; round++) {
        (void)leave_dead_owner();
        test_step(&arena->go);
        CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FROM_THE_DEAD);
        test_await(&arena->done, round);
        shk__lock_release(&lock);
    }
    CHECK_EQUAL(taken(), 1);
}

/* The only free token is the one that the word names. */
static void claimer_of_the_dead_owners_token_owns_the_lock(void)
{
    set_up();
    uint32_t token = leave_dead_owner();
    (void)start_hog(token, token);
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FROM_THE_DEAD);
    CHECK_EQUAL(owner(), token);
    CHECK_EQUAL(taken(), SHK_WRITERS_MAX);
    shk__lock_release(&lock);
    CHECK_EQUAL(arena->word, 0);
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    shk__lock_release(&lock);
}

static void claimer_owns_the_lock_though_its_bit_flips(void)
{
    set_up();
    uint32_t token = leave_dead_owner();
    (void)start_hog(token, token);
    pid_t flipper = test_fork();
    if (flipper == 0)
        for (;;) {
            uint32_t seen = shk__load(&arena->word);
            if (seen != 0)
                (void)shk__cas32(&arena->word, &seen, seen ^ SHK_LOCK_WAITERS);
        }
    for (int round = 0; round < 30; round++) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FROM_THE_DEAD);
        CHECK_EQUAL(owner(), token);
        shk__lock_release(&lock);
        shk__lock_close(&lock);
        CHECK_EQUAL(leave_dead_owner(), token);
    }
}

/* Either the claimer or the waiter inherits, never both, and the other comes next. */
static void claimer_and_waiter_inherit_once(void)
{
    enum { ROUNDS = 30 };
    set_up();
    pid_t waiter = test_fork();
    if (waiter == 0) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        arena->stamp = owner();
        shk__lock_release(&lock);
        test_step(&arena->done);
        for (uint32_t round = 1; round <= ROUNDS; round++) {
            test_await(&arena->ready, 1 + round);
            int rc = shk__lock_acquire(&lock, LONG);
            CHECK(rc >= 0);
            arena->from_the_dead += rc == SHK__FROM_THE_DEAD;
            shk__lock_release(&lock);
            test_step(&arena->done);
        }
        exit(0);
    }
    test_await(&arena->done, 1);
    uint32_t token = leave_dead_owner();
    (void)start_hog(token, (uint32_t)arena->stamp);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct shk__lock lock = open_lock();
        test_step(&arena->ready);
        if (round % 2)
            test_sleep(1 + round % 4);
        int rc;
        do /* while the waiter has the only free token, to see whether its owner is dead */
            rc = shk__lock_acquire(&lock, LONG);
        while (rc == SHK_E_TOO_MANY_WRITERS);
        CHECK(rc >= 0);
        arena->from_the_dead += rc == SHK__FROM_THE_DEAD;
        shk__lock_release(&lock);
        test_await(&arena->done, 1 + round);
        shk__lock_close(&lock);
        CHECK_EQUAL(arena->from_the_dead, round);
        if (round < ROUNDS)
            CHECK_EQUAL(leave_dead_owner(), token);
    }
    test_join(waiter);
}

/* A process whose first thread has ended looks like a zombie, but is alive. */
static void *own_for_ever(void *unused)
{
    (void)unused;
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    test_step(&arena->owned);
    sleep_for_ever();
}

static void owner_lives_while_any_thread_does(void)
{
    set_up();
    pid_t pid = test_fork();
    if (pid == 0) {
        (void)test_thread(own_for_ever, NULL);
        pthread_exit(NULL);
    }
    test_await(&arena->owned, 1);
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    test_kill(pid);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
}

static void stopped_owner_is_never_robbed(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    pid_t pid = start_owner();
    test_stop(pid);
    CHECK_CODE(shk__lock_acquire(&lock, 2 * SHORT), SHK_E_TIMEOUT);
    test_step(&arena->go);
    CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    CHECK(kill(pid, SIGCONT) == 0);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
    test_join(pid);
    shk__lock_release(&lock);
    CHECK_EQUAL(taken(), 1);
}

/* ------------------------------------------------------- all tokens taken -- */

static void waiter_takes_over_though_all_other_tokens_are_taken(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    shk__lock_release(&lock);
    pid_t pid = start_owner();
    (void)start_hog(SHK_WRITERS_MAX, SHK_WRITERS_MAX);
    CHECK_EQUAL(taken(), SHK_WRITERS_MAX);
    CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    test_kill(pid);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
    CHECK_EQUAL(taken(), SHK_WRITERS_MAX - 1);
}

static void too_many_living_writers_are_an_error(void)
{
    set_up();
    pid_t pid = start_owner();
    uint32_t word = shk__load(&arena->word);
    pid_t hog = start_hog(SHK_WRITERS_MAX, SHK_WRITERS_MAX);
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK_E_TOO_MANY_WRITERS);
    CHECK_EQUAL(arena->word, word);
    test_step(&arena->go); /* the owner keeps its token in the hog's stead */
    test_join(pid);
    test_kill(hog);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
    CHECK_EQUAL(taken(), 1);
}

static void too_many_handles_of_one_process_are_an_error(void)
{
    uint8_t store_id[16];
    set_up();
    struct shk__set other = new_set(store_id);
    for (uint32_t token = 0; token < SHK_WRITERS_MAX; token++)
        CHECK_CODE(shk__set_claim(&set, token), 1);
    for (uint32_t token = 0; token < SHK_WRITERS_MAX - 1; token++)
        CHECK_CODE(shk__set_claim(&other, token), 1);
    CHECK_CODE(shk__set_claim(&other, SHK_WRITERS_MAX - 1), SHK_E_TOO_MANY_WRITERS);
    shk__set_release(&set, 5);
    CHECK_CODE(shk__set_claim(&other, SHK_WRITERS_MAX - 1), 1);
    CHECK_CODE(shk__set_claim(&other, SHK_WRITERS_MAX - 1), 0); /* one's own is alive */
}

/* ------------------------------------------------- never dead by an error -- */

static void ipcrm(int id)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%d", id);
    pid_t pid = test_fork();
    if (pid == 0) {
        execlp("ipcrm", "ipcrm", "-s", text, (char *)NULL);
        _exit(127);
    }
    int status = test_wait(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        SKIP("needs ipcrm (util-linux)");
    CHECK_EQUAL(status, 0);
}

static void removed_set_stops_claimers(void)
{
    set_up();
    (void)leave_dead_owner();
    uint32_t word = shk__load(&arena->word);
    ipcrm(set.id);
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, LONG), -EIDRM);
    CHECK_EQUAL(arena->word, word);
    shk__lock_close(&lock);
}

static void removed_set_stops_waiters(void)
{
    set_up();
    pid_t waiter = test_fork();
    if (waiter == 0) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        shk__lock_release(&lock);
        test_step(&arena->ready);
        test_await(&arena->owned, 1);
        test_step(&arena->ready);
        CHECK_CODE(shk__lock_acquire(&lock, LONG), -EIDRM);
        test_step(&arena->ready);
        test_await(&arena->done, 1); /* the owner is dead now */
        CHECK_CODE(shk__lock_acquire(&lock, LONG), -EIDRM);
        shk__lock_close(&lock);
        exit(0);
    }
    test_await(&arena->ready, 1);
    pid_t pid = start_owner();
    test_await(&arena->ready, 2);
    test_sleep(20);
    ipcrm(set.id);
    test_await(&arena->ready, 3);
    test_kill(pid);
    uint32_t word = shk__load(&arena->word);
    test_step(&arena->done);
    test_join(waiter);
    CHECK_EQUAL(owner(), (word & ~SHK_LOCK_WAITERS) - 1);
}

struct foreign {
    struct shk__set set;
    int count;
    unsigned short before[SEMAPHORES];
};

static void remember(struct foreign *foreign, int id, int count)
{
    *foreign = (struct foreign){.set = set, .count = count};
    foreign->set.id = id;
    if (count > 0)
        CHECK(semctl(id, 0, GETALL, (union semun){.array = foreign->before}) == 0);
}

static void check_untouched(const struct foreign *foreign)
{
    unsigned short now[SEMAPHORES] = {0};
    if (foreign->count > 0)
        CHECK(semctl(foreign->set.id, 0, GETALL, (union semun){.array = now}) == 0);
    CHECK(memcmp(now, foreign->before, sizeof now) == 0);
}

static int new_foreign_set(int count, unsigned short value)
{
    unsigned short values[SEMAPHORES];
    for (int i = 0; i < count; i++)
        values[i] = value;
    int id = test_keep_set(semget(IPC_PRIVATE, count, 0600));
    CHECK(semctl(id, 0, SETALL, (union semun){.array = values}) == 0);
    return id;
}

/* Every set that the header could name in our set's stead. */
static unsigned forge(struct foreign forged[8])
{
    uint8_t store_id[16];
    unsigned n = 0;
    remember(&forged[n++], new_set(store_id).id, SEMAPHORES); /* another store's */
    remember(&forged[n++], new_foreign_set(1, 0), 1);
    remember(&forged[n++], new_foreign_set(1, 7), 1);
    remember(&forged[n++], new_foreign_set(SEMAPHORES, 0), SEMAPHORES);
    remember(&forged[n++], new_foreign_set(SEMAPHORES, 32767), SEMAPHORES);
    int gone = new_foreign_set(1, 0);
    CHECK(semctl(gone, 0, IPC_RMID) == 0);
    remember(&forged[n++], gone, 0);
    remember(&forged[n++], -1, 0);
    remember(&forged[n++], INT_MAX, 0);
    return n;
}

static void forged_set_is_never_a_reason_to_take_over(void)
{
    set_up();
    struct foreign forged[8];
    unsigned count = forge(forged);
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
    shk__lock_release(&lock);
    uint32_t token = leave_dead_owner();
    uint32_t word = shk__load(&arena->word);
    for (unsigned i = 0; i < count; i++) {
        int expected = forged[i].count > 0 ? SHK_E_CORRUPT : -EIDRM;
        struct shk__lock claimer = open_lock(), waiter = lock;
        claimer.set.id = waiter.set.id = forged[i].set.id;
        CHECK_CODE(shk__lock_acquire(&claimer, LONG), expected);
        CHECK_CODE(shk__lock_acquire(&waiter, LONG), expected);
        CHECK_CODE(shk__set_claim(&forged[i].set, token), expected);
        shk__set_release(&forged[i].set, token);
        check_untouched(&forged[i]);
        CHECK_EQUAL(owner(), (word & ~SHK_LOCK_WAITERS) - 1);
        shk__lock_close(&claimer);
    }
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
    shk__lock_release(&lock);
    CHECK_EQUAL(taken(), 1);
}

/* In the other namespace our set's id names nothing, or something else. */
static void other_ipc_namespace_is_an_error(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    (void)leave_dead_owner();
    uint32_t word = shk__load(&arena->word);
    pid_t pid = test_fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWIPC) < 0)
            exit(errno == EPERM ? TEST_SKIPPED : 1);
        struct shk__lock fresh = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), -EIDRM);
        CHECK_CODE(shk__lock_acquire(&fresh, LONG), -EIDRM);
        int id = -1;
        for (int i = 0; i < 1000 && id != set.id; i++)
            CHECK((id = semget(IPC_PRIVATE, SEMAPHORES, 0600)) >= 0);
        CHECK_EQUAL(id, set.id);
        struct foreign same_id;
        remember(&same_id, id, SEMAPHORES);
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK_E_CORRUPT);
        CHECK_CODE(shk__lock_acquire(&fresh, LONG), SHK_E_CORRUPT);
        check_untouched(&same_id);
        exit(0);
    }
    int status = test_wait(pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIPPED)
        SKIP("needs root: a new IPC namespace");
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(arena->word, word);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
}

static void set_of_another_user_is_an_error(void)
{
    if (geteuid() != 0)
        SKIP("needs root: another user");
    set_up();
    (void)leave_dead_owner();
    uint32_t word = shk__load(&arena->word);
    pid_t pid = test_fork();
    if (pid == 0) {
        CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), -EACCES);
        CHECK_CODE(shk__set_claim(&set, owner()), -EACCES);
        shk__set_remove(&set);
        exit(0);
    }
    test_join(pid);
    CHECK_EQUAL(arena->word, word);
    CHECK_EQUAL(taken(), 0);
}

static void word_that_names_no_token_is_corrupt(void)
{
    static const uint32_t words[] = {SHK_WRITERS_MAX + 1, INT_MAX, SHK_LOCK_WAITERS, UINT32_MAX,
                                     SHK_LOCK_WAITERS | (SHK_WRITERS_MAX + 1)};
    set_up();
    struct shk__lock lock = open_lock();
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        shk__store(&arena->word, words[i]);
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK_E_CORRUPT);
        CHECK_EQUAL(arena->word, words[i]);
    }
    shk__store(&arena->word, 0);
    CHECK_CODE(shk__lock_acquire(&lock, 0), SHK__FREE);
}

/* ---------------------------------------------------------- fork and clone -- */

static pid_t libc_fork(void)
{
    return fork();
}

static pid_t raw_clone(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static pid_t (*const forks[])(void) = {libc_fork, raw_clone};

/* The child's end of a test; it runs nothing of libc's that a raw clone leaves undone. */
static void child_claims_its_own_token(pid_t (*make_child)(void))
{
    set_up();
    struct shk__lock lock = open_lock();
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
    uint32_t token = owner();
    pid_t pid = make_child();
    if (pid == 0) {
        CHECK_CODE(shk__lock_acquire(&lock, 0), SHK_E_TIMEOUT);
        CHECK_EQUAL(taken(), 2);
        test_step(&arena->ready);
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        CHECK(owner() != token);
        shk__lock_release(&lock);
        shk__lock_close(&lock);
        CHECK_EQUAL(taken(), 1);
        _exit(0);
    }
    test_await(&arena->ready, 1);
    shk__lock_release(&lock);
    test_join(pid);
    CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
    CHECK_EQUAL(owner(), token);
    CHECK_EQUAL(taken(), 1);

    /* A child that closes the handle it never used takes nothing from its parent. */
    pid = make_child();
    if (pid == 0) {
        shk__lock_close(&lock);
        _exit(0);
    }
    test_join(pid);
    CHECK_EQUAL(taken(), 1);
    shk__lock_release(&lock);
    shk__lock_close(&lock);
    CHECK_EQUAL(taken(), 0);
}

static void forked_child_claims_its_own_token(void)
{
    child_claims_its_own_token(libc_fork);
}

static void cloned_child_claims_its_own_token(void)
{
    child_claims_its_own_token(raw_clone);
}

static void *hold_until_told(void *lock)
{
    CHECK_CODE(shk__lock_acquire(lock, LONG), SHK__FREE);
    test_step(&arena->owned);
    test_await(&arena->go, shk__load(&arena->owned));
    shk__lock_release(lock);
    return NULL;
}

static void fork_beside_an_owning_thread(void)
{
    set_up();
    struct shk__lock lock = open_lock();
    for (uint32_t i = 0; i < 2; i++) {
        pthread_t thread = test_thread(hold_until_told, &lock);
        test_await(&arena->owned, i + 1);
        pid_t pid = forks[i]();
        if (pid == 0) {
            CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
            test_step(&arena->ready);
            CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
            _exit(0); /* dies owning the lock */
        }
        test_await(&arena->ready, i + 1);
        test_step(&arena->go);
        test_join_thread(thread);
        test_join(pid);
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FROM_THE_DEAD);
        shk__lock_release(&lock);
    }
    CHECK_EQUAL(taken(), 1);
}

static void *claim_and_close(void *unused)
{
    (void)unused;
    while (shk__load(&arena->go) == 0) {
        struct shk__lock lock = open_lock();
        CHECK(shk__lock_acquire(&lock, LONG) >= 0);
        shk__lock_release(&lock);
        shk__lock_close(&lock);
    }
    return NULL;
}

/* Forks meet threads that hold the registry's mutex. */
static void fork_beside_claiming_threads(void)
{
    if (TEST_TSAN)
        SKIP("ThreadSanitizer thinks that a mutex which fork wiped is still locked");
    set_up();
    struct shk__lock lock = open_lock();
    pthread_t threads[] = {test_thread(claim_and_close, NULL), test_thread(claim_and_close, NULL)};
    for (uint32_t i = 0; i < 60; i++) {
        pid_t pid = forks[i % 2]();
        if (pid == 0) {
            int rc = shk__lock_acquire(&lock, LONG);
            _exit(rc < 0);
        }
        test_join(pid);
    }
    test_step(&arena->go);
    test_join_thread(threads[0]);
    test_join_thread(threads[1]);
    CHECK(shk__lock_acquire(&lock, LONG) >= 0);
    CHECK_EQUAL(taken(), 1);
}

/* ------------------------------------------------------------------- exec -- */

#define IMAGE "--image"

static _Noreturn void become_image(int expected, unsigned tokens)
{
    char id[16], code[16], count[16];
    (void)snprintf(id, sizeof id, "%d", arena_id);
    (void)snprintf(code, sizeof code, "%d", expected);
    (void)snprintf(count, sizeof count, "%u", tokens);
    execl("/proc/self/exe", "test_lock", IMAGE, id, code, count, (char *)NULL);
    FAIL("execl: %s", strerror(errno));
}

/* What a process does after its exec: argv is IMAGE, segment, expected code, former tokens. */
static int image_main(char **argv)
{
    arena_id = atoi(argv[2]);
    arena = shmat(arena_id, NULL, 0);
    CHECK(arena != (void *)-1);
    shk__set_describe(&set, arena->set_id, arena->store_id, -1);
    unsigned tokens = (unsigned)atoi(argv[4]);
    CHECK_EQUAL(taken(), tokens);
    test_step(&arena->ready);
    test_await(&arena->go, 1);

    struct shk__lock first = open_lock(), second = open_lock();
    CHECK_CODE(shk__lock_acquire(&first, LONG), atoi(argv[3]));
    CHECK(taken() <= tokens);
    shk__lock_release(&first);
    CHECK_CODE(shk__lock_acquire(&second, LONG), SHK__FREE);
    CHECK_EQUAL(taken(), 2);
    shk__lock_release(&second);
    shk__lock_close(&first);
    shk__lock_close(&second);
    CHECK_EQUAL(taken(), 0);
    return 0;
}

/* The image exists and does nothing yet: its tokens are no dead process's. */
static void check_image(pid_t pid, bool holds_lock)
{
    test_await(&arena->ready, 1);
    struct shk__lock lock = open_lock();
    if (holds_lock)
        CHECK_CODE(shk__lock_acquire(&lock, SHORT), SHK_E_TIMEOUT);
    shk__lock_close(&lock);
    test_step(&arena->go);
    test_join(pid);
    CHECK_EQUAL(arena->word, 0);
    CHECK_EQUAL(taken(), 0);
}

static void exec_keeps_the_token(void)
{
    set_up();
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        shk__lock_release(&lock);
        become_image(SHK__FREE, 1);
    }
    check_image(pid, false);
}

static void exec_by_the_owner_leaves_the_lock_to_its_new_image(void)
{
    set_up();
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        become_image(SHK__FROM_THE_DEAD, 1);
    }
    check_image(pid, true);
}

static void *exec_in_thread(void *unused)
{
    (void)unused;
    become_image(SHK__FROM_THE_DEAD, 1);
}

static void exec_by_another_thread_leaves_the_lock_to_the_new_image(void)
{
    set_up();
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        (void)test_thread(exec_in_thread, NULL);
        sleep_for_ever();
    }
    check_image(pid, true);
}

/* The new image adopts one token at its first write; the word names that or the other. */
static void exec_with_two_tokens(unsigned held)
{
    set_up();
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk__lock locks[] = {open_lock(), open_lock()};
        CHECK_CODE(shk__lock_acquire(&locks[1 - held], LONG), SHK__FREE);
        shk__lock_release(&locks[1 - held]);
        CHECK_CODE(shk__lock_acquire(&locks[held], LONG), SHK__FREE);
        become_image(SHK__FROM_THE_DEAD, 2);
    }
    check_image(pid, true);
}

static void exec_with_two_tokens_and_the_lock_in_the_first(void)
{
    exec_with_two_tokens(0);
}

static void exec_with_two_tokens_and_the_lock_in_the_second(void)
{
    exec_with_two_tokens(1);
}

/* ---------------------------------------------------------------- the set -- */

static void undo_test_succeeds_unnoticed(void)
{
    set_up();
    struct sigaction action = {.sa_handler = on_tick};
    for (int ignored = 0; ignored < 2; ignored++) {
        action.sa_handler = ignored ? SIG_IGN : on_tick;
        CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
        CHECK_CODE(shk__set_test_undo(&set), 0);
        CHECK_EQUAL(arena->ticks, 0);
        CHECK(waitpid(-1, NULL, __WALL | WNOHANG) < 0 && errno == ECHILD);
        CHECK_EQUAL(taken(), 0);
    }
}

/* A token that its former holder gave back is not given back again when that one ends. */
static void end_of_a_former_holder_leaves_the_token(void)
{
    set_up();
    pid_t former = test_fork();
    if (former == 0) {
        CHECK_CODE(shk__set_claim(&set, 0), 1);
        shk__set_release(&set, 0);
        test_step(&arena->ready);
        test_await(&arena->go, 1);
        exit(0);
    }
    test_await(&arena->ready, 1);
    CHECK_CODE(shk__set_claim(&set, 0), 1);
    test_step(&arena->go);
    test_join(former);
    CHECK_EQUAL(taken(), 1);
}

static bool exists(int id)
{
    struct semid_ds about;
    return semctl(id, 0, IPC_STAT, (union semun){.buf = &about}) == 0;
}

static void foreign_sets_are_not_removed(void)
{
    set_up();
    struct foreign forged[8];
    unsigned count = forge(forged);
    for (unsigned i = 0; i < count; i++) {
        shk__set_remove(&forged[i].set);
        check_untouched(&forged[i]);
    }
    CHECK(exists(set.id));
    shk__set_remove(&set);
    CHECK(!exists(set.id));
}

static void half_made_sets_are_removed(void)
{
    uint8_t store_id[16];
    struct shk__set half_made = new_half_made_set(store_id);
    CHECK_EQUAL(shk__set_find(store_id), half_made.id);
    shk__set_remove(&half_made);
    CHECK(!exists(half_made.id));

    /* Not half made: somebody has used it. */
    struct sembuf nothing = {0, 0, 0};
    half_made = new_half_made_set(store_id);
    CHECK(semop(half_made.id, &nothing, 1) == 0);
    shk__set_remove(&half_made);
    CHECK(exists(half_made.id));
    CHECK(semctl(half_made.id, 0, IPC_RMID) == 0);

    /* Not half made: of another size, though under the store's key. */
    half_made.id = test_keep_set(semget(half_made.key, 1, IPC_CREAT | IPC_EXCL | 0600));
    shk__set_remove(&half_made);
    CHECK(exists(half_made.id));
}

static const struct test tests[] = {
    TEST(threads_of_one_handle_exclude_each_other),
    TEST(handles_of_one_process_exclude_each_other),
    TEST(processes_exclude_each_other),
    TEST(waiter_under_a_timer_takes_over),
    TEST(waiter_under_a_timer_times_out),
    TEST(zero_timeout_tries_once),
    TEST(release_wakes_one_waiter_after_another),
    TEST(hook_runs_before_sleep_and_after_naps),
    TEST(busy_writer_leaves_a_turn_to_a_busy_one),
    TEST(busy_writer_glances_and_finds_that_nobody_writes),
    TEST(writer_that_is_not_busy_leaves_no_turn),
    TEST(hook_runs_before_a_turn_is_left),
    TEST(writer_with_little_time_leaves_no_turn),
    TEST(threads_of_one_handle_leave_no_turn),
    TEST(waiter_takes_over_though_another_sets_its_bit),
    TEST(claimer_of_the_dead_owners_token_owns_the_lock),
    TEST(claimer_owns_the_lock_though_its_bit_flips),
    TEST(claimer_and_waiter_inherit_once),
    TEST(owner_lives_while_any_thread_does),
    TEST(stopped_owner_is_never_robbed),
    TEST(waiter_takes_over_though_all_other_tokens_are_taken),
    TEST(too_many_living_writers_are_an_error),
    TEST(too_many_handles_of_one_process_are_an_error),
    TEST(removed_set_stops_claimers),
    TEST(removed_set_stops_waiters),
    TEST(forged_set_is_never_a_reason_to_take_over),
    TEST(other_ipc_namespace_is_an_error),
    TEST(set_of_another_user_is_an_error),
    TEST(word_that_names_no_token_is_corrupt),
    TEST(forked_child_claims_its_own_token),
    TEST(cloned_child_claims_its_own_token),
    TEST(fork_beside_an_owning_thread),
    TEST(fork_beside_claiming_threads),
    TEST(exec_keeps_the_token),
    TEST(exec_by_the_owner_leaves_the_lock_to_its_new_image),
    TEST(exec_by_another_thread_leaves_the_lock_to_the_new_image),
    TEST(exec_with_two_tokens_and_the_lock_in_the_first),
    TEST(exec_with_two_tokens_and_the_lock_in_the_second),
    TEST(end_of_a_former_holder_leaves_the_token),
    TEST(undo_test_succeeds_unnoticed),
    TEST(foreign_sets_are_not_removed),
    TEST(half_made_sets_are_removed),
};

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], IMAGE) == 0)
        return image_main(argv);
    return TEST_MAIN(argc, argv, tests);
}
