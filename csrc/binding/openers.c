/* openers.c: the arguments of create, open, open_or_create and from_id. */
#include "keystore.h"

#include <unistd.h>

#define OPEN_TIMEOUT UINT64_C(2000000000)
#define LOCK_TIMEOUT UINT64_C(5000000000)

struct opening {
    struct shk_address address;
    struct text name;
    struct shk_shape shape;
    struct shk_access access;
    uid_t *trust;
};

static void opening_close(struct opening *o)
{
    Py_CLEAR(o->name.owner);
    PyMem_Free(o->trust);
}

static int set_size(PyObject *argument, const char *what, uint32_t low, uint32_t high,
                    uint32_t *out)
{
    long long value;
    if (!argument)
        return 0;
    if (args_integer(argument, what, low, high, &value) < 0)
        return -1;
    *out = (uint32_t)value;
    return 0;
}

static int set_shape(struct shk_shape *shape, PyObject *capacity, PyObject *id_size,
                     PyObject *key_size, PyObject *mode)
{
    long long pairs;
    *shape = (struct shk_shape){.mode = 0600};
    if (args_integer(capacity, "capacity", 1, SHK_CAPACITY_MAX, &pairs) < 0 ||
        set_size(id_size, "id_size", SHK_ID_SIZE_MIN, SHK_ID_SIZE_MAX, &shape->id_size) < 0 ||
        set_size(key_size, "key_size", 1, SHK_KEY_SIZE_MAX, &shape->key_size) < 0)
        return -1;
    shape->capacity = (uint64_t)pairs;
    return mode ? args_mode(mode, &shape->mode) : 0;
}

static int set_access(struct opening *o, PyObject *readonly, PyObject *trust, PyObject *timeout,
                      PyObject *lock_timeout)
{
    o->access = (struct shk_access){.open_timeout = OPEN_TIMEOUT, .lock_timeout = LOCK_TIMEOUT};
    if (readonly) {
        int truth = PyObject_IsTrue(readonly);
        if (truth < 0)
            return -1;
        o->access.readonly = truth;
    }
    if (timeout && args_seconds(timeout, "timeout", &o->access.open_timeout) < 0)
        return -1;
    if (lock_timeout && args_seconds(lock_timeout, "lock_timeout", &o->access.lock_timeout) < 0)
        return -1;
    if (!trust)
        return 0;
    PyObject *uids = PySequence_Tuple(trust);
    if (!uids)
        return -1;
    int rc = -1;
    o->trust = PyMem_Malloc((size_t)PyTuple_GET_SIZE(uids) * sizeof *o->trust + 1);
    if (!o->trust) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(uids); i++)
        if (args_account(PyTuple_GET_ITEM(uids, i), "a trusted uid", &o->trust[i]) < 0)
            goto done;
    o->access.trust = o->trust;
    o->access.trust_count = (size_t)PyTuple_GET_SIZE(uids);
    rc = 0;
done:
    Py_DECREF(uids);
    return rc;
}

static int set_address(struct opening *o, PyObject *name_or_key, PyObject *owner)
{
    uid_t uid = geteuid();
    if (owner && owner != Py_None && args_account(owner, "owner", &uid) < 0)
        return -1;
    return args_address(name_or_key, uid, &o->address, &o->name);
}

static PyObject *open_store(PyTypeObject *type, enum shk_intent intent, struct opening *o)
{
    shk_store *store;
    int rc;
    Py_BEGIN_ALLOW_THREADS;
    rc = shk_store_open(intent, &o->address, &o->shape, &o->access, &store);
    Py_END_ALLOW_THREADS;
    opening_close(o);
    if (rc < 0)
        return errors_raise(PyType_GetModuleState(type), rc);
    return keystore_wrap(type, store);
}

SIGNATURE(create, 2, 2, "name_or_key", "capacity", "id_size", "key_size", "mode", "timeout",
          "lock_timeout");

static PyObject *create(PyTypeObject *type, enum shk_intent intent, PyObject *const *args,
                        Py_ssize_t count, PyObject *keywords)
{
    PyObject *a[7];
    struct opening o = {0};
    if (bind(&create_signature, args, count, keywords, a) < 0)
        return NULL;
    /* Nothing but a creator asks for a private segment. */
    int rc = a[0] == Py_None && intent == SHK_CREATE ? 0 : set_address(&o, a[0], NULL);
    if (rc < 0 || set_shape(&o.shape, a[1], a[2], a[3], a[4]) < 0 ||
        set_access(&o, NULL, NULL, a[5], a[6]) < 0) {
        opening_close(&o);
        return NULL;
    }
    return open_store(type, intent, &o);
}

KEYSTORE_METHOD(create)
{
    return create((PyTypeObject *)self, SHK_CREATE, args, count, keywords);
}

KEYSTORE_METHOD(open_or_create)
{
    return create((PyTypeObject *)self, SHK_OPEN_OR_CREATE, args, count, keywords);
}

SIGNATURE(open, 1, 1, "name_or_key", "readonly", "owner", "trust", "timeout", "lock_timeout");

KEYSTORE_METHOD(open)
{
    PyObject *a[6];
    struct opening o = {0};
    if (bind(&open_signature, args, count, keywords, a) < 0)
        return NULL;
    if (set_address(&o, a[0], a[2]) < 0 || set_access(&o, a[1], a[3], a[4], a[5]) < 0) {
        opening_close(&o);
        return NULL;
    }
    return open_store((PyTypeObject *)self, SHK_OPEN, &o);
}

SIGNATURE(from_id, 1, 1, "shmid", "readonly", "trust", "timeout", "lock_timeout");

KEYSTORE_METHOD(from_id)
{
    PyObject *a[5];
    struct opening o = {0};
    shk_store *store;
    int id, rc;
    if (bind(&from_id_signature, args, count, keywords, a) < 0)
        return NULL;
    if (args_id(a[0], &id) < 0 || set_access(&o, a[1], a[2], a[3], a[4]) < 0) {
        opening_close(&o);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    rc = shk_store_from_id(id, &o.access, &store);
    Py_END_ALLOW_THREADS;
    opening_close(&o);
    if (rc < 0)
        return errors_raise(PyType_GetModuleState((PyTypeObject *)self), rc);
    return keystore_wrap((PyTypeObject *)self, store);
}
