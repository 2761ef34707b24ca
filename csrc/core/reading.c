/* reading.c: looking up. Readers go straight to the index, store nothing and wait for
 * nobody; keys pass through a private image that is wiped. */
#include "reading.h"

#include <errno.h>
#include <string.h>

#include "error.h"
#include "previous.h"

#define GROUP 16 /* lookups of a batch: see get_each */
#define USUAL_LENGTH 32u /* of a key */

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

/* The image of a usable record. */
static SHK__ALWAYS_INLINE int look_up(const shk_store *store, const struct shk__query *query,
                                      struct shk__image *image)
{
    int rc = shk__index_read_key(store, query, image->words);
    return SHK__LIKELY(rc == 0) ? check_usable(store, image->words) : rc;
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

static SHK__ALWAYS_INLINE int open_key(const shk_store *store, struct shk_bytes client,
                                       struct shk_bytes server, const int32_t *key_id,
                                       struct shk__image *image)
{
    struct shk__query query;
    struct shk_record record;
    int rc = shk__query_make(store, client, server, &query);
    if (rc == 0)
        rc = shk__image_open_empty(store, image);
    if (rc < 0)
        return rc;
    rc = key_id ? read_by_id(store, &query, *key_id, image->words, &record)
                : look_up(store, &query, image);
    if (!SHK__LIKELY(rc == 0))
        shk__image_close(store, image);
    return rc;
}

int shk__key_open(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                  const int32_t *key_id, struct shk__image *image)
{
    return open_key(store, client, server, key_id, image);
}

static SHK__ALWAYS_INLINE int get_key(const shk_store *store, struct shk_bytes client,
                                      struct shk_bytes server, const int32_t *key_id,
                                      void *key_out, size_t capacity, size_t *length)
{
    struct shk__image image;
    int rc = open_key(store, client, server, key_id, &image);
    if (rc < 0)
        return rc;
    uint32_t size = shk__image_key_length(image.words);
    rc = give(store, image.words, size, key_out, capacity);
    if (SHK__LIKELY(rc == 0))
        *length = size;
    shk__image_close(store, &image);
    return rc;
}

__attribute__((hot)) int shk_store_get_key(const shk_store *store, struct shk_bytes client,
                                           struct shk_bytes server, void *key_out,
                                           size_t capacity, size_t *length)
{
    return get_key(store, client, server, NULL, key_out, capacity, length);
}

int shk_store_get_key_by_id(const shk_store *store, struct shk_bytes client,
                            struct shk_bytes server, int32_t key_id, void *key_out, size_t capacity,
                            size_t *length)
{
    return get_key(store, client, server, &key_id, key_out, capacity, length);
}

/* ------------------------------------------------------------------- batches -- */

static SHK__ALWAYS_INLINE int answer(const shk_store *store, const struct shk__query *query,
                                     const struct shk_lookups *lookups, uint32_t *length)
{
    struct shk__image image;
    int rc = shk__image_open_empty(store, &image);
    if (rc < 0)
        return rc;
    rc = look_up(store, query, &image);
    if (SHK__LIKELY(rc == 0)) {
        *length = shk__image_key_length(image.words);
        void *key_out = lookups->found(lookups->context, *length);
        if (SHK__LIKELY(key_out != NULL))
            memcpy(key_out, shk__image_key(store, image.words), *length);
        else
            rc = shk__fail_plainly(-ENOMEM);
    }
    shk__image_close(store, &image);
    if (rc == SHK_E_ABSENT || rc == SHK_E_REVOKED || rc == SHK_E_EXPIRED)
        rc = lookups->missing(lookups->context, rc);
    return rc < 0 ? rc : 0;
}

/* Up to GROUP pairs: their number, which is smaller when there are no more, or below 0. */
static SHK__ALWAYS_INLINE int ask(const shk_store *store, const struct shk_lookups *lookups,
                                  struct shk__query *queries)
{
    for (int count = 0; count < (int)GROUP; count++) {
        struct shk_pair pair;
        int rc = lookups->next(lookups->context, &pair);
        if (rc == 0)
            return count;
        if (rc > 0)
            rc = shk__query_make(store, pair.client, pair.server, &queries[count]);
        if (rc < 0)
            return rc;
    }
    return GROUP;
}

/* A group's records come from memory while the next group is asked for, whose buckets come while
 * the first is answered; of a record as many lines as the last key needed. Prefetches stand close
 * together, as each holds up what is far behind it until its page is known. */
static SHK__ALWAYS_INLINE int get_each(const shk_store *store, const struct shk_lookups *lookups)
{
    struct shk__query queries[2][GROUP];
    int counts[2] = {0, 0};
    uint32_t length = USUAL_LENGTH;
    bool more = true;
    for (unsigned now = 0; more || counts[!now] > 0; now = !now) {
        for (int i = 0; i < counts[!now]; i++)
            shk__index_prefetch_key(store, &queries[!now][i], store->geometry.key_offset + length);
        counts[now] = more ? ask(store, lookups, queries[now]) : 0;
        if (counts[now] < 0)
            return counts[now];
        more = counts[now] == GROUP;
        for (int i = 0; i < counts[now]; i++)
            shk__index_prefetch_bucket(store, &queries[now][i]);
        for (int i = 0; i < counts[!now]; i++) {
            int rc = answer(store, &queries[!now][i], lookups, &length);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

int shk_store_get_each(const shk_store *store, const struct shk_lookups *lookups)
{
    return get_each(store, lookups);
}

struct arrays {
    const struct shk_pair *pairs;
    size_t count, asked, answered;
    unsigned char *keys;
    size_t stride;
    uint32_t *lengths;
    int *results, found;
    bool short_of_room;
};

static inline int array_next(void *context, struct shk_pair *out)
{
    struct arrays *arrays = context;
    if (arrays->asked == arrays->count)
        return 0;
    *out = arrays->pairs[arrays->asked++];
    return 1;
}

static inline void *array_found(void *context, size_t length)
{
    struct arrays *arrays = context;
    const size_t at = arrays->answered;
    arrays->lengths[at] = (uint32_t)length;
    arrays->short_of_room = length > arrays->stride;
    if (arrays->short_of_room)
        return NULL;
    arrays->results[at] = 0;
    arrays->answered++;
    arrays->found++;
    return arrays->keys + at * arrays->stride;
}

static inline int array_missing(void *context, int result)
{
    struct arrays *arrays = context;
    arrays->results[arrays->answered++] = result;
    return 0;
}

int shk_store_get_many(const shk_store *store, const struct shk_pair *pairs, size_t count,
                       void *keys_out, size_t stride, uint32_t *lengths, int *results)
{
    struct arrays arrays = {pairs, count, 0, 0, keys_out, stride, lengths, results, 0, false};
    if (count > INT32_MAX)
        return shk__fail(SHK_E_INVALID, "%zu pairs at once; at most %d", count, INT32_MAX);
    int rc = get_each(store,
                      &(struct shk_lookups){&arrays, array_next, array_found, array_missing});
    if (arrays.short_of_room)
        return shk__fail(SHK_E_INVALID, "the key has %u bytes, the stride is %zu",
                         lengths[arrays.answered], stride);
    return rc < 0 ? rc : arrays.found;
}
