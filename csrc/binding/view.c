/* view.c: the slots as a buffer, and checked copies of them as NumPy arrays.
 *
 * A view shows the segment itself, from the first slot to the high-water mark of when it
 * was made. It lends the mapping, so the store can't be closed before it is released.
 */
#include "keystore.h"

#include <string.h>

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

int keystore_getbuffer(PyObject *self_, Py_buffer *view, int flags)
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

void keystore_releasebuffer(PyObject *self, Py_buffer *view)
{
    PyMem_Free(view->internal);
    ((KeyStore *)self)->views--;
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

/* numpy.empty(count, dtype), with the dtype that a view of this store has. */
static PyObject *array_new(PyObject *numpy, PyObject *self, size_t count)
{
    PyObject *array = NULL, *dtype = NULL, *seen = NULL;
    PyObject *view = PyMemoryView_FromObject(self);
    if (view)
        seen = PyObject_CallMethod(numpy, "asarray", "O", view);
    if (seen)
        dtype = PyObject_GetAttrString(seen, "dtype");
    if (dtype)
        array = PyObject_CallMethod(numpy, "empty", "nO", (Py_ssize_t)count, dtype);
    Py_XDECREF(dtype);
    Py_XDECREF(seen);
    Py_XDECREF(view);
    return array;
}

static PyObject *array_of(PyObject *numpy, PyObject *self, const shk_snapshot *snapshot)
{
    size_t count = shk_snapshot_count(snapshot);
    PyObject *array = array_new(numpy, self, count);
    Py_buffer buffer;
    if (!array)
        return NULL;
    if (PyObject_GetBuffer(array, &buffer, PyBUF_CONTIG) < 0) {
        Py_DECREF(array);
        return NULL;
    }
    size_t size = count * ((KeyStore *)self)->info.record_size;
    if (size == (size_t)buffer.len)
        memcpy(buffer.buf, shk_snapshot_data(snapshot), size);
    else
        PyErr_Format(PyExc_RuntimeError, "NumPy made %zd bytes of %zu", buffer.len, size);
    PyBuffer_Release(&buffer);
    if (PyErr_Occurred())
        Py_CLEAR(array);
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
        if (rc == 0)
            shk_snapshot_free(snapshot);
    }
    Py_XDECREF(numpy);
    return array;
}
