/* tokens.h: the token set, which tells who is alive.
 *
 * A set of SHK_WRITERS_MAX token semaphores (0 free, 1 held) and, behind them,
 * SHK_IDENTITY constants that name the store and its segment. A token is taken with SEM_UNDO: the
 * kernel gives it back when the last thread of its process is gone, in whichever
 * PID namespace, after the process's memory is. So a token that can be taken has
 * no living owner, and a store by its former owner can't come later.
 *
 * Every operation on a token is one atomic semop that also checks the constants
 * (minus v, is zero, plus v): an id means something only within one IPC namespace
 * and one boot, and a stranger's zero must never read as "dead". Nothing is ever set
 * with SETVAL or SETALL, for that would discard the undo.
 */
#ifndef SHK_TOKENS_H
#define SHK_TOKENS_H

#include "shk.h"

#define SHK_IDENTITY 6u /* two magic constants, four of store id and segment */

struct shk__set {
    int id;
    key_t key; /* under which its creator made it, see shk__set_create_keyed */
    uint16_t identity[SHK_IDENTITY];
};

/* A set without values yet, under a key that follows from the store id. A header that
 * holds the store id thus names the set before it exists, and a creator killed between
 * semget and storing the id leaves nothing that can't be found. -EEXIST: draw another
 * store id. */
int shk__set_create_keyed(const uint8_t store_id[16], mode_t mode, int *id);
/* The id of the set with the store id's key, whosever it is; -1. */
int shk__set_find(const uint8_t store_id[16]);
/* Describes the set `id` of the store `store_id` in this segment, -1: in memory of a caller's;
 * asks nothing of the kernel. A store id that fits another segment's set can't be found: a header
 * that was copied, by who may write to this segment only, makes nobody take or remove that set. */
void shk__set_describe(struct shk__set *set, int id, const uint8_t store_id[16], int segment);
/* False: another user than this one created it, which its name and constants, read from a
 * segment, may be forged to hide. True also where there is no such set. */
bool shk__set_may_be_of(int id, uid_t creator);
/* Stores the constants, by one semop that only new semaphores let through: 0 also where they
 * were stored before. CORRUPT: somebody else's set. */
int shk__set_initialise(const struct shk__set *set);
/* Kills a child that holds a token: 0 if the kernel then gave it back, -ENOTSUP if not. Others
 * may be taking tokens meanwhile. */
int shk__set_test_undo(const struct shk__set *set);
/* The set of a store in memory, found or made, initialised and tested: any number of processes
 * that do so at once get the same one. */
int shk__set_join(const uint8_t store_id[16], mode_t mode, struct shk__set *out);

/* 1: taken, its former holder is dead or there was none. 0: held by the living.
 * -EIDRM: no such set (any more). SHK_E_CORRUPT: somebody else's set. Other
 * -errno: nothing is known, which is never a reason to think anybody dead. */
int shk__set_claim(const struct shk__set *set, uint32_t token);
/* Takes any free token, or adopts one that this process took before an exec. */
int shk__set_claim_any(const struct shk__set *set, uint32_t *token);
void shk__set_release(const struct shk__set *set, uint32_t token);

/* Removes the set if it is the store's, or one that its creator had not
 * initialised yet. Anything else stays. */
void shk__set_remove(const struct shk__set *set);

#endif
