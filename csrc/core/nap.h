/* nap.h: sleeping between attempts where the kernel can't wait until a deadline. */
#ifndef SHK_NAP_H
#define SHK_NAP_H

#include <errno.h>

#include "clock.h"
#include "shk.h"
#include "error.h"

#define SHK_NAP_FIRST (SHK_MILLISECOND / 20)
#define SHK_NAP_LONGEST (10 * SHK_MILLISECOND)
#define SHK_NAPS_TOTAL (100 * SHK_MILLISECOND)

struct shk__naps {
    uint64_t length; /* of the last one; doubles */
    uint64_t total;
};

/* *naps is zero before the first one. 0: try again. SHK_E_TIMEOUT. -EINTR: a signal's
 * handler has run, or may have: a signal that comes between two naps interrupts none, so
 * the caller is to look now and then. */
static inline int shk__nap(uint64_t deadline, struct shk__naps *naps)
{
    uint64_t now = shk__monotonic();
    if (now >= deadline)
        return shk__fail_plainly(SHK_E_TIMEOUT);
    if (naps->total >= SHK_NAPS_TOTAL)
        return shk__fail_plainly(-EINTR);
    uint64_t length = naps->length ? naps->length * 2 : SHK_NAP_FIRST;
    naps->length = length < SHK_NAP_LONGEST ? length : SHK_NAP_LONGEST;
    naps->total += naps->length;
    struct timespec time =
        shk__timespec(naps->length < deadline - now ? naps->length : deadline - now);
    if (nanosleep(&time, NULL) != 0 && errno == EINTR)
        return shk__fail_plainly(-EINTR);
    return 0;
}

#endif
