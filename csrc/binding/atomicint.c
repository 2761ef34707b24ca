/* atomicint.c: AtomicInt, an integer in a segment that processes change together.
 *
 * It keeps its segment alive, not open: each call checks, so that closing the segment
 * needs no order among its integers, and an AtomicInt works again after attach(). Its own fields
 * never change; what it does is a lookup of its segment, or, wait(), a use.
 */
#include "args.h"
#include "bind.h"
#include "errors.h"
#include "segment.h"

#include <errno.h>
#include <structmember.h>
#include <time.h>

typedef struct {
    PyObject_HEAD
    Segment *segment;
    Py_ssize_t offset;
    unsigned char width; /* 4 or 8 */
    char is_signed;
} AtomicInt;

SIGNATURE(atomic, 1, 3, "offset", "width", "signed");

/* Segment.atomic */
SEGMENT_FAST(atomic)
{
    Segment *segment = (Segment *)self;
    PyObject *in[3];
    long long offset, width = 8, size = (long long)segment->made.size;
    if (bind(&atomic_signature, args, count, keywords, in) < 0 ||
        args_integer(in[0], "offset", 0, size, &offset) < 0 ||
        (in[1] && args_integer(in[1], "width", 4, 8, &width) < 0))
        return NULL;
    int is_signed = in[2] ? PyObject_IsTrue(in[2]) : 1;
    if (is_signed < 0)
        return NULL;
    if (width != 4 && width != 8)
        return PyErr_Format(PyExc_ValueError, "width %lld is out of range: 4 or 8", width);
    if (offset % width)
        return PyErr_Format(PyExc_ValueError, "offset %lld is no multiple of the width %lld",
                            offset, width);
    if (width > size - offset)
        return PyErr_Format(PyExc_ValueError,
                            "an integer of %lld bytes at offset %lld: the segment has %lld bytes",
                            width, offset, size);
    struct module_state *state = state_of(self);
    AtomicInt *made = PyObject_New(AtomicInt, (PyTypeObject *)state->atomicint_type);
    if (!made)
        return NULL;
    made->segment = (Segment *)Py_NewRef(self);
    made->offset = (Py_ssize_t)offset;
    made->width = (unsigned char)width;
    made->is_signed = (char)is_signed;
    return (PyObject *)made;
}

static void dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_DECREF(((AtomicInt *)object)->segment);
    type->tp_free(object);
    Py_DECREF(type);
}

/* -- values: of the width, as bits --------------------------------------------------- */

static PyObject *as_int(const AtomicInt *self, uint64_t bits)
{
    if (!self->is_signed)
        return PyLong_FromUnsignedLongLong(bits);
    return PyLong_FromLongLong(self->width == 4 ? (int32_t)(uint32_t)bits : (int64_t)bits);
}

static int fail_range(PyObject *integer, long long low, unsigned long long high)
{
    PyErr_Format(PyExc_ValueError, "value %S is out of range: %lld to %llu", integer, low, high);
    return -1;
}

/* Of 64 bits without a sign, half of which are beyond long long. */
static int as_unsigned_bits(PyObject *argument, long long low, uint64_t *bits)
{
    PyObject *integer = PyNumber_Index(argument);
    if (!integer)
        return -1;
    int overflow, rc = 0;
    long long value = PyLong_AsLongLongAndOverflow(integer, &overflow);
    *bits = overflow > 0 ? PyLong_AsUnsignedLongLong(integer) : (uint64_t)value;
    if (overflow < 0 || (overflow == 0 && value < low) || PyErr_Occurred()) {
        PyErr_Clear();
        rc = fail_range(integer, low, UINT64_MAX);
    }
    Py_DECREF(integer);
    return rc;
}

/* What an unsigned integer is to be is not negative; what is added to it may be. */
static int as_bits(const AtomicInt *self, PyObject *argument, bool is_added, uint64_t *bits)
{
    long long low = self->width == 4 ? INT32_MIN : INT64_MIN;
    long long high = self->width == 4 ? INT32_MAX : INT64_MAX;
    long long value;
    if (!self->is_signed && !is_added)
        low = 0;
    if (!self->is_signed && self->width == 8)
        return as_unsigned_bits(argument, low, bits);
    if (!self->is_signed)
        high = UINT32_MAX;
    if (args_integer(argument, "value", low, high, &value) < 0)
        return -1;
    *bits = (uint64_t)value;
    return 0;
}

/* -- the word: until lookup_end(); NULL with an exception where it can't be used ------- */

static void *word_lookup(const AtomicInt *self, bool is_changed)
{
    char *bytes = segment_lookup(self->segment, is_changed);
    return bytes ? bytes + self->offset : NULL;
}

static PyObject *load(PyObject *object, PyObject *Py_UNUSED(unused))
{
    const AtomicInt *self = (AtomicInt *)object;
    const void *word = word_lookup(self, false);
    if (!word)
        return NULL;
    uint64_t value = shk_word_load(word, self->width);
    lookup_end();
    return as_int(self, value);
}

static PyObject *store(PyObject *object, PyObject *argument)
{
    const AtomicInt *self = (AtomicInt *)object;
    uint64_t value;
    void *word;
    if (as_bits(self, argument, false, &value) < 0 || !(word = word_lookup(self, true)))
        return NULL;
    shk_word_store(word, self->width, value);
    lookup_end();
    Py_RETURN_NONE;
}

static PyObject *add(PyObject *object, PyObject *argument)
{
    const AtomicInt *self = (AtomicInt *)object;
    uint64_t value;
    void *word;
    if (as_bits(self, argument, true, &value) < 0 || !(word = word_lookup(self, true)))
        return NULL;
    value = shk_word_add(word, self->width, value);
    lookup_end();
    return as_int(self, value);
}

static PyObject *exchange(PyObject *object, PyObject *argument)
{
    const AtomicInt *self = (AtomicInt *)object;
    uint64_t value;
    void *word;
    if (as_bits(self, argument, false, &value) < 0 || !(word = word_lookup(self, true)))
        return NULL;
    value = shk_word_exchange(word, self->width, value);
    lookup_end();
    return as_int(self, value);
}

SIGNATURE(compare_exchange, 2, 2, "expected", "desired");

static PyObject *compare_exchange(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                  PyObject *keywords)
{
    const AtomicInt *self = (AtomicInt *)object;
    PyObject *in[2];
    uint64_t expected, desired;
    void *word;
    if (bind(&compare_exchange_signature, args, count, keywords, in) < 0 ||
        as_bits(self, in[0], false, &expected) < 0 || as_bits(self, in[1], false, &desired) < 0 ||
        !(word = word_lookup(self, true)))
        return NULL;
    bool done = shk_word_compare_exchange(word, self->width, &expected, desired);
    lookup_end();
    return PyBool_FromLong(done);
}

/* -- sleeping ------------------------------------------------------------------------ */

static int check_sleeper(const AtomicInt *self)
{
    if (self->width == 4)
        return 0;
    PyErr_SetString(PyExc_ValueError,
                    "only integers of width 4 are waited for: segment.atomic(offset, width=4)");
    return -1;
}

/* timeout: None or absent is for ever. */
static int deadline_of(PyObject *timeout, uint64_t *deadline)
{
    uint64_t duration;
    struct timespec now;
    *deadline = UINT64_MAX;
    if (!timeout || timeout == Py_None)
        return 0;
    if (args_seconds(timeout, "timeout", &duration) < 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *deadline = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec + duration;
    return 0;
}

/* Of the Segment. 0 with what the wait returned, or -1 with an exception set. */
static int nap(PyObject *self, Py_ssize_t offset, uint32_t expected, uint64_t deadline, int *out)
{
    Segment *segment = (Segment *)self;
    if (segment_check_open(segment) < 0)
        return -1;
    const void *word = segment->address + offset;
    segment_use_begin(segment);
    Py_BEGIN_ALLOW_THREADS
    *out = shk_word_wait(word, expected, deadline);
    Py_END_ALLOW_THREADS
    segment_use_end(segment);
    return 0;
}
GUARDED_CALL(int, nap,
             (PyObject * self, Py_ssize_t offset, uint32_t expected, uint64_t deadline, int *out),
             (self, offset, expected, deadline, out))

SIGNATURE(wait, 1, 2, "expected", "timeout");

static PyObject *wait_(PyObject *object, PyObject *const *args, Py_ssize_t count,
                       PyObject *keywords)
{
    const AtomicInt *self = (AtomicInt *)object;
    PyObject *in[2];
    uint64_t expected, deadline;
    if (bind(&wait_signature, args, count, keywords, in) < 0 || check_sleeper(self) < 0 ||
        as_bits(self, in[0], false, &expected) < 0 || deadline_of(in[1], &deadline) < 0)
        return NULL;
    for (;;) {
        int rc; /* each time anew: a signal handler may have closed the segment */
        if (GUARDED(nap)((PyObject *)self->segment, self->offset, (uint32_t)expected, deadline,
                         &rc) < 0)
            return NULL;
        if (rc == 0)
            Py_RETURN_TRUE;
        if (rc == SHK_E_TIMEOUT)
            Py_RETURN_FALSE;
        if (rc != -EAGAIN)
            return segment_fail(self->segment, rc);
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

SIGNATURE(notify, 0, 1, "count");

static PyObject *notify(PyObject *object, PyObject *const *args, Py_ssize_t count,
                        PyObject *keywords)
{
    const AtomicInt *self = (AtomicInt *)object;
    PyObject *in[1];
    long long most = INT_MAX;
    void *word;
    if (bind(&notify_signature, args, count, keywords, in) < 0 || check_sleeper(self) < 0 ||
        (in[0] && in[0] != Py_None && args_integer(in[0], "count", 1, INT_MAX, &most) < 0) ||
        !(word = word_lookup(self, true)))
        return NULL;
    int woken = shk_word_notify(word, (int)most);
    lookup_end();
    return woken < 0 ? segment_fail(self->segment, woken) : PyLong_FromLong(woken);
}

/* -- the type ------------------------------------------------------------------------ */

static PyObject *reduce(PyObject *object, PyObject *Py_UNUSED(unused))
{
    const AtomicInt *self = (AtomicInt *)object;
    PyObject *atomic = PyObject_GetAttrString((PyObject *)self->segment, "atomic");
    return atomic ? Py_BuildValue("N(niO)", atomic, self->offset, (int)self->width,
                                  self->is_signed ? Py_True : Py_False)
                  : NULL;
}

static PyObject *repr(PyObject *object)
{
    const AtomicInt *self = (AtomicInt *)object;
    return PyUnicode_FromFormat("<pyshmkey.AtomicInt offset=%zd width=%d %s of segment id=%d>",
                                self->offset, (int)self->width,
                                self->is_signed ? "signed" : "unsigned", self->segment->made.id);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef methods[] = {
    {"load", load, METH_NOARGS, "load($self, /)\n--\n\nIts value."},
    {"store", store, METH_O, "store($self, value, /)\n--\n\nSets it."},
    {"add", add, METH_O,
     "add($self, value, /)\n--\n\n"
     "Adds, modulo 2 to the power of its bits; returns the new value."},
    {"exchange", exchange, METH_O, "exchange($self, value, /)\n--\n\nSets it; returns the old value."},
    {"compare_exchange", FAST(compare_exchange),
     "compare_exchange($self, /, expected, desired)\n--\n\n"
     "Sets it to `desired` if it is `expected`; returns whether it was."},
    {"wait", FAST(wait_),
     "wait($self, /, expected, timeout=None)\n--\n\n"
     "Sleeps while it is `expected`: True once it is not, False after `timeout` seconds."},
    {"notify", FAST(notify),
     "notify($self, /, count=None)\n--\n\n"
     "Wakes up to `count` sleepers in wait(), by default all; returns how many."},
    {"__reduce__", reduce, METH_NOARGS, "__reduce__($self, /)\n--\n\nPickles with its segment."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"segment", T_OBJECT, offsetof(AtomicInt, segment), READONLY, "The Segment it is in."},
    {"offset", T_PYSSIZET, offsetof(AtomicInt, offset), READONLY, "Where its first byte is."},
    {"width", T_UBYTE, offsetof(AtomicInt, width), READONLY, "Its bytes: 4 or 8."},
    {"signed", T_BOOL, offsetof(AtomicInt, is_signed), READONLY, "Whether values have a sign."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "An integer in a segment that processes change together; see Segment.atomic().\n\n"
                "Each call is one indivisible step, and all processes see the steps in one order."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.AtomicInt",
    .basicsize = sizeof(AtomicInt),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int atomicint_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->atomicint_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->atomicint_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->atomicint_type);
}
