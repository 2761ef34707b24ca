/* pairs.c: what KeyStore does with one pair. */
#include "keyrecord.h"
#include "keystore.h"
#include "../core/wipe.h"

#include <stdlib.h>
#include <string.h>

/* ----------------------------------------------------------------- reading -- */

SIGNATURE(get_key, 2, 3, "client", "server", "default");

PyObject *keystore_get_key(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords)
{
    PyObject *a[3], *result = NULL;
    struct pair pair;
    if (bind(&get_key_signature, args, count, keywords, a) < 0 || pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    shk_store *store = keystore_opened(self);
    unsigned char local[4 * 64], *key = local;
    size_t room = ((KeyStore *)self)->info.key_size, length = 0;
    if (store && room > sizeof local && !(key = malloc((room + 63) / 64 * 64))) {
        PyErr_NoMemory();
        store = NULL;
    }
    if (store) {
        int rc = shk_store_get_key(store, pair.client.bytes, pair.server.bytes, key, room, &length);
        if (rc == 0)
            result = PyBytes_FromStringAndSize((char *)key, (Py_ssize_t)length);
        else if (a[2] && (rc == SHK_E_ABSENT || rc == SHK_E_REVOKED || rc == SHK_E_EXPIRED))
            result = Py_NewRef(a[2]);
        else
            keystore_raise(self, rc, a[0], a[1]);
        shk__wipe_lines(key, (length + 63) / 64);
    }
    if (key != local)
        free(key);
    pair_close(&pair);
    return result;
}

SIGNATURE(get_key_into, 3, 3, "client", "server", "buffer");

PyObject *keystore_get_key_into(PyObject *self, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords)
{
    PyObject *a[3], *result = NULL;
    struct pair pair;
    Py_buffer buffer;
    if (bind(&get_key_into_signature, args, count, keywords, a) < 0 ||
        pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    if (PyObject_GetBuffer(a[2], &buffer, PyBUF_WRITABLE) == 0) {
        shk_store *store = keystore_opened(self);
        size_t length;
        int rc = store ? shk_store_get_key(store, pair.client.bytes, pair.server.bytes, buffer.buf,
                                           (size_t)buffer.len, &length)
                       : 0;
        if (store)
            result = rc == 0 ? PyLong_FromSize_t(length) : keystore_raise(self, rc, a[0], a[1]);
        PyBuffer_Release(&buffer);
    }
    pair_close(&pair);
    return result;
}

SIGNATURE(record, 2, 2, "client", "server");

PyObject *keystore_record(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    PyObject *a[2], *record = NULL;
    struct pair pair;
    if (bind(&record_signature, args, count, keywords, a) < 0 || pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    shk_store *store = keystore_opened(self);
    uint32_t room = ((KeyStore *)self)->info.key_size;
    if (store)
        record = keyrecord_new(state_of(self), room);
    if (record) {
        int rc = shk_store_record(store, pair.client.bytes, pair.server.bytes,
                                  keyrecord_about(record), keyrecord_key(record), room);
        if (rc < 0)
            keystore_raise(self, rc, a[0], a[1]);
        if (rc < 0 || keyrecord_set_ids(record, pair.client.bytes, pair.server.bytes) < 0)
            Py_CLEAR(record);
    }
    pair_close(&pair);
    return record;
}

/* ----------------------------------------------------------------- writing -- */

SIGNATURE(put, 3, 3, "client", "server", "key", "key_id", "status", "ttl");

static int set_put(PyObject *const *a, struct shk_put *out)
{
    long long value;
    *out = (struct shk_put){.key_id = SHK_KEY_ID_NEXT, .status = SHK_VALID};
    if (a[3] && a[3] != Py_None) {
        if (args_integer(a[3], "key_id", 0, INT32_MAX, &value) < 0)
            return -1;
        out->key_id = (int32_t)value;
    }
    if (a[4]) {
        if (args_integer(a[4], "status", SHK_VALID, SHK_REVOKED, &value) < 0)
            return -1;
        out->status = (int32_t)value;
    }
    if (a[5] && a[5] != Py_None) {
        if (args_seconds(a[5], "ttl", &out->ttl) < 0)
            return -1;
        if (out->ttl == 0) {
            PyErr_Format(PyExc_ValueError, "ttl %R is not positive: give seconds, or None for a key "
                                           "that never expires", a[5]);
            return -1;
        }
    }
    return 0;
}

PyObject *keystore_put(PyObject *self, PyObject *const *args, Py_ssize_t count,
                       PyObject *keywords)
{
    PyObject *a[6], *result = NULL;
    struct pair pair;
    struct shk_put what;
    Py_buffer key;
    if (bind(&put_signature, args, count, keywords, a) < 0 || set_put(a, &what) < 0 ||
        pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    if (args_key_borrow(a[2], &key) == 0) {
        shk_store *store = keystore_opened(self);
        if (store) {
            struct call call;
            int32_t key_id = 0;
            what.key = buffer_bytes(&key);
            call_begin(&call, self);
            int rc = shk_store_put(store, pair.client.bytes, pair.server.bytes, &what, &key_id);
            call_end(&call);
            result = rc == 0 ? PyLong_FromLong(key_id) : keystore_raise(self, rc, a[0], a[1]);
        }
        PyBuffer_Release(&key);
    }
    pair_close(&pair);
    return result;
}

SIGNATURE(rotate, 2, 3, "client", "server", "new_key");

PyObject *keystore_rotate(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    PyObject *a[3], *record = NULL;
    struct pair pair;
    Py_buffer key = {0};
    if (bind(&rotate_signature, args, count, keywords, a) < 0 || pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
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
        struct shk_rotation how = {.new_key = buffer_bytes(&key)};
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

/* What revoke and delete share. */
static PyObject *change(PyObject *self, const struct signature *signature, PyObject *const *args,
                        Py_ssize_t count, PyObject *keywords,
                        int (*function)(shk_store *, struct shk_bytes, struct shk_bytes))
{
    PyObject *a[2], *result = NULL;
    struct pair pair;
    if (bind(signature, args, count, keywords, a) < 0 || pair_borrow(a[0], a[1], &pair) < 0)
        return NULL;
    shk_store *store = keystore_opened(self);
    if (store) {
        struct call call;
        call_begin(&call, self);
        int rc = function(store, pair.client.bytes, pair.server.bytes);
        call_end(&call);
        result = rc == 0 ? Py_NewRef(Py_None) : keystore_raise(self, rc, a[0], a[1]);
    }
    pair_close(&pair);
    return result;
}

SIGNATURE(revoke, 2, 2, "client", "server");
SIGNATURE(delete, 2, 2, "client", "server");

PyObject *keystore_revoke(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    return change(self, &revoke_signature, args, count, keywords, shk_store_revoke);
}

PyObject *keystore_delete(PyObject *self, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords)
{
    return change(self, &delete_signature, args, count, keywords, shk_store_delete);
}
