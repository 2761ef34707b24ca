/* store.h: a handle, and where it finds the parts of its segment.
 *
 * The geometry is private memory, computed once (layout.h). Of the segment every
 * number read later is checked against it before it is used as a place.
 */
#ifndef SHK_STORE_H
#define SHK_STORE_H

#include "atomic.h"
#include "layout.h"
#include "lock.h"

struct shk_store {
    unsigned char *base;
    struct shk__geometry geometry;
    uint64_t hash_key[2];
    struct shk__lock lock; /* seat is NULL in a read-only handle */
    uint64_t lock_timeout; /* atomic */
    struct shk_info info;
    uint64_t collapse_at; /* atomic: a high-water mark, of collapse.h */
    uint64_t ipc_namespace; /* where the handle was opened, so where the store was made */
    uint64_t realm;         /* in a caller's memory, written to: the header's, then and now */
    char title[24];         /* what messages call it */
};

/* In memory that is the caller's: there is no segment to ask, to mark or to detach. */
static inline bool shk__is_in_memory(const shk_store *store)
{
    return store->info.id < 0;
}

#define SHK__PART(name, type, at)                                                                  \
    static inline struct type *shk__##name(const shk_store *store)                                 \
    {                                                                                              \
        return (struct type *)(store->base + (at));                                                \
    }
SHK__PART(header, shk_header_shm, 0)
SHK__PART(lock_word, shk_lock_shm, 1024)
SHK__PART(journal, shk_journal_shm, 1088)
SHK__PART(ledger, shk_ledger_shm, 1216)
SHK__PART(changes, shk_changes_shm, 1280)
SHK__PART(stats, shk_stats_shm, 1344)
#undef SHK__PART

static inline struct shk_bucket_shm *shk__bucket(const shk_store *store, uint32_t number)
{
    return (struct shk_bucket_shm *)(store->base + store->geometry.buckets_offset) + number;
}

/* target < buckets * SHK_WAYS */
static inline uint64_t *shk__entry_at(const shk_store *store, uint64_t target)
{
    return &shk__bucket(store, (uint32_t)(target / SHK_WAYS))->entries[target % SHK_WAYS];
}

/* place: absolute, any value */
static inline uint32_t *shk__queue_at(const shk_store *store, uint64_t place)
{
    return (uint32_t *)(store->base + store->geometry.queue_offset) + place % store->geometry.slots;
}

static inline struct shk_ring_shm *shk__ring_at(const shk_store *store, uint64_t revision)
{
    return (struct shk_ring_shm *)(store->base + store->geometry.ring_offset +
                                   revision % SHK_RING * store->geometry.ring_size);
}

/* slot < slots */
static inline struct shk_slot_shm *shk__slot(const shk_store *store, uint32_t slot)
{
    return (struct shk_slot_shm *)(store->base + store->geometry.records_offset +
                                   (uint64_t)slot * store->geometry.record_size);
}

/* Its first `size` bytes come from memory meanwhile, as far as a usual record reaches. Any number
 * will do: of one that is no slot nothing is fetched. */
static inline void shk__slot_prefetch(const shk_store *store, uint32_t slot, uint32_t size)
{
    if (slot >= store->geometry.slots)
        return;
    const char *line = (const char *)shk__slot(store, slot);
    for (uint32_t at = 0; at < size && at < 4 * SHK_LINE; at += SHK_LINE)
        __builtin_prefetch(line + at);
}

/* 0, or what became of the store: REMOVED; MOVED; CORRUPT where its state is none that a
 * published store can have, for a damaged store is nobody's to wipe. */
int shk__store_check_live(const shk_store *store);

/* Takes the lock, finishes or undoes what a dead writer had begun. READONLY,
 * REMOVED, MOVED, or as shk__lock_acquire. */
int shk__store_begin(shk_store *store);
/* For repair: takes the lock without recovery, also where the lock word names nobody. */
int shk__store_begin_damaged(shk_store *store);
/* Releases the lock, and wakes who waits for changes if there were any. */
void shk__store_end(shk_store *store);

#endif
