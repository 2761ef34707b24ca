/* expiry.h: records whose time has passed give their room back, at no cost to others.
 *
 * Each insert looks at the two slots under a clock hand, and a full store at all of them
 * before it fails. ledger.earliest spares both where nothing can have expired; it is
 * lowered before a record that expires is committed and raised by a whole sweep only.
 */
#ifndef SHK_EXPIRY_H
#define SHK_EXPIRY_H

#include "previous.h"

/* All under the lock; 0 or CORRUPT. They may delete any expired record, so places found
 * before are to be found again, but for an empty one. */
int shk__expiry_visit_locked(const shk_store *store);
int shk__expiry_sweep_locked(const shk_store *store);

/* FULL if the place is empty and the store holds all it may. */
int shk__expiry_check_room(const shk_store *store, const struct shk__place *place);
/* Records that would still fit. */
uint64_t shk__expiry_room(const shk_store *store);

#endif
