/* keys.c: the functions ftok, named_key and random_key. */
#include "args.h"
#include "errors.h"

#include <unistd.h>

PyDoc_STRVAR(ftok_doc, "ftok($module, /, path, proj)\n--\n\n"
"The key that ftok(3) gives the existing file `path` (str, bytes or path-like) and\n"
"`proj` (1 to 255; C programs often pass a letter, so ord(\"c\")): a signed 32-bit int.\n\n"
"Only 16 bits of the inode and 8 of the device go into it, so different files\n"
"collide, and a file made anew has another key. Prefer a name. FileNotFoundError,\n"
"PermissionError: the file can't be looked at. ValueError: proj is out of range.");

static PyObject *keys_ftok(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "proj", NULL};
    PyObject *path, *proj;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O:ftok", names, PyUnicode_FSConverter, &path,
                                     &proj))
        return NULL;
    long long number;
    key_t key;
    PyObject *result = NULL;
    if (args_integer(proj, "proj", 1, 255, &number) == 0) {
        int error = shk_ftok(PyBytes_AS_STRING(path), (int)number, &key);
        result = error ? errors_raise(PyModule_GetState(module), error) : PyLong_FromLong(key);
    }
    Py_DECREF(path);
    return result;
}

PyDoc_STRVAR(named_key_doc, "named_key($module, /, name, owner=None)\n--\n\n"
"The key of `name` (str or bytes, 1 to 255 bytes, no NUL) for the user with the uid\n"
"`owner` (default: the effective one): 1 to 2**31 - 1, the same on every host and in\n"
"every release. Two names may share a key; with k names in use the odds are about\n"
"k * k in 2**32. ValueError: the name is empty, too long or holds a NUL.");

static PyObject *keys_named_key(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "owner", NULL};
    PyObject *argument, *owner = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:named_key", names, &argument, &owner))
        return NULL;
    uint32_t uid = geteuid();
    struct text name;
    if ((owner != Py_None && args_account(owner, "owner", &uid) < 0) ||
        args_text(argument, "name", &name) < 0)
        return NULL;
    key_t key;
    int error = shk_named_key(name.bytes.data, name.bytes.size, uid, &key);
    Py_DECREF(name.owner);
    return error ? errors_raise(PyModule_GetState(module), error) : PyLong_FromLong(key);
}

PyDoc_STRVAR(random_key_doc, "random_key($module, /)\n--\n\n"
"A key from getrandom(2), 1 to 2**31 - 1. Nothing checks that it is free: create with\n"
"it, and draw again on FileExistsError.");

static PyObject *keys_random_key(PyObject *module, PyObject *Py_UNUSED(unused))
{
    key_t key;
    int error = shk_random_key(&key);
    return error ? errors_raise(PyModule_GetState(module), error) : PyLong_FromLong(key);
}

static PyMethodDef functions[] = {
    {"ftok", (PyCFunction)(void (*)(void))keys_ftok, METH_VARARGS | METH_KEYWORDS, ftok_doc},
    {"named_key", (PyCFunction)(void (*)(void))keys_named_key, METH_VARARGS | METH_KEYWORDS,
     named_key_doc},
    {"random_key", keys_random_key, METH_NOARGS, random_key_doc},
    {NULL, NULL, 0, NULL},
};

int keys_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
