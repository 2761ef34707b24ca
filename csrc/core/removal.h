/* removal.h: leaving nothing in a store that serves nobody any more. */
#ifndef SHK_REMOVAL_H
#define SHK_REMOVAL_H

#include "store.h"

/* The state is REMOVED or MOVED: zeroes every entry and slot, unless that was done. May be
 * repeated, and interrupted, by anybody. */
void shk__removal_wipe(const shk_store *store);
/* The state is REMOVED: wipes, removes segment and set. Likewise. */
void shk__removal_finish(const shk_store *store);

#endif
