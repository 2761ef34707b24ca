/* collapse.c: which 2 MiB are full, and the kernel's help. */
#include "collapse.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define GRANULE ((uint64_t)1 << 21)
/* Pairs hash to pages of the index at random, 336 to a page when the store is full. Once a
 * 64th of its slots was used, all but 1 % of the pages are touched. */
#define INDEX_SHARE 64u
#define NEVER UINT64_MAX
/* Below the code, so that libraries loaded later have room, and seldom in another GiB, for
 * which the kernel would make another page of page tables. */
#define DISTANCE ((uintptr_t)1 << 27)

static uint64_t up(uint64_t size, uint64_t to)
{
    return (size + to - 1) / to * to;
}

/* ------------------------------------------------------------------ attach -- */

int shk__collapse_map(int id, size_t size, int flags, struct shk_segment_info *info, void **out)
{
    if (size < 2 * GRANULE)
        return shk_segment_map(id, NULL, flags, info, out);
    /* A place that is free unless another store took it, or much was loaded: shmat refuses one
     * that isn't, and one that is no address at all. */
    uintptr_t at = ((uintptr_t)&shk__collapse_map - DISTANCE - size) / GRANULE * GRANULE;
    if (shk_segment_map(id, (void *)at, flags, info, out) == 0)
        return 0;
    /* The kernel is asked for room, and its answer rounded: twice the price. If another thread
     * maps something there meanwhile, or if the pages are huger still and don't fit, shmat
     * refuses. */
    const size_t room = size + GRANULE;
    void *hole = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (hole != MAP_FAILED) {
        (void)munmap(hole, room);
        at = up((uintptr_t)hole, GRANULE);
        if (shk_segment_map(id, (void *)at, flags, info, out) == 0)
            return 0;
    }
    return shk_segment_map(id, NULL, flags, info, out);
}

/* ------------------------------------------------------------------ filled -- */

/* Granules that end at or before the last of so many slots. */
static uint64_t granules(const shk_store *store, uint64_t slots)
{
    return (store->geometry.records_offset + slots * store->geometry.record_size) / GRANULE;
}

/* The high-water mark from which on there are more than `full` of them. */
static uint64_t mark_beyond(const shk_store *store, uint64_t full)
{
    const struct shk__geometry *g = &store->geometry;
    uint64_t end = (full + 1) * GRANULE;
    if (end > g->total_size)
        return NEVER;
    return (end - g->records_offset + g->record_size - 1) / g->record_size;
}

void shk__collapse_open(shk_store *store)
{
    store->collapse_at = NEVER;
    if (store->info.readonly || (uintptr_t)store->base % GRANULE)
        return;
    uint64_t mark = shk__load(&shk__ledger(store)->high_water);
    if (mark <= store->geometry.slots)
        store->collapse_at = mark_beyond(store, granules(store, mark));
}

/* False where the kernel knows no such advice. That it has no huge page to spare is no
 * reason to give up the next one. */
static bool collapse(const shk_store *store, uint64_t granule)
{
    return madvise(store->base + granule * GRANULE, GRANULE, MADV_COLLAPSE) == 0 || errno != EINVAL;
}

void shk__collapse_filled(shk_store *store)
{
    const struct shk__geometry *g = &store->geometry;
    uint64_t mark = shk__load(&shk__ledger(store)->high_water);
    uint64_t due = shk__load(&store->collapse_at);
    if (mark < due || mark > g->slots)
        return;
    uint64_t next = granules(store, due) - 1, full = granules(store, mark);
    if (!shk__cas64(&store->collapse_at, &due, mark_beyond(store, full)))
        return; /* another thread does it */
    /* Neither the queue of free slots nor what shares a granule with it need be full. */
    const uint64_t first = up(g->records_offset, GRANULE) / GRANULE;
    const uint64_t index = g->queue_offset / GRANULE, late = granules(store, g->slots / INDEX_SHARE);
    bool able = true;
    for (; next < full && able; next++) {
        if (next >= first)
            able = collapse(store, next);
        if (able && next >= late && next - late < index)
            able = collapse(store, next - late);
    }
    if (!able)
        shk__store(&store->collapse_at, NEVER);
}
