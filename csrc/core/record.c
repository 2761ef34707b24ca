/* record.c: filling, reading and wiping slots. */
#include "record.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"

/* ---------------------------------------------------------------- pairs -- */

static inline uint64_t load8(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint32_t load4(const unsigned char *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* The last `count` bytes of an id of `size` bytes that ends at `end`, 1 to 7 of them, as a
 * zero-padded word; reads nothing beside the id. */
static inline uint64_t last_word(const unsigned char *end, size_t count, size_t size)
{
    if (size >= 8)
        return load8(end - 8) >> (64 - 8 * count);
    if (count >= 4)
        return load4(end - count) | (uint64_t)load4(end - 4) << (8 * count - 32);
    const unsigned char *at = end - count;
    return (uint64_t)at[0] | (uint64_t)at[count / 2] << 8 * (count / 2) |
           (uint64_t)at[count - 1] << 8 * (count - 1);
}

static inline bool has_zero_byte(uint64_t word)
{
    return (word - UINT64_C(0x0101010101010101)) & ~word & UINT64_C(0x8080808080808080);
}

static int refuse_id(const shk_store *store, const char *role, struct shk_bytes id)
{
    uint32_t limit = store->geometry.id_size - 1;
    if (id.size < 1 || id.size > limit)
        return shk__fail(SHK_E_INVALID,
                         "the %s id has %zu bytes; this store takes 1 to %u (id_size %u with its "
                         "closing NUL, fixed at creation)",
                         role, id.size, limit, store->geometry.id_size);
    return shk__fail(SHK_E_INVALID, "the %s id holds a NUL byte, which ends an id", role);
}

/* Places an id at byte `offset` of the words, id_size bytes long, behind what stands in
 * front of it there: word by word, as the words are loaded again at once, and loads wait
 * for stores that cross them. True if the id can be one. */
static SHK__ALWAYS_INLINE bool place_id(struct shk_bytes id, size_t id_size, uint64_t *words,
                                        size_t offset)
{
    const unsigned char *bytes = id.data;
    if (id.size - 1 >= id_size - 1)
        return false;
    const unsigned shift = offset % 8 * 8;
    uint64_t *to = words + offset / 8, carry = shift ? *to : 0;
    bool zero = false;
    for (size_t at = 0; at < id_size; at += 8) {
        uint64_t word = 0;
        if (at + 8 <= id.size) {
            word = load8(bytes + at);
            zero |= has_zero_byte(word);
        } else if (at < id.size) {
            word = last_word(bytes + id.size, id.size - at, id.size);
            zero |= has_zero_byte(word | ~UINT64_C(0) << 8 * (id.size - at));
        }
        *to++ = carry | word << shift;
        carry = word >> 1 >> (63 - shift);
    }
    if (shift)
        *to = carry;
    return !zero;
}

int shk__pair_make(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                   struct shk__pair *out)
{
    const size_t size = store->geometry.id_size;
    bool good, good_client;
    if (SHK__LIKELY(size == SHK_ID_SIZE_DEFAULT)) { /* a constant, so no loops */
        good_client = place_id(client, SHK_ID_SIZE_DEFAULT, out->words, 0);
        good = good_client && place_id(server, SHK_ID_SIZE_DEFAULT, out->words,
                                       SHK_ID_SIZE_DEFAULT);
    } else {
        good_client = place_id(client, size, out->words, 0);
        good = good_client && place_id(server, size, out->words, size);
    }
    if (SHK__LIKELY(good))
        return 0;
    return good_client ? refuse_id(store, "server", server) : refuse_id(store, "client", client);
}

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

void shk__slot_retire_locked(const shk_store *store, uint32_t number, uint64_t generation)
{
    struct shk_slot_shm *slot = shk__slot(store, number);
    uint64_t *words = (uint64_t *)slot;
    shk__store(&slot->generation, generation);
    uint64_t *end = words + store->geometry.record_size / 8;
    for (uint64_t *word = words + 1; word < words + SHK_LINE / 8; word++)
        shk__store(word, 0);
    for (uint64_t *line = words + SHK_LINE / 8; line < end; line += SHK_LINE / 8)
        for (unsigned i = 0; i < SHK_LINE / 8; i++)
            shk__store(&line[i], 0);
}
