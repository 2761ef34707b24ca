/* pairs.c: what KeyStore does with one pair. */
#include "keyrecord.h"
#include "keystore.h"
#include "../core/reading.h"

#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------------- reading -- */

/* A key id of the pair, or -1 for the current one. */
static int set_key_id(PyObject *argument, const char *what, int32_t *out)
{
    long long value;
    *out = -1;
    if (!argument || argument == Py_None)
        return 0;
    if (args_integer(argument, what, 0, INT32_MAX, &value) < 0)
        return -1;
    *out = (int32_t)value;
    return 0;
}

static int read_key(const shk_store *store, const struct pair *pair, int32_t key_id, void *key,
                    size_t room, size_t *length)
{
    struct shk_bytes client = pair->client.bytes, server = pair->server.bytes;
    return key_id < 0 ? shk_store_get_key(store, client, server, key, room, length)
                      : shk_store_get_key_by_id(store, client, server, key_id, key, room, length);
}

SIGNATURE(get_key, 2, 3, "client", "server", "default", "key_id");

PyObject *keystore_get_key(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords)
{
    PyObject *a[4], *result = NULL;
    struct pair pair;
    int32_t key_id;
    if (bind(&get_key_signature, args, count, keywords, a) < 0 ||
        set_key_id(a[3], "key_id", &key_id) < 0 || pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    const shk_store *store = keystore_lookup(self);
    if (store) {
        struct shk__image image;
        int rc = shk__key_open(store, pair.client.bytes, pair.server.bytes,
                               key_id < 0 ? NULL : &key_id, &image);
        if (rc == 0) {
            result = PyBytes_FromStringAndSize((const char *)shk__image_key(store, image.words),
                                               (Py_ssize_t)shk__image_key_length(image.words));
            shk__image_close(store, &image);
        }
        lookup_end();
        if (a[2] && (rc == SHK_E_ABSENT || rc == SHK_E_REVOKED || rc == SHK_E_EXPIRED))
            result = Py_NewRef(a[2]);
        else if (rc < 0)
            keystore_raise(self, rc, a[0], a[1]);
    }
    pair_close(&pair);
    return result;
}

SIGNATURE(get_key_into, 3, 3, "client", "server", "buffer", "key_id");

PyObject *keystore_get_key_into(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords)
{
    PyObject *a[4], *result = NULL;
    struct pair pair;
    int32_t key_id;
    Py_buffer buffer;
    if (bind(&get_key_into_signature, args, count, keywords, a) < 0 ||
        set_key_id(a[3], "key_id", &key_id) < 0 || pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    if (PyObject_GetBuffer(a[2], &buffer, PyBUF_WRITABLE) == 0) {
        const shk_store *store = keystore_lookup(self);
        if (store) {
            size_t length;
            int rc = read_key(store, &pair, key_id, buffer.buf, (size_t)buffer.len, &length);
            lookup_end();
            result = rc == 0 ? PyLong_FromSize_t(length) : keystore_raise(self, rc, a[0], a[1]);
        }
        PyBuffer_Release(&buffer);
    }
    pair_close(&pair);
    return result;
}

PyObject *record_of(PyObject *self, const struct shk_pair *ids, int *code)
{
    *code = 0;
    uint32_t room = ((KeyStore *)self)->info.key_size;
    PyObject *record = keyrecord_new(state_of(self), room);
    const shk_store *store = record ? keystore_lookup(self) : NULL;
    if (!store) {
        Py_XDECREF(record);
        return NULL;
    }
    *code = shk_store_record(store, ids->client, ids->server, keyrecord_about(record),
                             keyrecord_key(record), room);
    lookup_end();
    if (*code < 0 || keyrecord_set_ids(record, ids->client, ids->server) < 0)
        Py_CLEAR(record);
    return record;
}

PyObject *pair_record(PyObject *self, PyObject *client, PyObject *server, int *code)
{
    struct pair pair;
    *code = 0;
    if (pair_borrow(client, server, &pair) < 0)
        return NULL;
    struct shk_pair ids = {pair.client.bytes, pair.server.bytes};
    PyObject *record = record_of(self, &ids, code);
    pair_close(&pair);
    return record;
}

SIGNATURE(record, 2, 2, "client", "server");

PyObject *keystore_record(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    PyObject *a[2];
    int code;
    if (bind(&record_signature, args, count, keywords, a) < 0)
        return NULL;
    PyObject *record = pair_record(self, a[0], a[1], &code);
    return code < 0 ? keystore_raise(self, code, a[0], a[1]) : record;
}

/* ----------------------------------------------------------------- writing -- */

/* Seconds from now, or None. */
static int set_ttl(PyObject *argument, const char *what, const char *otherwise, uint64_t *out)
{
    *out = 0;
    if (!argument || argument == Py_None)
        return 0;
    if (args_seconds(argument, what, out) < 0)
        return -1;
    if (*out > 0)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s %R is not positive: give seconds, or None for %s", what,
                 argument, otherwise);
    return -1;
}

#define NEVER "a key that never expires"

SIGNATURE(put, 3, 3, "client", "server", "key", "key_id", "status", "ttl", "if_absent",
          "if_key_id");

static int set_put(PyObject *const *a, struct shk_put *out)
{
    long long status = SHK_VALID;
    *out = (struct shk_put){.status = SHK_VALID};
    if (set_key_id(a[3], "key_id", &out->key_id) < 0 ||
        (a[4] && args_integer(a[4], "status", SHK_VALID, SHK_REVOKED, &status) < 0) ||
        set_ttl(a[5], "ttl", NEVER, &out->ttl) < 0 ||
        set_key_id(a[7], "if_key_id", &out->if_key_id) < 0)
        return -1;
    int if_absent = a[6] ? PyObject_IsTrue(a[6]) : 0;
    if (if_absent < 0)
        return -1;
    if (if_absent && out->if_key_id >= 0) {
        PyErr_SetString(PyExc_ValueError, "if_absent and if_key_id exclude each other: give one");
        return -1;
    }
    out->status = (int32_t)status;
    if (if_absent || out->if_key_id >= 0)
        out->condition = if_absent ? SHK_IF_ABSENT : SHK_IF_KEY_ID;
    return 0;
}

int pair_put(PyObject *self, PyObject *client, PyObject *server, const struct shk_put *what,
             int32_t *key_id)
{
    struct pair pair;
    struct call call;
    if (pair_borrow(client, server, &pair) < 0)
        return -1;
    shk_store *store = keystore_opened(self);
    int rc = 0;
    if (store) {
        call_begin(&call, self);
        rc = shk_store_put(store, pair.client.bytes, pair.server.bytes, what, key_id);
        call_end(&call);
        if (rc < 0)
            keystore_raise(self, rc, client, server);
    }
    pair_close(&pair);
    return store && rc == 0 ? 0 : -1;
}

PyObject *keystore_put(PyObject *self, PyObject *const *args, Py_ssize_t count,
                       PyObject *keywords)
{
    PyObject *a[8], *result = NULL;
    struct shk_put what;
    int32_t key_id;
    Py_buffer key;
    if (bind(&put_signature, args, count, keywords, a) < 0 || set_put(a, &what) < 0 ||
        args_key_borrow(a[2], &key) < 0)
        return NULL;
    what.key = buffer_bytes(&key);
    if (pair_put(self, a[0], a[1], &what, &key_id) == 0)
        result = PyLong_FromLong(key_id);
    PyBuffer_Release(&key);
    return result;
}

SIGNATURE(rotate, 2, 3, "client", "server", "new_key", "if_key_id", "grace");

PyObject *keystore_rotate(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    PyObject *a[5], *record = NULL;
    struct pair pair;
    struct shk_rotation how = {0};
    Py_buffer key = {0};
    if (bind(&rotate_signature, args, count, keywords, a) < 0 ||
        set_key_id(a[3], "if_key_id", &how.if_key_id) < 0 ||
        set_ttl(a[4], "grace", "a previous key that is wiped at once", &how.grace) < 0 ||
        pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    how.conditional = how.if_key_id >= 0;
    bool given = a[2] && a[2] != Py_None;
    if (given && args_key_bytes(a[2], &key) < 0)
        goto done;
    if (given && key.len == 0) {
        PyErr_Format(PyExc_ValueError, "new_key has 0 bytes; this store takes 1 to %u",
                     ((KeyStore *)self)->info.key_size);
        goto done;
    }
    shk_store *store = keystore_opened(self);
    uint32_t room = ((KeyStore *)self)->info.key_size;
    if (store)
        record = keyrecord_new(state_of(self), room);
    /* The ids first: after the rotation nothing may fail any more. */
    if (record && keyrecord_set_ids(record, pair.client.bytes, pair.server.bytes) == 0) {
        struct call call;
        call_begin(&call, self);
        how.new_key = buffer_bytes(&key);
        int rc = shk_store_rotate(store, pair.client.bytes, pair.server.bytes, &how,
                                  keyrecord_about(record), keyrecord_key(record), room);
        call_end(&call);
        if (rc < 0) {
            Py_CLEAR(record);
            keystore_raise(self, rc, a[0], a[1]);
        }
    } else
        Py_CLEAR(record);
done:
    if (key.obj)
        PyBuffer_Release(&key);
    pair_close(&pair);
    return record;
}

/* What the writes that return nothing share. */
static PyObject *change(PyObject *self, PyObject *const *a,
                        int (*function)(shk_store *, const struct pair *, uint64_t),
                        uint64_t argument)
{
    struct pair pair;
    struct call call;
    PyObject *result = NULL;
    if (pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    shk_store *store = keystore_opened(self);
    if (store) {
        call_begin(&call, self);
        int rc = function(store, &pair, argument);
        call_end(&call);
        result = rc == 0 ? Py_NewRef(Py_None) : keystore_raise(self, rc, a[0], a[1]);
    }
    pair_close(&pair);
    return result;
}

static int revoke_pair(shk_store *store, const struct pair *pair, uint64_t unused)
{
    (void)unused;
    return shk_store_revoke(store, pair->client.bytes, pair->server.bytes);
}

static int delete_pair(shk_store *store, const struct pair *pair, uint64_t unused)
{
    (void)unused;
    return shk_store_delete(store, pair->client.bytes, pair->server.bytes);
}

static int touch_pair(shk_store *store, const struct pair *pair, uint64_t ttl)
{
    return shk_store_touch(store, pair->client.bytes, pair->server.bytes, ttl);
}

SIGNATURE(revoke, 2, 2, "client", "server");

PyObject *keystore_revoke(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    PyObject *a[2];
    if (bind(&revoke_signature, args, count, keywords, a) < 0)
        return NULL;
    return change(self, a, revoke_pair, 0);
}

SIGNATURE(delete, 2, 2, "client", "server");

PyObject *keystore_delete(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    PyObject *a[2];
    if (bind(&delete_signature, args, count, keywords, a) < 0)
        return NULL;
    return change(self, a, delete_pair, 0);
}

SIGNATURE(touch, 3, 2, "client", "server", "ttl");

PyObject *keystore_touch(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *a[3];
    uint64_t ttl;
    if (bind(&touch_signature, args, count, keywords, a) < 0 || set_ttl(a[2], "ttl", NEVER, &ttl) < 0)
        return NULL;
    return change(self, a, touch_pair, ttl);
}
