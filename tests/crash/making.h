/* making.h: creation and destruction, where segments and semaphore sets come and go.
 *
 * A creator that was killed leaves a complete store, or remains that the next creator replaces,
 * or in memory completes, and that a reader does not take for a store. A destroyer leaves a store that lives, or one
 * that whoever opens it for writing finishes: no key in memory, segment and set gone;
 * in memory the set alone.
 */
#ifndef MAKING_H
#define MAKING_H

#include <stddef.h>

/* The points. A creator is killed for real at each; a destroyer at every Nth, if N is not 0,
 * and all the images that it makes are examined. */
size_t step_creation(size_t kills_every, size_t *killed);
size_t step_destruction(size_t kills_every, size_t *killed);
/* Of a store in memory, after a reboot. Whoever opened it first was killed; the next one goes on.
 * As with creation in memory, each is also stopped at each point, and changes nothing when it
 * goes on after another did it all. */
size_t step_takeover(size_t *killed);

#endif
