/* semaphore.c: semget, semtimedop and semctl, with errors that say what to do. */
#include "semaphore.h"

#include <errno.h>
#include <string.h>

#include "error.h"
#include "nap.h"

union semun { /* semctl(2): the caller defines it */
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

/* kernel.sem is four numbers: SEMMSL, SEMMNS, SEMOPM, SEMMNI. The advice gives them all. */
int shk__semset_fail_to_create(int error, key_t key, unsigned count)
{
    struct seminfo limits, used; /* SEM_INFO: semusz sets, semaem semaphores */
    if ((error != EINVAL && error != ENOSPC) ||
        semctl(0, 0, IPC_INFO, (union semun){.info = &limits}) < 0)
        return shk__fail(-error, "semget(key=0x%x, nsems=%u)", (unsigned)key, count);
    if (count > (unsigned)limits.semmsl)
        return shk__fail(-error,
                         "semget(key=0x%x, nsems=%u): beyond SEMMSL: a set may have %d semaphores "
                         "(kernel.sem, first number), raise it with sysctl -w "
                         "kernel.sem=\"%u %d %d %d\"",
                         (unsigned)key, count, limits.semmsl, count, limits.semmns, limits.semopm,
                         limits.semmni);
    if (semctl(0, 0, SEM_INFO, (union semun){.info = &used}) < 0)
        memset(&used, 0, sizeof used);
    if (used.semusz >= limits.semmni)
        return shk__fail(-error,
                         "semget(key=0x%x, nsems=%u): SEMMNI is reached: there may be %d sets "
                         "(kernel.sem, fourth number), raise it with sysctl -w "
                         "kernel.sem=\"%d %d %d %d\", or remove unused ones with ipcrm",
                         (unsigned)key, count, limits.semmni, limits.semmsl, limits.semmns,
                         limits.semopm, limits.semmni * 2);
    if (count > (unsigned)limits.semmns || used.semaem > limits.semmns - (int)count)
        return shk__fail(-error,
                         "semget(key=0x%x, nsems=%u): beyond SEMMNS: all sets together may have %d "
                         "semaphores (kernel.sem, second number), %d are used, raise it with "
                         "sysctl -w kernel.sem=\"%d %u %d %d\"",
                         (unsigned)key, count, limits.semmns, used.semaem, limits.semmsl,
                         (unsigned)used.semaem + count, limits.semopm, limits.semmni);
    return shk__fail(-error,
                     "semget(key=0x%x, nsems=%u): SEMMNI (%d sets) or SEMMNS (%d semaphores) was "
                     "reached, but there is room again: try again",
                     (unsigned)key, count, limits.semmni, limits.semmns);
}

int shk_semset_create(key_t key, unsigned count, mode_t mode, int *id)
{
    if (count == 0)
        return shk__fail(SHK_E_INVALID, "a set of 0 semaphores: at least 1 is needed");
    if (count > SHK_SEMSET_MAX)
        return shk__fail(SHK_E_INVALID, "a set of %u semaphores: at most %u, as an operation's index "
                                        "has 16 bits",
                         count, SHK_SEMSET_MAX);
    int found = semget(key, (int)count, IPC_CREAT | IPC_EXCL | (int)(mode & 0777));
    if (found < 0)
        return shk__semset_fail_to_create(errno, key, count);
    *id = found;
    return 0;
}

int shk_semset_find(key_t key, mode_t need, int *id)
{
    if (key == IPC_PRIVATE)
        return shk__fail(SHK_E_INVALID,
                         "key 0 (IPC_PRIVATE) always makes a new set: find this one by its id");
    int found = semget(key, 0, (int)(need & 0777));
    if (found < 0)
        return shk__fail(-errno, "semget(key=0x%x, nsems=0)", (unsigned)key);
    *id = found;
    return 0;
}

/* Where EINVAL, if the arguments are right, can only mean the id. */
static int fail(int error, int id, const char *call)
{
    if (error == EIDRM)
        return shk__fail(-ENOENT, "%s: the semaphore set %d was removed", call, id);
    if (error == EINVAL)
        return shk__fail(-ENOENT, "%s: the semaphore set %d is gone (removed, or never there)", call,
                         id);
    return shk__fail(-error, "%s on semaphore set %d", call, id);
}

int shk_semset_initialise(int id, const unsigned short *values)
{
    int error = shk_semset_set_values(id, values);
    if (error)
        return error;
    /* One that changes nothing. Whoever doesn't wait for us may have changed the first
     * value already; that was an operation too. */
    int value = values[0];
    struct sembuf touch[2] = {{.sem_op = (short)-value, .sem_flg = IPC_NOWAIT},
                              {.sem_op = (short)value, .sem_flg = IPC_NOWAIT}};
    if (semop(id, touch, value ? 2 : 1) != 0 && errno != EAGAIN && errno != ERANGE)
        return fail(errno, id, "semop");
    return 0;
}

int shk_semset_await(int id, uint64_t deadline)
{
    for (struct shk__naps naps = {0, 0};;) {
        struct shk_semset_info info;
        int error = shk_semset_stat(id, &info);
        if (error || info.operation_time != 0)
            return error;
        error = shk__nap(deadline, &naps);
        if (error == SHK_E_TIMEOUT)
            return shk__fail(error,
                             "the semaphore set %d (key=0x%x) was created by uid %u but never "
                             "initialised: nobody performed an operation on it yet. If its creator "
                             "was killed, remove it with ipcrm -s %d",
                             id, (unsigned)info.key, info.cuid, id);
        if (error)
            return error;
    }
}

static int fail_to_operate(int error, int id, const struct sembuf *operations, size_t count)
{
    struct seminfo limits;
    if (error == E2BIG && semctl(0, 0, IPC_INFO, (union semun){.info = &limits}) >= 0)
        return shk__fail(-error,
                         "semop(id=%d) of %zu operations: beyond SEMOPM: %d are possible at once "
                         "(kernel.sem, third number), raise it with sysctl -w "
                         "kernel.sem=\"%d %d %zu %d\"",
                         id, count, limits.semopm, limits.semmsl, limits.semmns, count,
                         limits.semmni);
    if (error == ERANGE && count == 1)
        return shk__fail(-error,
                         "semop(id=%d): semaphore %u %+d would exceed SEMVMX, which is %d, or what "
                         "this process undoes at its end would exceed SEMAEM, the same",
                         id, operations->sem_num, operations->sem_op, SHK_SEMAPHORE_MAX);
    if (error == ERANGE)
        return shk__fail(-error,
                         "semop(id=%d): one of %zu operations would exceed SEMVMX, which is %d, or "
                         "what this process undoes at its end would exceed SEMAEM, the same",
                         id, count, SHK_SEMAPHORE_MAX);
    return fail(error, id, "semop");
}

int shk_semset_operate(int id, struct sembuf *operations, size_t count, uint64_t deadline)
{
    int rc, error;
    if (count == 0)
        return shk__fail(SHK_E_INVALID, "no operation: at least 1 is needed");
    for (size_t i = 0; i < count; i++)
        operations[i].sem_flg = (short)((operations[i].sem_flg & ~IPC_NOWAIT) |
                                        (deadline == SHK_NOW ? IPC_NOWAIT : 0));
    if (deadline == SHK_NOW || deadline == SHK_NEVER) {
        rc = semop(id, operations, count);
    } else {
        uint64_t now = shk__monotonic();
        struct timespec left = shk__timespec(now < deadline ? deadline - now : 0);
        rc = semtimedop(id, operations, count, &left);
    }
    if (rc == 0)
        return 0;
    error = errno;
    if (error == EAGAIN)
        return shk__fail_plainly(SHK_E_TIMEOUT);
    if (error == EINTR)
        return shk__fail_plainly(-EINTR);
    return fail_to_operate(error, id, operations, count);
}

int shk_semset_ask(int id, unsigned index, int what, int *answer)
{
    int found = semctl(id, (int)index, what);
    if (found < 0)
        return fail(errno, id, "semctl");
    *answer = found;
    return 0;
}

int shk_semset_values(int id, unsigned short *values)
{
    if (semctl(id, 0, GETALL, (union semun){.array = values}) < 0)
        return fail(errno, id, "semctl(GETALL)");
    return 0;
}

int shk_semset_set_value(int id, unsigned index, int value)
{
    if (semctl(id, (int)index, SETVAL, (union semun){.val = value}) < 0)
        return fail(errno, id, "semctl(SETVAL)");
    return 0;
}

int shk_semset_set_values(int id, const unsigned short *values)
{
    /* The cast: SETALL only reads. */
    if (semctl(id, 0, SETALL, (union semun){.array = (unsigned short *)(uintptr_t)values}) < 0)
        return fail(errno, id, "semctl(SETALL)");
    return 0;
}

int shk_semset_stat(int id, struct shk_semset_info *out)
{
    struct semid_ds status;
    if (semctl(id, 0, IPC_STAT, (union semun){.buf = &status}) < 0)
        return fail(errno, id, "semctl(IPC_STAT)");
    *out = (struct shk_semset_info){
        .id = id,
        .key = status.sem_perm.__key,
        .count = (unsigned)status.sem_nsems,
        .mode = status.sem_perm.mode & 0777,
        .uid = status.sem_perm.uid,
        .cuid = status.sem_perm.cuid,
        .gid = status.sem_perm.gid,
        .cgid = status.sem_perm.cgid,
        .operation_time = status.sem_otime,
        .change_time = status.sem_ctime,
    };
    return 0;
}

int shk_semset_set(int id, uid_t uid, gid_t gid, mode_t mode)
{
    struct semid_ds status = {.sem_perm = {.uid = uid, .gid = gid, .mode = mode & 0777}};
    if (semctl(id, 0, IPC_SET, (union semun){.buf = &status}) < 0) {
        int error = errno;
        struct shk_semset_info info;
        if (error == EINVAL && shk_semset_stat(id, &info) != -ENOENT)
            return shk__fail(-error, "semctl(id=%d, IPC_SET, uid=%u, gid=%u, mode=0%o)", id, uid,
                             gid, mode & 0777u);
        return fail(error, id, "semctl(IPC_SET)");
    }
    return 0;
}

int shk_semset_remove(int id)
{
    if (semctl(id, 0, IPC_RMID) < 0)
        return fail(errno, id, "semctl(IPC_RMID)");
    return 0;
}
