/* semaphoreset.c: SemaphoreSet, several semaphores that are operated on at once. */
#include "semaphores.h"
#include "bind.h"

#define AT_ONCE 8 /* operations without an allocation */

/* -- values ----------------------------------------------------------------------- */

/* An iterable of values: *values is to be freed with PyMem_Free. */
static int values_of(PyObject *argument, unsigned short **values, unsigned *count)
{
    PyObject *items = PySequence_Tuple(argument);
    if (!items)
        return -1;
    Py_ssize_t size = PyTuple_GET_SIZE(items);
    unsigned short *result = NULL;
    if (size < 1 || size > SHK_SEMSET_MAX)
        PyErr_Format(PyExc_ValueError, "%zd values: a set has at least 1 semaphore, at most %u",
                     size, SHK_SEMSET_MAX);
    else if (!(result = PyMem_New(unsigned short, (size_t)size)))
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; result && i < size; i++)
        if (semaphores_value_of(PyTuple_GET_ITEM(items, i), &result[i]) < 0) {
            PyMem_Free(result);
            result = NULL;
        }
    Py_DECREF(items);
    *values = result;
    *count = (unsigned)size;
    return result ? 0 : -1;
}

static PyObject *get_values(PyObject *object, void *Py_UNUSED(closure))
{
    Semaphores *self = (Semaphores *)object;
    unsigned short *values = PyMem_New(unsigned short, self->count);
    if (!values)
        return PyErr_NoMemory();
    int error = shk_semset_values(self->id, values);
    PyObject *result = error ? semaphores_fail(self, error) : PyTuple_New(self->count);
    for (unsigned i = 0; result && i < self->count; i++) {
        PyObject *value = PyLong_FromLong(values[i]);
        if (value)
            PyTuple_SET_ITEM(result, i, value);
        else
            Py_CLEAR(result);
    }
    PyMem_Free(values);
    return result;
}

static int set_values(PyObject *object, PyObject *argument, void *Py_UNUSED(closure))
{
    Semaphores *self = (Semaphores *)object;
    unsigned short *values;
    unsigned count;
    if (!argument) {
        PyErr_SetString(PyExc_AttributeError, "the values can't be deleted");
        return -1;
    }
    if (values_of(argument, &values, &count) < 0)
        return -1;
    int rc = -1, error;
    if (count != self->count)
        PyErr_Format(PyExc_ValueError, "%u values for a set (id=%d) of %u semaphores", count,
                     self->id, self->count);
    else if ((error = shk_semset_set_values(self->id, values)) != 0)
        (void)semaphores_fail(self, error);
    else
        rc = 0;
    PyMem_Free(values);
    return rc;
}

/* -- the openers ------------------------------------------------------------------ */

PyDoc_STRVAR(create_doc, "create($type, /, values, *, key=None, mode=0o600)\n--\n\n"
"A new set with a semaphore for each of the values (an iterable of 0 to 32,767). `key`:\n"
"an int, a name (str or bytes) of the calling user, or None for a private one, found by\n"
"its id only. `mode`: the 9 permission bits. It lives until remove(), or a reboot.\n"
"Nobody can open it before it has its values.\n\n"
"FileExistsError: the key is in use. OSError (EINVAL, ENOSPC): a limit of the kernel,\n"
"named with its value. ValueError: a value, key or mode is out of range.");
SIGNATURE(create, 1, 1, "values", "key", "mode");

static PyObject *create(PyObject *type, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
    PyObject *in[3];
    unsigned short *values;
    unsigned count;
    if (bind(&create_signature, args, nargs, keywords, in) < 0 ||
        values_of(in[0], &values, &count) < 0)
        return NULL;
    PyObject *self = semaphores_create(type, values, count, in[1], in[2]);
    PyMem_Free(values);
    return self;
}

PyDoc_STRVAR(open_doc, "open($type, /, key, *, access=0, wait=5.0)\n--\n\n"
"The existing set of `key` (an int, or a name of the calling user). Waits up to `wait`\n"
"seconds for its creator to initialise it; None: doesn't look. `access`: the\n"
"permissions needed, as in a mode; 0: those to look at it.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies this access.\n"
"TimeoutError: nobody initialised it. ValueError: key 0, which is IPC_PRIVATE.");
SIGNATURE(open, 1, 1, "key", "access", "wait");

static PyObject *open_(PyObject *type, PyObject *const *args, Py_ssize_t nargs, PyObject *keywords)
{
    PyObject *in[3];
    if (bind(&open_signature, args, nargs, keywords, in) < 0)
        return NULL;
    return semaphores_open(type, in[0], in[1], in[2]);
}

PyDoc_STRVAR(open_or_create_doc,
"open_or_create($type, /, key, values, *, mode=0o600, wait=5.0)\n--\n\n"
"The set of `key`, created with these values and `mode` if there is none. However many\n"
"processes do this at once, all get the same one, initialised once.\n\n"
"ValueError: the existing set has fewer semaphores (more are fine: see len()).\n"
"Otherwise as create() and open().");
SIGNATURE(open_or_create, 2, 2, "key", "values", "mode", "wait");

static PyObject *open_or_create(PyObject *type, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *keywords)
{
    PyObject *in[4];
    unsigned short *values;
    unsigned count;
    if (bind(&open_or_create_signature, args, nargs, keywords, in) < 0 ||
        values_of(in[1], &values, &count) < 0)
        return NULL;
    PyObject *self = semaphores_open_or_create(type, values, count, in[0], in[2], in[3]);
    PyMem_Free(values);
    return self;
}

PyDoc_STRVAR(from_id_doc, "from_id($type, /, semid)\n--\n\n"
"The set with this id; also a private one. Doesn't wait for it to be initialised.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies reading.");
SIGNATURE(from_id, 1, 1, "semid");

static PyObject *from_id(PyObject *type, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *keywords)
{
    PyObject *in[1];
    if (bind(&from_id_signature, args, nargs, keywords, in) < 0)
        return NULL;
    return semaphores_from_id(type, in[0]);
}

/* -- operations ------------------------------------------------------------------- */

/* (index, change) or (index, change, undo). */
static int operation_of(const Semaphores *self, PyObject *item, int flags, struct sembuf *out)
{
    PyObject *parts = PySequence_Tuple(item);
    long long index, change;
    int rc = -1;
    if (!parts)
        return -1;
    Py_ssize_t size = PyTuple_GET_SIZE(parts);
    if (size < 2 || size > 3) {
        PyErr_Format(PyExc_ValueError,
                     "an operation is (index, change) or (index, change, undo), not %zd items",
                     size);
    } else if (args_integer(PyTuple_GET_ITEM(parts, 0), "index", LLONG_MIN, LLONG_MAX, &index) ==
                   0 &&
               args_integer(PyTuple_GET_ITEM(parts, 1), "change", -SHK_SEMAPHORE_MAX,
                            SHK_SEMAPHORE_MAX, &change) == 0 &&
               (size < 3 || semaphores_undo_of(PyTuple_GET_ITEM(parts, 2), &flags) == 0)) {
        long long place = index < 0 ? index + self->count : index;
        if (place < 0 || place >= self->count) {
            PyErr_Format(PyExc_IndexError, "semaphore %lld: the set (id=%d) has %u", index,
                         self->id, self->count);
        } else {
            *out = (struct sembuf){(unsigned short)place, (short)change, (short)flags};
            rc = 0;
        }
    }
    Py_DECREF(parts);
    return rc;
}

PyDoc_STRVAR(operate_doc, "operate($self, /, operations, timeout=None, *, undo=False)\n--\n\n"
"All the operations at once, or none: pairs (index, change), where a change < 0 takes\n"
"that much from the value once it is as high, 0 waits until the value is 0, and > 0 adds.\n"
"They see each other's results, in order. `timeout`: how many seconds to wait until all\n"
"are possible; 0: not at all; None: for ever. `undo`: if this process ends, however it\n"
"does, the kernel undoes the changes; (index, change, undo) says so of a single one.\n\n"
"TimeoutError: not possible in time; then nothing has changed. OSError (ERANGE): a value\n"
"would exceed 32,767; (E2BIG): more operations than SEMOPM. IndexError: no such\n"
"semaphore. FileNotFoundError: the set is gone, or was removed meanwhile.");
SIGNATURE(operate, 1, 2, "operations", "timeout", "undo");

static PyObject *operate(PyObject *object, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *keywords)
{
    Semaphores *self = (Semaphores *)object;
    PyObject *in[3];
    struct patience patience;
    int flags;
    if (bind(&operate_signature, args, nargs, keywords, in) < 0 ||
        ipc_patience_of(in[1], &patience) < 0 || semaphores_undo_of(in[2], &flags) < 0)
        return NULL;
    PyObject *items = PySequence_Tuple(in[0]);
    if (!items)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(items);
    struct sembuf few[AT_ONCE], *operations = few;
    int rc = -1;
    if (count > AT_ONCE && !(operations = PyMem_New(struct sembuf, (size_t)count))) {
        Py_DECREF(items);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (operation_of(self, PyTuple_GET_ITEM(items, i), flags, &operations[i]) < 0)
            goto done;
    rc = semaphores_operate(self, operations, (size_t)count, &patience);
done:
    if (operations != few)
        PyMem_Free(operations);
    Py_DECREF(items);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Of every semaphore at once. */
static int operate_on_all(Semaphores *self, short change)
{
    struct patience patience = {SHK_NEVER, SHK_NOW};
    struct sembuf *operations = PyMem_New(struct sembuf, self->count);
    if (!operations) {
        PyErr_NoMemory();
        return -1;
    }
    for (unsigned i = 0; i < self->count; i++)
        operations[i] = (struct sembuf){(unsigned short)i, change, SEM_UNDO};
    int rc = semaphores_operate(self, operations, self->count, &patience);
    PyMem_Free(operations);
    return rc;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\n"
"Takes 1 of every semaphore, all at once, with undo, so that a killed holder holds\n"
"nothing; the set itself.");

static PyObject *enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return operate_on_all((Semaphores *)self, -1) < 0 ? NULL : Py_NewRef(self);
}

PyDoc_STRVAR(exit_doc, "__exit__($self, /, *exception)\n--\n\n"
"Gives 1 of every semaphore back, with undo.");

static PyObject *exit_(PyObject *self, PyObject *Py_UNUSED(exception))
{
    if (operate_on_all((Semaphores *)self, 1) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\n"
"Pickles by id: for other processes in the same IPC namespace, while the set lives.");

static PyObject *reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *opener = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "from_id");
    return Py_BuildValue("N(i)", opener, ((Semaphores *)self)->id);
}

static Py_ssize_t length(PyObject *self)
{
    return ((Semaphores *)self)->count;
}

static PyObject *item(PyObject *object, Py_ssize_t index)
{
    Semaphores *self = (Semaphores *)object;
    if (index < 0 || index >= (Py_ssize_t)self->count)
        return PyErr_Format(PyExc_IndexError, "semaphore %zd: the set (id=%d) has %u", index,
                            self->id, self->count);
    return semaphores_at(state_of(object)->semaphore_type, self, (unsigned)index);
}

static PyObject *repr(PyObject *object)
{
    Semaphores *self = (Semaphores *)object;
    return PyUnicode_FromFormat("<pyshmkey.SemaphoreSet id=%d key=0x%x of %u>", self->id,
                                (unsigned)self->key, self->count);
}

/* -- the type --------------------------------------------------------------------- */

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef methods[] = {
    {"create", FAST(create) | METH_CLASS, create_doc},
    {"open", FAST(open_) | METH_CLASS, open_doc},
    {"open_or_create", FAST(open_or_create) | METH_CLASS, open_or_create_doc},
    {"from_id", FAST(from_id) | METH_CLASS, from_id_doc},
    {"operate", FAST(operate), operate_doc},
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
    {"values", get_values, set_values,
     "All values at one moment, as a tuple. Storing as many makes all processes forget what\n"
     "they would undo.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A System V semaphore set, made by create(), open(), open_or_create() or\n"
                "from_id(). set[i] is a Semaphore; operate() does several operations at once.\n"
                "`with set:` holds 1 of every semaphore, which the kernel gives back if the\n"
                "process dies. Only remove() removes it."},
    {Py_tp_dealloc, semaphores_dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_sq_length, length},
    {Py_sq_item, item},
    {Py_tp_iter, PySeqIter_New},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.SemaphoreSet",
    .basicsize = sizeof(Semaphores),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int semaphoreset_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->semaphoreset_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->semaphoreset_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->semaphoreset_type);
}
