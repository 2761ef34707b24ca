/* pair.h: a pair of ids as it stands in a record, client then server, each zero-padded
 * to id_size.
 *
 * Ids are placed word by word, for they are loaded again as words at once, by the hash
 * and the comparison, and a load waits for stores that cross it. With the default
 * id_size everything about places is a constant to the compiler.
 */
#ifndef SHK_PAIR_H
#define SHK_PAIR_H

#include <string.h>

#include "store.h"

/* Behind the ids, up to a whole word and one more, anything may stand. */
struct shk__pair {
    union {
        unsigned char ids[2 * SHK_ID_SIZE_MAX];
        uint64_t words[2 * SHK_ID_SIZE_MAX / 8 + 2];
    };
};

/* INVALID, naming the limit that one of these ids breaks. */
int shk__pair_refuse(const shk_store *store, struct shk_bytes client, struct shk_bytes server);

/* Of a record's ids: false of one that no writer made. */
static inline bool shk__ids_are_named(const void *ids, size_t id_size)
{
    return ((const char *)ids)[0] && ((const char *)ids)[id_size];
}

static inline uint64_t shk__load8(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint32_t shk__load4(const unsigned char *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* The last `count` bytes, 1 to 7, of an id of `size` bytes that ends at `end`, as a
 * zero-padded word. Loads nothing beside the id. */
static inline uint64_t shk__last_word(const unsigned char *end, size_t count, size_t size)
{
    if (size >= 8)
        return shk__load8(end - 8) >> (64 - 8 * count);
    if (count >= 4)
        return shk__load4(end - count) | (uint64_t)shk__load4(end - 4) << (8 * count - 32);
    const unsigned char *at = end - count;
    return (uint64_t)at[0] | (uint64_t)at[count / 2] << 8 * (count / 2) |
           (uint64_t)at[count - 1] << 8 * (count - 1);
}

static inline bool shk__has_zero_byte(uint64_t word)
{
    return (word - UINT64_C(0x0101010101010101)) & ~word & UINT64_C(0x8080808080808080);
}

/* Places an id at byte `offset` of the words, behind what stands in front of it there.
 * False if it can't be an id: empty, too long, or with a NUL in it. */
static SHK__ALWAYS_INLINE bool shk__id_place(struct shk_bytes id, size_t id_size, uint64_t *words,
                                             size_t offset)
{
    const unsigned char *bytes = id.data;
    if (id.size - 1 >= id_size - 1)
        return false;
    const unsigned shift = offset % 8 * 8;
    uint64_t *to = words + offset / 8, carry = shift ? *to : 0;
    bool good = true;
    for (size_t at = 0; at < id_size; at += 8) {
        uint64_t word = 0;
        if (at + 8 <= id.size) {
            word = shk__load8(bytes + at);
            good = good && !shk__has_zero_byte(word);
        } else if (at < id.size) {
            word = shk__last_word(bytes + id.size, id.size - at, id.size);
            good = good && !shk__has_zero_byte(word | ~UINT64_C(0) << 8 * (id.size - at));
        }
        *to++ = carry | word << shift;
        carry = word >> 1 >> (63 - shift);
    }
    if (shift)
        *to = carry;
    return good;
}

/* INVALID, naming the limit: 1 to id_size - 1 bytes, no NUL. */
static SHK__ALWAYS_INLINE int shk__pair_make(const shk_store *store, struct shk_bytes client,
                                             struct shk_bytes server, struct shk__pair *out)
{
    const size_t size = store->geometry.id_size, usual = SHK_ID_SIZE_DEFAULT;
    bool good = SHK__LIKELY(size == usual) ? shk__id_place(client, usual, out->words, 0) &&
                                                 shk__id_place(server, usual, out->words, usual)
                                           : shk__id_place(client, size, out->words, 0) &&
                                                 shk__id_place(server, size, out->words, size);
    return SHK__LIKELY(good) ? 0 : shk__pair_refuse(store, client, server);
}

#endif
