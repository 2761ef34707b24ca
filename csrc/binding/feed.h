/* feed.h: what a batch was given, one item after the other.
 *
 * A feed may run any code of the caller's at each step: handles are to be checked
 * for being open afterwards.
 */
#ifndef PYSHMKEY_FEED_H
#define PYSHMKEY_FEED_H

#include "arrays.h"
#include "keystore.h"

struct feed {
    PyObject *keyrecord_type;
    bool with_keys;      /* items: pairs with their keys */
    PyObject *source;    /* a list, a tuple or an iterator; NULL: the array */
    struct array array;
    Py_ssize_t at;       /* the number of the next item */
    PyObject *item;      /* keeps alive what the last item lent */
};

/* What an item says, lent until fed_close or the next item, whichever is first. */
struct fed {
    struct pair pair;
    struct shk_put what; /* with keys only */
    Py_buffer key;
};

int feed_open(struct feed *feed, PyObject *self, PyObject *argument, bool with_keys);
void feed_close(struct feed *feed);
/* 1; 0 at the end; -1 with an exception, which names the item unless the iterable raised it. */
int feed_next(struct feed *feed, struct fed *out);
void fed_close(struct fed *fed);
/* A pair of two ASCII strings is the usual one, and taken with no more ado. */
static inline bool feed_is_usual(PyObject *object)
{
    return PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == 2 &&
           args_is_ascii(PyTuple_GET_ITEM(object, 0)) && args_is_ascii(PyTuple_GET_ITEM(object, 1));
}
/* Of a list or a tuple. 1: *out is lent for as long as no Python code runs; 0 at the end; -1: ask
 * feed_next. */
static inline int feed_lend(struct feed *feed, struct shk_pair *out)
{
    PyObject *source = feed->source;
    if (!source || !(PyList_CheckExact(source) || PyTuple_CheckExact(source)))
        return -1;
    if (feed->at >= PySequence_Fast_GET_SIZE(source))
        return 0;
    PyObject *pair = PySequence_Fast_GET_ITEM(source, feed->at);
    if (!feed_is_usual(pair))
        return -1;
    *out = (struct shk_pair){args_ascii(PyTuple_GET_ITEM(pair, 0)),
                             args_ascii(PyTuple_GET_ITEM(pair, 1))};
    feed->at++;
    return 1;
}
/* Names the item in the message, or in a note, of the exception that is set. Returns -1. */
int feed_blame(Py_ssize_t number);

#endif
