/* mapping.c: a KeyStore is a MutableMapping from (client, server) to KeyRecord. What has
 * expired is absent here, and reported as such by KeyExpiredError, a KeyError. */
#include "keyrecord.h"
#include "keystore.h"

#include <string.h>

/* Of calls that try again where another process was faster. A living store never comes near
 * it; a damaged one may show a pair in one way and not in the other for ever. */
#define TRIES_MAX 100

/* ----------------------------------------------------------------- lookups -- */

/* Borrowed references to the two ids. */
static int split(PyObject *pair, PyObject **client, PyObject **server)
{
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_TypeError, "a pair is a tuple (client, server), not %.200s%s",
                     Py_TYPE(pair)->tp_name, PyTuple_Check(pair) ? " of another length" : "");
        return -1;
    }
    *client = PyTuple_GET_ITEM(pair, 0);
    *server = PyTuple_GET_ITEM(pair, 1);
    return 0;
}

static PyObject *raise_expired(PyObject *self, const struct shk_record *about)
{
    return errors_format(state_of(self), SHK_E_EXPIRED, "key id %d has expired", (int)about->key_id);
}

/* The record, or NULL with an exception, which is a KeyError if *absent. */
static PyObject *look_up(PyObject *self, PyObject *pair, bool *absent)
{
    PyObject *client, *server;
    int code;
    *absent = false;
    if (split(pair, &client, &server) < 0)
        return NULL;
    PyObject *record = pair_record(self, client, server, &code);
    *absent = code == SHK_E_ABSENT;
    if (code < 0)
        return keystore_raise(self, code, client, server);
    if (record && keyrecord_expired(keyrecord_about(record))) {
        *absent = true;
        raise_expired(self, keyrecord_about(record));
        Py_CLEAR(record);
    }
    return record;
}

PyObject *mapping_subscript(PyObject *self, PyObject *pair)
{
    bool absent;
    return look_up(self, pair, &absent);
}

static PyObject *or_default(PyObject *record, bool absent, PyObject *otherwise)
{
    if (record || !absent || !otherwise)
        return record;
    PyErr_Clear();
    return Py_NewRef(otherwise);
}

SIGNATURE(get, 1, 2, "pair", "default");

PyObject *keystore_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *a[2];
    bool absent;
    if (bind(&get_signature, args, count, keywords, a) < 0)
        return NULL;
    PyObject *record = look_up(self, a[0], &absent);
    return or_default(record, absent, a[1] ? a[1] : Py_None);
}

int mapping_contains(PyObject *self, PyObject *pair_)
{
    PyObject *client, *server;
    struct pair pair;
    struct shk_record about;
    if (split(pair_, &client, &server) < 0 || pair_open(client, server, &pair) < 0)
        return -1;
    const shk_store *store = keystore_lookup(self);
    int rc = 0;
    if (store) {
        rc = shk_store_record(store, pair.client.bytes, pair.server.bytes, &about, NULL, 0);
        lookup_end();
    }
    pair_close(&pair);
    if (!store)
        return -1;
    if (rc == 0)
        return !keyrecord_expired(&about);
    if (rc == SHK_E_ABSENT)
        return 0;
    errors_raise(state_of(self), rc);
    return -1;
}

Py_ssize_t mapping_length(PyObject *self)
{
    const shk_store *store = keystore_lookup(self);
    struct shk_stats stats;
    if (!store)
        return -1;
    int rc = shk_store_stats(store, &stats);
    lookup_end();
    if (rc < 0) {
        errors_raise(state_of(self), rc);
        return -1;
    }
    uint64_t capacity = ((KeyStore *)self)->info.capacity;
    if (stats.records > capacity) {
        errors_format(state_of(self), SHK_E_CORRUPT, "the store counts %llu pairs, its capacity is "
                      "%llu", (unsigned long long)stats.records, (unsigned long long)capacity);
        return -1;
    }
    return (Py_ssize_t)stats.records;
}

/* --------------------------------------------------------------- assigning -- */

/* A KeyRecord keeps its key id, status and time of expiry; a key gets the next id. */
static int put_value(PyObject *self, PyObject *pair, PyObject *value, enum shk_condition condition)
{
    PyObject *client, *server;
    struct shk_put what = {.key_id = SHK_KEY_ID_NEXT, .condition = condition};
    Py_buffer key = {0};
    int32_t key_id;
    if (split(pair, &client, &server) < 0)
        return -1;
    if ((PyObject *)Py_TYPE(value) == state_of(self)->keyrecord_type) {
        const struct shk_record *about = keyrecord_about(value);
        what.key = (struct shk_bytes){keyrecord_key(value), about->key_length};
        what.key_id = about->key_id;
        what.status = about->status;
        what.expires = about->expires;
        if (keyrecord_expired(about)) {
            PyErr_SetString(PyExc_ValueError, "this KeyRecord has expired: assign its key instead");
            return -1;
        }
    } else {
        if (args_key_bytes(value, &key) < 0)
            return -1;
        what.key = buffer_bytes(&key);
    }
    int rc = pair_put(self, client, server, &what, &key_id);
    if (key.obj)
        PyBuffer_Release(&key);
    return rc;
}

/* Deletes the pair and, where record is not NULL, makes the KeyRecord it had. The code, or
 * -1 with an exception. */
static int take(PyObject *self, const struct shk_pair *ids, PyObject **record)
{
    shk_store *store = keystore_opened(self);
    size_t room = ((KeyStore *)self)->info.key_size;
    struct call call;
    PyObject *taken = NULL;
    if (!store)
        return -1;
    /* Made first: after the deletion nothing may fail any more. */
    if (record && (!(taken = keyrecord_new(state_of(self), room)) ||
                   keyrecord_set_ids(taken, ids->client, ids->server) < 0)) {
        Py_XDECREF(taken);
        return -1;
    }
    call_begin(&call, self);
    int rc = shk_store_pop(store, ids->client, ids->server, taken ? keyrecord_about(taken) : NULL,
                           taken ? keyrecord_key(taken) : NULL, room);
    call_end(&call);
    if (rc == 0 && record)
        *record = taken;
    else
        Py_XDECREF(taken);
    return rc;
}

/* True: no such pair (any more). */
static bool is_absent(int rc)
{
    return rc == SHK_E_ABSENT || rc == SHK_E_EXPIRED;
}

static int take_pair(PyObject *self, PyObject *pair_, PyObject **record, bool *absent)
{
    PyObject *client, *server;
    struct pair pair;
    *absent = false;
    if (split(pair_, &client, &server) < 0 || pair_open(client, server, &pair) < 0)
        return -1;
    struct shk_pair ids = {pair.client.bytes, pair.server.bytes};
    int rc = take(self, &ids, record);
    pair_close(&pair);
    *absent = is_absent(rc);
    if (rc < 0 && !PyErr_Occurred())
        keystore_raise(self, rc, client, server);
    return rc < 0 ? -1 : 0;
}

int mapping_assign(PyObject *self, PyObject *pair, PyObject *value)
{
    bool absent;
    return value ? put_value(self, pair, value, SHK_ALWAYS) : take_pair(self, pair, NULL, &absent);
}

SIGNATURE(pop, 1, 2, "pair", "default");

PyObject *keystore_pop(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *a[2], *record = NULL;
    bool absent;
    if (bind(&pop_signature, args, count, keywords, a) < 0)
        return NULL;
    (void)take_pair(self, a[0], &record, &absent);
    return or_default(record, absent, a[1]);
}

SIGNATURE(setdefault, 2, 2, "pair", "default");

PyObject *keystore_setdefault(PyObject *self, PyObject *const *args, Py_ssize_t count,
                              PyObject *keywords)
{
    PyObject *a[2], *record;
    bool absent;
    if (bind(&setdefault_signature, args, count, keywords, a) < 0)
        return NULL;
    /* Until one of the two meets no other process's deletion or insertion in between. */
    for (int tries = 0; !(record = look_up(self, a[0], &absent)) && absent; tries++) {
        PyErr_Clear();
        if (tries == TRIES_MAX)
            return errors_format(state_of(self), SHK_E_BUSY,
                                 "setdefault(): the pair came and went %d times", TRIES_MAX);
        if (put_value(self, a[0], a[1], SHK_IF_ABSENT) == 0)
            continue;
        if (!PyErr_ExceptionMatches(state_of(self)->exceptions[ERROR_EXISTS]))
            return NULL;
        PyErr_Clear();
    }
    return record;
}

PyObject *keystore_update(PyObject *self, PyObject *other)
{
    PyObject *count = PyObject_CallMethod(self, "put_many", "O", other);
    if (!count)
        return NULL;
    Py_DECREF(count);
    Py_RETURN_NONE;
}

/* ----------------------------------------------------------------- emptying -- */

/* The ids of some pair, copied: other threads may use the cursor meanwhile. 1, 0 or a code.
 * The cursor stays between calls, or each would begin with the buckets emptied before.
 * *passes grows with each that ends. */
static int next_to_pop(KeyStore *self, const shk_store *store, char *room, struct shk_pair *out,
                       int *passes)
{
    for (int round = 0; round < 2; round++) {
        int rc = self->pop_cursor ? 0 : shk_cursor_open(store, &self->pop_cursor);
        if (rc == 0)
            rc = shk_cursor_next(self->pop_cursor, out);
        if (rc > 0)
            keystore_keep_ids(out, room);
        if (rc != 0)
            return rc;
        shk_cursor_close(self->pop_cursor);
        self->pop_cursor = NULL;
        ++*passes;
    }
    return 0;
}

PyObject *keystore_popitem(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    char room[IDS_ROOM];
    struct shk_pair ids;
    PyObject *record;
    int rc, passes = 0;
    do {
        const shk_store *store = keystore_opened(self);
        if (!store)
            return NULL;
        rc = next_to_pop((KeyStore *)self, store, room, &ids, &passes);
        if (rc == 0) {
            PyErr_SetString(PyExc_KeyError, "popitem(): the store is empty");
            return NULL;
        }
        if (rc > 0)
            rc = take(self, &ids, &record);
    } while (is_absent(rc) && passes < TRIES_MAX);
    if (is_absent(rc))
        return errors_format(state_of(self), SHK_E_BUSY,
                             "popitem(): whichever pair was met, it was gone, %d times all through "
                             "the store: if no other process empties it, verify it",
                             TRIES_MAX);
    if (rc < 0)
        return PyErr_Occurred() ? NULL : errors_raise(state_of(self), rc);
    return Py_BuildValue("((NN)N)", keyrecord_id(ids.client), keyrecord_id(ids.server), record);
}

PyObject *keystore_clear(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    shk_store *store = keystore_opened(self);
    struct call call;
    if (!store)
        return NULL;
    call_begin_without_gil(&call, self);
    int rc = shk_store_clear(store, NULL);
    call_end(&call);
    if (rc < 0)
        return errors_raise(state_of(self), rc);
    Py_RETURN_NONE;
}

/* ------------------------------------------------------------------ copies -- */

static PyObject *dict_of(PyObject *self, const shk_snapshot *snapshot)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict && i < shk_snapshot_count(snapshot); i++) {
        struct shk_pair ids;
        struct shk_record about;
        const void *key;
        shk_snapshot_record(snapshot, i, &ids, &about, &key);
        PyObject *record = keyrecord_new(state_of(self), about.key_length);
        PyObject *pair = Py_BuildValue("(NN)", keyrecord_id(ids.client), keyrecord_id(ids.server));
        bool good = record && pair && keyrecord_set_ids(record, ids.client, ids.server) == 0;
        if (good) {
            *keyrecord_about(record) = about;
            memcpy(keyrecord_key(record), key, about.key_length);
            good = PyDict_SetItem(dict, pair, record) == 0;
        }
        Py_XDECREF(pair);
        Py_XDECREF(record);
        if (!good)
            Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *snapshot(PyObject *self)
{
    shk_store *store = keystore_opened(self);
    shk_snapshot *snapshot;
    struct call call;
    if (!store)
        return NULL;
    call_begin_without_gil(&call, self);
    int rc = shk_store_snapshot(store, &snapshot);
    call_end(&call);
    if (rc < 0)
        return errors_raise(state_of(self), rc);
    PyObject *dict = PyErr_Occurred() ? NULL : dict_of(self, snapshot);
    shk_snapshot_free(snapshot);
    return dict;
}

PyObject *keystore_snapshot(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    PyObject *dict;
    GUARD(self);
    dict = snapshot(self);
    UNGUARD;
    return dict;
}

/* Equal: the same pairs with equal records, as with any Mapping. */
PyObject *mapping_compare(PyObject *self, PyObject *other, int operation)
{
    bool is_store = Py_TYPE(other) == Py_TYPE(self);
    if ((operation != Py_EQ && operation != Py_NE) || (!is_store && !PyDict_Check(other)))
        Py_RETURN_NOTIMPLEMENTED;
    if (self == other)
        return PyBool_FromLong(operation == Py_EQ);
    PyObject *result = NULL, *mine = keystore_snapshot(self, NULL);
    PyObject *theirs = !mine ? NULL : is_store ? keystore_snapshot(other, NULL) : Py_NewRef(other);
    if (theirs)
        result = PyObject_RichCompare(mine, theirs, operation);
    Py_XDECREF(theirs);
    Py_XDECREF(mine);
    return result;
}
