/* inbuffer.c: stores in memory that some Python object lends.
 *
 * The handle holds an export of it, so the object can't unmap or resize it before the
 * store is closed: mmap.close() and SharedMemory.close() raise BufferError meanwhile.
 */
#include "keystore.h"

struct lent {
    Py_buffer buffer;
    struct shk_shape shape;
    struct shk_access access;
};

static bool is_given(PyObject *argument)
{
    return argument && argument != Py_None;
}

static int set_shape(struct shk_shape *shape, PyObject *capacity, PyObject *id_size,
                     PyObject *key_size)
{
    long long pairs = 0, id = 0, key = 0; /* 0: as it is, or the default */
    if (is_given(capacity) && args_integer(capacity, "capacity", 1, SHK_CAPACITY_MAX, &pairs) < 0)
        return -1;
    if (is_given(id_size) &&
        args_integer(id_size, "id_size", SHK_ID_SIZE_MIN, SHK_ID_SIZE_MAX, &id) < 0)
        return -1;
    if (is_given(key_size) && args_integer(key_size, "key_size", 1, SHK_KEY_SIZE_MAX, &key) < 0)
        return -1;
    *shape = (struct shk_shape){
        .capacity = (uint64_t)pairs, .id_size = (uint32_t)id, .key_size = (uint32_t)key};
    return 0;
}

/* readonly None: as the object has it. */
static int borrow(struct lent *lent, PyObject *object, PyObject *readonly)
{
    int truth = is_given(readonly) ? PyObject_IsTrue(readonly) : -1;
    if (truth < 0 && PyErr_Occurred())
        return -1;
    lent->access.readonly = truth == 1;
    if (truth != 1) {
        if (PyObject_GetBuffer(object, &lent->buffer, PyBUF_WRITABLE) == 0)
            return 0;
        if (truth == 0 || !(PyErr_ExceptionMatches(PyExc_BufferError) ||
                            PyErr_ExceptionMatches(PyExc_ValueError))) /* NumPy's */
            return -1;
        PyErr_Clear();
        lent->access.readonly = true;
    }
    return PyObject_GetBuffer(object, &lent->buffer, PyBUF_SIMPLE);
}

SIGNATURE(in_buffer, 1, 2, "buffer", "capacity", "id_size", "key_size", "readonly", "timeout",
          "lock_timeout");

KEYSTORE_METHOD(in_buffer)
{
    PyObject *a[7];
    PyTypeObject *type = (PyTypeObject *)self;
    struct lent lent = {.access = {.open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                   .lock_timeout = SHK_LOCK_TIMEOUT_DEFAULT}};
    if (bind(&in_buffer_signature, args, count, keywords, a) < 0 ||
        set_shape(&lent.shape, a[1], a[2], a[3]) < 0 ||
        (a[5] && args_seconds(a[5], "timeout", &lent.access.open_timeout) < 0) ||
        (a[6] && args_seconds(a[6], "lock_timeout", &lent.access.lock_timeout) < 0) ||
        borrow(&lent, a[0], a[4]) < 0)
        return NULL;
    enum shk_intent intent = lent.access.readonly ? SHK_OPEN : SHK_OPEN_OR_CREATE;
    shk_store *store;
    PyObject *made = NULL;
    int rc;
    Py_BEGIN_ALLOW_THREADS;
    rc = shk_store_in_memory(intent, lent.buffer.buf, (size_t)lent.buffer.len, &lent.shape,
                             &lent.access, &store);
    Py_END_ALLOW_THREADS;
    if (rc < 0)
        errors_raise(PyType_GetModuleState(type), rc);
    else
        made = keystore_wrap(type, store, NULL, 0);
    if (made)
        ((KeyStore *)made)->memory = lent.buffer;
    else
        PyBuffer_Release(&lent.buffer);
    return made;
}

SIGNATURE(size_for, 1, 1, "capacity", "id_size", "key_size");

KEYSTORE_METHOD(size_for)
{
    PyObject *a[3];
    struct shk_shape shape;
    size_t size;
    if (bind(&size_for_signature, args, count, keywords, a) < 0)
        return NULL;
    if (a[0] == Py_None)
        return PyErr_Format(PyExc_TypeError, "capacity must be int, not None");
    if (set_shape(&shape, a[0], a[1], a[2]) < 0)
        return NULL;
    int rc = shk_store_size(&shape, &size);
    return rc < 0 ? errors_raise(PyType_GetModuleState((PyTypeObject *)self), rc)
                  : PyLong_FromSize_t(size);
}
