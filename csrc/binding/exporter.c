/* exporter.c: Exporter, a base for Python classes whose instances are buffers.
 *
 * A Python class can't export a buffer of its own before CPython 3.12 (PEP 688). One
 * below Exporter passes requests on to the object in its attribute `exported`, which
 * then owns the views and counts them.
 */
#include "state.h"

#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *exported; /* NULL: nothing to export */
} Exporter;

static int get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    PyObject *exported = ((Exporter *)object)->exported;
    if (exported && exported != Py_None)
        return PyObject_GetBuffer(exported, view, flags);
    view->obj = NULL;
    PyErr_Format(PyExc_BufferError, "this %.200s has no memory attached", Py_TYPE(object)->tp_name);
    return -1;
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

static PyMemberDef members[] = {
    {"exported", T_OBJECT, offsetof(Exporter, exported), 0,
     "The object whose buffer is exported, or None."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Base for classes that export the buffer of the object in `exported`."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_members, members},
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
