/* move.h: what became of a store whose records were copied to a larger one. */
#ifndef SHK_MOVE_H
#define SHK_MOVE_H

#include "store.h"

/* The state is MOVED: the code MOVED, with a detail that names the successor. */
int shk__moved(const shk_store *store);
/* The state is MOVED: wipes what its mover, being dead, had not wiped yet. */
void shk__moved_finish(const shk_store *store);

#endif
