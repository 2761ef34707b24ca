/* batch.c: get_many, put_many and delete_many. */
#include "drain.h"
#include "feed.h"

#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------- get_many -- */

#define CHUNK 64u                   /* lookups at once */
#define CHUNK_BYTES ((size_t)1 << 18) /* of keys, if a key has less */
#define YIELD 64u                   /* chunks after which other threads may run */

/* Lookups that are made together. */
struct chunk {
    size_t room, count;
    struct pair pairs[CHUNK];
    struct shk_pair wanted[CHUNK];
    unsigned char *keys;
    size_t stride;
    uint32_t lengths[CHUNK];
    int results[CHUNK];
};

static int chunk_open(struct chunk *chunk, size_t key_size)
{
    chunk->stride = key_size;
    chunk->count = 0;
    chunk->room = key_size * CHUNK <= CHUNK_BYTES ? CHUNK : CHUNK_BYTES / key_size;
    chunk->keys = malloc(chunk->room * key_size);
    if (chunk->keys)
        return 0;
    PyErr_NoMemory();
    return -1;
}

static void chunk_empty(struct chunk *chunk)
{
    for (size_t i = 0; i < chunk->count; i++)
        pair_close(&chunk->pairs[i]);
    chunk->count = 0;
}

/* As many pairs as there are and fit: 1, 0 at the end of the feed, or -1. */
static int chunk_fill(struct chunk *chunk, struct feed *feed)
{
    struct fed fed;
    int rc = 1;
    while (chunk->count < chunk->room && (rc = feed_next(feed, &fed)) > 0) {
        chunk->pairs[chunk->count] = fed.pair;
        chunk->wanted[chunk->count++] =
            (struct shk_pair){fed.pair.client.bytes, fed.pair.server.bytes};
    }
    return rc;
}

/* Which of the pairs it was that the library refuses. */
static int chunk_blame(const struct chunk *chunk, PyObject *self, const shk_store *store, int rc,
                       Py_ssize_t first)
{
    for (size_t i = 0; i < chunk->count && rc == SHK_E_INVALID; i++)
        if (shk_store_check_pair(store, &chunk->wanted[i]) < 0) {
            errors_raise(state_of(self), rc);
            return feed_blame(first + (Py_ssize_t)i);
        }
    errors_raise(state_of(self), rc);
    return -1;
}

static int append(PyObject *list, PyObject *value)
{
    int rc = value ? PyList_Append(list, value) : -1;
    Py_XDECREF(value);
    return rc;
}

/* Appends a key or the default for each pair. */
static int chunk_look_up(struct chunk *chunk, PyObject *self, PyObject *other, PyObject *list)
{
    shk_store *store = keystore_opened(self);
    if (!store)
        return -1;
    int found = shk_store_get_many(store, chunk->wanted, chunk->count, chunk->keys, chunk->stride,
                                   chunk->lengths, chunk->results);
    if (found < 0) {
        explicit_bzero(chunk->keys, chunk->count * chunk->stride);
        return chunk_blame(chunk, self, store, found, PyList_GET_SIZE(list));
    }
    int rc = 0;
    for (size_t i = 0; i < chunk->count; i++) {
        char *key = (char *)chunk->keys + i * chunk->stride;
        bool is_found = chunk->results[i] == 0;
        if (rc == 0)
            rc = append(list, is_found ? PyBytes_FromStringAndSize(key, chunk->lengths[i])
                                       : Py_NewRef(other));
        if (is_found)
            explicit_bzero(key, chunk->lengths[i]);
    }
    return rc;
}

/* A long batch holds up neither signals nor other threads. */
static int be_polite(size_t chunks)
{
    if (chunks % YIELD)
        return 0;
    Py_BEGIN_ALLOW_THREADS;
    Py_END_ALLOW_THREADS;
    return PyErr_CheckSignals();
}

static int get_all(struct chunk *chunk, struct feed *feed, PyObject *self, PyObject *other,
                   PyObject *list)
{
    int more = 1, rc = 0;
    for (size_t chunks = 1; more > 0 && rc == 0; chunks++) {
        more = chunk_fill(chunk, feed);
        rc = more < 0 ? -1 : chunk_look_up(chunk, self, other, list);
        chunk_empty(chunk);
        if (rc == 0)
            rc = be_polite(chunks);
    }
    return rc;
}

SIGNATURE(get_many, 1, 2, "pairs", "default");

KEYSTORE_METHOD(get_many)
{
    PyObject *a[2], *list = NULL;
    struct feed feed;
    struct chunk chunk;
    if (bind(&get_many_signature, args, count, keywords, a) < 0)
        return NULL;
    if (feed_open(&feed, self, a[0], false) == 0 &&
        chunk_open(&chunk, ((KeyStore *)self)->info.key_size) == 0) {
        list = PyList_New(0);
        if (list && get_all(&chunk, &feed, self, a[1] ? a[1] : Py_None, list) < 0)
            Py_CLEAR(list);
        free(chunk.keys);
    }
    feed_close(&feed);
    return list;
}

/* ------------------------------------------------- put_many, delete_many -- */

#define FEW 64u /* writes for which the GIL is kept */

static void begin(struct call *call, PyObject *self, size_t count)
{
    if (count <= FEW)
        call_begin(call, self);
    else
        call_begin_without_gil(call, self);
}

SIGNATURE(put_many, 1, 1, "items");

KEYSTORE_METHOD(put_many)
{
    PyObject *a[1], *result = NULL;
    struct drain drain;
    if (bind(&put_many_signature, args, count, keywords, a) < 0)
        return NULL;
    int rc = drain_items(&drain, self, a[0]);
    shk_store *store = rc == 0 ? keystore_opened(self) : NULL;
    if (store) {
        struct call call;
        begin(&call, self, drain.count);
        rc = shk_store_put_many(store, drain.items, drain.count);
        call_end(&call);
        result = rc == 0 ? PyLong_FromSize_t(drain.count) : errors_raise(state_of(self), rc);
    }
    drain_close(&drain);
    return result;
}

SIGNATURE(delete_many, 1, 1, "pairs");

KEYSTORE_METHOD(delete_many)
{
    PyObject *a[1], *result = NULL;
    struct drain drain;
    if (bind(&delete_many_signature, args, count, keywords, a) < 0)
        return NULL;
    int rc = drain_pairs(&drain, self, a[0]);
    shk_store *store = rc == 0 ? keystore_opened(self) : NULL;
    if (store) {
        struct call call;
        uint64_t deleted = 0;
        begin(&call, self, drain.count);
        rc = shk_store_delete_many(store, drain.pairs, drain.count, &deleted);
        call_end(&call);
        result = rc == 0 ? PyLong_FromUnsignedLongLong(deleted) : errors_raise(state_of(self), rc);
    }
    drain_close(&drain);
    return result;
}
