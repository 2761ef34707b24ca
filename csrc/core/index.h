/* index.h: which entry stands for a pair.
 *
 * A pair's hash names its home bucket and a 16-bit tag. It stands in the home
 * bucket or, that being full, in the next with room; each bucket passed on the way
 * counts one overflow. A search visits buckets until one has overflow 0. A placed
 * entry never moves, so a search that misses a pair which moved in between has
 * seen it absent.
 */
#ifndef SHK_INDEX_H
#define SHK_INDEX_H

#include "record.h"

struct shk__query {
    uint32_t home;
    uint16_t tag;
    uint32_t role; /* 0: the pair's record; one of SHK_FLAGS_IS_PREVIOUS: its previous key's */
    struct shk__pair pair;
};

/* Fills in home and tag. Records of other roles hash elsewhere. */
void shk__query_hash(const shk_store *store, struct shk__query *query);
/* Of a pair's own record. INVALID, naming the limit. */
int shk__query_make(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                    struct shk__query *out) __attribute__((hot));
/* Of the record in this image. */
void shk__query_of_image(const shk_store *store, const uint64_t *words, struct shk__query *out);

static inline uint32_t shk__next_bucket(const shk_store *store, uint32_t bucket)
{
    return bucket + 1 < store->geometry.buckets ? bucket + 1 : 0;
}

/* For writes and batches: fetch the home bucket, then, once it may have come, the record's
 * lines. Hints: whatever stands there, nothing follows from it. */
void shk__index_prefetch_bucket(const shk_store *store, const struct shk__query *query);
void shk__index_prefetch_slot(const shk_store *store, const struct shk__query *query);
/* The same for who asks for the key alone: the first lines, up to `size` bytes of a slot. */
void shk__index_prefetch_key(const shk_store *store, const struct shk__query *query, uint32_t size);

/* The pair's image, or ABSENT, REMOVED, CORRUPT. Waits for nobody, stores nothing. */
int shk__index_read(const shk_store *store, const struct shk__query *query, uint64_t *words);
/* The same for one who asks for the key alone: see shk__slot_copy. */
int shk__index_read_key(const shk_store *store, const struct shk__query *query, uint64_t *words)
    __attribute__((hot));

/* The record that an entry names, for walks: 1, 0 where it is empty, CORRUPT. */
int shk__entry_read(const shk_store *store, const uint64_t *at, uint64_t *words);

struct shk__place {
    uint64_t target; /* entry number */
    uint64_t word;   /* what stands there; 0: the pair is absent and would go here */
    uint32_t passed; /* buckets between home and there */
};
/* Under the lock. FULL: no room within the probe limit; CORRUPT. */
int shk__index_find_locked(const shk_store *store, const struct shk__query *query,
                           struct shk__place *out);

/* Adds `by` to the overflow counts of the buckets passed. */
void shk__index_overflow_locked(const shk_store *store, const struct shk__query *query,
                                uint32_t passed, int by);

#endif
