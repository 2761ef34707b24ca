/* view.c: the slots as a buffer, and checked copies of them as NumPy arrays.
 *
 * A view shows the segment itself, from the first slot to the high-water mark of when it
 * was made. It lends the mapping, so the store can't be closed before it is released.
 */
#include "keystore.h"

#include <stdio.h>

/* What one export refers to. */
struct export {
    Py_ssize_t shape, stride;
    char format[320];
};

/* PEP 3118. "<": standard sizes and no alignment, so each gap is spelled out. Keys are
 * arrays of bytes, of which nobody drops trailing zeros as of strings. */
static void describe(const struct shk_info *info, char *out, size_t size)
{
    unsigned ids_end = 20 + 2 * info->id_size;
    unsigned key_end = info->key_offset + info->key_size;
    (void)snprintf(out, size,
                   "T{<Q:generation:I:key_length:I:flags:i:status:%us:client_id:%us:server_id:%ux"
                   "i:key_id:(%u)B:key:%uxQ:updated:Q:expires:%ux}",
                   info->id_size, info->id_size, info->key_id_offset - ids_end, info->key_size,
                   info->times_offset - key_end, info->record_size - info->times_offset - 16);
}

static int export_slots(PyObject *self_, Py_buffer *view, int flags)
{
    KeyStore *self = (KeyStore *)self_;
    const void *slots;
    uint64_t count;
    view->obj = NULL;
    shk_store *store = keystore_opened(self_);
    if (!store)
        return -1;
    if (flags & PyBUF_WRITABLE) {
        PyErr_SetString(PyExc_BufferError, "views of a store are read-only: put() writes");
        return -1;
    }
    int rc = shk_store_slots(store, &slots, &count);
    if (rc < 0) {
        errors_raise(state_of(self_), rc);
        return -1;
    }
    struct export *export = PyMem_Malloc(sizeof *export);
    if (!export) {
        PyErr_NoMemory();
        return -1;
    }
    export->shape = (Py_ssize_t)count;
    export->stride = (Py_ssize_t)self->info.record_size;
    describe(&self->info, export->format, sizeof export->format);
    *view = (Py_buffer){
        .buf = (void *)(uintptr_t)slots,
        .obj = Py_NewRef(self_),
        .len = export->shape * export->stride,
        .itemsize = export->stride,
        .readonly = 1,
        .ndim = 1,
        .format = flags & PyBUF_FORMAT ? export->format : NULL,
        .shape = flags & PyBUF_ND ? &export->shape : NULL,
        .strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &export->stride : NULL,
        .internal = export,
    };
    self->views++;
    return 0;
}

int keystore_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    int rc;
    GUARD(self);
    rc = export_slots(self, view, flags);
    UNGUARD;
    return rc;
}

void keystore_releasebuffer(PyObject *self, Py_buffer *view)
{
    PyMem_Free(view->internal);
    GUARD(self);
    ((KeyStore *)self)->views--;
    UNGUARD;
}

static bool is_store(PyObject *object)
{
    const PyBufferProcs *procs = Py_TYPE(object)->tp_as_buffer;
    return procs && procs->bf_getbuffer == keystore_getbuffer;
}

bool keystore_is_seen_by(PyObject *object)
{
    if (!PyMemoryView_Check(object))
        return is_store(object);
    PyObject *viewed = PyMemoryView_GET_BUFFER(object)->obj;
    return viewed && is_store(viewed);
}

/* ----------------------------------------------------------------- copies -- */

/* A snapshot as writable memory, wiped when nobody has it any more. */
typedef struct {
    PyObject_HEAD
    shk_snapshot *snapshot;
    Py_ssize_t size;
} Copy;

static PyObject *copy_new(PyObject *store, shk_snapshot *snapshot)
{
    PyTypeObject *type = (PyTypeObject *)state_of(store)->copy_type;
    Copy *self = (Copy *)type->tp_alloc(type, 0);
    if (!self) {
        shk_snapshot_free(snapshot);
        return NULL;
    }
    self->snapshot = snapshot;
    self->size = (Py_ssize_t)(shk_snapshot_count(snapshot) * ((KeyStore *)store)->info.record_size);
    return (PyObject *)self;
}

static void copy_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    shk_snapshot_free(((Copy *)self)->snapshot);
    type->tp_free(self);
    Py_DECREF(type);
}

static int copy_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    const Copy *copy = (Copy *)self;
    void *slots = (void *)(uintptr_t)shk_snapshot_data(copy->snapshot);
    return PyBuffer_FillInfo(view, self, slots, copy->size, 0, flags);
}

static PyType_Slot copy_slots[] = {
    {Py_tp_doc, "What the array of to_numpy shows; wiped with it."},
    {Py_tp_dealloc, copy_dealloc},
    {Py_bf_getbuffer, copy_getbuffer},
    {0, NULL},
};

static PyType_Spec copy_spec = {
    .name = "pyshmkey._core.Copy",
    .basicsize = sizeof(Copy),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = copy_slots,
};

int view_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->copy_type = PyType_FromModuleAndSpec(module, &copy_spec, NULL);
    return state->copy_type ? 0 : -1;
}

/* --------------------------------------------------------------- to_numpy -- */

static PyObject *import_numpy(void)
{
    PyObject *numpy = PyImport_ImportModule("numpy");
    if (numpy || !PyErr_ExceptionMatches(PyExc_ModuleNotFoundError))
        return numpy;
    PyErr_Clear();
    PyErr_SetString(PyExc_ImportError,
                    "to_numpy needs NumPy, which is not installed: pip install pyshmkey[numpy]");
    return NULL;
}

/* The dtype that a view of this store has. */
static PyObject *dtype_of(PyObject *numpy, PyObject *self)
{
    PyObject *view = PyMemoryView_FromObject(self);
    PyObject *seen = view ? PyObject_CallMethod(numpy, "asarray", "O", view) : NULL;
    PyObject *dtype = seen ? PyObject_GetAttrString(seen, "dtype") : NULL;
    Py_XDECREF(seen);
    Py_XDECREF(view);
    return dtype;
}

/* numpy.ndarray(count, dtype, copy), which takes over the snapshot. */
static PyObject *array_of(PyObject *numpy, PyObject *self, shk_snapshot *snapshot)
{
    Py_ssize_t count = (Py_ssize_t)shk_snapshot_count(snapshot);
    PyObject *copy = copy_new(self, snapshot);
    PyObject *dtype = copy ? dtype_of(numpy, self) : NULL;
    PyObject *array = dtype ? PyObject_CallMethod(numpy, "ndarray", "nOO", count, dtype, copy)
                            : NULL;
    Py_XDECREF(dtype);
    Py_XDECREF(copy);
    return array;
}

KEYSTORE_NOARGS(to_numpy)
{
    (void)nothing;
    PyObject *numpy = import_numpy(), *array = NULL;
    shk_store *store = numpy ? keystore_opened(self) : NULL;
    if (store) {
        struct call call;
        shk_snapshot *snapshot;
        call_begin_without_gil(&call, self);
        int rc = shk_store_snapshot(store, &snapshot);
        call_end(&call);
        array = rc < 0 ? errors_raise(state_of(self), rc) : array_of(numpy, self, snapshot);
    }
    Py_XDECREF(numpy);
    return array;
}

/* -------------------------------------------------------------- __array__ -- */

SIGNATURE(array, 0, 1, "dtype", "copy");

/* numpy.asarray(store) takes a view. Where it is refused one it forgets why, and asks this before
 * it makes an array of one object, the store: the reason is raised again. */
KEYSTORE_METHOD(array)
{
    PyObject *a[2];
    if (bind(&array_signature, args, count, keywords, a) < 0)
        return NULL;
    bool says_copy = a[1] && a[1] != Py_None; /* NumPy 1 knows no None */
    const char *name = says_copy ? "array" : "asarray";
    PyObject *view = PyMemoryView_FromObject(self), *array = NULL;
    PyObject *numpy = view ? PyImport_ImportModule("numpy") : NULL;
    PyObject *convert = numpy ? PyObject_GetAttrString(numpy, name) : NULL;
    PyObject *names = convert ? Py_BuildValue(says_copy ? "(ss)" : "(s)", "dtype", "copy") : NULL;
    PyObject *const all[] = {view, a[0] ? a[0] : Py_None, a[1]};
    if (names)
        array = PyObject_Vectorcall(convert, all, 1, names);
    Py_XDECREF(names);
    Py_XDECREF(convert);
    Py_XDECREF(numpy);
    Py_XDECREF(view);
    return array;
}
