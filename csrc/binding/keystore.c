/* keystore.c: the type: calls and closing, attributes, and the table of methods. */
#include "keystore.h"
#include "bell.h"

#include <stddef.h>
#include <structmember.h>
#include <unistd.h>

/* -------------------------------------------------------- calls and closing -- */

static void close_now(KeyStore *self)
{
    bells_close(self);
    shk_store *store = self->store;
    __atomic_store_n(&self->store, NULL, __ATOMIC_SEQ_CST); /* before other code can run */
    lookups_await();
    shk_cursor_close(self->pop_cursor);
    self->pop_cursor = NULL;
    shk_store_close(store);
    PyBuffer_Release(&self->memory); /* nothing, of a segment */
}

static bool is_in_buffer(const KeyStore *self)
{
    return self->info.id < 0;
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

int call_nap(struct call *call)
{
    return on_wait(call);
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

void call_hold(PyObject *other)
{
    KeyStore *self = (KeyStore *)other;
    self->calls = calls_here(self) + 1;
    self->calls_pid = getpid();
}

void call_release(PyObject *other)
{
    KeyStore *self = (KeyStore *)other;
    if (self->calls_pid == getpid() && --self->calls == 0 && self->closing)
        close_now(self);
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
    if (strcmp(Py_TYPE(argument)->tp_name, "numpy.bytes_") == 0) {
        PyErr_SetString(PyExc_TypeError, "a key of NumPy's S type has lost its trailing NUL bytes: "
                                         "use uint8, a V type or objects");
        return -1;
    }
    const bool is_view = PyMemoryView_Check(argument);
    if (PyObject_CheckBuffer(argument) && !PyUnicode_Check(argument) /* numpy.str_ is both */ &&
        (is_view || !keystore_is_seen_by(argument))) {
        if (PyObject_GetBuffer(argument, out, PyBUF_SIMPLE) < 0)
            return -1;
        /* Asked only now: what a released view was of may be gone. */
        if (!is_view || !keystore_is_seen_by(argument))
            return 0;
        PyBuffer_Release(out);
    }
    PyErr_Format(PyExc_TypeError, "a key must be bytes-like, not %.200s",
                 Py_TYPE(argument)->tp_name);
    return -1;
}

static PyObject *uids_tuple(const uid_t *uids, size_t count)
{
    PyObject *tuple = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; tuple && i < count; i++) {
        PyObject *uid = PyLong_FromUnsignedLong(uids[i]);
        if (!uid)
            Py_CLEAR(tuple);
        else
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, uid);
    }
    return tuple;
}

PyObject *keystore_wrap(PyTypeObject *type, shk_store *store, const uid_t *trust, size_t count)
{
    KeyStore *self = (KeyStore *)type->tp_alloc(type, 0);
    if (!self) {
        shk_store_close(store);
        return NULL;
    }
    self->store = store;
    shk_store_info(store, &self->info);
    self->trust = uids_tuple(trust, count);
    if (!self->trust)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static const char *place_of(const KeyStore *self, char room[24])
{
    if (is_in_buffer(self))
        return "in a buffer";
    (void)snprintf(room, 24, "id=%d", self->info.id);
    return room;
}

static PyObject *keystore_close(PyObject *self_, PyObject *nothing)
{
    (void)nothing;
    KeyStore *self = (KeyStore *)self_;
    char room[24];
    if (self->views > 0)
        return PyErr_Format(PyExc_BufferError,
                            "can't close the store (%s): release its %zd live view%s first",
                            place_of(self, room), self->views, self->views == 1 ? "" : "s");
    changes_close(self_);
    if (calls_here(self) > 0)
        keystore_set_closing(self);
    else if (self->store)
        close_now(self);
    Py_RETURN_NONE;
}

static PyObject *keystore_enter(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return keystore_opened(self) ? Py_NewRef(self) : NULL;
}

static PyObject *keystore_exit(PyObject *self, PyObject *const *args, Py_ssize_t count,
                               PyObject *keywords)
{
    (void)args, (void)count, (void)keywords;
    return keystore_close(self, NULL);
}

/* A pickle names the store and the mode of access; whoever unpickles it opens it anew. */
static PyObject *keystore_reduce(PyObject *self_, PyObject *nothing)
{
    (void)nothing;
    const KeyStore *self = (KeyStore *)self_;
    if (is_in_buffer(self))
        return PyErr_Format(PyExc_TypeError,
                            "can't pickle a store in a buffer: pass on what names its memory (a "
                            "file, a SharedMemory), and call KeyStore.in_buffer there");
    const shk_store *store = keystore_opened(self_);
    PyObject *opener = store ? PyObject_GetAttrString(state_of(self_)->module, "_open_pickled")
                             : NULL;
    if (!opener)
        return NULL;
    return Py_BuildValue("(N(iy#OOd))", opener, self->info.id, (const char *)self->info.store_id,
                         (Py_ssize_t)sizeof self->info.store_id,
                         self->info.readonly ? Py_True : Py_False, self->trust,
                         (double)shk_store_lock_timeout(store) / 1e9);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((KeyStore *)self)->memory.obj);
    return 0;
}

/* Only the buffer's object can lead back here, and nobody is in a call. A view of the store, which
 * is garbage too, keeps the memory until it is cleared itself. */
static int clear(PyObject *self_)
{
    KeyStore *self = (KeyStore *)self_;
    if (self->memory.obj && self->store && self->views == 0)
        close_now(self);
    return 0;
}

int keeper_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((struct keeper *)self)->store);
    return 0;
}

static void dealloc(PyObject *self_)
{
    KeyStore *self = (KeyStore *)self_;
    PyTypeObject *type = Py_TYPE(self_);
    PyObject_GC_UnTrack(self_);
    if (self->weakrefs)
        PyObject_ClearWeakRefs(self_);
    if (self->store)
        close_now(self);
    Py_XDECREF(self->trust);
    type->tp_free(self_);
    Py_DECREF(type);
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
    const char *readonly = self->info.readonly ? " readonly" : "";
    const char *closed = keystore_peek(self_) ? "" : " closed";
    if (is_in_buffer(self))
        return PyUnicode_FromFormat("<pyshmkey.KeyStore in a buffer of %llu bytes capacity=%llu%s%s>",
                                    (unsigned long long)self->info.segment_size,
                                    (unsigned long long)self->info.capacity, readonly, closed);
    PyObject *name = name_of(&self->info);
    if (!name)
        return NULL;
    PyObject *text = PyUnicode_FromFormat(
        "<pyshmkey.KeyStore name=%R id=%d key=0x%x capacity=%llu%s%s>", name, self->info.id,
        (unsigned)self->info.key, (unsigned long long)self->info.capacity, readonly, closed);
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
static PyObject *get_successor(PyObject *self, void *closure)
{
    (void)closure;
    const shk_store *store = keystore_opened(self);
    struct shk_successor to;
    if (!store)
        return NULL;
    int rc = shk_store_successor(store, &to);
    if (rc == SHK_E_ABSENT)
        Py_RETURN_NONE;
    return rc < 0 ? errors_raise(state_of(self), rc) : PyLong_FromLong(to.id);
}

static PyObject *number_or_none(long number, bool is_number)
{
    return is_number ? PyLong_FromLong(number) : Py_NewRef(Py_None);
}

ATTRIBUTE(id, number_or_none(info->id, info->id >= 0))
ATTRIBUTE(semaphore_id, number_or_none(info->semaphore_id, info->semaphore_id >= 0))
ATTRIBUTE(key, number_or_none(info->key, info->id >= 0))
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
    return PyBool_FromLong(!keystore_peek(self));
}

static PyObject *get_memory_locked(PyObject *self, void *closure)
{
    (void)closure;
    const shk_store *store = keystore_opened(self);
    bool locked;
    if (!store)
        return NULL;
    if (((KeyStore *)self)->info.id < 0)
        Py_RETURN_NONE;
    int rc = shk_store_memory_locked(store, &locked);
    return rc < 0 ? errors_raise(state_of(self), rc) : PyBool_FromLong(locked);
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

GUARDED_GET(get_successor)
GUARDED_GET(get_memory_locked)
GUARDED_GET(get_lock_timeout)
GUARDED_SET(set_lock_timeout)
GUARDED_GET(keystore_get_revision)

static PyGetSetDef attributes[] = {
    {"id", get_id, NULL, "The segment's id (shmid); None in a buffer.", NULL},
    {"semaphore_id", get_semaphore_id, NULL,
     "The id of the set that tells who is alive; None where that set is out of reach.", NULL},
    {"key", get_key, NULL, "The segment's key; 0 is IPC_PRIVATE; None in a buffer.", NULL},
    {"name", get_name, NULL, "The name it was created under, or None.", NULL},
    {"owner", get_owner, NULL, "The uid that created it.", NULL},
    {"size", get_size, NULL, "The size of the segment, or of the buffer, in bytes.", NULL},
    {"capacity", get_capacity, NULL, "The most pairs it can hold.", NULL},
    {"id_size", get_id_size, NULL, "Bytes of an id with its closing NUL.", NULL},
    {"key_size", get_key_size, NULL, "The longest key in bytes.", NULL},
    {"readonly", get_readonly, NULL, "True if this handle can't write.", NULL},
    {"store_id", get_store_id, NULL, "16 random bytes that tell this store from any other.", NULL},
    {"created_at", get_created_at, NULL, "Seconds since the epoch.", NULL},
    {"successor", GUARDED(get_successor), NULL,
     "The segment id of the store that this one moved to, -1 if that is in a buffer, or None.",
     NULL},
    {"closed", get_closed, NULL, "True after close().", NULL},
    {"memory_locked", GUARDED(get_memory_locked), NULL,
     "True if its pages are kept out of swap, at this moment; None in a buffer, whose owner\n"
     "can lock it.", NULL},
    {"lock_timeout", GUARDED(get_lock_timeout), GUARDED(set_lock_timeout),
     "Seconds that a write of this handle waits for the writers' lock.", NULL},
    {"revision", GUARDED(keystore_get_revision), NULL, "How many changes there have been.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* -------------------------------------------------------------------- type -- */

#define FAST METH_FASTCALL | METH_KEYWORDS
#define OPENER METH_CLASS | FAST
#define METHOD(name, flags, doc) {#name, (PyCFunction)(void (*)(void))keystore_##name, flags, doc}
#define GUARDED_METHOD(name, flags, doc)                                                           \
    {#name, (PyCFunction)(void (*)(void))GUARDED(keystore_##name), flags, doc}

GUARDED_FAST(keystore_put)
GUARDED_FAST(keystore_rotate)
GUARDED_FAST(keystore_revoke)
GUARDED_FAST(keystore_delete)
GUARDED_FAST(keystore_touch)
GUARDED_FAST(keystore_pop)
GUARDED_FAST(keystore_setdefault)
GUARDED_FAST(keystore_wait)
GUARDED_FAST(keystore_changes)
GUARDED_FAST(keystore_watch)
GUARDED_FAST(keystore_exit)
GUARDED_PLAIN(keystore_popitem)
GUARDED_PLAIN(keystore_clear)
GUARDED_PLAIN(keystore_purge_expired)
GUARDED_PLAIN(keystore_repair)
GUARDED_PLAIN(keystore_to_numpy)
GUARDED_PLAIN(keystore_stats)
GUARDED_PLAIN(keystore_verify)
GUARDED_PLAIN(keystore_destroy)
GUARDED_PLAIN(keystore_close)
GUARDED_PLAIN(keystore_reduce)
GUARDED_CALL(int, mapping_assign, (PyObject * self, PyObject *pair, PyObject *value),
             (self, pair, value))

static PyMethodDef methods[] = {
    METHOD(create, OPENER,
           "create(name_or_key, capacity, *, id_size=12, key_size=128, mode=0o600,\n"
           "       memory_lock='try', timeout=2.0, lock_timeout=5.0)\n--\n\n"
           "A new, empty store; FileExistsError where there is one. None as the key makes a\n"
           "private store, which others open by its id."),
    METHOD(open, OPENER,
           "open(name_or_key, *, readonly=False, owner=None, trust=(), timeout=2.0,\n"
           "     lock_timeout=5.0)\n--\n\n"
           "An existing store; FileNotFoundError where there is none, InsecureStoreError where\n"
           "its owner, creator or mode is not acceptable."),
    METHOD(open_or_create, OPENER,
           "open_or_create(name_or_key, capacity, *, id_size=12, key_size=128, mode=0o600,\n"
           "               memory_lock='try', timeout=2.0, lock_timeout=5.0)\n--\n\n"
           "The store, made if need be; IncompatibleStoreError if it has another shape."),
    METHOD(from_id, OPENER,
           "from_id(shmid, *, readonly=False, trust=(), timeout=2.0, lock_timeout=5.0)\n--\n\n"
           "An existing store by its segment's id."),
    METHOD(in_buffer, OPENER,
           "in_buffer(buffer, capacity=None, *, id_size=None, key_size=None, readonly=None,\n"
           "          timeout=2.0, lock_timeout=5.0)\n--\n\n"
           "The store in the memory of another object; a new one where that is zeroed."),
    METHOD(size_for, OPENER,
           "size_for(capacity, *, id_size=None, key_size=None)\n--\n\n"
           "The bytes that a store of this shape takes."),
    GUARDED_METHOD(put, FAST,
           "put($self, client, server, key, *, key_id=None, status=Status.VALID, ttl=None,\n"
           "    if_absent=False, if_key_id=None)\n--\n\n"
           "Inserts or replaces the pair's record; returns its key id."),
    METHOD(get_key, FAST,
           "get_key($self, client, server, default=<unset>, *, key_id=None)\n--\n\n"
           "The pair's key; KeyError, KeyRevokedError or KeyExpiredError, or the default."),
    METHOD(get_key_into, FAST,
           "get_key_into($self, client, server, buffer, *, key_id=None)\n--\n\n"
           "Writes the key to the start of a writable buffer; returns its length."),
    METHOD(record, FAST,
           "record($self, client, server)\n--\n\nThe pair's KeyRecord, whatever its status."),
    GUARDED_METHOD(rotate, FAST,
           "rotate($self, client, server, new_key=None, *, if_key_id=None, grace=None)\n--\n\n"
           "A new key (random, of the old length, if not given) under the next key id; returns\n"
           "the new KeyRecord."),
    GUARDED_METHOD(revoke, FAST,
           "revoke($self, client, server)\n--\n\nMarks the pair's key as revoked; put revives it."),
    GUARDED_METHOD(delete, FAST,
           "delete($self, client, server)\n--\n\nRemoves the pair and wipes its key."),
    GUARDED_METHOD(touch, FAST,
           "touch($self, client, server, *, ttl)\n--\n\nCounts the pair's time to live anew."),
    METHOD(get, FAST,
           "get($self, pair, default=None)\n--\n\nThe pair's unexpired KeyRecord, or the default."),
    GUARDED_METHOD(pop, FAST,
           "pop($self, pair, default=<unset>)\n--\n\n"
           "Removes the pair; returns the KeyRecord it had, or the default."),
    GUARDED_METHOD(popitem, METH_NOARGS,
           "popitem($self)\n--\n\nRemoves some pair; returns (pair, KeyRecord)."),
    GUARDED_METHOD(setdefault, FAST,
           "setdefault($self, pair, default)\n--\n\n"
           "The pair's KeyRecord; absent, it is given the key or record first."),
    METHOD(update, METH_O,
           "update($self, other, /)\n--\n\nput_many(other), which returns a count."),
    GUARDED_METHOD(clear, METH_NOARGS, "clear($self)\n--\n\nRemoves every pair and wipes its key."),
    METHOD(keys, METH_NOARGS, "keys($self)\n--\n\nA view of the unexpired pairs."),
    METHOD(values, METH_NOARGS, "values($self)\n--\n\nA view of the unexpired KeyRecords."),
    METHOD(items, METH_NOARGS,
           "items($self)\n--\n\nA view of the unexpired (pair, KeyRecord)."),
    METHOD(snapshot, METH_NOARGS,
           "snapshot($self)\n--\n\nA dict of all unexpired pairs as they were at one moment."),
    GUARDED_METHOD(purge_expired, METH_NOARGS,
           "purge_expired($self)\n--\n\nWipes and frees every expired record; how many."),
    GUARDED_METHOD(repair, METH_NOARGS,
           "repair($self)\n--\n\nRebuilds the store from its records; see RepairReport."),
    METHOD(copy_to, METH_O,
           "copy_to($self, target, /)\n--\n\n"
           "Moves all pairs to an empty store, which this one's handles name from then on."),
    METHOD(export_to, FAST,
           "export_to($self, path, passphrase, *, progress=None)\n--\n\n"
           "Writes all unexpired pairs to a file, encrypted under a passphrase; returns how many."),
    METHOD(import_from, FAST,
           "import_from($self, path, passphrase, *, existing='refuse', progress=None)\n--\n\n"
           "Puts the pairs of a file that export_to wrote, all or none; returns how many."),
    METHOD(get_many, FAST,
           "get_many($self, pairs, default=None)\n--\n\n"
           "The keys of many pairs, a list; the default where one is absent, revoked or expired.\n"
           "pairs: any iterable of (client, server), a NumPy array included."),
    METHOD(put_many, FAST,
           "put_many($self, items)\n--\n\n"
           "Inserts or replaces many records under one lock, all or none; returns how many.\n"
           "items: a mapping from (client, server) to keys or KeyRecords, or an iterable of\n"
           "(client, server, key) or ((client, server), key)."),
    METHOD(delete_many, FAST,
           "delete_many($self, pairs)\n--\n\n"
           "Removes many pairs under one lock and wipes their keys; returns how many there were."),
    GUARDED_METHOD(to_numpy, METH_NOARGS,
           "to_numpy($self)\n--\n\n"
           "All unexpired records as they were at one moment: a copy, as a structured array."),
    GUARDED_METHOD(wait, FAST,
           "wait($self, since=None, timeout=None)\n--\n\n"
           "Sleeps until the revision is another than since; returns it."),
    GUARDED_METHOD(changes, FAST, "changes($self, since)\n--\n\nEvery Change after the revision since."),
    GUARDED_METHOD(watch, FAST,
           "watch($self, since=None)\n--\n\nAn async iterator over each Change from now on."),
    GUARDED_METHOD(stats, METH_NOARGS, "stats($self)\n--\n\nCounters of the store."),
    GUARDED_METHOD(verify, METH_NOARGS,
           "verify($self)\n--\n\nChecks every invariant of the store; see VerifyReport."),
    GUARDED_METHOD(destroy, METH_NOARGS,
           "destroy($self)\n--\n\nWipes every key and removes the store for all processes."),
    GUARDED_METHOD(close, METH_NOARGS, "close($self)\n--\n\nDetaches; the store itself stays."),
    {"__array__", (PyCFunction)(void (*)(void))keystore_array, FAST,
     "__array__($self, dtype=None, *, copy=None)\n--\n\n"
     "What numpy.asarray(store) is: an array of the view, or the reason why there is none."},
    {"__enter__", keystore_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))GUARDED(keystore_exit), FAST, NULL},
    {"__reduce__", GUARDED(keystore_reduce), METH_NOARGS,
     "Pickles id, store id and mode of access; unpickling opens the store anew."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(KeyStore, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A table of keyed records in System V shared memory, shared by processes.\n\n"
                "Made by create, open, open_or_create, from_id and in_buffer. Any number of threads may\n"
                "use one handle."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, attributes},
    {Py_mp_length, mapping_length},
    {Py_mp_subscript, mapping_subscript},
    {Py_mp_ass_subscript, GUARDED(mapping_assign)},
    {Py_sq_contains, mapping_contains},
    {Py_tp_iter, keystore_iterate},
    {Py_tp_richcompare, mapping_compare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_bf_getbuffer, keystore_getbuffer},
    {Py_bf_releasebuffer, keystore_releasebuffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.KeyStore",
    .basicsize = sizeof(KeyStore),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_MAPPING | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int keystore_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->keystore_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->keystore_type ||
        keystore_register(state->keystore_type, "MutableMapping") < 0)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->keystore_type);
}
