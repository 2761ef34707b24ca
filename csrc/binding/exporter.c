/* exporter.c: Exporter, a base for Python classes whose instances are buffers.
 *
 * A Python class can't export a buffer of its own before CPython 3.12 (PEP 688). One
 * below Exporter passes requests on to the object in its attribute `exported`, which
 * then owns the views and counts them.
 */
#include "state.h"
#include "threads.h"

typedef struct {
    PyObject_HEAD
    PyObject *exported; /* NULL: nothing to export */
} Exporter;

static PyObject *get_exported(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *exported = ((Exporter *)self)->exported;
    return Py_NewRef(exported ? exported : Py_None);
}
GUARDED_GET(get_exported)

/* Deleted, it is None. */
static int set_exported(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    PyObject *old = ((Exporter *)self)->exported;
    ((Exporter *)self)->exported = Py_XNewRef(value);
    Py_XDECREF(old);
    return 0;
}
GUARDED_SET(set_exported)

static int get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    /* A reference of our own: other code may set another object meanwhile. */
    PyObject *exported = GUARDED(get_exported)(object, NULL);
    int rc = -1;
    view->obj = NULL;
    if (exported != Py_None)
        rc = PyObject_GetBuffer(exported, view, flags);
    else
        PyErr_Format(PyExc_BufferError, "this %.200s has no memory attached",
                     Py_TYPE(object)->tp_name);
    Py_DECREF(exported);
    return rc;
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Exporter *)self)->exported);
    return 0;
}

static int clear(PyObject *self)
{
    Py_CLEAR(((Exporter *)self)->exported);
    return 0;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyGetSetDef attributes[] = {
    {"exported", GUARDED(get_exported), GUARDED(set_exported),
     "The object whose buffer is exported, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Base for classes that export the buffer of the object in `exported`."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_getset, attributes},
    {Py_bf_getbuffer, get_buffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey._core.Exporter",
    .basicsize = sizeof(Exporter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int exporter_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->exporter_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->exporter_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->exporter_type);
}
