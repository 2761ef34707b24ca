/* segmentbytes.c: the bytes of a Segment, copied (read, write, slices) or seen (views). */
#include "segment.h"

#include "args.h"
#include "bind.h"
#include "errors.h"

#include <sys/shm.h>

#define COPY_WITH_GIL (1u << 20) /* bytes; larger copies let other threads run */

int segment_check_open(const Segment *self)
{
    if (self->address)
        return 0;
    PyErr_Format(PyExc_ValueError, "the segment (id=%d) is closed; attach() opens it again",
                 self->made.id);
    return -1;
}

int segment_check_writable(const Segment *self)
{
    if (!(self->flags & SHM_RDONLY))
        return 0;
    (void)errors_format(state_of((PyObject *)self), SHK_E_READONLY,
                        "the segment (id=%d) is attached read-only", self->made.id);
    return -1;
}

int segment_check(Segment *self, bool is_changed)
{
    int rc;
    GUARD(self);
    rc = segment_check_open(self);
    if (rc == 0 && is_changed)
        rc = segment_check_writable(self);
    UNGUARD;
    return rc;
}

/* Copies within an open segment; a large copy keeps it from being closed meanwhile. */
static void copy(Segment *self, void *to, const void *from, size_t size)
{
    if (size <= COPY_WITH_GIL) {
        memmove(to, from, size);
        return;
    }
    segment_use_begin(self);
    Py_BEGIN_ALLOW_THREADS
    memmove(to, from, size);
    Py_END_ALLOW_THREADS
    segment_use_end(self);
}

static PyObject *copy_out(Segment *self, size_t offset, size_t size)
{
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (result)
        copy(self, PyBytes_AS_STRING(result), self->address + offset, size);
    return result;
}

/* offset: absent is 0. */
static int offset_of(const Segment *self, PyObject *argument, size_t *offset)
{
    long long value = 0;
    if (argument && args_integer(argument, "offset", 0, (long long)self->made.size, &value) < 0)
        return -1;
    *offset = (size_t)value;
    return 0;
}

static int check_range(const Segment *self, const char *call, size_t size, size_t offset)
{
    if (size <= self->made.size - offset)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "%s of %zu bytes at offset %zu: the segment has %zu bytes, so %zu are left", call,
                 size, offset, self->made.size, self->made.size - offset);
    return -1;
}

SIGNATURE(read, 0, 2, "size", "offset");

SEGMENT_FAST(read)
{
    Segment *segment = (Segment *)self;
    PyObject *in[2];
    long long wanted = -1;
    size_t offset;
    if (bind(&read_signature, args, count, keywords, in) < 0 ||
        (in[0] && args_integer(in[0], "size", -1, PY_SSIZE_T_MAX, &wanted) < 0) ||
        offset_of(segment, in[1], &offset) < 0 || segment_check_open(segment) < 0)
        return NULL;
    size_t size = wanted < 0 ? segment->made.size - offset : (size_t)wanted;
    return check_range(segment, "read", size, offset) < 0 ? NULL
                                                          : copy_out(segment, offset, size);
}

SIGNATURE(write, 1, 2, "data", "offset");

SEGMENT_FAST(write)
{
    Segment *segment = (Segment *)self;
    PyObject *in[2], *result = NULL;
    size_t offset;
    Py_buffer data;
    if (bind(&write_signature, args, count, keywords, in) < 0 ||
        offset_of(segment, in[1], &offset) < 0 ||
        PyObject_GetBuffer(in[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t size = (size_t)data.len;
    if (segment_check_open(segment) == 0 && segment_check_writable(segment) == 0 &&
        check_range(segment, "write", size, offset) == 0) {
        copy(segment, segment->address + offset, data.buf, size);
        result = PyLong_FromSize_t(size);
    }
    PyBuffer_Release(&data);
    return result;
}

/* -- items and slices, as of mmap: an item is an int, a slice is bytes ----------------- */

Py_ssize_t segment_length(PyObject *self)
{
    return (Py_ssize_t)((Segment *)self)->made.size;
}

static int fail_index(const Segment *self)
{
    PyErr_Format(PyExc_IndexError, "the index is out of range: the segment (id=%d) has %zu bytes",
                 self->made.id, self->made.size);
    return -1;
}

/* Of the sequence protocol, which adds the length to a negative index. */
PyObject *segment_item(PyObject *self, Py_ssize_t index)
{
    Segment *segment = (Segment *)self;
    int byte = -1;
    const char *bytes = segment_lookup(segment, false);
    if (!bytes)
        return NULL;
    if (index >= 0 && index < segment_length(self))
        byte = __atomic_load_n((unsigned char *)bytes + index, __ATOMIC_RELAXED);
    lookup_end();
    if (byte < 0)
        (void)fail_index(segment);
    return byte < 0 ? NULL : PyLong_FromLong(byte);
}

/* A place from 0 on, from an int that may count from the end. */
static int place_of(PyObject *self, PyObject *index, Py_ssize_t *place)
{
    Py_ssize_t value = PyNumber_AsSsize_t(index, PyExc_IndexError), size = segment_length(self);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value < 0)
        value += size;
    if (value < 0 || value >= size)
        return fail_index((Segment *)self);
    *place = value;
    return 0;
}

static int fail_type(PyObject *index)
{
    PyErr_Format(PyExc_TypeError, "a segment is indexed by int or slice, not %.200s",
                 Py_TYPE(index)->tp_name);
    return -1;
}

struct range {
    Py_ssize_t start, step, count;
};

static int range_of(PyObject *self, PyObject *slice, struct range *out)
{
    Py_ssize_t stop;
    if (PySlice_Unpack(slice, &out->start, &stop, &out->step) < 0)
        return -1;
    out->count = PySlice_AdjustIndices(segment_length(self), &out->start, &stop, out->step);
    return 0;
}

static PyObject *slice(PyObject *self, PyObject *index)
{
    Segment *segment = (Segment *)self;
    struct range range;
    if (range_of(self, index, &range) < 0 || segment_check_open(segment) < 0)
        return NULL;
    if (range.step == 1)
        return copy_out(segment, (size_t)range.start, (size_t)range.count);
    PyObject *result = PyBytes_FromStringAndSize(NULL, range.count);
    const char *from = segment->address + range.start;
    for (Py_ssize_t i = 0; result && i < range.count; i++)
        PyBytes_AS_STRING(result)[i] = from[i * range.step];
    return result;
}
GUARDED_PLAIN(slice)

PyObject *segment_subscript(PyObject *self, PyObject *index)
{
    Py_ssize_t place;
    if (PyIndex_Check(index))
        return place_of(self, index, &place) < 0 ? NULL : segment_item(self, place);
    if (PySlice_Check(index))
        return GUARDED(slice)(self, index);
    (void)fail_type(index);
    return NULL;
}

static int assign_item(PyObject *self, PyObject *index, PyObject *value)
{
    Py_ssize_t place;
    long long byte;
    char *bytes;
    if (place_of(self, index, &place) < 0 || args_integer(value, "a byte", 0, 255, &byte) < 0 ||
        !(bytes = segment_lookup((Segment *)self, true)))
        return -1;
    __atomic_store_n((unsigned char *)bytes + place, (unsigned char)byte, __ATOMIC_RELAXED);
    lookup_end();
    return 0;
}

static int assign_range(Segment *segment, const struct range *range, const Py_buffer *data)
{
    if (segment_check_open(segment) < 0 || segment_check_writable(segment) < 0)
        return -1;
    if (data->len != range->count) {
        PyErr_Format(PyExc_ValueError,
                     "%zd bytes can't replace a slice of %zd: a segment keeps its size", data->len,
                     range->count);
        return -1;
    }
    char *to = segment->address + range->start;
    if (range->step == 1) {
        copy(segment, to, data->buf, (size_t)range->count);
        return 0;
    }
    char *from = PyMem_Malloc((size_t)range->count); /* data may be a view of this segment */
    if (!from) {
        (void)PyErr_NoMemory();
        return -1;
    }
    memcpy(from, data->buf, (size_t)range->count);
    for (Py_ssize_t i = 0; i < range->count; i++)
        to[i * range->step] = from[i];
    PyMem_Free(from);
    return 0;
}

static int assign_slice(PyObject *self, PyObject *index, PyObject *value)
{
    struct range range;
    Py_buffer data;
    if (range_of(self, index, &range) < 0 || PyObject_GetBuffer(value, &data, PyBUF_SIMPLE) < 0)
        return -1;
    int rc = assign_range((Segment *)self, &range, &data);
    PyBuffer_Release(&data);
    return rc;
}
GUARDED_CALL(int, assign_slice, (PyObject * self, PyObject *index, PyObject *value),
             (self, index, value))

int segment_assign(PyObject *self, PyObject *index, PyObject *value)
{
    if (!value) {
        PyErr_SetString(PyExc_TypeError, "the bytes of a segment can't be deleted");
        return -1;
    }
    if (PyIndex_Check(index))
        return assign_item(self, index, value);
    return PySlice_Check(index) ? GUARDED(assign_slice)(self, index, value) : fail_type(index);
}

/* -- views --------------------------------------------------------------------------- */

int segment_get_buffer(PyObject *self, Py_buffer *view, int flags)
{
    Segment *segment = (Segment *)self;
    int is_readonly = (segment->flags & SHM_RDONLY) != 0;
    view->obj = NULL;
    if (segment_check_open(segment) < 0)
        return -1;
    if (is_readonly && flags & PyBUF_WRITABLE) {
        PyErr_Format(PyExc_BufferError, "the segment (id=%d) is attached read-only",
                     segment->made.id);
        return -1;
    }
    if (PyBuffer_FillInfo(view, self, segment->address, (Py_ssize_t)segment->made.size,
                          is_readonly, flags) < 0)
        return -1;
    segment->views++;
    return 0;
}

void segment_release_buffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
    GUARD(self);
    ((Segment *)self)->views--;
    UNGUARD;
}
