/* keys.c: the functions ftok, named_key and random_key. */
#include "args.h"
#include "bind.h"
#include "errors.h"

#include <unistd.h>

PyDoc_STRVAR(ftok_doc, "ftok($module, /, path, proj)\n--\n\n"
"The key that ftok(3) gives the existing file `path` (str, bytes or path-like) and\n"
"`proj` (1 to 255; C programs often pass a letter, so ord(\"c\")): a signed 32-bit int.\n\n"
"Only 16 bits of the inode and 8 of the device go into it, so different files\n"
"collide, and a file made anew has another key. Prefer a name. FileNotFoundError,\n"
"PermissionError: the file can't be looked at. ValueError: proj is out of range.");

SIGNATURE(ftok, 2, 2, "path", "proj");

static PyObject *keys_ftok(PyObject *module, PyObject *const *args, Py_ssize_t count,
                           PyObject *keywords)
{
    PyObject *in[2], *path, *result = NULL;
    if (bind(&ftok_signature, args, count, keywords, in) < 0 ||
        !PyUnicode_FSConverter(in[0], &path))
        return NULL;
    long long proj;
    key_t key;
    if (args_integer(in[1], "proj", 1, 255, &proj) == 0) {
        int error = shk_ftok(PyBytes_AS_STRING(path), (int)proj, &key);
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

SIGNATURE(named_key, 1, 2, "name", "owner");

static PyObject *keys_named_key(PyObject *module, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords)
{
    PyObject *in[2];
    if (bind(&named_key_signature, args, count, keywords, in) < 0)
        return NULL;
    uint32_t owner = geteuid();
    struct text name;
    if ((in[1] && in[1] != Py_None && args_account(in[1], "owner", &owner) < 0) ||
        args_text(in[0], "name", &name) < 0)
        return NULL;
    key_t key;
    int error = shk_named_key(name.bytes.data, name.bytes.size, owner, &key);
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

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef functions[] = {
    {"ftok", FAST(keys_ftok), ftok_doc},
    {"named_key", FAST(keys_named_key), named_key_doc},
    {"random_key", keys_random_key, METH_NOARGS, random_key_doc},
    {NULL, NULL, 0, NULL},
};

int keys_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
