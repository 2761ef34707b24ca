/* realm.h: where and when a store's semaphore set has a meaning, in memory that may outlive
 * both: a file that is mapped again after a reboot, or in a container.
 *
 * A realm is a boot and, within it, an IPC namespace: one word (host.h). The header names the
 * realm that the store lives in, and the set with the boot in which it was made:
 *
 *   realm == here                      the set is the header's; one that is gone stays gone,
 *                                      for a writer may live that holds a token of it
 *   the same boot, another namespace   refused: writers may live there
 *   another boot                       nobody of it lives. CAS realm -> here: one namespace wins
 *     realm == here, set of that boot  the set is made anew, then CAS set -> the new one
 *
 * Whoever finds the last state makes the set, for its maker may be dead. Nobody waits, for all
 * make the same set: its key follows from the store id and one semop stores its constants,
 * which another can't store again. The lock word may name a token of the boot before: in the
 * new set it is free, or another's who has never held the lock, and so it is taken over as from
 * any dead writer, with the operation that stands in the journal.
 */
#ifndef SHK_REALM_H
#define SHK_REALM_H

#include "store.h"

static inline uint64_t shk__set_word(uint64_t realm, int set_id)
{
    return (realm >> 32) << 32 | ((uint32_t)set_id + 1);
}

/* The set's id where the header's set is of this realm; -1. */
int shk__realm_set(const struct shk_header_shm *header);

/* Makes the store of the header one of this realm, whose store id and set mode are decided, or
 * INCOMPATIBLE. out: its set. *realm: this. */
int shk__realm_enter(struct shk_header_shm *header, uint64_t *realm, int *set_id);

/* INCOMPATIBLE where the store was taken to another realm since the handle was opened. */
int shk__realm_left(const shk_store *store) __attribute__((cold));
static inline int shk__realm_check(const shk_store *store)
{
    if (SHK__LIKELY(store->realm == 0 || shk__load(&shk__header(store)->realm) == store->realm))
        return 0;
    return shk__realm_left(store);
}

#endif
