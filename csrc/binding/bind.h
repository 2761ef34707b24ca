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

/* The same, for any arguments. */
int bind_slowly(const struct signature *s, PyObject *const *args, Py_ssize_t count,
                PyObject *keywords, PyObject **out) __attribute__((hot));

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
