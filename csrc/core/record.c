/* record.c: filling, reading and wiping slots. */
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"

/* ---------------------------------------------------------------- pairs -- */

static int place_id(const shk_store *store, const char *role, struct shk_bytes id,
                    unsigned char *to)
{
    uint32_t limit = store->geometry.id_size - 1;
    if (id.size < 1 || id.size > limit)
        return shk__fail(SHK_E_INVALID,
                         "the %s id has %zu bytes; this store takes 1 to %u (id_size %u with its "
                         "closing NUL, fixed at creation)",
                         role, id.size, limit, store->geometry.id_size);
    if (memchr(id.data, 0, id.size))
        return shk__fail(SHK_E_INVALID, "the %s id holds a NUL byte, which ends an id", role);
    memcpy(to, id.data, id.size);
    memset(to + id.size, 0, store->geometry.id_size - id.size);
    return 0;
}

int shk__pair_make(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                   struct shk__pair *out)
{
    int rc = place_id(store, "client", client, out->ids);
    return rc < 0 ? rc : place_id(store, "server", server, out->ids + store->geometry.id_size);
}

/* --------------------------------------------------------------- images -- */

int shk__image_open(const shk_store *store, struct shk__image *image)
{
    size_t size = store->geometry.record_size;
    if (size <= sizeof image->local) {
        image->words = image->local;
        memset(image->local, 0, size);
        return 0;
    }
    image->words = calloc(1, size);
    return image->words ? 0 : shk__fail(-ENOMEM, "a private copy of %zu bytes", size);
}

void shk__image_close(const shk_store *store, struct shk__image *image)
{
    explicit_bzero(image->words, store->geometry.record_size);
    if (image->words != image->local)
        free(image->words);
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
    memcpy(bytes + g->key_id_offset, &about->key_id, 4);
    memcpy(bytes + g->key_offset, key, about->key_length);
    shk__image_pad(store, words);
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

void shk__image_describe(const shk_store *store, const uint64_t *words, struct shk_record *out)
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

bool shk__record_expired(const struct shk_record *record)
{
    return record->expires && record->expires <= shk__realtime();
}

int shk__record_usable(const struct shk_record *record)
{
    if (record->status != SHK_VALID)
        return shk__fail(SHK_E_REVOKED, "key id %d is revoked", record->key_id);
    if (shk__record_expired(record))
        return shk__fail(SHK_E_EXPIRED, "key id %d expired at %.3f s since the epoch",
                         record->key_id, (double)record->expires / 1e9);
    return 0;
}

/* ---------------------------------------------------------------- slots -- */

/* Words from the slot's start that hold the block with this key length. */
static size_t block_words(const shk_store *store, uint32_t key_length)
{
    return (store->geometry.key_offset + key_length + 7) / 8;
}

enum shk__reading shk__slot_read(const shk_store *store, uint64_t entry, const uint64_t *at,
                                 uint64_t *words)
{
    uint32_t number = shk__entry_slot(entry);
    if (number >= store->geometry.slots)
        return shk__load(at) == entry ? SHK__DISAGREES : SHK__CHANGED;
    const struct shk_slot_shm *slot = shk__slot(store, number);
    const uint64_t *from = (const uint64_t *)slot;
    const size_t times = store->geometry.times_offset / 8;

    uint64_t generation = shk__load(&slot->generation);
    bool good = generation % 2 == 0 && (uint16_t)generation == shk__entry_generation(entry);
    if (good) {
        words[0] = generation;
        words[1] = shk__load(&from[1]);
        uint32_t key_length = (uint32_t)words[1];
        good = key_length >= 1 && key_length <= store->geometry.key_size;
        if (good) {
            shk__load_words(words + 2, from + 2, block_words(store, key_length) - 2);
            shk__load_words(words + times, from + times, 2);
            good = (uint32_t)words[SHK_STATUS_OFFSET / 8] <= SHK_REVOKED;
        }
    }
    /* Pairs with the commit's store: the entry first, else a slot recycled through
     * all 16 bits of generation could pass; then the generation, which pairs with
     * retire's first store. */
    if (shk__load(at) != entry)
        return SHK__CHANGED;
    if (good && shk__load(&slot->generation) == generation)
        return SHK__READ;
    /* A retirement follows its commit, so an entry that still stands contradicts it. */
    return shk__load(at) != entry ? SHK__CHANGED : SHK__DISAGREES;
}

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
    shk__store_words(to + 2, words + 2, block_words(store, (uint32_t)words[1]) - 2);
    shk__store_words(to + times, words + times, 2);
    shk__store(&to[1], words[1]);
    shk__store(&slot->generation, generation);
}

void shk__slot_retire_locked(const shk_store *store, uint32_t number, uint64_t generation)
{
    struct shk_slot_shm *slot = shk__slot(store, number);
    uint64_t *words = (uint64_t *)slot;
    shk__store(&slot->generation, generation);
    for (size_t i = 1; i < store->geometry.record_size / 8; i++)
        shk__store(&words[i], 0);
}
