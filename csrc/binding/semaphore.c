/* semaphore.c: Semaphore, one semaphore of a set: usually of a set of one. */
#include "semaphores.h"
#include "bind.h"

/* -- the openers ------------------------------------------------------------------ */

PyDoc_STRVAR(create_doc, "create($type, /, value=1, *, key=None, mode=0o600)\n--\n\n"
"A new semaphore with this value (0 to 32,767). `key`: an int, a name (str or bytes) of\n"
"the calling user, or None for a private one, found by its id only. `mode`: the 9\n"
"permission bits. It lives until remove(), or a reboot. Nobody can open it before it\n"
"has its value. `value` None leaves it at 0 and not initialised: open() waits until\n"
"the first operation, by whomever.\n\n"
"FileExistsError: the key is in use. OSError (ENOSPC): a limit of the kernel, named\n"
"with its value. ValueError: value, key or mode is out of range.");
SIGNATURE(create, 0, 1, "value", "key", "mode");

static PyObject *create(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *in[3];
    unsigned short value = 1;
    if (bind(&create_signature, args, count, keywords, in) < 0 ||
        (in[0] && in[0] != Py_None && semaphores_value_of(in[0], &value) < 0))
        return NULL;
    return semaphores_create(type, in[0] == Py_None ? NULL : &value, 1, in[1], in[2]);
}

PyDoc_STRVAR(open_doc, "open($type, /, key, *, access=0, wait=5.0)\n--\n\n"
"The existing semaphore of `key` (an int, or a name of the calling user); the first,\n"
"if there is a set. Waits up to `wait` seconds for its creator to initialise it; None:\n"
"doesn't look. `access`: the permissions needed, as in a mode; 0: those to look at it.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies this access.\n"
"TimeoutError: nobody initialised it. ValueError: key 0, which is IPC_PRIVATE.");
SIGNATURE(open, 1, 1, "key", "access", "wait");

static PyObject *open_(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *in[3];
    if (bind(&open_signature, args, count, keywords, in) < 0)
        return NULL;
    return semaphores_open(type, in[0], in[1], in[2]);
}

PyDoc_STRVAR(open_or_create_doc,
"open_or_create($type, /, key, value=1, *, mode=0o600, wait=5.0)\n--\n\n"
"The semaphore of `key`, created with `value` and `mode` if there is none. However\n"
"many processes do this at once, all get the same one, initialised once.\n\n"
"Otherwise as create() and open().");
SIGNATURE(open_or_create, 1, 2, "key", "value", "mode", "wait");

static PyObject *open_or_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords)
{
    PyObject *in[4];
    unsigned short value = 1;
    if (bind(&open_or_create_signature, args, count, keywords, in) < 0 ||
        (in[1] && semaphores_value_of(in[1], &value) < 0))
        return NULL;
    return semaphores_open_or_create(type, &value, 1, in[0], in[2], in[3]);
}

PyDoc_STRVAR(from_id_doc, "from_id($type, /, semid, index=0)\n--\n\n"
"The semaphore `index` of the set with this id; also of a private one. Doesn't wait for\n"
"it to be initialised.\n\n"
"FileNotFoundError: there is no such set. IndexError: it has no such semaphore.\n"
"PermissionError: its mode denies reading.");
SIGNATURE(from_id, 1, 2, "semid", "index");

static PyObject *from_id(PyObject *type, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *in[2];
    long long index = 0;
    if (bind(&from_id_signature, args, count, keywords, in) < 0 ||
        (in[1] && args_integer(in[1], "index", 0, INT_MAX, &index) < 0))
        return NULL;
    PyObject *self = semaphores_from_id(type, in[0]);
    if (self && index >= ((Semaphores *)self)->count) {
        PyErr_Format(PyExc_IndexError, "semaphore %lld: the set (id=%d) has %u", index,
                     ((Semaphores *)self)->id, ((Semaphores *)self)->count);
        Py_CLEAR(self);
    }
    if (self)
        ((Semaphores *)self)->index = (unsigned)index;
    return self;
}

/* -- operations ------------------------------------------------------------------- */

static PyObject *operate(PyObject *object, int change, int flags, PyObject *timeout)
{
    Semaphores *self = (Semaphores *)object;
    struct patience patience;
    struct sembuf operation = {(unsigned short)self->index, (short)change, (short)flags};
    if (ipc_patience_of(timeout, &patience) < 0 ||
        semaphores_operate(self, &operation, 1, &patience) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* How much to acquire or release; absent: 1. */
static int amount_of(PyObject *argument, int *amount)
{
    long long value = 1;
    if (argument && args_integer(argument, "n", 1, SHK_SEMAPHORE_MAX, &value) < 0)
        return -1;
    *amount = (int)value;
    return 0;
}

#define ACQUIRE_DOC                                                                                \
"($self, /, timeout=None, n=1, *, undo=False)\n--\n\n"                                             \
"Takes `n` from the value, once it is as high. `timeout`: how many seconds to wait for\n"          \
"that; 0: not at all; None: for ever. `undo`: if this process ends, however it does, the\n"        \
"kernel gives back what it took.\n\n"                                                              \
"TimeoutError: it was not as high in time. FileNotFoundError: it is gone, or was removed\n"        \
"meanwhile. PermissionError: its mode denies writing."
SIGNATURE(acquire, 0, 2, "timeout", "n", "undo");

static PyObject *acquire(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *in[3];
    int amount, flags;
    if (bind(&acquire_signature, args, count, keywords, in) < 0 || amount_of(in[1], &amount) < 0 ||
        semaphores_undo_of(in[2], &flags) < 0)
        return NULL;
    return operate(self, -amount, flags, in[0]);
}

#define RELEASE_DOC                                                                                \
"($self, /, n=1, *, undo=False)\n--\n\n"                                                           \
"Adds `n` to the value; never waits. `undo` where acquire() had it, which it thereby\n"            \
"settles.\n\n"                                                                                     \
"OSError (ERANGE): the value would exceed 32,767, and stays. FileNotFoundError: it is\n"           \
"gone. PermissionError: its mode denies writing."
SIGNATURE(release, 0, 1, "n", "undo");

static PyObject *release(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *in[2];
    int amount, flags;
    if (bind(&release_signature, args, count, keywords, in) < 0 || amount_of(in[0], &amount) < 0 ||
        semaphores_undo_of(in[1], &flags) < 0)
        return NULL;
    return operate(self, amount, flags, NULL);
}

#define WAIT_ZERO_DOC                                                                              \
"($self, /, timeout=None)\n--\n\n"                                                                 \
"Waits until the value is 0, as long as `timeout` allows: see acquire().\n\n"                      \
"TimeoutError: it was not 0 in time. FileNotFoundError: it is gone, or was removed\n"              \
"meanwhile. PermissionError: its mode denies reading."
SIGNATURE(wait_zero, 0, 1, "timeout");

static PyObject *wait_zero(PyObject *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords)
{
    PyObject *in[1];
    if (bind(&wait_zero_signature, args, count, keywords, in) < 0)
        return NULL;
    return operate(self, 0, 0, in[0]);
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\n"
"acquire(undo=True), so that a killed holder holds nothing; the semaphore itself.");

static PyObject *enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *none = operate(self, -1, SEM_UNDO, NULL);
    Py_XDECREF(none);
    return none ? Py_NewRef(self) : NULL;
}

PyDoc_STRVAR(exit_doc, "__exit__($self, /, *exception)\n--\n\nrelease(undo=True).");

static PyObject *exit_(PyObject *self, PyObject *Py_UNUSED(exception))
{
    return operate(self, 1, SEM_UNDO, NULL);
}

PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\n"
"Pickles by id: for other processes in the same IPC namespace, while the set lives.");

static PyObject *reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *opener = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "from_id");
    return Py_BuildValue("N(iI)", opener, ((Semaphores *)self)->id, ((Semaphores *)self)->index);
}

/* -- attributes ------------------------------------------------------------------- */

static PyObject *get_answer(PyObject *object, void *what)
{
    Semaphores *self = (Semaphores *)object;
    int answer, error = shk_semset_ask(self->id, self->index, (int)(intptr_t)what, &answer);
    return error ? semaphores_fail(self, error) : PyLong_FromLong(answer);
}

static int set_value(PyObject *object, PyObject *argument, void *Py_UNUSED(closure))
{
    Semaphores *self = (Semaphores *)object;
    unsigned short value;
    if (!argument) {
        PyErr_SetString(PyExc_AttributeError, "the value can't be deleted");
        return -1;
    }
    if (semaphores_value_of(argument, &value) < 0)
        return -1;
    int error = shk_semset_set_value(self->id, self->index, value);
    if (error)
        (void)semaphores_fail(self, error);
    return error ? -1 : 0;
}

static PyObject *get_index(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLong(((Semaphores *)self)->index);
}

static PyObject *repr(PyObject *object)
{
    Semaphores *self = (Semaphores *)object;
    return PyUnicode_FromFormat("<pyshmkey.Semaphore id=%d key=0x%x index=%u>", self->id,
                                (unsigned)self->key, self->index);
}

/* -- the type --------------------------------------------------------------------- */

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef methods[] = {
    {"create", FAST(create) | METH_CLASS, create_doc},
    {"open", FAST(open_) | METH_CLASS, open_doc},
    {"open_or_create", FAST(open_or_create) | METH_CLASS, open_or_create_doc},
    {"from_id", FAST(from_id) | METH_CLASS, from_id_doc},
    {"acquire", FAST(acquire), "acquire" ACQUIRE_DOC},
    {"P", FAST(acquire), "P" ACQUIRE_DOC},
    {"release", FAST(release), "release" RELEASE_DOC},
    {"V", FAST(release), "V" RELEASE_DOC},
    {"wait_zero", FAST(wait_zero), "wait_zero" WAIT_ZERO_DOC},
    {"Z", FAST(wait_zero), "Z" WAIT_ZERO_DOC},
    {"stat", semaphores_stat, METH_NOARGS, semaphores_stat_doc},
    {"set", FAST(semaphores_set), semaphores_set_doc},
    {"remove", semaphores_remove, METH_NOARGS, semaphores_remove_doc},
    {"__enter__", enter, METH_NOARGS, enter_doc},
    {"__exit__", exit_, METH_VARARGS, exit_doc},
    {"__reduce__", reduce, METH_NOARGS, reduce_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    SEMAPHORES_ATTRIBUTES,
    {"index", get_index, NULL, "Its place in the set.", NULL},
    {"value", get_answer, set_value,
     "The value, 0 to 32,767. Storing one makes all processes forget what they would undo.",
     (void *)GETVAL},
    {"last_pid", get_answer, NULL, "Who operated on it or stored its value last; 0: nobody yet.",
     (void *)GETPID},
    {"waiting_for_nonzero", get_answer, NULL, "How many wait for it to rise.", (void *)GETNCNT},
    {"waiting_for_zero", get_answer, NULL, "How many wait for it to become 0.", (void *)GETZCNT},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A System V semaphore, made by create(), open(), open_or_create(), from_id(), or\n"
                "as an item of a SemaphoreSet. `with semaphore:` holds one of its value, which\n"
                "the kernel gives back if the process dies. Only remove() removes it."},
    {Py_tp_dealloc, semaphores_dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.Semaphore",
    .basicsize = sizeof(Semaphores),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int semaphore_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->semaphore_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->semaphore_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->semaphore_type);
}
