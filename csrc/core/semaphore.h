/* semaphore.h: why there is no new set, in words that name the limit. */
#ifndef SHK_SEMAPHORE_H
#define SHK_SEMAPHORE_H

#include "shk.h"

/* Of semget(2), which failed with this errno: the code, after its detail was stored. */
int shk__semset_fail_to_create(int error, key_t key, unsigned count);

#endif
