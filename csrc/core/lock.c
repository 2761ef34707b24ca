/* lock.c: acquire, wait, take over, release. The rules are proved in lock.h's terms:
 * whoever holds a token is the only one who may act in its name. */
#include "lock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "atomic.h"
#include "clock.h"
#include "error.h"
#include "registry.h"

#define NAP_FIRST (2 * SHK_MILLISECOND)
#define NAP_LONGEST (50 * SHK_MILLISECOND)
/* How often a lock that is not free is looked at before the first nap, each time after so
 * many pauses of some 15 to 45 ns. */
#define LOOKS 64
#define PAUSES 32u

struct shk__seat {
    pthread_mutex_t claiming; /* all zeros is unlocked */
    uint32_t token_plus_one;
    uint64_t since, taken; /* how often the lock was taken since then (CLOCK_MONOTONIC) */
};

static _Thread_local struct {
    int (*hook)(void *);
    void *context;
} on_wait;

void shk_thread_on_wait(int (*hook)(void *context), void *context)
{
    on_wait.hook = hook;
    on_wait.context = context;
}

int shk__hook_run(void)
{
    return on_wait.hook ? on_wait.hook(on_wait.context) : 0;
}

int shk__lock_open(struct shk__lock *lock, uint32_t *word, const uint64_t *progress,
                   const struct shk__set *set)
{
    struct shk__seat *seat = shk__wiped_pages_new(sizeof *seat);
    if (!seat)
        return shk__fail(-errno, "mmap and madvise(MADV_WIPEONFORK), which Linux has since 4.14");
    *lock = (struct shk__lock){.word = word, .progress = progress, .set = *set, .seat = seat};
    return 0;
}

void shk__lock_close(struct shk__lock *lock)
{
    uint32_t held = shk__load(&lock->seat->token_plus_one);
    if (held)
        shk__set_release(&lock->set, held - 1);
    shk__wiped_pages_free(lock->seat, sizeof *lock->seat);
    lock->seat = NULL;
}

/* Gives the handle a token. SHK__FROM_THE_DEAD: the word already names it, for its
 * former holder died owning the lock, and so the lock is this thread's now. No CAS
 * is needed: a waiter could move the word only while holding this token. The word
 * must be read before the token is published to the handle's other threads. */
static int take_seat(struct shk__lock *lock)
{
    struct shk__seat *seat = lock->seat;
    int rc = SHK__FREE;
    pthread_mutex_lock(&seat->claiming);
    if (seat->token_plus_one == 0) {
        uint32_t token;
        rc = shk__set_claim_any(&lock->set, &token);
        if (rc == 0) {
            if ((shk__load(lock->word) & ~SHK_LOCK_WAITERS) == token + 1)
                rc = SHK__FROM_THE_DEAD;
            shk__store(&seat->token_plus_one, token + 1);
        }
    }
    pthread_mutex_unlock(&seat->claiming);
    return rc;
}

/* The owner that `seen` names is dead if its token can be claimed. 1: the lock is ours. */
static int take_over(struct shk__lock *lock, uint32_t mine, uint32_t seen)
{
    uint32_t owner = seen & ~SHK_LOCK_WAITERS;
    if (owner == mine)
        return 0; /* another thread of this handle */
    int rc = shk__set_claim(&lock->set, owner - 1);
    if (rc != 1)
        return rc;
    /* Exactly what was seen, or that with the bit of one more waiter: a word that
     * moved on was moved by somebody alive. */
    rc = shk__cas32(lock->word, &seen, mine | SHK_LOCK_WAITERS) ||
         (seen == (owner | SHK_LOCK_WAITERS) &&
          shk__cas32(lock->word, &seen, mine | SHK_LOCK_WAITERS));
    shk__set_release(&lock->set, owner - 1);
    return rc;
}

/* Ends early when woken, by a signal, or where the word has changed. */
static void nap(uint32_t *word, uint32_t seen, uint64_t duration)
{
    struct timespec t = shk__timespec(duration);
    (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, &t, NULL, 0);
}

static bool names_nobody(uint32_t word)
{
    return (word & ~SHK_LOCK_WAITERS) - 1 >= SHK_WRITERS_MAX;
}

bool shk__lock_clear_nobody(struct shk__lock *lock)
{
    uint32_t seen = shk__load(lock->word);
    return seen != 0 && names_nobody(seen) && shk__cas32(lock->word, &seen, 0);
}

/* Each handover takes some ten cache lines from one core to another, which takes as long as
 * several writes. So writers that do nothing but write go by turns, not by single writes: who
 * has lately taken the lock OFTEN leaves it to the others for as long as they do the same, a
 * turn at most. Who writes now and then never stands aside, and waits for nobody who does: the
 * lock of one who writes all the time is free every other moment. Nor does who has not much more
 * time than a turn, nor a thread that meets another one of its own handle, for which it may be
 * that all the writes were. */
#define OFTEN 32u
#define LATELY SHK_MILLISECOND
#define GLANCE (SHK_MILLISECOND / 20)
#define TURN (10 * SHK_MILLISECOND)

/* The holder's: nobody else counts meanwhile. */
static void count(struct shk__seat *seat)
{
    shk__store(&seat->taken, shk__load(&seat->taken) + 1);
}

static bool has_been_busy(struct shk__seat *seat, uint64_t now)
{
    uint64_t taken = shk__load(&seat->taken), elapsed = now - shk__load(&seat->since);
    if (taken < OFTEN && elapsed < LATELY)
        return false; /* as far as can be told yet */
    shk__store(&seat->since, now);
    shk__store(&seat->taken, 0);
    return taken >= OFTEN && elapsed / taken <= LATELY / OFTEN;
}

#define GO_ON 2 /* none of enum shk__acquired */

/* Before a sleep, which the caller of the library may have to prepare for. */
static int run_hook(struct shk__lock *lock, uint32_t mine, uint64_t timeout)
{
    if (shk__hook_run() != 0)
        return shk__fail(-EINTR, "waiting for the writers' lock");
    /* A signal handler may have forked, and this be the child: `mine` is not its. */
    if (shk__load(&lock->seat->token_plus_one) != mine)
        return shk__lock_acquire(lock, timeout);
    return GO_ON;
}

/* Until somebody else has had a turn. */
static void look_on(const uint64_t *progress)
{
    const uint64_t end = shk__monotonic() + TURN;
    uint64_t before, after = shk__load(progress);
    do {
        before = after;
        struct timespec t = shk__timespec(GLANCE);
        nanosleep(&t, NULL);
        after = shk__load(progress);
    } while (shk__monotonic() < end && after - before >= OFTEN);
}

static int wait_for(struct shk__lock *lock, uint32_t mine, uint32_t owner, uint64_t timeout)
{
    uint32_t waiters = 0; /* once asleep, others may have slept with us: keep the bit for them */
    uint64_t interval = NAP_FIRST;
    uint64_t now = shk__monotonic();
    uint64_t deadline = timeout < UINT64_MAX - now ? now + timeout : UINT64_MAX;
    uint64_t next_test = now + interval;
    bool tell_hook = true;

    if (timeout >= 2 * TURN && owner != mine && has_been_busy(lock->seat, now)) {
        int rc = run_hook(lock, mine, timeout);
        if (rc != GO_ON)
            return rc;
        look_on(lock->progress);
    }
    for (unsigned looks = 0;;) {
        uint32_t seen = shk__load(lock->word);
        if (seen == 0) {
            if (!shk__cas32(lock->word, &seen, mine | waiters))
                continue;
            count(lock->seat);
            return SHK__FREE;
        }
        if (names_nobody(seen))
            return shk__fail(SHK_E_CORRUPT, "the lock word is %#x, which names no writer", seen);
        if (looks < LOOKS) {
            looks++;
            for (unsigned i = 0; i < PAUSES; i++)
                shk__pause();
            continue;
        }
        /* By the clock, whatever ended the nap: signals may end every one of them. */
        now = shk__monotonic();
        if (now >= next_test || now >= deadline) {
            int rc = take_over(lock, mine, seen);
            if (rc != 0)
                return rc < 0 ? rc : SHK__FROM_THE_DEAD;
            if (now >= deadline)
                return shk__fail(SHK_E_TIMEOUT,
                                 "the writers' lock was not free within %.3f s; its owner lives "
                                 "(token %u), running or stopped",
                                 (double)timeout / 1e9, (seen & ~SHK_LOCK_WAITERS) - 1);
            interval = interval * 2 < NAP_LONGEST ? interval * 2 : NAP_LONGEST;
            next_test = now + interval;
        }
        if (tell_hook && on_wait.hook) {
            tell_hook = false;
            int rc = run_hook(lock, mine, timeout);
            if (rc != GO_ON)
                return rc;
            continue;
        }
        if (!(seen & SHK_LOCK_WAITERS)) {
            if (!shk__cas32(lock->word, &seen, seen | SHK_LOCK_WAITERS))
                continue;
            seen |= SHK_LOCK_WAITERS;
        }
        waiters = SHK_LOCK_WAITERS;
        nap(lock->word, seen, (next_test < deadline ? next_test : deadline) - now);
        tell_hook = true; /* however it ended: a signal may have come just before it */
    }
}

int shk__lock_acquire(struct shk__lock *lock, uint64_t timeout)
{
    uint32_t mine = shk__load(&lock->seat->token_plus_one);
    if (__builtin_expect(mine == 0, 0)) {
        int rc = take_seat(lock);
        if (rc != SHK__FREE)
            return rc;
        mine = shk__load(&lock->seat->token_plus_one);
    }
    uint32_t seen = 0;
    if (__builtin_expect(shk__cas32(lock->word, &seen, mine), 1)) {
        count(lock->seat);
        return SHK__FREE;
    }
    return wait_for(lock, mine, seen & ~SHK_LOCK_WAITERS, timeout);
}

void shk__lock_release(struct shk__lock *lock)
{
    if (shk__exchange(lock->word, 0) & SHK_LOCK_WAITERS)
        (void)syscall(SYS_futex, lock->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
