/* keystore.h: the KeyStore object, and what each file that implements it needs.
 *
 *   open (store, calls == 0) <--> in use without the GIL (calls > 0)
 *        \ close()                     \ close()
 *      closed (NULL)     <--------   closing: the last call unmaps
 *
 * Reads keep the GIL: they wait for nobody. A write keeps it too until it would
 * sleep for the lock; then the hook lets go of the GIL, and takes it back only
 * after the call has released the lock.
 *
 * Without the GIL every method but a lookup runs in the handle's critical section (threads.h),
 * and "without the GIL" reads "outside of it". Lookups run beside each other and beside it; the
 * two fields they look at are read and written as atomics.
 */
#ifndef PYSHMKEY_KEYSTORE_H
#define PYSHMKEY_KEYSTORE_H

#include "args.h"
#include "bind.h"
#include "errors.h"
#include "threads.h"

typedef struct {
    PyObject_HEAD
    shk_store *store;     /* NULL: closed */
    Py_ssize_t calls;     /* running without the GIL, in the process calls_pid: */
    pid_t calls_pid;      /* a forked child has none of its parent's, but for */
    Py_ssize_t handling;  /* those that run signal handlers, one of which may have forked it */
    bool closing;
    struct shk_info info;    /* stays after close */
    PyObject *trust;         /* tuple of uids, for those who unpickle */
    shk_cursor *pop_cursor;  /* where popitem goes on; NULL: at the start */
    Py_ssize_t views;        /* live buffers: none may outlive the mapping */
    Py_buffer memory;        /* in_buffer: lent until the handle is closed */
    PyObject *weakrefs;
    uint32_t stop;        /* closing: whoever waits for changes wakes up */
    uint32_t sentries;    /* so many were started */
    struct sleeper *sleepers; /* changes.c */
    struct sentry *sentry;    /* bell.c */
} KeyStore;

/* The start of every object that keeps a store: iterators and the like, for all of their lives.
 * They need a tp_traverse and no tp_clear, and so are never found without their store: where one
 * is part of a cycle, that goes on through the store, which KeyStore's tp_clear closes. */
struct keeper {
    PyObject_HEAD
    PyObject *store;
};
int keeper_traverse(PyObject *self, visitproc visit, void *arg);

/* Declares the type a virtual subclass of collections.abc.<name>. */
int keystore_register(PyObject *type, const char *name);

/* Takes over the handle, or closes it where there is no object for it. */
PyObject *keystore_wrap(PyTypeObject *type, shk_store *store, const uid_t *trust, size_t count)
    __attribute__((hot));

static inline void keystore_set_closing(KeyStore *self)
{
    __atomic_store_n(&self->closing, true, __ATOMIC_RELAXED);
}

/* The handle, or NULL: it is closed, or will be when the last call ends. */
static inline shk_store *keystore_peek(PyObject *self)
{
    KeyStore *keystore = (KeyStore *)self;
    shk_store *store = __atomic_load_n(&keystore->store, __ATOMIC_SEQ_CST); /* see lookup_begin */
    return __atomic_load_n(&keystore->closing, __ATOMIC_RELAXED) ? NULL : store;
}

/* The handle, or NULL with ValueError set. To be asked after the arguments were converted,
 * which may run any code. In the critical section only. */
static inline shk_store *keystore_opened(PyObject *self)
{
    shk_store *store = keystore_peek(self);
    if (!store)
        PyErr_SetString(PyExc_ValueError, "the store is closed");
    return store;
}

/* The same for a lookup, which lookup_end() ends unless this was NULL. */
static inline shk_store *keystore_lookup(PyObject *self)
{
    if (!lookup_begin())
        return NULL;
    shk_store *store = keystore_peek(self);
    if (!store) {
        lookup_end();
        PyErr_SetString(PyExc_ValueError, "the store is closed");
    }
    return store;
}

/* One call into the library; begin and end enclose it on one thread. */
struct call {
    KeyStore *self;
    PyThreadState *thread; /* not NULL: without the GIL */
};
void call_begin(struct call *call, PyObject *self);
/* For calls that take long whatever happens. */
void call_begin_without_gil(struct call *call, PyObject *self);
void call_end(struct call *call);
/* A second handle that a call without the GIL uses is not closed meanwhile either. */
void call_hold(PyObject *other);
void call_release(PyObject *other);
/* After each nap of a call without the GIL: signal handlers. */
int call_nap(struct call *call);

/* The ids of a pair, as the library takes them. */
struct pair {
    struct text client, server;
};
int pair_open(PyObject *client, PyObject *server, struct pair *out);
static inline void pair_close(struct pair *pair)
{
    Py_CLEAR(pair->client.owner);
    Py_CLEAR(pair->server.owner);
}
/* Of a call's own arguments, which its caller holds until it returns. */
static inline int pair_borrow(PyObject *client, PyObject *server, struct pair *out)
{
    if (args_text_borrow(client, "the client id", &out->client) < 0)
        return -1;
    if (args_text_borrow(server, "the server id", &out->server) < 0) {
        Py_CLEAR(out->client.owner);
        return -1;
    }
    return 0;
}
/* Ids that a cursor lends, copied to room. */
#define IDS_ROOM ((size_t)2 * SHK_ID_SIZE_MAX)
static inline void keystore_keep_ids(struct shk_pair *ids, char *room)
{
    ids->client.data = memcpy(room, ids->client.data, ids->client.size);
    ids->server.data = memcpy(room + SHK_ID_SIZE_MAX, ids->server.data, ids->server.size);
}
/* Raises; a missing pair is named by the arguments themselves, as a dict would. */
PyObject *keystore_raise(PyObject *self, int rc, PyObject *client, PyObject *server);

/* pairs.c: the pair's KeyRecord, whatever its status. NULL with *code < 0 and no exception
 * yet, or with an exception. */
PyObject *record_of(PyObject *self, const struct shk_pair *ids, int *code);
PyObject *pair_record(PyObject *self, PyObject *client, PyObject *server, int *code);
/* 0, or -1 with an exception. */
int pair_put(PyObject *self, PyObject *client, PyObject *server, const struct shk_put *what,
             int32_t *key_id);
/* A store, or a memoryview of one. */
bool keystore_is_seen_by(PyObject *object);

/* A key as callers give it: bytes-like, but not a store. */
int args_key_bytes(PyObject *argument, Py_buffer *out);
/* Of a call's own argument. */
static inline int args_key_borrow(PyObject *argument, Py_buffer *out)
{
    if (!PyBytes_CheckExact(argument))
        return args_key_bytes(argument, out);
    out->obj = NULL; /* nothing to release */
    out->buf = PyBytes_AS_STRING(argument);
    out->len = PyBytes_GET_SIZE(argument);
    return 0;
}
static inline struct shk_bytes buffer_bytes(const Py_buffer *buffer)
{
    return (struct shk_bytes){buffer->buf, (size_t)buffer->len};
}

/* Methods, by file; METH_FASTCALL | METH_KEYWORDS unless said otherwise. */
#define KEYSTORE_METHOD(name)                                                                      \
    PyObject *keystore_##name(PyObject *self, PyObject *const *args, Py_ssize_t count,             \
                              PyObject *keywords)
#define KEYSTORE_NOARGS(name) PyObject *keystore_##name(PyObject *self, PyObject *nothing)
/* openers.c: class methods */
KEYSTORE_METHOD(create);
KEYSTORE_METHOD(open_or_create);
KEYSTORE_METHOD(open) __attribute__((hot));
KEYSTORE_METHOD(from_id) __attribute__((hot));
/* inbuffer.c: class methods */
KEYSTORE_METHOD(in_buffer);
KEYSTORE_METHOD(size_for);
/* pairs.c */
KEYSTORE_METHOD(get_key) __attribute__((hot));
KEYSTORE_METHOD(get_key_into);
KEYSTORE_METHOD(record);
KEYSTORE_METHOD(put);
KEYSTORE_METHOD(rotate);
KEYSTORE_METHOD(revoke);
KEYSTORE_METHOD(delete);
KEYSTORE_METHOD(touch);
/* mapping.c */
PyObject *mapping_subscript(PyObject *self, PyObject *pair);
int mapping_assign(PyObject *self, PyObject *pair, PyObject *value);
int mapping_contains(PyObject *self, PyObject *pair);
Py_ssize_t mapping_length(PyObject *self);
PyObject *mapping_compare(PyObject *self, PyObject *other, int operation);
KEYSTORE_METHOD(get);
KEYSTORE_METHOD(pop);
KEYSTORE_METHOD(setdefault);
KEYSTORE_NOARGS(popitem);
KEYSTORE_NOARGS(clear);
KEYSTORE_NOARGS(snapshot);
PyObject *keystore_update(PyObject *self, PyObject *other); /* METH_O */
/* iteration.c */
PyObject *keystore_iterate(PyObject *self);
KEYSTORE_NOARGS(keys);
KEYSTORE_NOARGS(values);
KEYSTORE_NOARGS(items);
/* batch.c */
KEYSTORE_METHOD(get_many);
KEYSTORE_METHOD(put_many);
KEYSTORE_METHOD(delete_many);
/* view.c; to_numpy: METH_NOARGS; array: __array__ */
int keystore_getbuffer(PyObject *self, Py_buffer *view, int flags);
void keystore_releasebuffer(PyObject *self, Py_buffer *view);
KEYSTORE_NOARGS(to_numpy);
KEYSTORE_METHOD(array);
/* changes.c */
KEYSTORE_METHOD(wait);
KEYSTORE_METHOD(changes);
KEYSTORE_METHOD(watch);
PyObject *keystore_get_revision(PyObject *self, void *closure);
/* Ends every wait and watch of the handle. */
void changes_close(PyObject *self);
/* packing.c */
KEYSTORE_METHOD(export_to);
KEYSTORE_METHOD(import_from);
/* care.c: METH_NOARGS */
KEYSTORE_NOARGS(stats);
KEYSTORE_NOARGS(verify);
KEYSTORE_NOARGS(purge_expired);
KEYSTORE_NOARGS(repair);
KEYSTORE_NOARGS(destroy);
PyObject *keystore_copy_to(PyObject *self, PyObject *target); /* METH_O */

#endif
