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
/* The usual pair, with no more ado: of two ASCII strings, in a list or a tuple. True: *out is
 * lent for as long as no Python code runs. */
static inline bool feed_lend(struct feed *feed, struct shk_pair *out)
{
    PyObject *source = feed->source;
    if (!source || !(PyList_CheckExact(source) || PyTuple_CheckExact(source)) ||
        feed->at >= PySequence_Fast_GET_SIZE(source))
        return false;
    PyObject *pair = PySequence_Fast_GET_ITEM(source, feed->at);
    if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
        return false;
    PyObject *client = PyTuple_GET_ITEM(pair, 0), *server = PyTuple_GET_ITEM(pair, 1);
    if (!args_is_ascii(client) || !args_is_ascii(server))
        return false;
    *out = (struct shk_pair){args_ascii(client), args_ascii(server)};
    feed->at++;
    return true;
}
/* Names the item in the message, or in a note, of the exception that is set. Returns -1. */
int feed_blame(Py_ssize_t number);

#endif
