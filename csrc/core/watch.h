/* watch.h: telling waiters of a commit, without a system call where nobody waits.
 *
 * Waiters sleep on the low half of the revision, a futex that a read-only mapping may wait
 * on too. One that can write announces itself by changes.waiting, and is woken at once.
 * The others are woken if the last wake is a tick of the coarse clock ago; whoever misses
 * a wake because of that limit has just been awake and naps shortly. All naps are timed,
 * as a writer may be killed between its commit and the wake.
 */
#ifndef SHK_WATCH_H
#define SHK_WATCH_H

#include "store.h"

/* Under the lock, after the last commit: whether to call shk_store_wake after the lock is
 * released. A call that was due and not made, its process being dead, becomes the next
 * writer's. */
bool shk__wake_due_locked(const shk_store *store);

#endif
