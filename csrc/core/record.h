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

#include "store.h"

/* A pair of ids as it stands in a record: client then server, zero-padded. */
struct shk__pair {
    unsigned char ids[2 * SHK_ID_SIZE_MAX];
};

/* INVALID, naming the limit: 1 to id_size - 1 bytes, no NUL. */
int shk__pair_make(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                   struct shk__pair *out);

/* Private memory for one image, zeroed; on the stack where it fits. */
struct shk__image {
    uint64_t *words;
    uint64_t local[64];
};
/* -ENOMEM */
int shk__image_open(const shk_store *store, struct shk__image *image);
/* Wipes it. */
void shk__image_close(const shk_store *store, struct shk__image *image);

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
void shk__image_describe(const shk_store *store, const uint64_t *words, struct shk_record *out);
static inline const unsigned char *shk__image_ids(const uint64_t *words)
{
    return (const unsigned char *)words + SHK_IDS_OFFSET;
}
static inline const unsigned char *shk__image_key(const shk_store *store, const uint64_t *words)
{
    return (const unsigned char *)words + store->geometry.key_offset;
}
/* Of an image of a published slot: what a writer can have written. */
bool shk__image_is_sound(const shk_store *store, const uint64_t *words);
/* The bytes that a sound record leaves unused are zero; makes them so. */
bool shk__image_is_padded(const shk_store *store, const uint64_t *words);
void shk__image_pad(const shk_store *store, uint64_t *words);
/* Reads the clock, coarsely, only if the record expires. */
bool shk__record_expired(const struct shk_record *record);
/* REVOKED, EXPIRED or 0. */
int shk__record_usable(const struct shk_record *record);

enum shk__reading { SHK__READ, SHK__CHANGED, SHK__DISAGREES };
/* Copies the slot that `entry`, loaded from *at, names. Stores nothing. CHANGED:
 * a writer has made progress; DISAGREES: the entry stands, the slot has another
 * generation. Only after READ does words mean anything. */
enum shk__reading shk__slot_read(const shk_store *store, uint64_t entry, const uint64_t *at,
                                 uint64_t *words);

/* Under the lock, of a slot that an entry names: all but the key. */
void shk__slot_describe_locked(const shk_store *store, uint32_t slot, struct shk_record *out,
                               uint32_t *flags);
/* Under the lock. */
void shk__slot_publish_locked(const shk_store *store, uint32_t slot, uint64_t generation,
                              const uint64_t *words);
void shk__slot_retire_locked(const shk_store *store, uint32_t slot, uint64_t generation);

#endif
