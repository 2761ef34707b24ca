/* victim.h: programs that use the store while it is attacked, and the one that makes it
 * whole again. */
#ifndef VICTIM_H
#define VICTIM_H

#include <stdbool.h>
#include <stdint.h>

/* The call that this process is in, round after round, stands in the arena. */
void victim_run(void);
/* Ends the run after so many nanoseconds. round: the one to begin with; only: to repeat it. */
void keeper_run(uint64_t duration, uint32_t round, bool only);

#endif
