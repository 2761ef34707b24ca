/* changes.c: KeyStore's revision, wait, changes and watch.
 *
 * A wait sleeps without the GIL and is no reason for close() to wait: close sets the
 * handle's stop word, and wakes each sleeper until it has left the futex.
 */
#include "bell.h"
#include "keystore.h"
#include "reports.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

/* A thread in wait(). The list is the GIL's, but for `asleep`. On the heap, as a forked
 * child inherits the entries and not the stacks of its parent's other threads. */
struct sleeper {
    struct sleeper *next, **link;
    pid_t asleep; /* in this process; 0: not now */
};

struct wait {
    struct call call;
    struct sleeper *sleeper;
};

/* ------------------------------------------------------------------ arguments -- */

static int revision_open(PyObject *argument, uint64_t *out)
{
    long long value;
    if (args_integer(argument, "since", 0, LLONG_MAX, &value) < 0)
        return -1;
    *out = (uint64_t)value;
    return 0;
}

/* The open handle and the revision; `since` becomes that unless it was given. */
static shk_store *since_open(PyObject *self, PyObject *argument, uint64_t *since,
                             uint64_t *revision)
{
    bool given = argument && argument != Py_None;
    if (given && revision_open(argument, since) < 0)
        return NULL;
    shk_store *store = keystore_opened(self);
    if (!store)
        return NULL;
    int rc = shk_store_revision(store, revision);
    if (rc < 0)
        return (shk_store *)errors_raise(state_of(self), rc);
    if (!given)
        *since = *revision;
    return store;
}

PyObject *keystore_get_revision(PyObject *self, void *closure)
{
    (void)closure;
    uint64_t since, revision;
    return since_open(self, NULL, &since, &revision) ? PyLong_FromUnsignedLongLong(revision) : NULL;
}

/* -------------------------------------------------------------------- waiting -- */

static struct sleeper *sleeper_new(KeyStore *self)
{
    struct sleeper *sleeper = PyMem_Malloc(sizeof *sleeper);
    if (!sleeper)
        return (struct sleeper *)PyErr_NoMemory();
    *sleeper = (struct sleeper){self->sleepers, &self->sleepers, getpid()};
    if (sleeper->next)
        sleeper->next->link = &sleeper->next;
    self->sleepers = sleeper;
    return sleeper;
}

static void sleeper_free(struct sleeper *sleeper)
{
    *sleeper->link = sleeper->next;
    if (sleeper->next)
        sleeper->next->link = sleeper->link;
    PyMem_Free(sleeper);
}

static int on_nap(void *context)
{
    struct wait *wait = context;
    __atomic_store_n(&wait->sleeper->asleep, 0, __ATOMIC_SEQ_CST);
    int rc = call_nap(&wait->call);
    shk_thread_on_wait(on_nap, wait);
    /* Pairs with changes_close: stop is looked at after this. In a child that a signal
     * handler forked it is another process. */
    __atomic_store_n(&wait->sleeper->asleep, getpid(), __ATOMIC_SEQ_CST);
    return rc;
}

static bool somebody_sleeps(const KeyStore *self)
{
    const pid_t here = getpid();
    for (const struct sleeper *s = self->sleepers; s; s = s->next)
        if (__atomic_load_n(&s->asleep, __ATOMIC_SEQ_CST) == here)
            return true;
    return false;
}

void changes_close(PyObject *self_)
{
    KeyStore *self = (KeyStore *)self_;
    bells_close(self);
    if (!self->store || !self->sleepers)
        return;
    keystore_set_closing(self);
    __atomic_store_n(&self->stop, 1, __ATOMIC_SEQ_CST);
    /* No sleeper naps longer than 100 ms: the limit is for what a child inherits whose pid,
     * in a namespace of its own, is its parent's. */
    for (int tries = 0; tries < 2000 && somebody_sleeps(self); tries++) {
        shk_store *store = self->store;
        struct call call;
        call_begin_without_gil(&call, self_);
        shk_store_wake(store);
        nanosleep(&(struct timespec){0, 50000}, NULL);
        call_end(&call);
    }
}

SIGNATURE(wait, 0, 2, "since", "timeout");

PyObject *keystore_wait(PyObject *self_, PyObject *const *args, Py_ssize_t count,
                        PyObject *keywords)
{
    KeyStore *self = (KeyStore *)self_;
    PyObject *a[2];
    uint64_t since, revision, timeout = UINT64_MAX;
    if (bind(&wait_signature, args, count, keywords, a) < 0 ||
        (a[1] && a[1] != Py_None && args_seconds(a[1], "timeout", &timeout) < 0))
        return NULL;
    shk_store *store = since_open(self_, a[0], &since, &revision);
    if (!store)
        return NULL;
    if (revision > since)
        return PyLong_FromUnsignedLongLong(revision);
    struct wait wait = {.sleeper = sleeper_new(self)};
    if (!wait.sleeper)
        return NULL;
    call_begin_without_gil(&wait.call, self_);
    shk_thread_on_wait(on_nap, &wait);
    int rc = shk_store_wait(store, since, timeout, &self->stop, &revision);
    __atomic_store_n(&wait.sleeper->asleep, 0, __ATOMIC_SEQ_CST);
    call_end(&wait.call);
    sleeper_free(wait.sleeper);
    if (rc == -ECANCELED)
        return PyErr_Format(PyExc_ValueError, "the store is closed");
    return rc < 0 ? errors_raise(state_of(self_), rc) : PyLong_FromUnsignedLongLong(revision);
}

/* -------------------------------------------------------------------- changes -- */

#define BATCH 32u /* 17 KB of stack */

static int append(PyObject *list, struct module_state *state, const struct shk_change *changes,
                  int count)
{
    for (int i = 0; i < count; i++) {
        PyObject *change = reports_change(state, &changes[i]);
        int rc = change ? PyList_Append(list, change) : -1;
        Py_XDECREF(change);
        if (rc < 0)
            return -1;
    }
    return 0;
}

SIGNATURE(changes, 1, 1, "since");

PyObject *keystore_changes(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords)
{
    PyObject *a[1];
    uint64_t since = 0, now = 0;
    if (bind(&changes_signature, args, count, keywords, a) < 0)
        return NULL;
    if (a[0] == Py_None)
        return PyErr_Format(PyExc_TypeError, "since must be int, not NoneType");
    PyObject *list = PyList_New(0); /* first: a collection may close the handle */
    shk_store *store = list ? since_open(self, a[0], &since, &now) : NULL;
    int rc = store ? 1 : -1;
    if (now > since + SHK_RING) /* the first batch says that they are lost; and there is an end */
        now = since + SHK_RING;
    while (rc > 0) {
        struct shk_change batch[BATCH];
        uint64_t left = now > since ? now - since : 0;
        rc = shk_store_changes(store, since, batch, left < BATCH ? left : BATCH);
        if (rc < 0)
            errors_raise(state_of(self), rc);
        else if (append(list, state_of(self), batch, rc) < 0)
            rc = -1;
        since += rc > 0 ? (uint64_t)rc : 0;
        if (rc > 0 && since < now) { /* allocating may have run code that closed the handle */
            store = keystore_opened(self);
            rc = store ? rc : -1;
        } else if (rc > 0)
            break;
    }
    if (rc < 0)
        Py_CLEAR(list);
    return list;
}

/* ------------------------------------------------------------------- watching -- */

SIGNATURE(watch, 0, 1, "since");

PyObject *keystore_watch(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *a[1];
    uint64_t since, revision;
    if (bind(&watch_signature, args, count, keywords, a) < 0 ||
        !since_open(self, a[0], &since, &revision))
        return NULL;
    if (since > revision)
        return errors_format(state_of(self), SHK_E_INVALID,
                             "since is %llu, the store's revision %llu", (unsigned long long)since,
                             (unsigned long long)revision);
    PyObject *module = PyImport_ImportModule("pyshmkey.watch");
    PyObject *watch = module ? PyObject_CallMethod(module, "Watch", "OK", self,
                                                   (unsigned long long)since)
                             : NULL;
    Py_XDECREF(module);
    return watch;
}
