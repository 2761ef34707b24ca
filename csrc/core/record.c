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
    slot->flags = about->expires ? SHK_FLAG_EXPIRES : 0;
    memcpy(bytes + SHK_STATUS_OFFSET, &about->status, 4);
    memcpy(bytes + SHK_IDS_OFFSET, pair->ids, 2 * g->id_size);
    memcpy(bytes + g->key_id_offset, &about->key_id, 4);
    memcpy(bytes + g->key_offset, key, about->key_length);
    uint64_t *times = shk__image_times(store, words);
    times[0] = about->updated;
    times[1] = about->expires;
}

void shk__image_set_key_id(const shk_store *store, uint64_t *words, int32_t key_id)
{
    memcpy((unsigned char *)words + store->geometry.key_id_offset, &key_id, 4);
}

void shk__image_revoke(const shk_store *store, uint64_t *words, uint64_t updated)
{
    const int32_t status = SHK_REVOKED;
    memcpy((unsigned char *)words + SHK_STATUS_OFFSET, &status, 4);
    shk__image_times(store, words)[0] = updated;
}

int shk__record_refuse(const struct shk_record *record)
{
    if (record->status != SHK_VALID)
        return shk__fail(SHK_E_REVOKED, "key id %d is revoked", record->key_id);
    if (record->expires <= shk__realtime())
        return shk__fail(SHK_E_EXPIRED, "key id %d expired at %.3f s since the epoch",
                         record->key_id, (double)record->expires / 1e9);
    return 0;
}

/* ---------------------------------------------------------------- slots -- */

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
