/* semaphore.h: the kernel's semaphores, which come in sets.
 *
 * A set is made by one call and given its values by another, so an opener may come
 * between the two. What tells it is sem_otime: 0 from semget on, set by the first
 * semop. So the creator stores the values (SETALL) and then performs an operation,
 * and an opener waits until sem_otime is no longer 0.
 *
 * -ENOENT: the set is gone, whether the kernel says EINVAL or EIDRM, and whether
 * before the call or while it waited. The calls that wait end with -EINTR when a
 * signal's handler has run, or may have: call again, with the same deadline.
 */
#ifndef SHK_SEMAPHORE_H
#define SHK_SEMAPHORE_H

#include <sys/sem.h>

#include "deadline.h"
#include "shk.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SHK_SEMAPHORE_MAX 32767 /* SEMVMX, and SEMAEM for what undo adds up; fixed in the kernel */

#define SHK_SEMSET_MAX 65536u   /* semaphores of a set; SEMMSL, which can be changed, is lower */

struct shk_semset_info {
    int id;
    key_t key;
    unsigned count;
    mode_t mode; /* permission bits */
    uid_t uid, cuid;
    gid_t gid, cgid;
    time_t operation_time, change_time; /* seconds since the epoch; 0: never */
};

/* A new set, all zero, not initialised. count: 1 or more. The detail of EINVAL and
 * ENOSPC names the limit (SEMMSL, SEMMNS, SEMMNI) and its value. */
SHK_API int shk_semset_create(key_t key, unsigned count, mode_t mode, int *id);
/* Only the creator: stores the values, then performs the operation that tells. */
SHK_API int shk_semset_initialise(int id, const unsigned short *values);
/* The id of an existing set. need: the permissions (of the 9 bits) without which -EACCES;
 * 0: none. */
SHK_API int shk_semset_find(key_t key, mode_t need, int *id);
/* Waits for the creator to initialise. SHK_E_TIMEOUT: it has not. */
SHK_API int shk_semset_await(int id, uint64_t deadline);

/* All the operations at once or none (semop); flags are 0 or SEM_UNDO. Waits until they
 * are possible, at most until the deadline: SHK_E_TIMEOUT, without a detail. IPC_NOWAIT
 * in the flags is this function's own. */
SHK_API int shk_semset_operate(int id, struct sembuf *operations, size_t count, uint64_t deadline);

/* A question about one semaphore: GETVAL, GETPID, GETNCNT or GETZCNT. */
SHK_API int shk_semset_ask(int id, unsigned index, int what, int *answer);
SHK_API int shk_semset_values(int id, unsigned short *values);
/* SETVAL and SETALL: every process forgets what it would have undone of these. */
SHK_API int shk_semset_set_value(int id, unsigned index, int value);
SHK_API int shk_semset_set_values(int id, const unsigned short *values);

SHK_API int shk_semset_stat(int id, struct shk_semset_info *out);
/* IPC_SET. mode: the low 9 bits. */
SHK_API int shk_semset_set(int id, uid_t uid, gid_t gid, mode_t mode);
/* IPC_RMID: at once, and whoever waits gets -ENOENT. */
SHK_API int shk_semset_remove(int id);

#ifdef __cplusplus
}
#endif
#endif
