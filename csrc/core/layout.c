/* layout.c: where each part of a store stands, from three numbers. */
#include "layout.h"

#include <stddef.h>
#include <string.h>

#include "atomic.h"
#include "error.h"
#include "hash.h"

#define LOCK_OFFSET 1024u

_Static_assert(sizeof(struct shk_header_shm) == LOCK_OFFSET, "header");
_Static_assert(sizeof(struct shk_lock_shm) == SHK_LINE, "lock");
_Static_assert(sizeof(struct shk_journal_shm) == 2 * SHK_LINE, "journal");
_Static_assert(sizeof(struct shk_ledger_shm) == SHK_LINE, "ledger");
_Static_assert(sizeof(struct shk_changes_shm) == SHK_LINE, "changes");
_Static_assert(sizeof(struct shk_stats_shm) == SHK_LINE, "stats");
_Static_assert(LOCK_OFFSET + sizeof(struct shk_lock_shm) + sizeof(struct shk_journal_shm) +
                       sizeof(struct shk_ledger_shm) + sizeof(struct shk_changes_shm) +
                       sizeof(struct shk_stats_shm) == SHK_FIXED_SIZE,
               "fixed parts");
_Static_assert(sizeof(struct shk_bucket_shm) == SHK_LINE, "bucket");
_Static_assert(sizeof(struct shk_slot_shm) == SHK_STATUS_OFFSET, "slot");
_Static_assert(offsetof(struct shk_slot_shm, generation) == SHK_GENERATION_OFFSET, "slot");
_Static_assert(offsetof(struct shk_slot_shm, key_length) == SHK_KEY_LENGTH_OFFSET, "slot");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && sizeof(void *) == 8,
               "pyshmkey needs a 64-bit little-endian machine");

static uint64_t align(uint64_t size, uint64_t to)
{
    return (size + to - 1) / to * to;
}

/* Over the numbers that two builds must share. */
static uint64_t hash_layout(const struct shk__geometry *g)
{
    const uint64_t parts[] = {SHK_LAYOUT_VERSION,
                              sizeof(struct shk_header_shm),
                              sizeof(struct shk_journal_shm),
                              sizeof(struct shk_successor_shm),
                              sizeof(struct shk_bucket_shm),
                              SHK_RING,
                              SHK_SPARE_SLOTS,
                              SHK_WRITERS_MAX,
                              g->slots,
                              g->buckets,
                              g->record_size,
                              g->key_id_offset,
                              g->key_offset,
                              g->times_offset,
                              g->ring_size,
                              g->ring_offset,
                              g->buckets_offset,
                              g->queue_offset,
                              g->records_offset,
                              g->total_size};
    static const uint64_t key[2];
    return shk__siphash13(key, parts, sizeof parts);
}

int shk__geometry_compute(uint64_t capacity, uint32_t id_size, uint32_t key_size,
                          struct shk__geometry *out)
{
    if (capacity < 1 || capacity > SHK_CAPACITY_MAX)
        return shk__fail(SHK_E_INVALID, "capacity is %llu; it must be 1 to %llu pairs",
                         (unsigned long long)capacity, (unsigned long long)SHK_CAPACITY_MAX);
    if (id_size < SHK_ID_SIZE_MIN || id_size > SHK_ID_SIZE_MAX)
        return shk__fail(SHK_E_INVALID,
                         "id_size is %u; it must be %u to %u bytes, one of them for the NUL",
                         id_size, SHK_ID_SIZE_MIN, SHK_ID_SIZE_MAX);
    if (key_size < 1 || key_size > SHK_KEY_SIZE_MAX)
        return shk__fail(SHK_E_INVALID, "key_size is %u; it must be 1 to %u bytes", key_size,
                         SHK_KEY_SIZE_MAX);

    struct shk__geometry g = {.capacity = capacity, .id_size = id_size, .key_size = key_size};
    g.slots = (uint32_t)capacity + SHK_SPARE_SLOTS;
    /* At most 75 % full: 7 ways * 3/4 = 21/4 pairs a bucket. */
    g.buckets = (uint32_t)((capacity * 4 + 20) / 21);
    /* At 75 % the chance of probing past k buckets falls like exp(-0.26 k). */
    g.probe_limit = g.buckets < 1024 ? g.buckets : 1024;

    g.key_id_offset = (uint32_t)align(SHK_IDS_OFFSET + 2 * id_size, 4);
    g.key_offset = g.key_id_offset + 4;
    g.times_offset = (uint32_t)align(g.key_offset + key_size, 8);
    g.record_size = (uint32_t)align(g.times_offset + 16, SHK_LINE);
    g.ring_size = (uint32_t)align(sizeof(struct shk_ring_shm) + 2 * id_size, 8);

    g.ring_offset = SHK_FIXED_SIZE;
    g.buckets_offset = align(g.ring_offset + (uint64_t)SHK_RING * g.ring_size, SHK_LINE);
    g.queue_offset = g.buckets_offset + (uint64_t)g.buckets * sizeof(struct shk_bucket_shm);
    g.records_offset = align(g.queue_offset + (uint64_t)g.slots * 4, SHK_LINE);
    g.total_size = g.records_offset + (uint64_t)g.slots * g.record_size;
    g.layout_hash = hash_layout(&g);
    *out = g;
    return 0;
}

void shk__header_copy(const struct shk_header_shm *shared, struct shk_header_shm *out)
{
    uint64_t words[sizeof *out / 8];
    shk__load_words(words, (const uint64_t *)(const void *)shared, sizeof *out / 8);
    memcpy(out, words, sizeof *out);
}

int shk__geometry_read(const struct shk_header_shm *header, size_t segment_size,
                       struct shk__geometry *out)
{
    if (header->byte_order != SHK_BYTE_ORDER || header->layout_version != SHK_LAYOUT_VERSION)
        return shk__fail(SHK_E_INCOMPATIBLE,
                         "the store has layout version %u, byte order %08x; this build reads "
                         "version %u, byte order %08x: use the release that made it",
                         header->layout_version, header->byte_order, SHK_LAYOUT_VERSION,
                         SHK_BYTE_ORDER);
    struct shk__geometry g;
    int rc = shk__geometry_compute(header->capacity, header->id_size, header->key_size, &g);
    if (rc < 0)
        return shk__fail(SHK_E_CORRUPT,
                         "the header says capacity %llu, id_size %u, key_size %u, which no "
                         "store can have",
                         (unsigned long long)header->capacity, header->id_size, header->key_size);
    if (header->layout_hash != g.layout_hash)
        return shk__fail(SHK_E_INCOMPATIBLE,
                         "the store's layout is %016llx (%llu bytes), this build's for the same "
                         "capacity %016llx (%llu bytes): use the release that made it",
                         (unsigned long long)header->layout_hash,
                         (unsigned long long)header->total_size,
                         (unsigned long long)g.layout_hash, (unsigned long long)g.total_size);
    if (header->total_size != g.total_size || segment_size < g.total_size)
        return shk__fail(SHK_E_CORRUPT,
                         "a store of capacity %llu takes %llu bytes; the header says %llu and the "
                         "segment has %zu",
                         (unsigned long long)g.capacity, (unsigned long long)g.total_size,
                         (unsigned long long)header->total_size, segment_size);
    if (header->name_size > SHK_NAME_MAX)
        return shk__fail(SHK_E_CORRUPT, "the header says its name has %u bytes", header->name_size);
    *out = g;
    return 0;
}
