/* broken_lock.h: the token lock with one rule broken, which the harness must notice.
 *
 * It is lock.c itself, but a waiter judges the owner's death by its pid, as kill(pid, 0)
 * or a look at /proc would, and not by claiming its token. In another PID namespace a
 * living owner has no pid, so it looks dead.
 */
#ifndef BROKEN_LOCK_H
#define BROKEN_LOCK_H

#include "lock.h"

int broken_lock_open(struct shk__lock *lock, uint32_t *word, const uint64_t *progress,
                     const struct shk__set *set);
int broken_lock_acquire(struct shk__lock *lock, uint64_t timeout);
void broken_lock_release(struct shk__lock *lock);

#endif
