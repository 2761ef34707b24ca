/* keystore.c: the type: calls and closing, attributes, and the table of methods. */
#include "keystore.h"

#include <stddef.h>
#include <structmember.h>
#include <unistd.h>

/* -------------------------------------------------------- calls and closing -- */

static void close_now(KeyStore *self)
{
    shk_store *store = self->store;
    self->store = NULL; /* before anything that could run other code */
    shk_store_close(store);
}

static Py_ssize_t calls_here(const KeyStore *self)
{
    return self->calls > 0 && self->calls_pid == getpid() ? self->calls : self->handling;
}

static int on_wait(void *context)
{
    struct call *call = context;
    KeyStore *self = call->self;
    int rc = 0;
    if (call->thread) {
        PyEval_RestoreThread(call->thread);
        self->handling++;
        rc = PyErr_CheckSignals();
        self->calls = calls_here(self);
        self->handling--;
        shk_thread_on_wait(on_wait, call); /* a handler may have used a store itself */
    } else
        self->calls = calls_here(self) + 1;
    self->calls_pid = getpid();
    call->thread = PyEval_SaveThread();
    return rc;
}

void call_begin(struct call *call, PyObject *self)
{
    *call = (struct call){(KeyStore *)self, NULL};
    shk_thread_on_wait(on_wait, call);
}

void call_begin_without_gil(struct call *call, PyObject *self)
{
    call_begin(call, self);
    (void)on_wait(call);
}

void call_end(struct call *call)
{
    shk_thread_on_wait(NULL, NULL);
    if (!call->thread)
        return;
    PyEval_RestoreThread(call->thread);
    if (--call->self->calls == 0 && call->self->closing)
        close_now(call->self);
}

/* --------------------------------------------------------------- arguments -- */

int pair_open(PyObject *client, PyObject *server, struct pair *out)
{
    if (args_text(client, "the client id", &out->client) < 0)
        return -1;
    if (args_text(server, "the server id", &out->server) < 0) {
        Py_CLEAR(out->client.owner);
        return -1;
    }
    return 0;
}

PyObject *keystore_raise(PyObject *self, int rc, PyObject *client, PyObject *server)
{
    if (rc != SHK_E_ABSENT)
        return errors_raise(state_of(self), rc);
    PyObject *pair = PyTuple_Pack(2, client, server);
    /* Made here, as PyErr_SetObject would take a tuple for the arguments. */
    PyObject *error = pair ? PyObject_CallOneArg(PyExc_KeyError, pair) : NULL;
    if (error)
        PyErr_SetObject(PyExc_KeyError, error);
    Py_XDECREF(error);
    Py_XDECREF(pair);
    return NULL;
}

int args_key_bytes(PyObject *argument, Py_buffer *out)
{
    if (PyObject_CheckBuffer(argument))
        return PyObject_GetBuffer(argument, out, PyBUF_SIMPLE);
    PyErr_Format(PyExc_TypeError, "a key must be bytes-like, not %.200s",
                 Py_TYPE(argument)->tp_name);
    return -1;
}

PyObject *keystore_wrap(PyTypeObject *type, shk_store *store)
{
    KeyStore *self = (KeyStore *)type->tp_alloc(type, 0);
    if (!self) {
        shk_store_close(store);
        return NULL;
    }
    self->store = store;
    shk_store_info(store, &self->info);
    return (PyObject *)self;
}

static PyObject *keystore_close(PyObject *self_, PyObject *nothing)
{
    (void)nothing;
    KeyStore *self = (KeyStore *)self_;
    if (calls_here(self) > 0)
        self->closing = true;
    else if (self->store)
        close_now(self);
    Py_RETURN_NONE;
}

static PyObject *keystore_enter(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return keystore_opened(self) ? Py_NewRef(self) : NULL;
}

static PyObject *keystore_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args, (void)count;
    return keystore_close(self, NULL);
}

static PyObject *refuse_pickling(PyObject *self, PyObject *protocol)
{
    (void)protocol;
    return PyErr_Format(PyExc_TypeError,
                        "a KeyStore is a handle of this process and is neither pickled nor copied; "
                        "pass its id (%d) and open it there with from_id",
                        ((KeyStore *)self)->info.id);
}

static void dealloc(PyObject *self_)
{
    KeyStore *self = (KeyStore *)self_;
    PyTypeObject *type = Py_TYPE(self_);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(self_);
    if (self->store)
        close_now(self);
    type->tp_free(self_);
    Py_DECREF(type);
}

static Py_ssize_t length(PyObject *self)
{
    shk_store *store = keystore_opened(self);
    struct shk_stats stats;
    if (!store)
        return -1;
    int rc = shk_store_stats(store, &stats);
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

static PyObject *name_of(const struct shk_info *info)
{
    return *info->name ? PyUnicode_DecodeUTF8(info->name, (Py_ssize_t)strlen(info->name),
                                              "surrogateescape")
                       : Py_NewRef(Py_None);
}

static PyObject *repr(PyObject *self_)
{
    KeyStore *self = (KeyStore *)self_;
    PyObject *name = name_of(&self->info);
    if (!name)
        return NULL;
    PyObject *text = PyUnicode_FromFormat(
        "<pyshmkey.KeyStore name=%R id=%d key=0x%x capacity=%llu%s%s>", name, self->info.id,
        (unsigned)self->info.key, (unsigned long long)self->info.capacity,
        self->info.readonly ? " readonly" : "", self->store && !self->closing ? "" : " closed");
    Py_DECREF(name);
    return text;
}

/* -------------------------------------------------------------- attributes -- */

#define ATTRIBUTE(name, expression)                                                                \
    static PyObject *get_##name(PyObject *self, void *closure)                                     \
    {                                                                                              \
        (void)closure;                                                                             \
        const struct shk_info *info = &((KeyStore *)self)->info;                                   \
        return expression;                                                                         \
    }
ATTRIBUTE(id, PyLong_FromLong(info->id))
ATTRIBUTE(semaphore_id, PyLong_FromLong(info->semaphore_id))
ATTRIBUTE(key, PyLong_FromLong(info->key))
ATTRIBUTE(name, name_of(info))
ATTRIBUTE(owner, PyLong_FromUnsignedLong(info->owner))
ATTRIBUTE(size, PyLong_FromUnsignedLongLong(info->segment_size))
ATTRIBUTE(capacity, PyLong_FromUnsignedLongLong(info->capacity))
ATTRIBUTE(id_size, PyLong_FromUnsignedLong(info->id_size))
ATTRIBUTE(key_size, PyLong_FromUnsignedLong(info->key_size))
ATTRIBUTE(readonly, PyBool_FromLong(info->readonly))
ATTRIBUTE(store_id, PyBytes_FromStringAndSize((const char *)info->store_id, 16))
ATTRIBUTE(created_at, PyFloat_FromDouble((double)info->created / 1e9))
#undef ATTRIBUTE

static PyObject *get_closed(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(!((KeyStore *)self)->store || ((KeyStore *)self)->closing);
}

static PyObject *get_lock_timeout(PyObject *self, void *closure)
{
    (void)closure;
    shk_store *store = keystore_opened(self);
    return store ? PyFloat_FromDouble((double)shk_store_lock_timeout(store) / 1e9) : NULL;
}

static int set_lock_timeout(PyObject *self, PyObject *value, void *closure)
{
    (void)closure;
    uint64_t timeout;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "lock_timeout can't be deleted");
        return -1;
    }
    if (args_seconds(value, "lock_timeout", &timeout) < 0)
        return -1;
    shk_store *store = keystore_opened(self);
    if (!store)
        return -1;
    shk_store_set_lock_timeout(store, timeout);
    return 0;
}

static PyGetSetDef attributes[] = {
    {"id", get_id, NULL, "The segment's id (shmid).", NULL},
    {"semaphore_id", get_semaphore_id, NULL, "The id of the set that tells who is alive.", NULL},
    {"key", get_key, NULL, "The segment's key; 0 is IPC_PRIVATE.", NULL},
    {"name", get_name, NULL, "The name it was created under, or None.", NULL},
    {"owner", get_owner, NULL, "The uid that created it.", NULL},
    {"size", get_size, NULL, "The segment's size in bytes.", NULL},
    {"capacity", get_capacity, NULL, "The most pairs it can hold.", NULL},
    {"id_size", get_id_size, NULL, "Bytes of an id with its closing NUL.", NULL},
    {"key_size", get_key_size, NULL, "The longest key in bytes.", NULL},
    {"readonly", get_readonly, NULL, "True if this handle can't write.", NULL},
    {"store_id", get_store_id, NULL, "16 random bytes that tell this store from any other.", NULL},
    {"created_at", get_created_at, NULL, "Seconds since the epoch.", NULL},
    {"closed", get_closed, NULL, "True after close().", NULL},
    {"lock_timeout", get_lock_timeout, set_lock_timeout,
     "Seconds that a write of this handle waits for the writers' lock.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* -------------------------------------------------------------------- type -- */

#define FAST METH_FASTCALL | METH_KEYWORDS
#define OPENER METH_CLASS | FAST
#define METHOD(name, flags, doc) {#name, (PyCFunction)(void (*)(void))keystore_##name, flags, doc}

static PyMethodDef methods[] = {
    METHOD(create, OPENER,
           "create(name_or_key, capacity, *, id_size=12, key_size=128, mode=0o600, timeout=2.0,\n"
           "       lock_timeout=5.0)\n--\n\n"
           "A new, empty store; FileExistsError where there is one. None as the key makes a\n"
           "private store, which others open by its id."),
    METHOD(open, OPENER,
           "open(name_or_key, *, readonly=False, owner=None, trust=(), timeout=2.0,\n"
           "     lock_timeout=5.0)\n--\n\n"
           "An existing store; FileNotFoundError where there is none, InsecureStoreError where\n"
           "its owner, creator or mode is not acceptable."),
    METHOD(open_or_create, OPENER,
           "open_or_create(name_or_key, capacity, *, id_size=12, key_size=128, mode=0o600,\n"
           "               timeout=2.0, lock_timeout=5.0)\n--\n\n"
           "The store, made if need be; IncompatibleStoreError if it has another shape."),
    METHOD(from_id, OPENER,
           "from_id(shmid, *, readonly=False, trust=(), timeout=2.0, lock_timeout=5.0)\n--\n\n"
           "An existing store by its segment's id."),
    METHOD(put, FAST,
           "put($self, client, server, key, *, key_id=None, status=Status.VALID, ttl=None)\n--\n\n"
           "Inserts or replaces the pair's record; returns its key id."),
    METHOD(get_key, FAST,
           "get_key($self, client, server, default=<unset>)\n--\n\n"
           "The pair's key; KeyError, KeyRevokedError or KeyExpiredError, or the default."),
    METHOD(get_key_into, FAST,
           "get_key_into($self, client, server, buffer)\n--\n\n"
           "Writes the key to the start of a writable buffer; returns its length."),
    METHOD(record, FAST,
           "record($self, client, server)\n--\n\nThe pair's KeyRecord, whatever its status."),
    METHOD(rotate, FAST,
           "rotate($self, client, server, new_key=None)\n--\n\n"
           "A new key (random, of the old length, if not given) under the next key id; returns\n"
           "the new KeyRecord."),
    METHOD(revoke, FAST,
           "revoke($self, client, server)\n--\n\nMarks the pair's key as revoked; put revives it."),
    METHOD(delete, FAST,
           "delete($self, client, server)\n--\n\nRemoves the pair and wipes its key."),
    METHOD(stats, METH_NOARGS, "stats($self)\n--\n\nCounters of the store."),
    METHOD(verify, METH_NOARGS,
           "verify($self)\n--\n\nChecks every invariant of the store; see VerifyReport."),
    METHOD(destroy, METH_NOARGS,
           "destroy($self)\n--\n\nWipes every key and removes the store for all processes."),
    METHOD(close, METH_NOARGS, "close($self)\n--\n\nDetaches; the store itself stays."),
    {"__enter__", keystore_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))keystore_exit, METH_FASTCALL, NULL},
    {"__reduce_ex__", refuse_pickling, METH_O, "Refused: a handle belongs to its process."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(KeyStore, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A table of keyed records in System V shared memory, shared by processes.\n\n"
                "Made by create, open, open_or_create and from_id. Any number of threads may use\n"
                "one handle."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, attributes},
    {Py_mp_length, length},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.KeyStore",
    .basicsize = sizeof(KeyStore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int keystore_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->keystore_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->keystore_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->keystore_type);
}
