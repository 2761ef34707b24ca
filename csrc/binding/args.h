/* args.h: Python arguments become C values; each failure names value and limit.
 *
 * The functions return 0, or -1 with an exception set. `what` names the argument.
 * A conversion may run Python code (__index__), so handles are checked for being
 * open after all of a call's conversions.
 */
#ifndef PYSHMKEY_ARGS_H
#define PYSHMKEY_ARGS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/shk.h"

/* The bytes of a str (UTF-8; surrogate escapes give back the bytes they stand
 * for) or bytes object. Valid until owner is released: Py_CLEAR(text.owner). */
struct text {
    struct shk_bytes bytes;
    PyObject *owner;
};

static inline bool args_is_ascii(PyObject *argument)
{
    return PyUnicode_CheckExact(argument) && PyUnicode_IS_COMPACT_ASCII(argument);
}

static inline struct shk_bytes args_ascii(PyObject *ascii)
{
    return (struct shk_bytes){PyUnicode_DATA(ascii), (size_t)PyUnicode_GET_LENGTH(ascii)};
}

__attribute__((noinline, unused)) static int args_text_slowly(PyObject *argument, const char *what,
                                                              struct text *out)
{
    Py_ssize_t size;
    if (PyUnicode_Check(argument)) {
        const char *utf8 = PyUnicode_AsUTF8AndSize(argument, &size); /* cached in the str */
        if (utf8) {
            *out = (struct text){{utf8, (size_t)size}, Py_NewRef(argument)};
            return 0;
        }
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return -1;
        PyErr_Clear();
        PyObject *encoded = PyUnicode_AsEncodedString(argument, "utf-8", "surrogateescape");
        if (!encoded)
            return -1;
        *out = (struct text){{PyBytes_AS_STRING(encoded), (size_t)PyBytes_GET_SIZE(encoded)},
                             encoded};
        return 0;
    }
    if (PyBytes_Check(argument)) {
        *out = (struct text){{PyBytes_AS_STRING(argument), (size_t)PyBytes_GET_SIZE(argument)},
                             Py_NewRef(argument)};
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s must be str or bytes, not %.200s", what,
                 Py_TYPE(argument)->tp_name);
    return -1;
}

static inline int args_text(PyObject *argument, const char *what, struct text *out)
{
    if (args_is_ascii(argument)) {
        *out = (struct text){args_ascii(argument), Py_NewRef(argument)};
        return 0;
    }
    return args_text_slowly(argument, what, out);
}

/* For an argument that the caller of the method holds until it returns, as opposed to an
 * item of a list, which another thread may drop: owner may be NULL. */
static inline int args_text_borrow(PyObject *argument, const char *what, struct text *out)
{
    if (args_is_ascii(argument)) {
        *out = (struct text){args_ascii(argument), NULL};
        return 0;
    }
    return args_text_slowly(argument, what, out);
}

/* An integer within low..high; another type is a TypeError, another value a ValueError. */
static inline int args_integer(PyObject *argument, const char *what, long long low, long long high,
                               long long *out)
{
    if (!PyIndex_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "%s must be int, not %.200s", what,
                     Py_TYPE(argument)->tp_name);
        return -1;
    }
    PyObject *integer = PyNumber_Index(argument);
    if (!integer)
        return -1;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(integer, &overflow);
    if (overflow || value < low || value > high) {
        PyErr_Format(PyExc_ValueError, "%s %S is out of range: %lld to %lld", what, integer, low,
                     high);
        Py_DECREF(integer);
        return -1;
    }
    Py_DECREF(integer);
    *out = value;
    return 0;
}

/* A System V key: 32 bits, signed or, as ipcs shows it, unsigned. */
static inline int args_key(PyObject *argument, key_t *out)
{
    long long value;
    if (args_integer(argument, "key", INT32_MIN, UINT32_MAX, &value) < 0)
        return -1;
    *out = (key_t)(uint32_t)value;
    return 0;
}

/* A key, or a name with its owner. out->name is empty for a key; name->owner is
 * to be released in either case. An empty name is refused here, as the core takes
 * it for "none". */
static inline int args_address(PyObject *argument, uid_t owner, struct shk_address *out,
                               struct text *name)
{
    *name = (struct text){{NULL, 0}, NULL};
    key_t key = 0;
    if (PyIndex_Check(argument)) {
        if (args_key(argument, &key) < 0)
            return -1;
    } else if (!PyUnicode_Check(argument) && !PyBytes_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "a key is an int or a name (str or bytes), not %.200s",
                     Py_TYPE(argument)->tp_name);
        return -1;
    } else {
        if (args_text(argument, "name", name) < 0)
            return -1;
        if (name->bytes.size == 0) {
            Py_CLEAR(name->owner);
            PyErr_Format(PyExc_ValueError, "the name is empty: 1 to %u bytes", SHK_NAME_MAX);
            return -1;
        }
    }
    *out = (struct shk_address){.name = name->bytes, .owner = owner, .key = key};
    return 0;
}

/* Permission bits. */
static inline int args_mode(PyObject *argument, mode_t *out)
{
    long long value;
    if (args_integer(argument, "mode", LLONG_MIN, LLONG_MAX, &value) < 0)
        return -1;
    if (value < 0 || value > 0777) {
        PyObject *octal = PyNumber_ToBase(argument, 8);
        if (octal)
            PyErr_Format(PyExc_ValueError, "mode %U is out of range: 0o0 to 0o777", octal);
        Py_XDECREF(octal);
        return -1;
    }
    *out = (mode_t)value;
    return 0;
}

/* A uid or gid; the highest value means "none" to the kernel. */
static inline int args_account(PyObject *argument, const char *what, uint32_t *out)
{
    long long value;
    if (args_integer(argument, what, 0, (long long)UINT32_MAX - 1, &value) < 0)
        return -1;
    *out = (uint32_t)value;
    return 0;
}

/* The id of a segment: a non-negative int. */
static inline int args_id(PyObject *argument, int *out)
{
    long long value;
    if (args_integer(argument, "segment id", 0, INT_MAX, &value) < 0)
        return -1;
    *out = (int)value;
    return 0;
}

/* Seconds (int or float, finite, not negative, at most 292 years) as nanoseconds. */
static inline int args_seconds(PyObject *argument, const char *what, uint64_t *out)
{
    double seconds = PyFloat_AsDouble(argument);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= 0 && seconds <= 9.2e9)) {
        PyErr_Format(PyExc_ValueError, "%s %R is out of range: 0 to 9.2e9 seconds", what, argument);
        return -1;
    }
    *out = (uint64_t)(seconds * 1e9);
    return 0;
}

#endif
