/* nap.h: sleeping between attempts where the kernel can't wait until a deadline. */
#ifndef SHK_NAP_H
#define SHK_NAP_H

#include <errno.h>

#include "clock.h"
#include "deadline.h"
#include "error.h"

#define SHK_NAP_FIRST (SHK_MILLISECOND / 20)
#define SHK_NAP_LONGEST (10 * SHK_MILLISECOND)

/* *nap is 0 before the first one, and doubles. 0: try again. SHK_E_TIMEOUT; -EINTR: a
 * signal's handler has run. */
static inline int shk__nap(uint64_t deadline, uint64_t *nap)
{
    uint64_t now = shk__monotonic();
    if (now >= deadline)
        return shk__fail_plainly(SHK_E_TIMEOUT);
    *nap = *nap == 0 ? SHK_NAP_FIRST : *nap < SHK_NAP_LONGEST ? *nap * 2 : *nap;
    struct timespec time = shk__timespec(*nap < deadline - now ? *nap : deadline - now);
    if (nanosleep(&time, NULL) != 0 && errno == EINTR)
        return shk__fail_plainly(-EINTR);
    return 0;
}

#endif
