/* errors.c: the exception classes, and the one table from codes to them.
 *
 * A code has a class of its own below pyshmkey.Error, with a builtin as second
 * base where an except clause written for dicts, numbers or files should catch it
 * too; or, where a builtin says it all, that builtin itself. Failed system calls
 * are OSError, which picks FileNotFoundError, PermissionError, ... by errno.
 */
#include "errors.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define SHK_CODE_FIRST 5001 /* errno values are smaller */

/* os_errno: the errno attribute of those that are OSErrors. */
static const struct {
    int code;
    const char *name; /* NULL: the builtin itself */
    PyObject **builtin;
    int os_errno;
    const char *doc;
} table[ERROR_COUNT] = {
    [ERROR_INVALID] = {SHK_E_INVALID, NULL, &PyExc_ValueError, 0, NULL},
    [ERROR_ABSENT] = {SHK_E_ABSENT, NULL, &PyExc_KeyError, 0, NULL},
    [ERROR_REVOKED] = {SHK_E_REVOKED, "pyshmkey.KeyRevokedError", &PyExc_KeyError, 0,
                       "The key of this pair is revoked."},
    [ERROR_EXPIRED] = {SHK_E_EXPIRED, "pyshmkey.KeyExpiredError", &PyExc_KeyError, 0,
                       "The time to live of this pair's key has passed."},
    [ERROR_EXISTS] = {SHK_E_EXISTS, "pyshmkey.PairExistsError", &PyExc_KeyError, 0,
                      "The pair is in the store already."},
    [ERROR_CONFLICT] = {SHK_E_CONFLICT, "pyshmkey.KeyIdConflictError", NULL, 0,
                        "The pair has another key id than the caller expected."},
    [ERROR_FULL] = {SHK_E_FULL, "pyshmkey.StoreFullError", NULL, 0,
                    "The store holds as many pairs as it was created for."},
    [ERROR_EXHAUSTED] = {SHK_E_EXHAUSTED, "pyshmkey.KeyIdsExhaustedError", &PyExc_OverflowError, 0,
                         "The store has used its last key id."},
    [ERROR_REMOVED] = {SHK_E_REMOVED, "pyshmkey.StoreRemovedError", NULL, 0,
                       "The store was removed while this handle was open."},
    [ERROR_CORRUPT] = {SHK_E_CORRUPT, "pyshmkey.CorruptStoreError", NULL, 0,
                       "The segment holds bytes that no store of this layout can hold."},
    [ERROR_INCOMPATIBLE] = {SHK_E_INCOMPATIBLE, "pyshmkey.IncompatibleStoreError", NULL, 0,
                            "The segment is not a store, or not one this build can use."},
    [ERROR_INSECURE] = {SHK_E_INSECURE, "pyshmkey.InsecureStoreError", &PyExc_PermissionError,
                        EACCES, "The segment's owner, creator or mode can't be trusted."},
    [ERROR_READONLY] = {SHK_E_READONLY, "pyshmkey.ReadOnlyError", &PyExc_PermissionError, EACCES,
                        "A write was tried through a read-only handle."},
    [ERROR_TOO_MANY_WRITERS] = {SHK_E_TOO_MANY_WRITERS, "pyshmkey.TooManyWritersError", NULL, 0,
                                "Every writer token of the store is taken."},
    [ERROR_TIMEOUT] = {SHK_E_TIMEOUT, NULL, &PyExc_TimeoutError, ETIMEDOUT, NULL},
    [ERROR_BUSY] = {SHK_E_BUSY, "pyshmkey.StoreBusyError", NULL, 0,
                    "Writers never paused for long enough to look at the whole store."},
    [ERROR_MOVED] = {SHK_E_MOVED, "pyshmkey.StoreMovedError", NULL, 0,
                     "The store was copied to another, which the message names."},
    [ERROR_CHANGES_LOST] = {SHK_E_CHANGES_LOST, "pyshmkey.ChangesLostError", NULL, 0,
                            "More changes happened than the store remembers: read it anew."},
};

/* A new class below Error. KeyError shows its message in quotes, as it would a
 * key; ours are sentences, so they take the __str__ of every other exception. */
static PyObject *class_new(PyObject *error, const char *name, PyObject *builtin, const char *doc)
{
    PyObject *bases = builtin ? PyTuple_Pack(2, error, builtin) : PyTuple_Pack(1, error);
    PyObject *namespace = PyDict_New(), *str = NULL, *class = NULL;
    if (!bases || !namespace)
        goto done;
    if (builtin == PyExc_KeyError) {
        str = PyObject_GetAttrString(PyExc_BaseException, "__str__");
        if (!str || PyDict_SetItemString(namespace, "__str__", str) < 0)
            goto done;
    }
    class = PyErr_NewExceptionWithDoc(name, doc, bases, namespace);
done:
    Py_XDECREF(str);
    Py_XDECREF(namespace);
    Py_XDECREF(bases);
    return class;
}

static int module_add(PyObject *module, const char *full_name, PyObject *class)
{
    return PyModule_AddObjectRef(module, strchr(full_name, '.') + 1, class);
}

int errors_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->module = Py_NewRef(module);
    state->error = PyErr_NewExceptionWithDoc(
        "pyshmkey.Error", "Base of the exceptions that no builtin describes.", NULL, NULL);
    if (!state->error || module_add(module, "pyshmkey.Error", state->error) < 0)
        return -1;
    state->warning = PyErr_NewExceptionWithDoc(
        "pyshmkey.StoreWarning", "A store was made, but is less safe than it should be.",
        PyExc_RuntimeWarning, NULL);
    if (!state->warning || module_add(module, "pyshmkey.StoreWarning", state->warning) < 0)
        return -1;
    for (size_t i = 0; i < ERROR_COUNT; i++) {
        PyObject *builtin = table[i].builtin ? *table[i].builtin : NULL;
        if (!table[i].name) {
            state->exceptions[i] = Py_NewRef(builtin);
            continue;
        }
        state->exceptions[i] = class_new(state->error, table[i].name, builtin, table[i].doc);
        if (!state->exceptions[i] || module_add(module, table[i].name, state->exceptions[i]) < 0)
            return -1;
    }
    return 0;
}

/* Raises the exception of code with this message, which it steals. */
static PyObject *raise_message(struct module_state *state, int code, PyObject *message)
{
    PyObject *type = PyExc_OSError; /* picks a subclass by errno */
    int os_errno = -code;
    for (size_t i = 0; i < ERROR_COUNT; i++)
        if (table[i].code == code) {
            type = state->exceptions[i];
            os_errno = table[i].os_errno;
        }
    PyObject *exception = !message   ? NULL
                          : os_errno ? PyObject_CallFunction(type, "iO", os_errno, message)
                                     : PyObject_CallOneArg(type, message);
    if (exception)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    Py_XDECREF(message);
    return NULL;
}

PyObject *errors_raise(struct module_state *state, int code)
{
    if (PyErr_Occurred()) /* of a signal handler that ran meanwhile */
        return NULL;
    const char *message = shk_error_message(code), *detail = shk_error_detail();
    if (code <= -SHK_CODE_FIRST)
        return errors_format(state, code, "%s", *detail ? detail : message);
    return errors_format(state, code, "%s: %s", message, detail);
}

PyObject *errors_raise_with_key(struct module_state *state, int code, key_t key)
{
    if (key == IPC_PRIVATE || code <= -SHK_CODE_FIRST || PyErr_Occurred() ||
        strstr(shk_error_detail(), "key="))
        return errors_raise(state, code);
    return errors_format(state, code, "%s: %s (key=0x%x)", shk_error_message(code),
                         shk_error_detail(), (unsigned)key);
}

PyObject *errors_format(struct module_state *state, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    return raise_message(state, code, message);
}
