/* lock.h: the writers' lock, one 32-bit word in the segment.
 *
 *        free ---CAS---> {token + 1} ---CAS by a waiter---> {token + 1, WAITERS}
 *          ^                  |                                     |
 *          +---- exchange ----+------------ exchange + wake --------+
 *
 * Taking the lock and naming its owner is one CAS, so there is no instant at
 * which it is held by nobody knows whom. A waiter sleeps in short timed naps and
 * tests the owner's life by claiming its token (tokens.h): if it can, the
 * owner is dead and the word, which only a holder of that token could have
 * changed but for the WAITERS bit, is moved to the waiter by CAS.
 */
#ifndef SHK_LOCK_H
#define SHK_LOCK_H

#include "tokens.h"

#define SHK_LOCK_WAITERS UINT32_C(0x80000000)

/* The token of a handle, in pages that fork wipes: a child has none and no mutex
 * is locked there, whatever its parent's threads were doing. */
struct shk__seat;

struct shk__lock {
    uint32_t *word;
    const uint64_t *progress;
    struct shk__set set;
    struct shk__seat *seat;
};

enum shk__acquired { SHK__FREE = 0, SHK__FROM_THE_DEAD = 1 };

/* Claims no token yet. *progress grows by one a write, whoever writes. -errno. */
int shk__lock_open(struct shk__lock *lock, uint32_t *word, const uint64_t *progress,
                   const struct shk__set *set);
/* No thread may be in acquire or hold the lock. Gives the token back. */
void shk__lock_close(struct shk__lock *lock);

/* enum shk__acquired; or TIMEOUT (a living owner, also a stopped one, is never
 * robbed), CORRUPT (the word names no token), -EINTR (the thread's hook said so),
 * and what shk__set_claim and shk__set_claim_any report. */
int shk__lock_acquire(struct shk__lock *lock, uint64_t timeout);
void shk__lock_release(struct shk__lock *lock);
/* Frees a lock whose word names no token, so nobody; false if it names one or is free. */
bool shk__lock_clear_nobody(struct shk__lock *lock);

/* What shk_thread_on_wait set, for other sleeps; 0 if nothing. */
int shk__hook_run(void);

#endif
