/* tokens.c: the token set over semget, semop and semctl. */
#include "tokens.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "hash.h"
#include "registry.h"
#include "semaphore.h"

#define SEMAPHORES (SHK_WRITERS_MAX + SHK_IDENTITY)
#define MAGIC_0 21323u /* "SK" */
#define MAGIC_1 22859u /* "YK" less a bit: a semaphore holds at most 32,767 */

#define CLAIM_ATTEMPTS 3
#define UNDO_ATTEMPTS 64

union semun { /* semctl(2): the caller defines it */
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

/* Room for the identity check and two operations on a token. */
struct operations {
    struct sembuf list[3 * SHK_IDENTITY + 2];
    size_t count;
};

static void add(struct operations *ops, uint32_t semaphore, int change, int flags)
{
    ops->list[ops->count++] = (struct sembuf){.sem_num = (unsigned short)semaphore,
                                              .sem_op = (short)change,
                                              .sem_flg = (short)(flags | IPC_NOWAIT)};
}

static void add_identity(struct operations *ops, const struct shk__set *set)
{
    for (uint32_t i = 0; i < SHK_IDENTITY; i++) {
        add(ops, SHK_WRITERS_MAX + i, -set->identity[i], 0);
        add(ops, SHK_WRITERS_MAX + i, 0, 0);
        add(ops, SHK_WRITERS_MAX + i, set->identity[i], 0);
    }
}

/* All or nothing, never waiting. 0 or -errno. */
static int perform(const struct shk__set *set, struct operations *ops)
{
    return semop(set->id, ops->list, ops->count) == 0 ? 0 : -errno;
}

static int explain(const struct shk__set *set, int error)
{
    switch (error) {
    case -EAGAIN:
    case -EFBIG: /* fewer semaphores than ours */
        return shk__fail(SHK_E_CORRUPT, "semaphore set %d is not this store's: it has another identity",
                         set->id);
    case -EINVAL:
    case -EIDRM:
        return shk__fail(-EIDRM, "semaphore set %d of the store does not exist", set->id);
    case -E2BIG:
        return shk__fail(error,
                         "semop(id=%d): SEMOPM, the third number of sysctl kernel.sem, must be at "
                         "least %zu",
                         set->id, sizeof((struct operations){0}.list) / sizeof(struct sembuf));
    case -EACCES:
        return shk__fail(error,
                         "semop(id=%d): the store's semaphore set was not given away with its "
                         "segment: root, and who created both, can write to the store and destroy "
                         "it; unwiped, ipcrm -m removes the segment, and theirs is ipcrm -s %d",
                         set->id, set->id);
    default:
        return shk__fail(error, "semop(id=%d)", set->id);
    }
}

/* Positive. */
static key_t key_of(const uint8_t store_id[16])
{
    uint32_t word;
    memcpy(&word, store_id + 12, sizeof word);
    return (key_t)(word % INT32_MAX + 1);
}

static int make(const uint8_t store_id[16], int flags, int *id)
{
    int made = semget(key_of(store_id), SEMAPHORES, IPC_CREAT | flags);
    if (made < 0)
        return shk__semset_fail_to_create(errno, key_of(store_id), SEMAPHORES);
    *id = made;
    return 0;
}

int shk__set_create_keyed(const uint8_t store_id[16], mode_t mode, int *id)
{
    return make(store_id, IPC_EXCL | (int)mode, id);
}

int shk__set_find(const uint8_t store_id[16])
{
    return semget(key_of(store_id), 0, 0);
}

void shk__set_describe(struct shk__set *set, int id, const uint8_t store_id[16], int segment)
{
    uint64_t hash_key[2];
    memcpy(hash_key, store_id, sizeof hash_key);
    const uint64_t name = shk__siphash13(hash_key, &segment, sizeof segment);
    set->id = id;
    set->key = key_of(store_id);
    set->identity[0] = MAGIC_0;
    set->identity[1] = MAGIC_1;
    for (unsigned i = 2; i < SHK_IDENTITY; i++) /* 0 would mean "wait for zero" */
        set->identity[i] = (uint16_t)(1 + (name >> 16 * (i - 2) & 0xFFFF) % 32767);
}

bool shk__set_may_be_of(int id, uid_t creator)
{
    struct semid_ds about;
    return semctl(id, 0, IPC_STAT, (union semun){.buf = &about}) < 0 ||
           about.sem_perm.cuid == creator;
}

static int check_identity(const struct shk__set *set)
{
    struct operations ops = {.count = 0};
    add_identity(&ops, set);
    return perform(set, &ops);
}

int shk__set_initialise(const struct shk__set *set)
{
    struct operations ops = {.count = 0};
    for (uint32_t i = 0; i < SHK_IDENTITY; i++) {
        add(&ops, SHK_WRITERS_MAX + i, 0, 0); /* Linux makes semaphores with the value 0 */
        add(&ops, SHK_WRITERS_MAX + i, set->identity[i], 0);
    }
    int rc = perform(set, &ops);
    if (rc == -EAGAIN)
        rc = check_identity(set);
    return rc < 0 ? explain(set, rc) : 0;
}

/* The caller has just listed the token. 1, 0 or an error as shk__set_claim. */
static int take(const struct shk__set *set, uint32_t token)
{
    struct operations ops = {.count = 0};
    add_identity(&ops, set);
    add(&ops, token, 0, 0);
    add(&ops, token, 1, SEM_UNDO);
    int rc = perform(set, &ops);
    if (rc == 0)
        return 1;
    /* EAGAIN is a taken token only if the set is ours. */
    if (rc == -EAGAIN && (rc = check_identity(set)) == 0)
        /* Last changed by this process, yet not by this image: left by an exec. */
        return semctl(set->id, (int)token, GETPID) == getpid();
    return explain(set, rc);
}

int shk__set_claim(const struct shk__set *set, uint32_t token)
{
    int rc = shk__registry_add(set->id, token);
    if (rc == -ENOSPC)
        return shk__fail(SHK_E_TOO_MANY_WRITERS,
                         "this process has too many writable handles: close some");
    if (rc < 0)
        return shk__fail(rc, "the list of this process's tokens");
    if (rc == 0)
        return 0;
    rc = take(set, token);
    if (rc != 1)
        shk__registry_remove(set->id, token);
    return rc;
}

void shk__set_release(const struct shk__set *set, uint32_t token)
{
    struct operations ops = {.count = 0};
    add_identity(&ops, set);
    add(&ops, token, -1, SEM_UNDO);
    (void)perform(set, &ops); /* the set may be gone, and the token with it */
    shk__registry_remove(set->id, token);
}

/* 1, 0 if none is free, or an error. */
static int claim_one_of_all(const struct shk__set *set, uint32_t *token)
{
    unsigned short values[SEMAPHORES];
    if (semctl(set->id, 0, GETALL, (union semun){.array = values}) < 0)
        return explain(set, -errno);
    /* First what an exec left, then free ones from anywhere on: claimers that
     * arrive together shall not all try the same one. */
    uint32_t start = (uint32_t)getpid() * 2654435761u;
    for (uint32_t i = 0; i < 2 * SHK_WRITERS_MAX; i++) {
        uint32_t candidate = (start + i) % SHK_WRITERS_MAX;
        bool left_by_exec = i < SHK_WRITERS_MAX;
        if ((values[candidate] != 0) != left_by_exec ||
            (left_by_exec && semctl(set->id, (int)candidate, GETPID) != getpid()))
            continue;
        int rc = shk__set_claim(set, candidate);
        if (rc == 1)
            *token = candidate;
        if (rc != 0)
            return rc;
    }
    return 0;
}

int shk__set_claim_any(const struct shk__set *set, uint32_t *token)
{
    int rc = check_identity(set);
    if (rc < 0)
        return explain(set, rc);
    /* Again, if need be: a waiter that tests a dead owner holds its token for an instant. */
    for (int attempt = 0; attempt < CLAIM_ATTEMPTS; attempt++) {
        rc = claim_one_of_all(set, token);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        struct timespec t = shk__timespec(SHK_MILLISECOND);
        nanosleep(&t, NULL);
    }
    return shk__fail(SHK_E_TOO_MANY_WRITERS,
                     "all %u writer tokens of the store are taken: close writable handles, or open "
                     "read-only where nothing is written",
                     SHK_WRITERS_MAX);
}

struct take {
    int id;
    struct sembuf operations[2]; /* of a free token */
};

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
/* Its own clone takes every child for a forked one that has a copy of the memory. */
extern int __clone(int (*)(void *), void *, int, void *, ...);
#define clone __clone
#endif

/* The child shares our memory but not our undo list, and runs no libc code but
 * the two raw calls: it must leave nothing changed in the parent. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static int
die_holding(void *argument)
{
    const struct take *child = argument;
    syscall(SYS_semop, child->id, child->operations, (size_t)2);
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    return 0;
}

/* The pid of a child that took the token, if it was free, and was killed then. -errno. */
static pid_t kill_holder(const struct shk__set *set, uint32_t token)
{
    _Alignas(16) char stack[16384];
    const unsigned short number = (unsigned short)token;
    struct take child = {set->id, {{number, 0, IPC_NOWAIT}, {number, 1, SEM_UNDO | IPC_NOWAIT}}};
    /* No signal handler of the program runs in the child, and with no exit signal
     * no SIGCHLD handler and no wait() of the program ever sees it. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(die_holding, stack + sizeof stack, CLONE_VM | CLONE_VFORK, &child);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return shk__fail(-error, "clone, to test that this kernel honours SEM_UNDO");
    int status;
    while (waitpid(pid, &status, (int)__WCLONE) < 0)
        if (errno != EINTR)
            return shk__fail(-errno, "waitpid(%d), to test that this kernel honours SEM_UNDO", pid);
    return pid;
}

int shk__set_test_undo(const struct shk__set *set)
{
    pid_t pid = 0, last = 0;
    int value = 0;
    for (uint32_t i = 0; i < UNDO_ATTEMPTS; i++) {
        uint32_t token = ((uint32_t)getpid() * 2654435761u + i) % SHK_WRITERS_MAX;
        pid = kill_holder(set, token);
        if (pid < 0)
            return pid;
        /* In this order: the value that was left by the child, or that of whoever came later
         * and is named then. */
        value = semctl(set->id, (int)token, GETVAL);
        last = semctl(set->id, (int)token, GETPID);
        if (last == pid && value == 0)
            return 0;
        if (last == pid)
            break;
    }
    return shk__fail(-ENOTSUP,
                     "this kernel does not honour SEM_UNDO: the token of killed child %d is %d, "
                     "last changed by %d; a dead writer could not be told from a living one",
                     pid, value, last);
}

int shk__set_join(const uint8_t store_id[16], mode_t mode, struct shk__set *out)
{
    struct shk__set set;
    int id = -1;
    int rc = make(store_id, (int)mode, &id);
    if (rc < 0)
        return rc;
    shk__set_describe(&set, id, store_id, -1);
    rc = shk__set_initialise(&set);
    if (rc == 0)
        rc = shk__set_test_undo(&set);
    if (rc == 0)
        *out = set;
    return rc;
}

void shk__set_remove(const struct shk__set *set)
{
    if (check_identity(set) < 0) {
        /* Or it is the half-made set of a creator that was killed before it was initialised. */
        struct semid_ds about;
        if (semctl(set->id, 0, IPC_STAT, (union semun){.buf = &about}) < 0 ||
            about.sem_perm.__key != set->key || about.sem_nsems != SEMAPHORES ||
            about.sem_otime != 0)
            return;
    }
    (void)semctl(set->id, 0, IPC_RMID);
}
