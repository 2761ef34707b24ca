/* reading.c: looking up. Readers go straight to the index, store nothing and wait for
 * nobody; keys pass through a private image that is wiped. */
#include <string.h>

#include "error.h"
#include "previous.h"

#define AHEAD 16u /* lookups of a batch: see shk_store_get_many */

/* A key leaves only into room that holds all of it. */
static inline int give(const shk_store *store, const uint64_t *words, uint32_t size, void *key_out,
                       size_t capacity)
{
    if (size > capacity)
        return shk__fail(SHK_E_INVALID, "the key has %u bytes, the buffer %zu", size, capacity);
    memcpy(key_out, shk__image_key(store, words), size);
    return 0;
}

/* 0, REVOKED or EXPIRED, of an image. */
static inline int check_usable(const shk_store *store, const uint64_t *words)
{
    if (SHK__LIKELY((uint32_t)words[SHK_STATUS_OFFSET / 8] == SHK_VALID &&
                    !(shk__image_flags(words) & SHK_FLAG_EXPIRES)))
        return 0;
    struct shk_record record;
    shk__image_describe(store, words, &record);
    return shk__record_usable(&record);
}

/* The key of a usable record, into room for `capacity` bytes. */
static SHK__ALWAYS_INLINE int read_key(const shk_store *store, const struct shk__query *query,
                                       void *key_out, size_t capacity, uint32_t *length)
{
    struct shk__image image;
    int rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    rc = shk__index_read_key(store, query, image.words);
    if (SHK__LIKELY(rc == 0))
        rc = check_usable(store, image.words);
    if (SHK__LIKELY(rc == 0)) {
        uint32_t size = shk__image_key_length(image.words);
        rc = give(store, image.words, size, key_out, capacity);
        if (rc == 0)
            *length = size;
    }
    shk__image_close(store, &image);
    return rc;
}

static int read_record(const shk_store *store, const struct shk__query *query,
                       struct shk_record *out, void *key_out, size_t capacity)
{
    struct shk__image image;
    struct shk_record record;
    int rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    rc = shk__index_read(store, query, image.words);
    if (rc == 0) {
        shk__image_describe(store, image.words, &record);
        if (key_out)
            rc = give(store, image.words, record.key_length, key_out, capacity);
        if (rc == 0)
            *out = record;
    }
    shk__image_close(store, &image);
    return rc;
}

int shk_store_record(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                     struct shk_record *out, void *key_out, size_t capacity)
{
    struct shk__query query;
    int rc = shk__query_make(store, client, server, &query);
    return rc < 0 ? rc : read_record(store, &query, out, key_out, capacity);
}

__attribute__((hot)) int shk_store_get_key(const shk_store *store, struct shk_bytes client,
                                           struct shk_bytes server, void *key_out,
                                           size_t capacity, size_t *length)
{
    struct shk__query query;
    uint32_t size = 0;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = read_key(store, &query, key_out, capacity, &size);
    if (rc == 0)
        *length = size;
    return rc;
}

/* The pair's record first: it says whether there is a previous key, and where. */
static int read_by_id(const shk_store *store, const struct shk__query *query, int32_t key_id,
                      uint64_t *words, struct shk_record *out)
{
    int rc = shk__index_read(store, query, words);
    if (rc < 0)
        return rc;
    struct shk_record current;
    struct shk__query previous;
    shk__image_describe(store, words, &current);
    *out = current;
    rc = shk__record_usable(&current);
    if (rc < 0 || current.key_id == key_id)
        return rc;
    if (shk__previous_query(store, query, shk__image_flags(words), &previous)) {
        rc = shk__index_read(store, &previous, words);
        if (rc == 0) {
            shk__image_describe(store, words, out);
            if (out->key_id == key_id && !shk__record_expired(out))
                return 0;
        } else if (rc != SHK_E_ABSENT)
            return rc;
        /* The pair may have been revoked since, and its previous key gone with that: then it
         * never was a pair without this key. */
        rc = shk__index_read(store, query, words);
        if (rc < 0)
            return rc;
        shk__image_describe(store, words, out);
        rc = shk__record_usable(out);
        if (rc < 0 || out->key_id == key_id)
            return rc;
    }
    return shk__fail(SHK_E_ABSENT, "the pair's key id is %d, and %d is not its previous one",
                     current.key_id, key_id);
}

int shk_store_get_key_by_id(const shk_store *store, struct shk_bytes client,
                            struct shk_bytes server, int32_t key_id, void *key_out, size_t capacity,
                            size_t *length)
{
    struct shk__query query;
    struct shk__image image;
    struct shk_record record;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    rc = read_by_id(store, &query, key_id, image.words, &record);
    if (rc == 0)
        rc = give(store, image.words, record.key_length, key_out, capacity);
    if (rc == 0)
        *length = record.key_length;
    shk__image_close(store, &image);
    return rc;
}

/* The lookups of a batch overlap: while one is made, the records of the next AHEAD and the
 * buckets of as many behind them are on their way from memory. */
int shk_store_get_many(const shk_store *store, const struct shk_pair *pairs, size_t count,
                       void *keys_out, size_t stride, uint32_t *lengths, int *results)
{
    struct shk__query queries[2 * AHEAD];
    int found = 0;
    if (count > INT32_MAX)
        return shk__fail(SHK_E_INVALID, "%zu pairs at once; at most %d", count, INT32_MAX);
    for (size_t next = 0; next < count + 2 * AHEAD; next++) {
        struct shk__query *query = &queries[next % (2 * AHEAD)]; /* of next, and of at before */
        if (next >= 2 * AHEAD) {
            size_t at = next - 2 * AHEAD;
            int rc = read_key(store, query, (unsigned char *)keys_out + at * stride, stride,
                              &lengths[at]);
            if (rc < 0 && rc != SHK_E_ABSENT && rc != SHK_E_REVOKED && rc != SHK_E_EXPIRED)
                return rc;
            results[at] = rc;
            found += rc == 0;
        }
        if (next < count) {
            int rc = shk__query_make(store, pairs[next].client, pairs[next].server, query);
            if (rc < 0)
                return rc;
            shk__index_prefetch_bucket(store, query);
        }
        if (next >= AHEAD && next - AHEAD < count)
            shk__index_prefetch_slot(store, &queries[(next - AHEAD) % (2 * AHEAD)]);
    }
    return found;
}
