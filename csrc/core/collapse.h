/* collapse.h: huge pages for what has filled.
 *
 * A large store read at random waits for page tables as long as for the data: 4 KiB pages of
 * 200 MB have 400 KB of entries, in every process anew. Huge pages from the start would cost
 * memory for capacity that nobody uses yet. So a writer that has filled another 2 MiB of
 * records asks the kernel to collapse it into one huge page (MADV_COLLAPSE, Linux 6.1; 1 to
 * 2 ms, once in the store's life, after the lock is released), and a part of the index with
 * it. Every process that has the store mapped at a multiple of 2 MiB sees the huge page from
 * then on. Nothing but speed depends on any of this.
 */
#ifndef SHK_COLLAPSE_H
#define SHK_COLLAPSE_H

#include "store.h"

/* As shk_segment_map, at a multiple of 2 MiB if the segment is so large that it matters. */
int shk__collapse_map(int id, size_t size, int flags, struct shk_segment_info *info, void **out)
    __attribute__((hot));
/* Of a new handle: from which high-water mark on there will be something to do. */
void shk__collapse_open(shk_store *store) __attribute__((hot));
void shk__collapse_filled(shk_store *store) __attribute__((cold));

/* Without the lock. */
static inline void shk__collapse(shk_store *store)
{
    if (!SHK__LIKELY(shk__load(&shk__ledger(store)->high_water) < shk__load(&store->collapse_at)))
        shk__collapse_filled(store);
}

#endif
