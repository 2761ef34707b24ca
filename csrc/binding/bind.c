/* bind.c: keywords, and arguments that are wrong. */
#include "bind.h"

int bind_slowly(const struct signature *s, PyObject *const *args, Py_ssize_t count,
                PyObject *keywords, PyObject **out)
{
    if (count > s->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd positional arguments (%zd given)",
                     s->function, s->positional, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < s->total; i++)
        out[i] = i < count ? args[i] : NULL;
    for (Py_ssize_t k = 0; keywords && k < PyTuple_GET_SIZE(keywords); k++) {
        PyObject *name = PyTuple_GET_ITEM(keywords, k);
        Py_ssize_t i = 0;
        while (i < s->total && PyUnicode_CompareWithASCIIString(name, s->names[i]) != 0)
            i++;
        if (i == s->total || out[i]) {
            PyErr_Format(PyExc_TypeError, "%s() got %s argument '%U'", s->function,
                         i == s->total ? "an unexpected keyword" : "multiple values for", name);
            return -1;
        }
        out[i] = args[count + k];
    }
    for (Py_ssize_t i = 0; i < s->required; i++) {
        if (!out[i]) {
            PyErr_Format(PyExc_TypeError, "%s() needs the argument '%s'", s->function, s->names[i]);
            return -1;
        }
    }
    return 0;
}
