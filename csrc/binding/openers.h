/* openers.h: the four ways to a KeyStore, and the object itself. */
#ifndef PYSHMKEY_OPENERS_H
#define PYSHMKEY_OPENERS_H

#include "state.h"

typedef struct {
    PyObject_HEAD
    shk_store *store;     /* NULL: closed */
    Py_ssize_t calls;     /* running without the GIL, in the process calls_pid: */
    pid_t calls_pid;      /* a forked child has none of its parent's, but for */
    Py_ssize_t handling;  /* those that run signal handlers, one of which may have forked it */
    bool closing;
    struct shk_info info; /* stays after close */
    PyObject *weakrefs;
} KeyStore;

/* Takes over the handle, or closes it where there is no object for it. */
PyObject *keystore_wrap(PyTypeObject *type, shk_store *store);

/* Class methods: METH_FASTCALL | METH_KEYWORDS. */
PyObject *keystore_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
                          PyObject *keywords);
PyObject *keystore_open_or_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
                                  PyObject *keywords);
PyObject *keystore_open(PyObject *type, PyObject *const *args, Py_ssize_t count,
                        PyObject *keywords);
PyObject *keystore_from_id(PyObject *type, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords);

#endif
