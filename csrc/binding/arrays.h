/* arrays.h: NumPy arrays read in place, by the buffer protocol: no object for each row,
 * and no copy of a key in Python's heap. NumPy itself is not needed to build this.
 */
#ifndef PYSHMKEY_ARRAYS_H
#define PYSHMKEY_ARRAYS_H

#include "args.h"

/* Where a row has a value. kind: as dtype.kind; 0: nowhere. */
struct column {
    char kind;
    Py_ssize_t offset, size;
};

struct array {
    Py_buffer view; /* obj is NULL: no array */
    Py_ssize_t count, stride;
    struct column client, server, key;
    struct column key_length, status, key_id, expires; /* as KeyStore.to_numpy() has them */
};

/* 1: read it by the functions below and close it; 0: not an array, or one of a type that is
 * better iterated; -1: an exception is set. */
int array_open(PyObject *argument, bool with_keys, struct array *out);
void array_close(struct array *array);

/* Row < count. An object of a column is returned as a new reference. */
PyObject *array_object(const struct array *array, Py_ssize_t row, const struct column *column);
/* The id; it may be lent by the array. */
int array_text(const struct array *array, Py_ssize_t row, const struct column *column,
               const char *what, struct text *out);
/* Of a key column that holds no objects. */
int array_put(const struct array *array, Py_ssize_t row, struct shk_put *out);

#endif
