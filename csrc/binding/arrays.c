/* arrays.c: the columns of a NumPy array, and the values in them.
 *
 * What the columns are comes from dtype; what they hold from the buffer. Types that this
 * file doesn't know (other byte orders, StringDType, subclasses of ndarray) are left to
 * the iteration protocol, where NumPy itself makes the values.
 */
#include "arrays.h"

#include <string.h>

/* ------------------------------------------------------------------ columns -- */

/* An attribute that is an int; -1 with an exception set. */
static Py_ssize_t int_attribute(PyObject *object, const char *name)
{
    PyObject *value = PyObject_GetAttrString(object, name);
    Py_ssize_t result = value ? PyNumber_AsSsize_t(value, PyExc_OverflowError) : -1;
    Py_XDECREF(value);
    return result;
}

/* dtype.kind; 'R' for raw bytes (an unstructured void, or a subarray of single bytes); 0
 * for what is left to iteration. -1: an exception. */
static int kind_of(PyObject *dtype)
{
    PyObject *kind = PyObject_GetAttrString(dtype, "kind");
    PyObject *native = PyObject_GetAttrString(dtype, "isnative");
    PyObject *names = PyObject_GetAttrString(dtype, "names");
    PyObject *base = PyObject_GetAttrString(dtype, "base"); /* of a subarray: its elements */
    int result = -1;
    if (!kind || !native || !names || !base)
        goto done;
    if (native != Py_True || names != Py_None || !PyUnicode_Check(kind)) {
        result = 0;
        goto done;
    }
    result = (int)PyUnicode_READ_CHAR(kind, 0);
    if (base != dtype) {
        int element = kind_of(base);
        Py_ssize_t size = element < 0 ? -1 : int_attribute(base, "itemsize");
        if (size < 0)
            result = -1;
        else
            result = size == 1 && (element == 'u' || element == 'i') ? 'R' : 0;
    } else if (result == 'V')
        result = 'R';
done:
    Py_XDECREF(kind);
    Py_XDECREF(native);
    Py_XDECREF(names);
    Py_XDECREF(base);
    return result;
}

/* The field dtype.fields[name], or a column without kind where there is none. */
static int field_column(PyObject *fields, PyObject *name, struct column *out)
{
    *out = (struct column){0};
    PyObject *field = PyObject_GetItem(fields, name); /* (dtype, offset) or (dtype, offset, title) */
    if (!field) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    int rc = -1;
    PyObject *dtype = PySequence_GetItem(field, 0), *offset = PySequence_GetItem(field, 1);
    if (dtype && offset) {
        int kind = kind_of(dtype);
        out->offset = kind < 0 ? -1 : PyNumber_AsSsize_t(offset, PyExc_OverflowError);
        out->size = out->offset < 0 ? -1 : int_attribute(dtype, "itemsize");
        out->kind = (char)kind;
        rc = out->size < 0 ? -1 : 0;
    }
    Py_XDECREF(dtype);
    Py_XDECREF(offset);
    Py_DECREF(field);
    return rc;
}

static int named_column(PyObject *fields, const char *name, struct column *out)
{
    PyObject *key = PyUnicode_FromString(name);
    int rc = key ? field_column(fields, key, out) : -1;
    Py_XDECREF(key);
    return rc;
}

/* By name, as to_numpy() or as put() call it; else by place. */
static int find_column(PyObject *fields, PyObject *names, const char *name, const char *other,
                       Py_ssize_t place, struct column *out)
{
    if (named_column(fields, name, out) < 0 || (!out->kind && named_column(fields, other, out) < 0))
        return -1;
    return out->kind || place >= PyTuple_GET_SIZE(names)
               ? 0
               : field_column(fields, PyTuple_GET_ITEM(names, place), out);
}

static int structured_columns(PyObject *dtype, PyObject *names, struct array *out)
{
    PyObject *fields = PyObject_GetAttrString(dtype, "fields");
    if (!fields)
        return -1;
    int rc = find_column(fields, names, "client", "client_id", 0, &out->client) < 0 ||
             find_column(fields, names, "server", "server_id", 1, &out->server) < 0 ||
             find_column(fields, names, "key", "key", 2, &out->key) < 0 ||
             named_column(fields, "key_length", &out->key_length) < 0 ||
             named_column(fields, "status", &out->status) < 0 ||
             named_column(fields, "key_id", &out->key_id) < 0 ||
             named_column(fields, "expires", &out->expires) < 0;
    Py_DECREF(fields);
    return rc ? -1 : 0;
}

/* The columns of a plain array of two or three. */
static int plain_columns(PyObject *dtype, const Py_buffer *view, struct array *out)
{
    int kind = kind_of(dtype);
    if (kind < 0)
        return -1;
    struct column *columns[] = {&out->client, &out->server, &out->key};
    for (Py_ssize_t i = 0; i < view->shape[1]; i++)
        *columns[i] = (struct column){(char)kind, i * view->strides[1], view->itemsize};
    return 0;
}

/* --------------------------------------------------------------------- open -- */

static bool is_id(const struct column *column)
{
    return column->kind == 'U' || column->kind == 'S' || column->kind == 'O';
}

static bool is_integer(const struct column *column, char kind, Py_ssize_t size)
{
    return column->kind == 0 || (column->kind == kind && column->size == size);
}

/* 1, 0 or -1 as array_open. */
static int check_columns(const struct array *array, bool with_keys)
{
    if (!is_id(&array->client) || !is_id(&array->server))
        return 0;
    if (!with_keys)
        return 1;
    if (array->key.kind == 'S') {
        PyErr_SetString(PyExc_TypeError,
                        "keys in an array of NumPy's S type would lose their trailing NUL bytes: "
                        "use a subarray of uint8, a V type or objects");
        return -1;
    }
    return (array->key.kind == 'R' || array->key.kind == 'O') &&
           is_integer(&array->key_length, 'u', 4) && is_integer(&array->status, 'i', 4) &&
           is_integer(&array->key_id, 'i', 4) && is_integer(&array->expires, 'u', 8);
}

static int open_columns(PyObject *argument, bool with_keys, struct array *out)
{
    PyObject *dtype = PyObject_GetAttrString(argument, "dtype");
    PyObject *names = dtype ? PyObject_GetAttrString(dtype, "names") : NULL;
    int rc = -1;
    if (!names)
        goto done;
    rc = 0;
    if (PyTuple_Check(names) && out->view.ndim == 1)
        rc = structured_columns(dtype, names, out);
    else if (names == Py_None && out->view.ndim == 2 && out->view.shape[1] == 2 + with_keys)
        rc = plain_columns(dtype, &out->view, out);
    if (rc == 0)
        rc = check_columns(out, with_keys);
done:
    Py_XDECREF(names);
    Py_XDECREF(dtype);
    return rc;
}

int array_open(PyObject *argument, bool with_keys, struct array *out)
{
    *out = (struct array){0};
    const char *type = Py_TYPE(argument)->tp_name;
    if (strcmp(type, "numpy.ndarray") != 0 && strcmp(type, "recarray") != 0)
        return 0;
    if (PyObject_GetBuffer(argument, &out->view, PyBUF_FULL_RO) < 0) {
        PyErr_Clear(); /* dates, StringDType */
        out->view.obj = NULL;
        return 0;
    }
    int rc = out->view.ndim > 0 ? open_columns(argument, with_keys, out) : 0;
    if (rc <= 0) {
        array_close(out);
        return rc;
    }
    out->count = out->view.shape[0];
    out->stride = out->view.strides[0];
    return 1;
}

void array_close(struct array *array)
{
    if (array->view.obj)
        PyBuffer_Release(&array->view);
}

/* ------------------------------------------------------------------- values -- */

static const char *place(const struct array *array, Py_ssize_t row, const struct column *column)
{
    return (const char *)array->view.buf + row * array->stride + column->offset;
}

PyObject *array_object(const struct array *array, Py_ssize_t row, const struct column *column)
{
    PyObject *object;
    memcpy(&object, place(array, row, column), sizeof object); /* it may not be aligned */
    return Py_NewRef(object ? object : Py_None);
}

/* Without the NULs that fill the column, as NumPy shows it. */
static Py_ssize_t filled(const char *bytes, Py_ssize_t size, Py_ssize_t unit)
{
    static const char zero[4];
    while (size > 0 && memcmp(bytes + size - unit, zero, (size_t)unit) == 0)
        size -= unit;
    return size;
}

int array_text(const struct array *array, Py_ssize_t row, const struct column *column,
               const char *what, struct text *out)
{
    const char *bytes = place(array, row, column);
    PyObject *object;
    if (column->kind == 'S') {
        *out = (struct text){{bytes, (size_t)filled(bytes, column->size, 1)}, NULL};
        return 0;
    }
    if (column->kind == 'O')
        object = array_object(array, row, column);
    else {
        int little = -1;
        object = PyUnicode_DecodeUTF32(bytes, filled(bytes, column->size, 4), "surrogatepass",
                                       &little);
    }
    int rc = object ? args_text(object, what, out) : -1;
    Py_XDECREF(object);
    return rc;
}

int array_put(const struct array *array, Py_ssize_t row, struct shk_put *out)
{
    uint32_t length = (uint32_t)array->key.size;
    *out = (struct shk_put){.key_id = SHK_KEY_ID_NEXT, .status = SHK_VALID};
    if (array->key_length.kind)
        memcpy(&length, place(array, row, &array->key_length), sizeof length);
    if (array->status.kind)
        memcpy(&out->status, place(array, row, &array->status), sizeof out->status);
    if (array->key_id.kind)
        memcpy(&out->key_id, place(array, row, &array->key_id), sizeof out->key_id);
    if (array->expires.kind)
        memcpy(&out->expires, place(array, row, &array->expires), sizeof out->expires);
    if (length > array->key.size) {
        PyErr_Format(PyExc_ValueError, "key_length is %u, the array's key has %zd bytes", length,
                     array->key.size);
        return -1;
    }
    out->key = (struct shk_bytes){place(array, row, &array->key), length};
    return 0;
}
