/* record.h: one slot, read by anybody and written by the holder of the lock.
 *
 *   free (odd, zeros) --fill--> filled (odd) --publish--> published (even)
 *          ^                                                   |
 *          +-------------------- retire -----------------------+
 *
 * A published slot never changes. Retiring stores the odd generation before the
 * first zero, and every word by release: a reader that copied, by acquire loads,
 * one word of what came later also sees that the generation moved on.
 *
 * Images are private copies with the layout of a slot, record_size bytes long.
 */
#ifndef SHK_RECORD_H
#define SHK_RECORD_H

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "pair.h"
#include "wipe.h"

/* Private memory for one image; on the stack where it fits. */
struct shk__image {
    uint64_t *words;
    uint64_t local[64];
};
int shk__image_large(size_t size, struct shk__image *image);
/* With anything in it, for slot_read to fill. -ENOMEM */
static inline int shk__image_open_empty(const shk_store *store, struct shk__image *image)
{
    image->words = image->local;
    if (__builtin_expect(store->geometry.record_size <= sizeof image->local, 1))
        return 0;
    return shk__image_large(store->geometry.record_size, image);
}
/* Zeroed. -ENOMEM */
int shk__image_open(const shk_store *store, struct shk__image *image);
/* Wipes it. */
static inline void shk__image_close(const shk_store *store, struct shk__image *image)
{
    shk__wipe_lines(image->words, store->geometry.record_size / SHK_LINE);
    if (__builtin_expect(image->words != image->local, 0))
        free(image->words);
}

/* updated and expires, which stand behind the key. */
static inline const uint64_t *shk__image_times(const shk_store *store, const uint64_t *words)
{
    return words + store->geometry.times_offset / 8;
}

void shk__image_fill(const shk_store *store, uint64_t *words, const struct shk__pair *pair,
                     const struct shk_record *about, const void *key);
static inline uint32_t shk__image_flags(const uint64_t *words)
{
    return ((const struct shk_slot_shm *)words)->flags;
}
void shk__image_set_flags(uint64_t *words, uint32_t flags);
void shk__image_set_times(const shk_store *store, uint64_t *words, uint64_t updated,
                          uint64_t expires);
void shk__image_set_key_id(const shk_store *store, uint64_t *words, int32_t key_id);
void shk__image_revoke(uint64_t *words);
static inline const unsigned char *shk__image_ids(const uint64_t *words)
{
    return (const unsigned char *)words + SHK_IDS_OFFSET;
}
/* Bytes 8 * i and following of the ids, which begin in the middle of a word: of an image or
 * of a slot. Read as words, as they were just written: a load waits for stores that it
 * crosses. */
_Static_assert(SHK_IDS_OFFSET % 8 == 4, "shk__image_ids_word");
static inline uint64_t shk__image_ids_word(const uint64_t *words, size_t i)
{
    const uint64_t *from = words + SHK_IDS_OFFSET / 8 + i;
    return shk__load(&from[0]) >> 32 | shk__load(&from[1]) << 32;
}
static inline uint32_t shk__image_key_length(const uint64_t *words)
{
    return ((const struct shk_slot_shm *)words)->key_length;
}
static inline const unsigned char *shk__image_key(const shk_store *store, const uint64_t *words)
{
    return (const unsigned char *)words + store->geometry.key_offset;
}
static inline void shk__image_describe(const shk_store *store, const uint64_t *words,
                                       struct shk_record *out)
{
    const unsigned char *bytes = (const unsigned char *)words;
    const struct shk_slot_shm *slot = (const struct shk_slot_shm *)words;
    const uint64_t *times = shk__image_times(store, words);
    memcpy(&out->status, bytes + SHK_STATUS_OFFSET, 4);
    memcpy(&out->key_id, bytes + store->geometry.key_id_offset, 4);
    out->key_length = slot->key_length;
    out->updated = times[0];
    out->expires = slot->flags & SHK_FLAG_EXPIRES ? times[1] : 0;
}
/* Of an image of a published slot: what a writer can have written. */
bool shk__image_is_sound(const shk_store *store, const uint64_t *words);
/* The bytes that a sound record leaves unused are zero; makes them so. */
bool shk__image_is_padded(const shk_store *store, const uint64_t *words);
void shk__image_pad(const shk_store *store, uint64_t *words);

/* Reads the clock only if the record expires. */
static inline bool shk__record_expired(const struct shk_record *record)
{
    return record->expires && record->expires <= shk__realtime();
}
int shk__record_refuse(const struct shk_record *record);
/* REVOKED, EXPIRED or 0. */
static inline int shk__record_usable(const struct shk_record *record)
{
    if (SHK__LIKELY(record->status == SHK_VALID && record->expires == 0))
        return 0;
    return shk__record_refuse(record);
}

/* Words from the slot's start that hold the block with this key length. */
static inline size_t shk__block_words(const shk_store *store, uint32_t key_length)
{
    return (store->geometry.key_offset + key_length + 7) / 8;
}

enum shk__reading { SHK__READ, SHK__CHANGED, SHK__DISAGREES };
/* Copies the slot that `entry`, loaded from *at, names. Stores nothing. CHANGED:
 * a writer has made progress; DISAGREES: the entry stands, the slot has another
 * generation. Only after READ does words mean anything. Without all, the times of a
 * record that never expires read 0: they stand in a cache line of their own. */
static SHK__ALWAYS_INLINE enum shk__reading
shk__slot_copy(const shk_store *store, uint64_t entry, const uint64_t *at, uint64_t *words, bool all)
{
    const uint32_t number = shk__entry_slot(entry);
    bool good = false;
    if (SHK__LIKELY(number < store->geometry.slots)) {
        const struct shk_slot_shm *slot = shk__slot(store, number);
        const uint64_t *from = (const uint64_t *)slot;
        const uint64_t generation = shk__load(&slot->generation), second = shk__load(&from[1]);
        const uint32_t key_length = (uint32_t)second;
        good = generation % 2 == 0 && (uint16_t)generation == shk__entry_generation(entry) &&
               key_length - 1 < store->geometry.key_size;
        if (SHK__LIKELY(good)) {
            const size_t times = store->geometry.times_offset / 8;
            words[0] = generation;
            words[1] = second;
            shk__load_words(words + 2, from + 2, shk__block_words(store, key_length) - 2);
            if (all || shk__image_flags(words) & SHK_FLAG_EXPIRES)
                shk__load_words(words + times, from + times, 2);
            else
                words[times] = words[times + 1] = 0;
            /* Pairs with the commit's store: the entry first, else a slot recycled through
             * all 16 bits of generation could pass; then the generation, which pairs with
             * retire's first store. */
            if (shk__load(at) != entry)
                return SHK__CHANGED;
            good = shk__load(&slot->generation) == generation &&
                   (uint32_t)words[SHK_STATUS_OFFSET / 8] <= SHK_REVOKED;
        }
    }
    if (SHK__LIKELY(good))
        return SHK__READ;
    /* A retirement follows its commit, so an entry that still stands contradicts it. */
    return shk__load(at) != entry ? SHK__CHANGED : SHK__DISAGREES;
}

static inline enum shk__reading shk__slot_read(const shk_store *store, uint64_t entry,
                                               const uint64_t *at, uint64_t *words)
{
    return shk__slot_copy(store, entry, at, words, true);
}

/* Under the lock, of a slot that an entry names: all but the key. */
void shk__slot_describe_locked(const shk_store *store, uint32_t slot, struct shk_record *out,
                               uint32_t *flags);
/* Under the lock. */
void shk__slot_publish_locked(const shk_store *store, uint32_t slot, uint64_t generation,
                              const uint64_t *words);
void shk__slot_retire_locked(const shk_store *store, uint32_t slot, uint64_t generation);

#endif
