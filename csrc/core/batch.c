/* batch.c: many writes under one lock. Each is an operation of its own: a process killed
 * meanwhile leaves the first of them done, and the next writer finishes or undoes one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "writing.h"

/* Queries made together, so that their buckets are fetched together. */
#define GROUP 16u

static size_t make_group(const shk_store *store, const struct shk_item *items,
                         const struct shk_pair *pairs, size_t left, struct shk__query *queries)
{
    size_t count = left < GROUP ? left : GROUP;
    for (size_t i = 0; i < count; i++) {
        const struct shk_pair *pair = items ? &items[i].pair : &pairs[i];
        (void)shk__query_make(store, pair->client, pair->server, &queries[i]); /* checked before */
        shk__index_prefetch_bucket(store, &queries[i]);
    }
    return count;
}

/* ------------------------------------------------------------------- room -- */

/* By client, then server; qsort(3). */
static int compare_items(const void *a, const void *b)
{
    const struct shk_item *const *left = a, *const *right = b;
    const struct shk_pair *x = &(*left)->pair, *y = &(*right)->pair;
    const struct shk_bytes *sides[2][2] = {{&x->client, &y->client}, {&x->server, &y->server}};
    for (int i = 0; i < 2; i++) {
        const struct shk_bytes *l = sides[i][0], *r = sides[i][1];
        int order = memcmp(l->data, r->data, l->size < r->size ? l->size : r->size);
        if (order == 0)
            order = (l->size > r->size) - (l->size < r->size);
        if (order)
            return order;
    }
    return 0;
}

/* How many different pairs of the batch are absent. */
static int count_absent(const shk_store *store, const struct shk_item *items, size_t count,
                        uint64_t *out)
{
    const struct shk_item **absent = malloc(count * sizeof *absent);
    size_t found = 0;
    int rc = absent ? 0 : shk__fail(-ENOMEM, "the order of %zu items", count);
    for (size_t i = 0; i < count && rc == 0; i++) {
        struct shk__query query;
        struct shk__place place;
        (void)shk__query_make(store, items[i].pair.client, items[i].pair.server, &query);
        rc = shk__index_find_locked(store, &query, &place);
        if (rc == 0 && place.word == 0)
            absent[found++] = &items[i];
    }
    if (rc == 0) {
        qsort(absent, found, sizeof *absent, compare_items);
        *out = found;
        for (size_t i = 1; i < found; i++)
            *out -= compare_items(&absent[i - 1], &absent[i]) == 0;
    }
    free(absent);
    return rc;
}

static int check_room(const shk_store *store, const struct shk_item *items, size_t count)
{
    uint64_t absent;
    if (count <= shk__expiry_room(store))
        return 0;
    int rc = count_absent(store, items, count, &absent);
    if (rc < 0 || absent <= shk__expiry_room(store))
        return rc;
    rc = shk__expiry_sweep_locked(store);
    if (rc == 0)
        rc = count_absent(store, items, count, &absent);
    uint64_t room = shk__expiry_room(store);
    if (rc < 0 || absent <= room)
        return rc;
    return shk__fail(SHK_E_FULL,
                     "%llu of the %zu pairs are new and the store has room for %llu (capacity "
                     "%llu): none was written; delete some, or copy it to a larger store",
                     (unsigned long long)absent, count, (unsigned long long)room,
                     (unsigned long long)store->geometry.capacity);
}

/* `last` is what the counter will be when the items draw from it. */
static int check_key_ids(uint64_t last, const struct shk_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int32_t wanted = items[i].what.key_id;
        if (wanted == SHK_KEY_ID_NEXT)
            last += last < UINT64_MAX;
        else if ((uint64_t)wanted > last)
            last = (uint64_t)wanted;
    }
    if (last <= INT32_MAX)
        return 0;
    return shk__fail(SHK_E_EXHAUSTED,
                     "the batch needs key ids up to %llu, the last is %d: none was written; copy "
                     "the pairs to a new store",
                     (unsigned long long)last, INT32_MAX);
}

static int check_none_present(const shk_store *store, const struct shk_item *items, size_t count)
{
    uint64_t present = 0;
    for (size_t i = 0; i < count; i++) {
        struct shk__query query;
        struct shk__current current;
        (void)shk__query_make(store, items[i].pair.client, items[i].pair.server, &query);
        int rc = shk__current_find_locked(store, &query, &current);
        if (rc < 0 && rc != SHK_E_FULL)
            return rc;
        present += rc == 0 && current.place.word && !shk__record_expired(&current.record);
    }
    if (present == 0)
        return 0;
    return shk__fail(SHK_E_EXISTS,
                     "%llu of the %zu pairs are there already: none was written; keep or replace "
                     "them, or import into another store",
                     (unsigned long long)present, count);
}

/* ------------------------------------------------------- put_many, import -- */

int shk_store_check_pair(const shk_store *store, const struct shk_pair *pair)
{
    struct shk__pair made;
    return shk__pair_make(store, pair->client, pair->server, &made);
}

int shk_store_check_item(const shk_store *store, const struct shk_item *item)
{
    int rc = shk__put_check(store, &item->what);
    if (rc == 0 && item->what.condition != SHK_ALWAYS)
        rc = shk__fail(SHK_E_INVALID, "an item with a condition, which only single puts take");
    return rc < 0 ? rc : shk_store_check_pair(store, &item->pair);
}

static int check_items(const shk_store *store, const struct shk_item *items, size_t count)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = shk_store_check_item(store, &items[i]);
    return rc;
}

static int put_all_locked(const shk_store *store, struct shk_item *items, size_t count,
                          enum shk_condition condition, uint64_t *words, uint64_t *written)
{
    struct shk__query queries[GROUP];
    for (size_t from = 0; from < count;) {
        size_t group = make_group(store, items + from, NULL, count - from, queries);
        for (size_t i = 0; i < group; i++) {
            struct shk_item *item = &items[from + i];
            memset(words, 0, store->geometry.record_size);
            shk__put_fill(store, &queries[i], &item->what, words);
            item->what.condition = condition;
            int rc = shk__put_locked(store, &queries[i], &item->what, words, &item->key_id);
            item->what.condition = SHK_ALWAYS; /* as the caller has it */
            if (rc < 0 && rc != SHK_E_EXISTS)
                return rc;
            *written += rc == 0;
        }
        from += group;
    }
    return 0;
}

int shk_store_import(shk_store *store, struct shk_item *items, size_t count,
                     enum shk_present present, int32_t last_key_id, uint64_t *written)
{
    struct shk__image image;
    uint64_t done = 0;
    int rc = check_items(store, items, count);
    if (rc == 0)
        rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    rc = shk__store_begin(store);
    if (rc == 0) {
        uint64_t last = shk__load(&shk__ledger(store)->last_key_id);
        if (last_key_id > 0 && last < (uint64_t)last_key_id)
            last = (uint64_t)last_key_id;
        rc = check_key_ids(last, items, count);
        if (rc == 0 && present == SHK_PRESENT_REFUSE)
            rc = check_none_present(store, items, count);
        if (rc == 0)
            rc = check_room(store, items, count);
        if (rc == 0) {
            shk__store(&shk__ledger(store)->last_key_id, last);
            rc = put_all_locked(store, items, count,
                                present == SHK_PRESENT_KEEP ? SHK_IF_ABSENT : SHK_ALWAYS,
                                image.words, &done);
        }
        shk__store_end(store);
    }
    shk__image_close(store, &image);
    if (rc == 0 && written)
        *written = done;
    return rc;
}

int shk_store_put_many(shk_store *store, struct shk_item *items, size_t count)
{
    return shk_store_import(store, items, count, SHK_PRESENT_REPLACE, 0, NULL);
}

/* ------------------------------------------------------ delete_many, clear -- */

/* 1, or 0 where the pair is absent. */
static int delete_locked(const shk_store *store, const struct shk__query *query)
{
    struct shk__current current;
    int rc = shk__current_find_locked(store, query, &current);
    if (rc == SHK_E_FULL || (rc == 0 && current.place.word == 0))
        return 0;
    if (rc == 0)
        rc = shk__current_replace_locked(store, SHK_CHANGE_DELETE, query, &current, NULL);
    return rc < 0 ? rc : 1;
}

int shk_store_delete_many(shk_store *store, const struct shk_pair *pairs, size_t count,
                          uint64_t *deleted)
{
    struct shk__query queries[GROUP];
    uint64_t done = 0;
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = shk_store_check_pair(store, &pairs[i]);
    if (rc == 0)
        rc = shk__store_begin(store);
    if (rc < 0)
        return rc;
    for (size_t from = 0; from < count && rc >= 0;) {
        size_t group = make_group(store, NULL, pairs + from, count - from, queries);
        for (size_t i = 0; i < group && rc >= 0; i++) {
            rc = delete_locked(store, &queries[i]);
            done += rc > 0;
        }
        from += group;
    }
    shk__store_end(store);
    if (rc >= 0 && deleted)
        *deleted = done;
    return rc < 0 ? rc : 0;
}

int shk_store_clear(shk_store *store, uint64_t *deleted)
{
    const uint64_t entries = (uint64_t)store->geometry.buckets * SHK_WAYS;
    uint64_t done = 0;
    int rc = shk__store_begin(store);
    if (rc < 0)
        return rc;
    for (uint64_t target = 0; target < entries && rc >= 0; target++) {
        struct shk__query query;
        uint32_t slot = shk__entry_slot(shk__load(shk__entry_at(store, target)));
        if (slot >= store->geometry.slots)
            continue;
        shk__query_of_image(store, (const uint64_t *)shk__slot(store, slot), &query);
        if (query.role)
            continue; /* goes with its pair */
        rc = delete_locked(store, &query);
        done += rc > 0;
    }
    shk__store_end(store);
    if (rc >= 0 && deleted)
        *deleted = done;
    return rc < 0 ? rc : 0;
}
