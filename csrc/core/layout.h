/* layout.h: what the bytes of a store's segment mean.
 *
 *   offset 0      header    who made it, its geometry; immutable once published, but for `state`
 *                           and `successor` and, where it outlives a boot, `realm` and `set`
 *   1024          lock      who writes now
 *   1088          journal   what the writer is about to do
 *   1216          ledger    free queue ends, high-water mark, record count
 *   1280          changes   revision, and who is to be woken for it
 *   1344          stats     counters nobody depends on
 *   1408          ring      the last SHK_RING changes
 *   buckets       index     64-byte buckets: overflow count and 7 entries
 *   queue         u32 a slot: the FIFO of free slots
 *   records       the slots
 *
 * Everything is fixed-width and little-endian; places are offsets or numbers,
 * never addresses. Each part starts on a cache line of its own. Untouched parts
 * are zero pages that take no memory: zero means making (state), free (lock word,
 * entry), none (journal) and never used (slot).
 */
#ifndef SHK_LAYOUT_H
#define SHK_LAYOUT_H

#include "shk.h"

#define SHK_LAYOUT_VERSION 4u
#define SHK_BYTE_ORDER 0x01020304u
#define SHK_LINE 64u
#define SHK_FIXED_SIZE 1408u /* up to the ring */

/* header.state. Legal: MAKING -> LIVE -> MOVED -> REMOVED, LIVE -> REMOVED, and in a segment
 * MAKING -> DEAD. */
#define SHK_STATE_MAKING UINT64_C(0)
#define SHK_STATE_LIVE UINT64_C(0x3159454B4D485359)    /* "YSHMKEY1" */
#define SHK_STATE_DEAD UINT64_C(0x4441454459454B59)    /* condemned before publication */
#define SHK_STATE_REMOVED UINT64_C(0x45524F4D59454B59) /* destroyed, wiped or being wiped */
#define SHK_STATE_MOVED UINT64_C(0x4445564F4D59454B)   /* its records are in its successor */
/* header.birthmark, stored right after the creator attached: this segment is ours. */
#define SHK_BIRTHMARK UINT64_C(0x4854524942594B53)

struct shk_successor_shm {
    uint32_t id;
    uint32_t key;
    uint32_t owner;
    uint32_t name_size;
    uint8_t store_id[16];
    uint8_t name[SHK_NAME_MAX + 1];
};

struct shk_header_shm {
    uint64_t state; /* read by every call */
    uint64_t birthmark;
    uint32_t layout_version;
    uint32_t byte_order;
    uint64_t layout_hash;
    uint64_t capacity;
    uint32_t id_size;
    uint32_t key_size;
    uint64_t total_size;
    uint64_t set;   /* semaphore set: id + 1, 0: not made yet; above it the boot, see realm.h */
    uint64_t created;
    uint64_t realm; /* boot and IPC namespace within which the set has a meaning */
    uint32_t owner;
    uint32_t mode;  /* of the set */
    uint64_t shape; /* in a caller's memory: what its makers agreed on, see memory.c */
    uint8_t store_id[16];
    uint8_t hash_key[16];
    uint32_t name_size;
    uint8_t name[SHK_NAME_MAX + 1];
    struct shk_successor_shm successor; /* stored before state becomes MOVED */
    uint8_t reserved[332];
    uint64_t device, inode; /* of the file that it was made for; 0: for none */
};

#define SHK_VARIANTS 2u

struct shk_lock_shm {
    uint32_t word; /* 0, or token + 1 with SHK_LOCK_WAITERS; a futex */
    uint32_t reserved[15];
};

/* One operation in flight. All values are absolute, so a replay may be repeated. */
struct shk_journal_shm {
    uint64_t kind;       /* shk_change_kind or below; stored last, cleared last */
    uint64_t target;     /* entry number: bucket * SHK_WAYS + way */
    uint64_t old_word;   /* the entry before; 0 for an insert */
    uint64_t new_word;   /* the entry after; 0 for a delete */
    uint64_t head;       /* of the free queue, before */
    uint64_t tail;
    uint64_t high_water; /* before; equal to the new slot if that is a fresh one */
    uint64_t generation; /* even: the new slot's */
    uint64_t retired;    /* odd: the old slot's, once it is free */
    uint64_t revision;   /* before */
    uint64_t records;    /* before: the count of pairs or, KEEP and DROP, of previous keys */
    /* Entries, plus 1, of previous keys that a write is about to add or to drop, one a
     * variant (previous.h); not part of the operation above, but of the whole write. */
    uint64_t previous[SHK_VARIANTS];
    uint64_t reserved[3];
};

struct shk_ledger_shm {
    uint64_t head, tail; /* absolute; the place in the queue is modulo slots */
    uint64_t high_water; /* slots from here on were never committed */
    uint64_t records;     /* pairs */
    uint64_t last_key_id; /* raised before an operation is journaled, so ids may skip but never repeat */
    uint64_t previous;    /* previous keys */
    /* Hints of expiry.h, right or wrong: */
    uint64_t hand;     /* the slot that an insert looks at next */
    uint64_t earliest; /* no record expires before; 0: none expires at all */
};

struct shk_changes_shm {
    uint64_t revision; /* commits; its low half (little-endian: at offset 0) is a futex */
    uint64_t woken;    /* waiters with an older revision than this were woken */
    uint64_t woken_at; /* CLOCK_MONOTONIC, coarse */
    uint64_t awaited;  /* the newest revision that a waiter who may write waits on, plus 1 */
    uint64_t reserved[4];
};

struct shk_stats_shm {
    uint64_t takeovers;
    uint64_t recoveries;
    uint64_t reclaimed;
    uint64_t reserved[5];
};

/* A change: revision 0 while the entry is being written. The ids follow, client
 * then server, padded to id_size each. */
struct shk_ring_shm {
    uint64_t revision;
    uint64_t kind;
};
#define SHK_WAYS 7u
struct shk_bucket_shm {
    uint64_t overflow; /* entries that probed past this bucket when they were placed */
    uint64_t entries[SHK_WAYS];
};

/* A slot; the classic block follows at offset 16:
 *   int status; char client[id_size]; char server[id_size]; int key_id; uchar key[key_size]
 * and after it, 8-aligned, updated and expires. With the default sizes the block is
 * the classic 160 bytes, the slot 192, and a key of up to 32 bytes that never
 * expires is read from the first two lines alone. */
struct shk_slot_shm {
    uint64_t generation; /* 0 or odd: free or being filled; even: published */
    uint32_t key_length;
    uint32_t flags; /* SHK_FLAG_EXPIRES */
};
#define SHK_FLAG_EXPIRES 1u
/* Of variant 0; shifted by the variant. See previous.h. */
#define SHK_FLAG_HAS_PREVIOUS 2u
#define SHK_FLAG_IS_PREVIOUS 8u
#define SHK_FLAGS_HAS_PREVIOUS (SHK_FLAG_HAS_PREVIOUS * 3u)
#define SHK_FLAGS_IS_PREVIOUS (SHK_FLAG_IS_PREVIOUS * 3u)
#define SHK_FLAGS_ALL (SHK_FLAG_EXPIRES | SHK_FLAGS_HAS_PREVIOUS | SHK_FLAGS_IS_PREVIOUS)

/* Kinds beside the public ones, which nobody is told of. */
enum {
    SHK_CHANGE_NONE = 0,
    SHK_CHANGE_KEEP = SHK_CHANGE_EXPIRE + 1, /* a previous key is added */
    SHK_CHANGE_DROP,                         /* and deleted */
    SHK_CHANGE_COUNT,
    SHK_CHANGE_REPAIR = 64 /* not an operation: repair() was broken off (repair.h) */
};

/* Spare slots beyond the capacity, and the shortest free queue to draw from while
 * fresh slots remain: a slot is refilled only after as many others were. */
#define SHK_SPARE_SLOTS 8u

/* An entry: slot + 1 : 32 | generation : 16 | tag : 16. */
static inline uint64_t shk__entry(uint32_t slot, uint64_t generation, uint16_t tag)
{
    return ((uint64_t)slot + 1) << 32 | (generation & 0xFFFF) << 16 | tag;
}
static inline uint32_t shk__entry_slot(uint64_t entry)
{
    return (uint32_t)((entry >> 32) - 1); /* of 0: 0xFFFFFFFF, beyond every store */
}
static inline uint16_t shk__entry_generation(uint64_t entry)
{
    return (uint16_t)(entry >> 16);
}
static inline uint16_t shk__entry_tag(uint64_t entry)
{
    return (uint16_t)entry;
}

/* Everything that follows from (capacity, id_size, key_size). Computed once when
 * a handle opens and kept in private memory; the segment is never asked again. */
struct shk__geometry {
    uint64_t capacity;
    uint32_t id_size, key_size;
    uint32_t slots, buckets;
    uint32_t probe_limit;   /* buckets a search may visit */
    uint32_t record_size;   /* of a slot, a multiple of SHK_LINE */
    uint32_t key_id_offset; /* in the slot */
    uint32_t key_offset;
    uint32_t times_offset; /* of updated, expires */
    uint32_t ring_size;    /* of one ring entry */
    uint64_t ring_offset, buckets_offset, queue_offset, records_offset;
    uint64_t total_size;
    uint64_t layout_hash; /* of the version and of every part's size */
};

/* INVALID, naming the value and the limit. */
int shk__geometry_compute(uint64_t capacity, uint32_t id_size, uint32_t key_size,
                          struct shk__geometry *out) __attribute__((hot));
/* Each word is read once, as it may change meanwhile: what was checked is what is used. */
void shk__header_copy(const struct shk_header_shm *shared, struct shk_header_shm *out)
    __attribute__((hot));
/* Checks a published header, its sizes against the segment's real one, before any of it is
 * used, and computes the geometry from its three numbers; INCOMPATIBLE or CORRUPT. */
int shk__geometry_read(const struct shk_header_shm *header, size_t segment_size,
                       struct shk__geometry *out) __attribute__((hot));

#endif
