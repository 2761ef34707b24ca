/* batch.c: get_many, put_many and delete_many. */
#include "drain.h"
#include "feed.h"

#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------- get_many -- */

#define POLITE 4096u /* lookups after which signals and other threads have their turn */

/* Lookups under way, for shk_store_get_each: what it asks for and where its answers go. */
struct lookups {
    PyObject *self, *other, *list;
    struct feed feed;
    struct fed fed;
    bool away; /* between two lookups, or after the last */
};

/* A long batch holds up neither signals nor other threads. */
static int be_polite(void)
{
    Py_BEGIN_ALLOW_THREADS;
    Py_END_ALLOW_THREADS;
    return PyErr_CheckSignals();
}

/* Where it fails, an exception is set. Other code that runs may close the store: then it fails. */
static int lookups_next(void *context, struct shk_pair *out)
{
    struct lookups *lookups = context;
    struct fed *fed = &lookups->fed;
    bool due = lookups->feed.at % POLITE == POLITE - 1;
    int rc = due ? -1 : feed_lend(&lookups->feed, out);
    if (rc >= 0)
        return rc;
    lookup_end();
    pair_close(&fed->pair);
    rc = due && be_polite() < 0 ? -1 : feed_next(&lookups->feed, fed);
    lookups->away = rc < 0 || !keystore_lookup(lookups->self);
    if (lookups->away) /* also at the end: pairs wait for their answers */
        return -1;
    if (rc > 0)
        *out = (struct shk_pair){fed->pair.client.bytes, fed->pair.server.bytes};
    return rc;
}

static int append(PyObject *list, PyObject *value)
{
    int rc = value ? PyList_Append(list, value) : -1;
    Py_XDECREF(value);
    return rc;
}

static void *lookups_found(void *context, size_t length)
{
    struct lookups *lookups = context;
    PyObject *key = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    return append(lookups->list, key) < 0 ? NULL : PyBytes_AS_STRING(key);
}

static int lookups_missing(void *context, int result)
{
    struct lookups *lookups = context;
    (void)result;
    return PyList_Append(lookups->list, lookups->other);
}

/* Appends a key or the default for each pair. */
static int look_up_all(struct lookups *lookups)
{
    const shk_store *store = keystore_lookup(lookups->self);
    if (!store)
        return -1;
    int rc = shk_store_get_each(store, &(struct shk_lookups){lookups, lookups_next, lookups_found,
                                                             lookups_missing});
    if (!lookups->away)
        lookup_end();
    if (rc < 0 && !PyErr_Occurred()) {
        errors_raise(state_of(lookups->self), rc);
        if (rc == SHK_E_INVALID) /* the pair that was asked for last */
            (void)feed_blame(lookups->feed.at - 1);
    }
    return rc;
}

SIGNATURE(get_many, 1, 2, "pairs", "default");

KEYSTORE_METHOD(get_many)
{
    PyObject *a[2];
    struct lookups lookups = {.self = self};
    if (bind(&get_many_signature, args, count, keywords, a) < 0)
        return NULL;
    lookups.other = a[1] ? a[1] : Py_None;
    if (feed_open(&lookups.feed, self, a[0], false) == 0 && (lookups.list = PyList_New(0)) &&
        look_up_all(&lookups) < 0)
        Py_CLEAR(lookups.list);
    pair_close(&lookups.fed.pair);
    feed_close(&lookups.feed);
    return lookups.list;
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

/* Draining runs any code of the caller's, for as long as it likes: outside of the critical section,
 * which other threads need meanwhile, and which a child forked there might find locked. */

static PyObject *put_all(PyObject *self, const struct drain *drain)
{
    shk_store *store = keystore_opened(self);
    struct call call;
    if (!store)
        return NULL;
    begin(&call, self, drain->count);
    int rc = shk_store_put_many(store, drain->items, drain->count);
    call_end(&call);
    return rc == 0 ? PyLong_FromSize_t(drain->count) : errors_raise(state_of(self), rc);
}

SIGNATURE(put_many, 1, 1, "items");

KEYSTORE_METHOD(put_many)
{
    PyObject *a[1], *result = NULL;
    struct drain drain;
    if (bind(&put_many_signature, args, count, keywords, a) < 0)
        return NULL;
    if (drain_items(&drain, self, a[0]) == 0) {
        GUARD(self);
        result = put_all(self, &drain);
        UNGUARD;
    }
    drain_close(&drain);
    return result;
}

static PyObject *delete_all(PyObject *self, const struct drain *drain)
{
    shk_store *store = keystore_opened(self);
    struct call call;
    uint64_t deleted = 0;
    if (!store)
        return NULL;
    begin(&call, self, drain->count);
    int rc = shk_store_delete_many(store, drain->pairs, drain->count, &deleted);
    call_end(&call);
    return rc == 0 ? PyLong_FromUnsignedLongLong(deleted) : errors_raise(state_of(self), rc);
}

SIGNATURE(delete_many, 1, 1, "pairs");

KEYSTORE_METHOD(delete_many)
{
    PyObject *a[1], *result = NULL;
    struct drain drain;
    if (bind(&delete_many_signature, args, count, keywords, a) < 0)
        return NULL;
    if (drain_pairs(&drain, self, a[0]) == 0) {
        GUARD(self);
        result = delete_all(self, &drain);
        UNGUARD;
    }
    drain_close(&drain);
    return result;
}
