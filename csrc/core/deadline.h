/* deadline.h: until when a call may wait: CLOCK_MONOTONIC, in nanoseconds. */
#ifndef SHK_DEADLINE_H
#define SHK_DEADLINE_H

#include <stdint.h>

#define SHK_NOW UINT64_C(0)  /* not at all */
#define SHK_NEVER UINT64_MAX /* for ever */

#endif
