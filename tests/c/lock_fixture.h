/* lock_fixture.h: a lock word, a token set, and processes that own the lock or died owning it. */
#ifndef LOCK_FIXTURE_H
#define LOCK_FIXTURE_H

#include <sys/random.h>
#include <sys/time.h>

#include "atomic.h"
#include "clock.h"
#include "lock.h"
#include "test.h"

#define SHORT (50 * SHK_MILLISECOND) /* to see that the lock is not to be had */
#define LONG (100 * SHK_SECOND)      /* never waited for where all is well */
#define SEMAPHORES (SHK_WRITERS_MAX + SHK_IDENTITY)

union semun { /* semctl(2): the caller defines it */
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

/* What the processes of a test share; an exec'd image finds the set in it. */
struct arena {
    uint32_t word;
    uint32_t owned, ready, go, done; /* steps */
    uint32_t from_the_dead;
    uint32_t ticks; /* of whoever started a timer */
    int set_id;
    uint8_t store_id[16];
    uint64_t counter; /* incremented plainly: the lock guards it */
    uint64_t progress;
    uint64_t stamp;
};

static struct arena *arena;
static int arena_id;
static struct shk__set set;

/* As a creator leaves it that is killed before it stores the constants. */
static inline struct shk__set new_half_made_set(uint8_t store_id[16])
{
    struct shk__set made;
    int id;
    CHECK(getrandom(store_id, 16, 0) == 16);
    CHECK_CODE(shk__set_create_keyed(store_id, 0600, &id), 0);
    shk__set_describe(&made, test_keep_set(id), store_id, -1);
    return made;
}

static inline struct shk__set new_set(uint8_t store_id[16])
{
    struct shk__set made = new_half_made_set(store_id);
    CHECK_CODE(shk__set_initialise(&made), 0);
    return made;
}

static inline void set_up(void)
{
    arena = test_segment(sizeof *arena, &arena_id);
    set = new_set(arena->store_id);
    arena->set_id = set.id;
}

static inline struct shk__lock open_lock(void)
{
    struct shk__lock lock = {0};
    CHECK_CODE(shk__lock_open(&lock, &arena->word, &arena->progress, &set), 0);
    return lock;
}

/* The token in the lock word; UINT32_MAX if it is free. */
static inline uint32_t owner(void)
{
    return (shk__load(&arena->word) & ~SHK_LOCK_WAITERS) - 1;
}

static inline unsigned taken(void)
{
    unsigned short values[SEMAPHORES];
    unsigned count = 0;
    CHECK(semctl(set.id, 0, GETALL, (union semun){.array = values}) == 0);
    for (uint32_t i = 0; i < SHK_WRITERS_MAX; i++)
        count += values[i] != 0;
    return count;
}

static _Noreturn inline void sleep_for_ever(void)
{
    for (;;)
        pause();
}

/* A process that owns the lock until it is killed or, where it is told to go on, released it. */
static inline pid_t start_owner(void)
{
    uint32_t before = shk__load(&arena->owned), go = shk__load(&arena->go);
    pid_t pid = test_fork();
    if (pid == 0) {
        struct shk__lock lock = open_lock();
        CHECK_CODE(shk__lock_acquire(&lock, LONG), SHK__FREE);
        test_step(&arena->owned);
        test_await(&arena->go, go + 1);
        shk__lock_release(&lock);
        shk__lock_close(&lock);
        exit(0);
    }
    test_await(&arena->owned, before + 1);
    return pid;
}

/* Leaves the lock held by a dead process and returns its token. */
static inline uint32_t leave_dead_owner(void)
{
    pid_t pid = start_owner();
    uint32_t token = owner();
    test_kill(pid);
    CHECK_EQUAL(owner(), token);
    return token;
}

static inline void on_tick(int number)
{
    (void)number;
    __atomic_fetch_add(&arena->ticks, 1, __ATOMIC_RELAXED);
}

/* SIGALRM every so often, as a profiler does: no nap lasts longer. */
static inline void start_timer(unsigned microseconds)
{
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval interval = {{0, microseconds}, {0, microseconds}};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &interval, NULL) == 0);
}

#endif
