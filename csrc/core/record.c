/* record.c: filling, reading and wiping slots. */
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"

/* --------------------------------------------------------------- images -- */

int shk__image_large(size_t size, struct shk__image *image)
{
    image->words = malloc(size);
    return image->words ? 0 : shk__fail(-ENOMEM, "a private copy of %zu bytes", size);
}

int shk__image_open(const shk_store *store, struct shk__image *image)
{
    int rc = shk__image_open_empty(store, image);
    if (rc == 0)
        memset(image->words, 0, store->geometry.record_size);
    return rc;
}

void shk__image_fill(const shk_store *store, uint64_t *words, const struct shk__pair *pair,
                     const struct shk_record *about, const void *key)
{
    const struct shk__geometry *g = &store->geometry;
    unsigned char *bytes = (unsigned char *)words;
    struct shk_slot_shm *slot = (struct shk_slot_shm *)words;
    slot->key_length = about->key_length;
    slot->flags = 0;
    memcpy(bytes + SHK_STATUS_OFFSET, &about->status, 4);
    memcpy(bytes + SHK_IDS_OFFSET, pair->ids, 2 * g->id_size);
    if (g->id_size % 2) /* the padding that a compiler puts there */
        memset(bytes + g->key_id_offset - 2, 0, 2);
    words[shk__block_words(store, about->key_length) - 1] = 0; /* what the key leaves of it */
    memcpy(bytes + g->key_id_offset, &about->key_id, 4);
    memcpy(bytes + g->key_offset, key, about->key_length);
    shk__image_set_times(store, words, about->updated, about->expires);
}

void shk__image_set_flags(uint64_t *words, uint32_t flags)
{
    ((struct shk_slot_shm *)words)->flags = flags;
}

void shk__image_set_times(const shk_store *store, uint64_t *words, uint64_t updated,
                          uint64_t expires)
{
    uint64_t *times = words + store->geometry.times_offset / 8;
    times[0] = updated;
    times[1] = expires;
    uint32_t others = shk__image_flags(words) & ~SHK_FLAG_EXPIRES;
    shk__image_set_flags(words, others | (expires ? SHK_FLAG_EXPIRES : 0));
}

void shk__image_set_key_id(const shk_store *store, uint64_t *words, int32_t key_id)
{
    memcpy((unsigned char *)words + store->geometry.key_id_offset, &key_id, 4);
}

void shk__image_revoke(uint64_t *words)
{
    const int32_t status = SHK_REVOKED;
    memcpy((unsigned char *)words + SHK_STATUS_OFFSET, &status, 4);
}

/* A pair's record names one previous key at most, and that names none. */
static bool are_flags(uint32_t flags)
{
    uint32_t names = flags & SHK_FLAGS_HAS_PREVIOUS, role = flags & SHK_FLAGS_IS_PREVIOUS;
    return (flags & ~SHK_FLAGS_ALL) == 0 && names != SHK_FLAGS_HAS_PREVIOUS &&
           role != SHK_FLAGS_IS_PREVIOUS && !(names && role);
}

bool shk__image_is_sound(const shk_store *store, const uint64_t *words)
{
    const struct shk__geometry *g = &store->geometry;
    struct shk_record about;
    shk__image_describe(store, words, &about);
    bool good = (about.status == SHK_VALID || about.status == SHK_REVOKED) &&
                about.key_length >= 1 && about.key_length <= g->key_size && about.key_id >= 0 &&
                are_flags(shk__image_flags(words));
    for (unsigned i = 0; i < 2; i++) {
        const unsigned char *id = shk__image_ids(words) + i * g->id_size;
        size_t length = strnlen((const char *)id, g->id_size);
        good = good && length >= 1 && length < g->id_size;
        for (size_t at = length; at < g->id_size; at++)
            good = good && id[at] == 0;
    }
    return good;
}

/* Where the unused bytes are: behind the key and behind the times. */
static void find_unused(const shk_store *store, const uint64_t *words, size_t from[2], size_t to[2])
{
    const struct shk__geometry *g = &store->geometry;
    from[0] = g->key_offset + ((const struct shk_slot_shm *)words)->key_length;
    to[0] = g->times_offset;
    from[1] = g->times_offset + 16;
    to[1] = g->record_size;
}

bool shk__image_is_padded(const shk_store *store, const uint64_t *words)
{
    size_t from[2], to[2];
    unsigned char seen = 0;
    find_unused(store, words, from, to);
    for (unsigned i = 0; i < 2; i++)
        for (size_t at = from[i]; at < to[i]; at++)
            seen |= ((const unsigned char *)words)[at];
    return seen == 0;
}

void shk__image_pad(const shk_store *store, uint64_t *words)
{
    size_t from[2], to[2];
    find_unused(store, words, from, to);
    for (unsigned i = 0; i < 2; i++)
        memset((unsigned char *)words + from[i], 0, to[i] - from[i]);
}

int shk__record_refuse(const struct shk_record *record)
{
    if (record->status != SHK_VALID)
        return shk__fail(SHK_E_REVOKED, "key id %d is revoked", record->key_id);
    if (shk__record_expired(record))
        return shk__fail(SHK_E_EXPIRED, "key id %d expired at %.3f s since the epoch",
                         record->key_id, (double)record->expires / 1e9);
    return 0;
}

/* ---------------------------------------------------------------- slots -- */

void shk__slot_describe_locked(const shk_store *store, uint32_t number, struct shk_record *out,
                               uint32_t *flags)
{
    const struct shk_slot_shm *slot = shk__slot(store, number);
    const unsigned char *bytes = (const unsigned char *)slot;
    const uint64_t *times = shk__image_times(store, (const uint64_t *)slot);
    *flags = shk__load(&slot->flags);
    *out = (struct shk_record){
        .status = shk__load((const int32_t *)(bytes + SHK_STATUS_OFFSET)),
        .key_id = shk__load((const int32_t *)(bytes + store->geometry.key_id_offset)),
        .key_length = shk__load(&slot->key_length),
        .updated = shk__load(&times[0]),
        .expires = *flags & SHK_FLAG_EXPIRES ? shk__load(&times[1]) : 0,
    };
}

void shk__slot_publish_locked(const shk_store *store, uint32_t number, uint64_t generation,
                              const uint64_t *words)
{
    struct shk_slot_shm *slot = shk__slot(store, number);
    uint64_t *to = (uint64_t *)slot;
    const size_t times = store->geometry.times_offset / 8;
    shk__store(&slot->generation, generation - 1); /* a slot never used before had 0 */
    shk__store_words(to + 2, words + 2, shk__block_words(store, (uint32_t)words[1]) - 2);
    shk__store_words(to + times, words + times, 2);
    shk__store(&to[1], words[1]);
    shk__store(&slot->generation, generation);
}

static inline void zero_line(uint64_t *words)
{
    shk__store(&words[0], 0);
    shk__store(&words[1], 0);
    shk__store(&words[2], 0);
    shk__store(&words[3], 0);
    shk__store(&words[4], 0);
    shk__store(&words[5], 0);
    shk__store(&words[6], 0);
    shk__store(&words[7], 0);
}

void shk__slot_retire_locked(const shk_store *store, uint32_t number, uint64_t generation)
{
    struct shk_slot_shm *slot = shk__slot(store, number);
    uint64_t *words = (uint64_t *)slot, *end = words + store->geometry.record_size / 8;
    const size_t line = SHK_LINE / 8;
    shk__store(&slot->generation, generation);
    for (size_t i = 1; i < line; i++)
        shk__store(&words[i], 0);
    for (words += line; words < end; words += line)
        zero_line(words);
}
