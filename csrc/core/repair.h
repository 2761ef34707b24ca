/* repair.h: making a store whole again from its records.
 *
 *   journal.kind = REPAIR -> index -> slots, free queue, counts -> journal.kind = NONE
 *
 * Whoever finds REPAIR in the journal starts over: every step may be repeated.
 */
#ifndef SHK_REPAIR_H
#define SHK_REPAIR_H

#include "store.h"

/* 0, -ENOMEM. */
int shk__repair_locked(const shk_store *store, struct shk_repair_report *out);

#endif
