/* bind.h: positional and keyword arguments of a vectorcall, sorted into places. */
#ifndef PYSHMKEY_BIND_H
#define PYSHMKEY_BIND_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

struct signature {
    const char *function;
    const char *const *names;
    Py_ssize_t required, positional, total;
};

#define SIGNATURE(name, required_, positional_, ...)                                               \
    static const char *const name##_names[] = {__VA_ARGS__};                                       \
    static const struct signature name##_signature = {                                             \
        #name, name##_names, (required_), (positional_),                                           \
        (Py_ssize_t)(sizeof name##_names / sizeof *name##_names)}

__attribute__((noinline, unused)) static int bind_slowly(const struct signature *s,
                                                         PyObject *const *args, Py_ssize_t count,
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

/* out holds signature->total places: borrowed references, or NULL where nothing was given. */
static inline int bind(const struct signature *s, PyObject *const *args, Py_ssize_t count,
                       PyObject *keywords, PyObject **out)
{
    if (!keywords && count >= s->required && count <= s->positional) {
        for (Py_ssize_t i = 0; i < s->total; i++)
            out[i] = i < count ? args[i] : NULL;
        return 0;
    }
    return bind_slowly(s, args, count, keywords, out);
}

#endif
