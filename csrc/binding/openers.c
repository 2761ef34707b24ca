/* openers.c: the arguments of create, open, open_or_create and from_id. */
#include "keystore.h"

#include <unistd.h>

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

#define LOCK_CHOICES "it must be 'try', 'require', 'off' or False"

static int set_memory_lock(PyObject *argument, enum shk_memory_lock *out)
{
    static const struct {
        const char *name;
        enum shk_memory_lock how;
    } choices[] = {{"try", SHK_MEMORY_LOCK_TRY},
                   {"require", SHK_MEMORY_LOCK_REQUIRE},
                   {"off", SHK_MEMORY_LOCK_OFF}};
    *out = argument == Py_False ? SHK_MEMORY_LOCK_OFF : SHK_MEMORY_LOCK_TRY;
    if (!argument || argument == Py_False)
        return 0;
    for (size_t i = 0; PyUnicode_Check(argument) && i < sizeof choices / sizeof *choices; i++)
        if (PyUnicode_CompareWithASCIIString(argument, choices[i].name) == 0) {
            *out = choices[i].how;
            return 0;
        }
    if (PyUnicode_Check(argument))
        PyErr_Format(PyExc_ValueError, "memory_lock is %R; " LOCK_CHOICES, argument);
    else
        PyErr_Format(PyExc_TypeError, "memory_lock is of type %.200s; " LOCK_CHOICES,
                     Py_TYPE(argument)->tp_name);
    return -1;
}

static int set_shape(struct shk_shape *shape, PyObject *capacity, PyObject *id_size,
                     PyObject *key_size, PyObject *mode, PyObject *memory_lock)
{
    long long pairs;
    *shape = (struct shk_shape){.mode = 0600};
    if (args_integer(capacity, "capacity", 1, SHK_CAPACITY_MAX, &pairs) < 0 ||
        set_size(id_size, "id_size", SHK_ID_SIZE_MIN, SHK_ID_SIZE_MAX, &shape->id_size) < 0 ||
        set_size(key_size, "key_size", 1, SHK_KEY_SIZE_MAX, &shape->key_size) < 0 ||
        set_memory_lock(memory_lock, &shape->memory_lock) < 0)
        return -1;
    shape->capacity = (uint64_t)pairs;
    return mode ? args_mode(mode, &shape->mode) : 0;
}

/* A uid, or the name of a user. */
static int set_user(PyObject *argument, const char *what, uid_t *out)
{
    if (!PyUnicode_Check(argument))
        return args_account(argument, what, out);
    PyObject *pwd = PyImport_ImportModule("pwd");
    PyObject *entry = pwd ? PyObject_CallMethod(pwd, "getpwnam", "O", argument) : NULL;
    PyObject *uid = entry ? PyObject_GetAttrString(entry, "pw_uid") : NULL;
    int rc = uid ? args_account(uid, what, out) : -1;
    if (pwd && !entry && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Format(PyExc_LookupError, "%s: there is no user %R", what, argument);
    Py_XDECREF(uid);
    Py_XDECREF(entry);
    Py_XDECREF(pwd);
    return rc;
}

static PyObject *users_tuple(PyObject *trust)
{
    if (!trust)
        return PyTuple_New(0);
    if (PyUnicode_Check(trust) || PyBytes_Check(trust))
        return PyErr_Format(PyExc_TypeError,
                            "trust must be an iterable of uids and names of users, not %.200s",
                            Py_TYPE(trust)->tp_name);
    return PySequence_Tuple(trust);
}

/* A foreign owner is trusted with the rest. */
static int set_trust(struct opening *o, PyObject *trust, bool foreign)
{
    PyObject *users = users_tuple(trust);
    if (!users)
        return -1;
    int rc = -1;
    size_t count = (size_t)PyTuple_GET_SIZE(users);
    o->trust = PyMem_Malloc((count + 1) * sizeof *o->trust);
    if (!o->trust) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(users); i++)
        if (set_user(PyTuple_GET_ITEM(users, i), "a trusted uid", &o->trust[i]) < 0)
            goto done;
    if (foreign)
        o->trust[count++] = o->address.owner;
    o->access.trust = o->trust;
    o->access.trust_count = count;
    rc = 0;
done:
    Py_DECREF(users);
    return rc;
}

/* After set_address. */
__attribute__((hot)) static int set_access(struct opening *o, PyObject *readonly, PyObject *trust,
                                           PyObject *timeout, PyObject *lock_timeout)
{
    o->access = (struct shk_access){.open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                    .lock_timeout = SHK_LOCK_TIMEOUT_DEFAULT};
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
    bool foreign = o->address.name.size > 0 && o->address.owner != geteuid();
    return trust || foreign ? set_trust(o, trust, foreign) : 0;
}

/* (path, proj) of ftok. */
static int set_file(struct module_state *state, PyObject *argument, struct shk_address *out)
{
    PyObject *path;
    long long proj;
    if (PyTuple_GET_SIZE(argument) != 2) {
        PyErr_Format(PyExc_ValueError, "a file's key is (path, proj), not a tuple of %zd",
                     PyTuple_GET_SIZE(argument));
        return -1;
    }
    if (args_integer(PyTuple_GET_ITEM(argument, 1), "proj", 1, 255, &proj) < 0 ||
        !PyUnicode_FSConverter(PyTuple_GET_ITEM(argument, 0), &path))
        return -1;
    int rc = shk_file_address(PyBytes_AS_STRING(path), (int)proj, out);
    Py_DECREF(path);
    if (rc < 0)
        errors_raise(state, rc);
    return rc < 0 ? -1 : 0;
}

static int set_address(PyTypeObject *type, struct opening *o, PyObject *name_or_key, PyObject *owner)
{
    uid_t uid = geteuid();
    if (owner && owner != Py_None && set_user(owner, "owner", &uid) < 0)
        return -1;
    if (!PyTuple_Check(name_or_key))
        return args_address(name_or_key, uid, &o->address, &o->name);
    o->address.owner = uid;
    return set_file(PyType_GetModuleState(type), name_or_key, &o->address);
}

/* By the segment's id or, that being NULL, by name or key. */
__attribute__((hot)) static PyObject *open_store(PyTypeObject *type, enum shk_intent intent,
                                                 struct opening *o, const int *id)
{
    shk_store *store;
    PyObject *self = NULL;
    int rc;
    Py_BEGIN_ALLOW_THREADS;
    rc = id ? shk_store_from_id(*id, &o->access, &store)
            : shk_store_open(intent, &o->address, &o->shape, &o->access, &store);
    Py_END_ALLOW_THREADS;
    if (rc < 0)
        errors_raise(PyType_GetModuleState(type), rc);
    else
        self = keystore_wrap(type, store, o->access.trust, o->access.trust_count);
    opening_close(o);
    return self;
}

/* ----------------------------------------------------------------- warnings -- */

/* What a store lacks whose creator asked for it, or for nothing else. */
static int warn_of(PyObject *self, enum shk_memory_lock memory_lock)
{
    const struct module_state *state = state_of(self);
    const KeyStore *keystore = (KeyStore *)self;
    bool locked;
    if (memory_lock == SHK_MEMORY_LOCK_TRY &&
        shk_store_memory_locked(keystore->store, &locked) == 0 && !locked &&
        shk_store_lock_memory(keystore->store) < 0 &&
        PyErr_WarnFormat(state->warning, 1,
                         "the keys of store %d may reach swap, as it is not locked in memory: %s",
                         keystore->info.id, shk_error_detail()) < 0)
        return -1;
    if (shk_rmid_forced() > 0)
        return PyErr_WarnFormat(state->warning, 1,
                                "store %d will vanish, keys and all, when no process has it open: "
                                "kernel.shm_rmid_forced is 1; keep a handle open, or set it to 0 "
                                "(sysctl -w kernel.shm_rmid_forced=0)",
                                keystore->info.id);
    return 0;
}

/* Where a filter turns a warning into an exception, the caller gets no handle: so there is no
 * new store either. One that open_or_create may have found stays. */
static PyObject *warned(PyObject *self, enum shk_intent intent, enum shk_memory_lock memory_lock)
{
    if (!self || warn_of(self, memory_lock) == 0)
        return self;
    if (intent == SHK_CREATE)
        (void)shk_store_destroy(((KeyStore *)self)->store);
    Py_DECREF(self);
    return NULL;
}

SIGNATURE(create, 2, 2, "name_or_key", "capacity", "id_size", "key_size", "mode", "memory_lock",
          "timeout", "lock_timeout");

static PyObject *create(PyTypeObject *type, enum shk_intent intent, PyObject *const *args,
                        Py_ssize_t count, PyObject *keywords)
{
    PyObject *a[8];
    struct opening o = {0};
    if (bind(&create_signature, args, count, keywords, a) < 0)
        return NULL;
    /* Nothing but a creator asks for a private segment. */
    int rc = a[0] == Py_None && intent == SHK_CREATE ? 0 : set_address(type, &o, a[0], NULL);
    if (rc < 0 || set_shape(&o.shape, a[1], a[2], a[3], a[4], a[5]) < 0 ||
        set_access(&o, NULL, NULL, a[6], a[7]) < 0) {
        opening_close(&o);
        return NULL;
    }
    return warned(open_store(type, intent, &o, NULL), intent, o.shape.memory_lock);
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
    if (set_address((PyTypeObject *)self, &o, a[0], a[2]) < 0 || set_access(&o, a[1], a[3], a[4], a[5]) < 0) {
        opening_close(&o);
        return NULL;
    }
    return open_store((PyTypeObject *)self, SHK_OPEN, &o, NULL);
}

SIGNATURE(from_id, 1, 1, "shmid", "readonly", "trust", "timeout", "lock_timeout");

KEYSTORE_METHOD(from_id)
{
    PyObject *a[5];
    struct opening o = {0};
    int id;
    if (bind(&from_id_signature, args, count, keywords, a) < 0)
        return NULL;
    if (args_id(a[0], &id) < 0 || set_access(&o, a[1], a[2], a[3], a[4]) < 0) {
        opening_close(&o);
        return NULL;
    }
    return open_store((PyTypeObject *)self, SHK_OPEN, &o, &id);
}

/* ----------------------------------------------------------------- pickles -- */

/* What KeyStore.__reduce__ names: nothing in a pickle is believed, but that it is this
 * store which is meant, and whose owner may be another's. */
static PyObject *open_pickled(PyObject *module, PyObject *args)
{
    PyObject *shmid, *readonly, *trust, *lock_timeout;
    const char *store_id;
    Py_ssize_t size;
    struct opening o = {0};
    int id;
    if (!PyArg_ParseTuple(args, "Oy#OOO", &shmid, &store_id, &size, &readonly, &trust,
                          &lock_timeout))
        return NULL;
    if (size != 16) {
        PyErr_Format(PyExc_ValueError, "a store id has 16 bytes, not %zd", size);
        return NULL;
    }
    if (args_id(shmid, &id) < 0 || set_access(&o, readonly, trust, NULL, lock_timeout) < 0) {
        opening_close(&o);
        return NULL;
    }
    o.access.store_id = (const unsigned char *)store_id;
    const struct module_state *state = PyModule_GetState(module);
    return open_store((PyTypeObject *)state->keystore_type, SHK_OPEN, &o, &id);
}

static PyMethodDef functions[] = {
    {"_open_pickled", open_pickled, METH_VARARGS, "How a pickled KeyStore is opened."},
    {NULL, NULL, 0, NULL},
};

int openers_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
