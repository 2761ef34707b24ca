/* bell.c: the Bell type, and the sentry that rings.
 *
 *   unarmed --arm()--> armed --the store changes, ends or closes--> unarmed, readable
 *
 * Whoever arms a bell and looks at the store afterwards misses nothing.
 */
#include "bell.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef struct Bell {
    PyObject_HEAD
    KeyStore *store;   /* as in struct keeper, but NULL: closed */
    uint32_t serial;   /* of the sentry it is linked to; see bell_is_linked */
    int fd;            /* -1: none yet */
    bool armed;        /* the sentry's mutex guards this and the list */
    struct Bell *next, **link;
} Bell;

/* In a page that fork wipes: in the child `alive` is 0 and nothing else means anything. */
struct sentry {
    uint32_t alive;
    uint32_t serial; /* tells it from its predecessors, in the parent too */
    uint32_t stop, left; /* atomic: told to go; has left the store */
    const shk_store *store;
    uint64_t revision; /* that it waits on */
    pthread_t thread;
    pthread_mutex_t mutex; /* held briefly, never while asleep */
    pthread_cond_t work;
    Bell *bells;
    unsigned armed;
    int rc; /* what ended the store */
    char detail[512];
};

/* --------------------------------------------------------------------- sentry -- */

static void ring_locked(struct sentry *s)
{
    for (Bell *bell = s->bells; bell; bell = bell->next) {
        if (bell->armed)
            (void)eventfd_write(bell->fd, 1);
        bell->armed = false;
    }
    s->armed = 0;
}

static void *stand_guard(void *argument)
{
    struct sentry *s = argument;
    pthread_mutex_lock(&s->mutex);
    while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
        if (s->armed == 0) {
            pthread_cond_wait(&s->work, &s->mutex);
            continue;
        }
        pthread_mutex_unlock(&s->mutex);
        uint64_t revision = s->revision;
        int rc = shk_store_wait(s->store, revision, UINT64_MAX, &s->stop, &revision);
        pthread_mutex_lock(&s->mutex);
        s->revision = revision;
        if (rc == -ECANCELED)
            continue;
        if (rc < 0) {
            s->rc = rc;
            (void)snprintf(s->detail, sizeof s->detail, "%s", shk_error_detail());
        }
        ring_locked(s);
    }
    pthread_mutex_unlock(&s->mutex);
    __atomic_store_n(&s->left, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* No signal is ever delivered to it: they are the interpreter's. */
static int start_thread(struct sentry *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&s->thread, NULL, stand_guard, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static bool is_alive(const KeyStore *store)
{
    return store->sentry && store->sentry->alive;
}

static void sentry_free(KeyStore *store)
{
    munmap(store->sentry, sizeof *store->sentry);
    store->sentry = NULL;
}

/* 0, or -1 with an exception set. */
static int sentry_start(KeyStore *store)
{
    struct sentry *s = store->sentry;
    if (!s) {
        s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (s == MAP_FAILED) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (madvise(s, sizeof *s, MADV_WIPEONFORK) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            munmap(s, sizeof *s);
            return -1;
        }
        store->sentry = s;
    }
    s->store = store->store;
    int rc = shk_store_revision(s->store, &s->revision);
    if (rc < 0) {
        errors_raise(state_of((PyObject *)store), rc);
        sentry_free(store);
        return -1;
    }
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    int error = start_thread(s);
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        sentry_free(store);
        return -1;
    }
    s->serial = ++store->sentries;
    s->alive = 1;
    return 0;
}

static void sentry_stop(KeyStore *store)
{
    struct sentry *s = store->sentry;
    if (s && s->alive) {
        __atomic_store_n(&s->stop, 1, __ATOMIC_RELEASE);
        pthread_mutex_lock(&s->mutex);
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->mutex);
        /* A wake is lost on a sentry that has looked at `stop` and does not sleep yet. */
        while (!__atomic_load_n(&s->left, __ATOMIC_ACQUIRE)) {
            shk_store_wake(s->store);
            nanosleep(&(struct timespec){0, 20000}, NULL);
        }
        pthread_join(s->thread, NULL);
        pthread_mutex_destroy(&s->mutex);
        pthread_cond_destroy(&s->work);
    }
    if (s)
        sentry_free(store);
}

void bells_close(KeyStore *store)
{
    if (is_alive(store)) {
        pthread_mutex_lock(&store->sentry->mutex);
        ring_locked(store->sentry);
        pthread_mutex_unlock(&store->sentry->mutex);
    }
    sentry_stop(store);
}

/* ----------------------------------------------------------------------- bell -- */

/* Not so in a forked child, where the descriptor is shared with the parent, and after the
 * store was closed. */
static bool bell_is_linked(const Bell *self)
{
    return self->serial && is_alive(self->store) && self->store->sentry->serial == self->serial;
}

static void bell_forget_fd(Bell *self)
{
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
}

static int bell_link(Bell *self)
{
    bell_forget_fd(self);
    self->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!is_alive(self->store) && sentry_start(self->store) < 0)
        return -1;
    struct sentry *s = self->store->sentry;
    pthread_mutex_lock(&s->mutex);
    self->armed = false;
    self->serial = s->serial;
    self->next = s->bells;
    self->link = &s->bells;
    if (self->next)
        self->next->link = &self->next;
    s->bells = self;
    pthread_mutex_unlock(&s->mutex);
    return 0;
}

static void bell_unlink(Bell *self)
{
    struct sentry *s = self->store->sentry;
    pthread_mutex_lock(&s->mutex);
    s->armed -= self->armed;
    *self->link = self->next;
    if (self->next)
        self->next->link = self->link;
    bool last = !s->bells;
    pthread_mutex_unlock(&s->mutex);
    if (last)
        sentry_stop(self->store);
}

/* Both fields and the store's sentry are touched. The reference outlives the critical section,
 * in which the bell may give up its own. */
static PyObject *with_store(PyObject *self, PyObject *(*act)(Bell *))
{
    PyObject *store, *result;
    GUARD(self);
    store = Py_XNewRef((PyObject *)((Bell *)self)->store);
    UNGUARD;
    if (!store)
        return act((Bell *)self);
    GUARD2(self, store);
    result = act((Bell *)self);
    UNGUARD2;
    Py_DECREF(store);
    return result;
}

static PyObject *arm(Bell *self)
{
    if (!self->store)
        return PyErr_Format(PyExc_ValueError, "the bell is closed");
    if (!keystore_opened((PyObject *)self->store) ||
        (!bell_is_linked(self) && bell_link(self) < 0))
        return NULL;
    struct sentry *s = self->store->sentry;
    eventfd_t rings;
    pthread_mutex_lock(&s->mutex);
    int rc = s->rc;
    if (rc == 0 && !self->armed) {
        (void)eventfd_read(self->fd, &rings);
        self->armed = true;
        if (s->armed++ == 0)
            pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->mutex);
    if (rc < 0) /* stays as it is from now on */
        return errors_format(state_of((PyObject *)self->store), rc, "%s", s->detail);
    return PyLong_FromLong(self->fd);
}

static PyObject *bell_arm(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return with_store(self, arm);
}

static PyObject *forget(Bell *self)
{
    if (self->store) {
        if (bell_is_linked(self))
            bell_unlink(self);
        bell_forget_fd(self);
        Py_CLEAR(self->store);
    }
    Py_RETURN_NONE;
}

static PyObject *bell_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return with_store(self, forget);
}

static PyObject *bell_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *store;
    static char *names[] = {"store", NULL};
    const struct module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!:Bell", names, state->keystore_type,
                                     &store))
        return NULL;
    Bell *self = (Bell *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->fd = -1;
    self->store = (KeyStore *)Py_NewRef(store);
    return (PyObject *)self;
}

static void bell_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(bell_close(self, NULL));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"arm", bell_arm, METH_NOARGS,
     "arm($self)\n--\n\n"
     "A descriptor that becomes readable with the next change, or when the store ends. It\n"
     "may be another one than before."},
    {"close", bell_close, METH_NOARGS, "close($self)\n--\n\nCloses the descriptor."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Bell(store)\n--\n\nWhat pyshmkey.watch gives to an event loop."},
    {Py_tp_new, bell_new},
    {Py_tp_dealloc, bell_dealloc},
    {Py_tp_traverse, keeper_traverse},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey._core.Bell",
    .basicsize = sizeof(Bell),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int bell_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->bell_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->bell_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->bell_type);
}
