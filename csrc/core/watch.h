/* watch.h: telling waiters of a commit, without a system call where nobody waits.
 *
 * Waiters sleep on the low half of the revision, a futex that a read-only mapping may wait
 * on too. One that can write announces the revision it has seen in changes.awaited, and is
 * woken at once by the first commit after it: due while awaited > woken. The others are
 * woken if the last wake is a tick of the coarse clock ago; whoever misses a wake because
 * of that limit has just been awake and naps shortly. All naps are timed, as a writer may
 * be killed between its commit and the wake.
 */
#ifndef SHK_WATCH_H
#define SHK_WATCH_H

#include "store.h"

/* After the lock was released: wakes who waits for changes, if that is due. */
void shk__tell_waiters(const shk_store *store);

/* After a state that ends the store was stored, by whoever holds the lock or where nobody
 * can: waiters learn of it at once. */
void shk__tell_end(const shk_store *store);

#endif
