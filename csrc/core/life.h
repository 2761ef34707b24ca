/* life.h: how a store comes, is found, and goes.
 *
 *   shmget (EXCL) -> birthmark -> set -> fill -> CAS(MAKING -> LIVE)
 *                                              \ CAS(MAKING -> DEAD) by an opener
 *                                                that has waited out its time
 *
 * One of the two CAS wins. Whoever loses cleans up its own and starts over, so
 * nobody ever has to judge whether a creator is alive. Remains are removed by
 * segment id, never by key: the key may already name a successor.
 */
#ifndef SHK_LIFE_H
#define SHK_LIFE_H

#include "store.h"

/* What distinguishes this boot and this IPC namespace; zeros where unknown. */
uint64_t shk__ipc_namespace(void);
void shk__boot_id(uint8_t out[16]);
/* INCOMPATIBLE where the thread left the IPC namespace in which it opened the store:
 * the ids of segment and set are somebody else's here. */
int shk__namespace_check(const shk_store *store);

#endif
