/* index.c: searching. */
#include "index.h"

#include <string.h>

#include "error.h"
#include "hash.h"

/* Invalidated copies before a reader calls the store corrupt; each one takes a
 * writer's commit, so a living store never comes near it. */
#define COPIES_MAX 10000
#define DISAGREEMENTS_MAX 8

static SHK__ALWAYS_INLINE void hash_query(const shk_store *store, struct shk__query *query)
{
    const uint64_t key[2] = {store->hash_key[0] ^ query->role, store->hash_key[1]};
    const size_t size = 2 * (size_t)store->geometry.id_size, usual = 2 * SHK_ID_SIZE_DEFAULT;
    uint64_t hash = SHK__LIKELY(size == usual) ? shk__siphash13(key, query->pair.ids, usual)
                                               : shk__siphash13(key, query->pair.ids, size);
    query->home = (uint32_t)((hash >> 32) * store->geometry.buckets >> 32);
    query->tag = (uint16_t)hash;
}

void shk__query_hash(const shk_store *store, struct shk__query *query)
{
    hash_query(store, query);
}

void shk__query_of_image(const shk_store *store, const uint64_t *words, struct shk__query *out)
{
    out->role = shk__image_flags(words) & SHK_FLAGS_IS_PREVIOUS;
    memcpy(out->pair.ids, shk__image_ids(words), 2 * (size_t)store->geometry.id_size);
    shk__query_hash(store, out);
}

int shk__query_make(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                    struct shk__query *out)
{
    int rc = shk__pair_make(store, client, server, &out->pair);
    if (!SHK__LIKELY(rc == 0))
        return rc;
    out->role = 0;
    hash_query(store, out);
    return 0;
}

void shk__index_prefetch_bucket(const shk_store *store, const struct shk__query *query)
{
    __builtin_prefetch(shk__bucket(store, query->home));
}

void shk__index_prefetch_slot(const shk_store *store, const struct shk__query *query)
{
    const struct shk_bucket_shm *bucket = shk__bucket(store, query->home);
    for (unsigned way = 0; way < SHK_WAYS; way++) {
        uint64_t entry = shk__load(&bucket->entries[way]);
        if (shk__entry_tag(entry) == query->tag)
            shk__slot_prefetch(store, shk__entry_slot(entry), store->geometry.record_size);
    }
}

/* A bit for each entry with this tag, also for an empty one if that is 0. Which it is nobody can
 * predict, so nothing branches on it. */
static SHK__ALWAYS_INLINE unsigned ways_with_tag(const struct shk_bucket_shm *bucket, uint16_t tag)
{
    unsigned ways = 0;
#pragma GCC unroll 8
    for (unsigned way = SHK_WAYS; way-- > 0;)
        ways = 2 * ways + ((uint16_t)(shk__load(&bucket->entries[way]) ^ tag) < 1);
    return ways;
}

void shk__index_prefetch_key(const shk_store *store, const struct shk__query *query, uint32_t size)
{
    const struct shk_bucket_shm *bucket = shk__bucket(store, query->home);
    for (unsigned ways = ways_with_tag(bucket, query->tag); ways; ways &= ways - 1) {
        uint64_t entry = shk__load(&bucket->entries[__builtin_ctz(ways)]);
        shk__slot_prefetch(store, shk__entry_slot(entry), size);
    }
}

static uint64_t difference(const uint64_t *record, const uint64_t *wanted, size_t i)
{
    return shk__image_ids_word(record, i) ^ wanted[i];
}

static bool same_ids(const uint64_t *record, const uint64_t *wanted, size_t size)
{
    for (size_t i = 0; i < size / 8; i++)
        if (difference(record, wanted, i))
            return false;
    return size % 8 == 0 || difference(record, wanted, size / 8) << (64 - 8 * (size % 8)) == 0;
}

static inline bool is_wanted(const shk_store *store, const uint64_t *words,
                             const struct shk__query *query)
{
    const uint64_t *wanted = query->pair.words;
    const size_t size = 2 * (size_t)store->geometry.id_size;
    if ((shk__image_flags(words) & SHK_FLAGS_IS_PREVIOUS) != query->role)
        return false;
    if (SHK__LIKELY(size == 3 * 8)) /* the default */
        return (difference(words, wanted, 0) | difference(words, wanted, 1) |
                difference(words, wanted, 2)) == 0;
    return same_ids(words, wanted, size);
}

/* One pass over the probe sequence: 0, ABSENT, or 1 + the reading that broke it off. */
static SHK__ALWAYS_INLINE int pass(const shk_store *store, const struct shk__query *query,
                                   uint64_t *words, bool all)
{
    uint32_t number = query->home;
    for (uint32_t probe = 0; probe < store->geometry.probe_limit; probe++) {
        const struct shk_bucket_shm *bucket = shk__bucket(store, number);
        for (unsigned way = 0; way < SHK_WAYS; way++) {
            const uint64_t *at = &bucket->entries[way];
            uint64_t entry = shk__load(at);
            if (shk__entry_tag(entry) != query->tag || entry == 0)
                continue;
            enum shk__reading reading = shk__slot_copy(store, entry, at, words, all);
            if (!SHK__LIKELY(reading == SHK__READ))
                return 1 + (int)reading;
            if (is_wanted(store, words, query))
                return 0;
        }
        if (shk__load(&bucket->overflow) == 0)
            break;
        number = shk__next_bucket(store, number);
    }
    return SHK_E_ABSENT;
}

/* After a pass that found no copy of the pair, and returned rc. */
static int read_on(const shk_store *store, const struct shk__query *query, uint64_t *words, int rc)
    __attribute__((noinline));
static int read_on(const shk_store *store, const struct shk__query *query, uint64_t *words, int rc)
{
    int disagreements = 0;
    for (int copies = 1; rc != SHK_E_ABSENT; copies++) {
        disagreements += rc == 1 + SHK__DISAGREES;
        if (copies == COPIES_MAX || disagreements == DISAGREEMENTS_MAX)
            break;
        rc = pass(store, query, words, true);
        if (rc == 0)
            return 0;
    }
    int alive = shk__store_check_live(store);
    if (alive < 0)
        return alive;
    if (rc == SHK_E_ABSENT)
        return shk__fail_plainly(rc);
    if (disagreements == DISAGREEMENTS_MAX)
        return shk__fail(SHK_E_CORRUPT,
                         "an entry of bucket %u or behind names a slot that it does not fit",
                         query->home);
    return shk__fail(SHK_E_CORRUPT, "a record changed under each of %d copies", COPIES_MAX);
}

static SHK__ALWAYS_INLINE int read_first(const shk_store *store, const struct shk__query *query,
                                         uint64_t *words, bool all)
{
    int rc = SHK_E_ABSENT;
    if (SHK__LIKELY(shk__load(&shk__header(store)->state) == SHK_STATE_LIVE))
        rc = pass(store, query, words, all);
    return SHK__LIKELY(rc == 0) ? 0 : read_on(store, query, words, rc);
}

int shk__index_read(const shk_store *store, const struct shk__query *query, uint64_t *words)
{
    return read_first(store, query, words, true);
}

int shk__index_read_key(const shk_store *store, const struct shk__query *query, uint64_t *words)
{
    return read_first(store, query, words, false);
}

int shk__entry_read(const shk_store *store, const uint64_t *at, uint64_t *words)
{
    int disagreements = 0;
    for (int copies = 0; copies < COPIES_MAX && disagreements < DISAGREEMENTS_MAX; copies++) {
        uint64_t entry = shk__load(at);
        if (entry == 0)
            return 0;
        enum shk__reading reading = shk__slot_read(store, entry, at, words);
        if (reading == SHK__READ)
            return 1;
        disagreements += reading == SHK__DISAGREES;
    }
    int alive = shk__store_check_live(store);
    if (alive < 0)
        return alive;
    const uint64_t *first = &shk__bucket(store, 0)->overflow;
    return shk__fail(SHK_E_CORRUPT, "bucket %llu names a slot that does not fit it",
                     (unsigned long long)(at - first) / (SHK_WAYS + 1));
}

int shk__index_find_locked(const shk_store *store, const struct shk__query *query,
                           struct shk__place *out)
{
    struct shk__place room = {0}, here = {0};
    bool found_room = false, search = true;
    uint32_t number = query->home;
    for (here.passed = 0; here.passed < store->geometry.probe_limit; here.passed++) {
        const struct shk_bucket_shm *bucket = shk__bucket(store, number);
        for (unsigned way = 0; way < SHK_WAYS; way++) {
            here.target = (uint64_t)number * SHK_WAYS + way;
            here.word = shk__load(&bucket->entries[way]);
            if (here.word == 0) {
                if (!found_room)
                    room = here;
                found_room = true;
            } else if (search && shk__entry_tag(here.word) == query->tag) {
                uint32_t slot = shk__entry_slot(here.word);
                if (slot >= store->geometry.slots)
                    return shk__fail(SHK_E_CORRUPT, "entry %llu names slot %u of %u",
                                     (unsigned long long)here.target, slot,
                                     store->geometry.slots);
                if (is_wanted(store, (const uint64_t *)shk__slot(store, slot), query)) {
                    *out = here;
                    return 0;
                }
            }
        }
        search = search && shk__load(&bucket->overflow) != 0;
        if (!search && found_room)
            break;
        number = shk__next_bucket(store, number);
    }
    if (!found_room)
        return shk__fail(SHK_E_FULL, "no bucket within %u of the pair's home has room",
                         store->geometry.probe_limit);
    *out = room;
    return 0;
}

void shk__index_overflow_locked(const shk_store *store, const struct shk__query *query,
                                uint32_t passed, int by)
{
    uint32_t number = query->home;
    for (; passed > 0; passed--) {
        uint64_t *overflow = &shk__bucket(store, number)->overflow;
        uint64_t count = shk__load(overflow);
        if (by > 0 || count > 0) /* of a corrupt store it may be 0 already */
            shk__store(overflow, count + (uint64_t)(int64_t)by);
        number = shk__next_bucket(store, number);
    }
}
