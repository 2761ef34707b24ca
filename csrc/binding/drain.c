/* drain.c: copies of ids and keys, until their batch is done. */
#include "drain.h"
#include "feed.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------ private memory -- */

#define BLOCK_FIRST ((size_t)4096)
#define BLOCK_LAST ((size_t)1 << 20)

struct block {
    struct block *next;
    size_t size, used;
    unsigned char bytes[];
};

/* A copy; NULL with MemoryError. */
static const void *keep(struct drain *drain, struct shk_bytes bytes)
{
    struct block *block = drain->blocks;
    if (!block || block->size - block->used < bytes.size) {
        size_t size = !block ? BLOCK_FIRST : block->size < BLOCK_LAST ? 2 * block->size : BLOCK_LAST;
        if (size < bytes.size)
            size = bytes.size;
        block = malloc(sizeof *block + size);
        if (!block) {
            PyErr_NoMemory();
            return NULL;
        }
        *block = (struct block){drain->blocks, size, 0};
        drain->blocks = block;
    }
    void *copy = block->bytes + block->used;
    block->used += bytes.size;
    return memcpy(copy, bytes.data, bytes.size);
}

/* Room for one more element of an array that holds no secrets. */
static int reserve(struct drain *drain, void **array, size_t size)
{
    if (drain->count < drain->room)
        return 0;
    size_t room = drain->room ? 2 * drain->room : 64;
    void *more = realloc(*array, room * size);
    if (!more) {
        PyErr_NoMemory();
        return -1;
    }
    *array = more;
    drain->room = room;
    return 0;
}

void drain_close(struct drain *drain)
{
    while (drain->blocks) {
        struct block *block = drain->blocks;
        drain->blocks = block->next;
        explicit_bzero(block->bytes, block->used);
        free(block);
    }
    free(drain->items);
    free(drain->pairs);
}

/* ------------------------------------------------------------------ draining -- */

static int keep_pair(struct drain *drain, struct shk_pair *pair)
{
    pair->client.data = keep(drain, pair->client);
    if (pair->client.data)
        pair->server.data = keep(drain, pair->server);
    return pair->client.data && pair->server.data ? 0 : -1;
}

/* Checked before it is copied: a batch without end may begin with an error. */
static int drain_one(struct drain *drain, PyObject *self, struct shk_item item, bool with_keys)
{
    const shk_store *store = keystore_lookup(self);
    if (!store)
        return -1;
    int rc = with_keys ? shk_store_check_item(store, &item)
                       : shk_store_check_pair(store, &item.pair);
    lookup_end();
    if (rc < 0) {
        errors_raise(state_of(self), rc);
        return feed_blame((Py_ssize_t)drain->count);
    }
    if (keep_pair(drain, &item.pair) < 0)
        return -1;
    if (!with_keys) {
        if (reserve(drain, (void **)&drain->pairs, sizeof *drain->pairs) < 0)
            return -1;
        drain->pairs[drain->count++] = item.pair;
        return 0;
    }
    item.what.key.data = keep(drain, item.what.key);
    if (!item.what.key.data || reserve(drain, (void **)&drain->items, sizeof *drain->items) < 0)
        return -1;
    drain->items[drain->count++] = item;
    return 0;
}

int drain_item(struct drain *drain, PyObject *self, const struct shk_item *item)
{
    return drain_one(drain, self, *item, true);
}

static int drain_all(struct drain *drain, PyObject *self, PyObject *argument, bool with_keys)
{
    struct feed feed;
    struct fed fed = {0};
    *drain = (struct drain){0};
    int rc = feed_open(&feed, self, argument, with_keys);
    while (rc == 0 && (rc = feed_next(&feed, &fed)) > 0) {
        struct shk_item item = {{fed.pair.client.bytes, fed.pair.server.bytes}, fed.what, 0};
        rc = drain_one(drain, self, item, with_keys);
        fed_close(&fed);
        if (rc == 0 && drain->count % 1024 == 0)
            rc = PyErr_CheckSignals();
    }
    feed_close(&feed);
    return rc;
}

int drain_pairs(struct drain *drain, PyObject *self, PyObject *argument)
{
    return drain_all(drain, self, argument, false);
}

int drain_items(struct drain *drain, PyObject *self, PyObject *argument)
{
    return drain_all(drain, self, argument, true);
}
