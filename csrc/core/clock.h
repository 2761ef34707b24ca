/* clock.h: nanoseconds. */
#ifndef SHK_CLOCK_H
#define SHK_CLOCK_H

#include <time.h>

#include "shk.h"

static inline uint64_t shk__clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * SHK_SECOND + (uint64_t)t.tv_nsec;
}

/* For deadlines. */
static inline uint64_t shk__monotonic(void)
{
    return shk__clock(CLOCK_MONOTONIC);
}

/* For dates in records: a time to live may be shorter than a coarse tick of some ms. */
static inline uint64_t shk__realtime_fine(void)
{
    return shk__clock(CLOCK_REALTIME);
}

/* For readers, to whom a record may stay unexpired for some ms more. */
static inline uint64_t shk__realtime(void)
{
    return shk__clock(CLOCK_REALTIME_COARSE);
}

static inline struct timespec shk__timespec(uint64_t duration)
{
    return (struct timespec){.tv_sec = (time_t)(duration / SHK_SECOND),
                             .tv_nsec = (long)(duration % SHK_SECOND)};
}

#endif
