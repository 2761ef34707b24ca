/* host.h: the boot and the IPC namespace, within which System V ids mean something. */
#ifndef SHK_HOST_H
#define SHK_HOST_H

#include "store.h"

/* What distinguishes this boot and this IPC namespace; zeros where unknown. */
uint64_t shk__ipc_namespace(void);
void shk__boot_id(uint8_t out[16]);
/* Both in one word, the boot, hashed, in its upper half; 0 where either is unknown. */
uint64_t shk__realm_here(void);
/* INCOMPATIBLE where the thread left the IPC namespace in which it opened the store:
 * the ids of segment and set are somebody else's here. */
int shk__namespace_check(const shk_store *store);

#endif
