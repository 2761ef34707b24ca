/* feed.c: items out of lists, tuples, mappings, arrays and whatever else can be iterated. */
#include "feed.h"
#include "keyrecord.h"

#include <string.h>

/* --------------------------------------------------------------- open, close -- */

/* The items of a mapping: a list of a dict's, so that nothing changes under the feed; NULL
 * without an exception where the argument is none. */
static PyObject *items_of(PyObject *argument)
{
    if (PyDict_CheckExact(argument))
        return PyDict_Items(argument);
    if (!PyMapping_Check(argument) || PyList_Check(argument) || PyTuple_Check(argument))
        return NULL;
    PyObject *method = PyObject_GetAttrString(argument, "items"), *items = NULL;
    if (!method) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Clear();
        return NULL;
    }
    if (PyCallable_Check(method))
        items = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    return items;
}

/* Whether another thread may change a list while its items are looked at. */
#ifdef Py_GIL_DISABLED
#define LISTS_CHANGE true
#else
#define LISTS_CHANGE false
#endif

int feed_open(struct feed *feed, PyObject *self, PyObject *argument, bool with_keys)
{
    *feed = (struct feed){.keyrecord_type = state_of(self)->keyrecord_type, .with_keys = with_keys};
    int is_array = array_open(argument, with_keys, &feed->array);
    if (is_array)
        return is_array < 0 ? -1 : 0;
    PyObject *items = with_keys ? items_of(argument) : NULL;
    if (!items && PyErr_Occurred())
        return -1;
    PyObject *source = items ? items : argument;
    if (LISTS_CHANGE && PyList_CheckExact(source))
        feed->source = PyList_AsTuple(source);
    else
        feed->source = PyList_CheckExact(source) || PyTuple_CheckExact(source)
                           ? Py_NewRef(source)
                           : PyObject_GetIter(source);
    Py_XDECREF(items);
    return feed->source ? 0 : -1;
}

void feed_close(struct feed *feed)
{
    array_close(&feed->array);
    Py_CLEAR(feed->source);
    Py_CLEAR(feed->item);
}

void fed_close(struct fed *fed)
{
    pair_close(&fed->pair);
    if (fed->key.obj)
        PyBuffer_Release(&fed->key);
}

/* -------------------------------------------------------------------- errors -- */

int feed_blame(Py_ssize_t number)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (type != PyExc_TypeError && type != PyExc_ValueError && type != PyExc_BufferError) {
        /* It may have other arguments: a note says it. */
        PyObject *text = PyUnicode_FromFormat("in item %zd of the batch", number);
        PyObject *none = text ? PyObject_CallMethod(error, "add_note", "O", text) : NULL;
        Py_XDECREF(none);
        Py_XDECREF(text);
        PyErr_Restore(type, error, trace); /* whether that went well or not */
        return -1;
    }
    PyErr_Format(type, "item %zd: %S", number, error);
    Py_DECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return -1;
}

/* Of the object itself nothing is shown: it may be a key. */
static int refuse(const struct feed *feed, PyObject *object, bool is_item)
{
    const char *wanted = is_item && feed->with_keys
                             ? "(client, server, key) or ((client, server), key)"
                             : "a pair (client, server)";
    bool is_text = PyUnicode_Check(object) || PyBytes_Check(object);
    if (PyTuple_Check(object))
        PyErr_Format(PyExc_TypeError, "%s is expected, not a sequence of %zd", wanted,
                     PyTuple_GET_SIZE(object));
    else
        PyErr_Format(PyExc_TypeError, "%s is expected, not %.200s%s", wanted,
                     Py_TYPE(object)->tp_name,
                     is_text && feed->at == 0 ? ": give a list, also of one" : "");
    return -1;
}

/* --------------------------------------------------------------------- items -- */

/* As a tuple, so that no code of the caller's can change it: a new reference. */
static PyObject *sequence(const struct feed *feed, PyObject *object, bool is_item)
{
    if (PyTuple_CheckExact(object))
        return Py_NewRef(object);
    if (PySequence_Check(object) && !PyUnicode_Check(object) && !PyBytes_Check(object) &&
        !PyByteArray_Check(object) && !PyMemoryView_Check(object))
        return PySequence_Tuple(object);
    (void)refuse(feed, object, is_item);
    return NULL;
}

/* The first two of a tuple. One reference to it keeps both, where they are ASCII. */
static inline int open_pair(PyObject *tuple, struct pair *out)
{
    PyObject *client = PyTuple_GET_ITEM(tuple, 0), *server = PyTuple_GET_ITEM(tuple, 1);
    if (!args_is_ascii(client) || !args_is_ascii(server))
        return pair_open(client, server, out);
    *out = (struct pair){{args_ascii(client), Py_NewRef(tuple)}, {args_ascii(server), NULL}};
    return 0;
}

/* A key that is an object: a record, which brings its other fields, or bytes-like. */
static int key_object(const struct feed *feed, PyObject *key, struct fed *out)
{
    if ((PyObject *)Py_TYPE(key) == feed->keyrecord_type) {
        const struct shk_record *about = keyrecord_about(key);
        out->what = (struct shk_put){.key = {keyrecord_key(key), about->key_length},
                                     .key_id = about->key_id,
                                     .status = about->status,
                                     .expires = about->expires};
        return 0;
    }
    if (args_key_bytes(key, &out->key) < 0)
        return -1;
    out->what = (struct shk_put){.key = buffer_bytes(&out->key), .key_id = SHK_KEY_ID_NEXT};
    return 0;
}

static int take_pair(const struct feed *feed, PyObject *object, struct fed *out)
{
    PyObject *pair = sequence(feed, object, false);
    if (!pair)
        return -1;
    int rc = PyTuple_GET_SIZE(pair) == 2 ? open_pair(pair, &out->pair) : refuse(feed, pair, false);
    Py_DECREF(pair);
    return rc;
}

/* feed->item: what is to be taken apart; it becomes a tuple. */
static int take_item(struct feed *feed, struct fed *out)
{
    PyObject *item = sequence(feed, feed->item, true);
    if (!item)
        return -1;
    Py_SETREF(feed->item, item);
    Py_ssize_t size = PyTuple_GET_SIZE(item);
    int rc;
    if (size == 3)
        rc = open_pair(item, &out->pair);
    else
        rc = size == 2 ? take_pair(feed, PyTuple_GET_ITEM(item, 0), out) : refuse(feed, item, true);
    return rc < 0 ? rc : key_object(feed, PyTuple_GET_ITEM(item, size - 1), out);
}

static int take_row(struct feed *feed, struct fed *out)
{
    const struct array *array = &feed->array;
    Py_ssize_t row = feed->at;
    if (array_text(array, row, &array->client, "the client id", &out->pair.client) < 0 ||
        array_text(array, row, &array->server, "the server id", &out->pair.server) < 0)
        return -1;
    if (!feed->with_keys)
        return 0;
    if (array->key.kind != 'O')
        return array_put(array, row, &out->what);
    Py_XSETREF(feed->item, array_object(array, row, &array->key));
    return key_object(feed, feed->item, out);
}

/* The next item of a list or tuple, borrowed; NULL at the end, or of other sources. */
static PyObject *peek(const struct feed *feed)
{
    PyObject *source = feed->source;
    if (source && PyList_CheckExact(source))
        return feed->at < PyList_GET_SIZE(source) ? PyList_GET_ITEM(source, feed->at) : NULL;
    if (source && PyTuple_CheckExact(source))
        return feed->at < PyTuple_GET_SIZE(source) ? PyTuple_GET_ITEM(source, feed->at) : NULL;
    return NULL;
}

/* The next item becomes feed->item: 1, 0 or -1. */
static int advance(struct feed *feed, PyObject *next)
{
    PyObject *item = Py_XNewRef(next);
    if (!item && !PyList_CheckExact(feed->source) && !PyTuple_CheckExact(feed->source)) {
        item = PyIter_Next(feed->source);
        if (!item && PyErr_Occurred())
            return -1;
    }
    Py_XSETREF(feed->item, item);
    return item != NULL;
}

int feed_next(struct feed *feed, struct fed *out)
{
    PyObject *next = peek(feed);
    if (next && !feed->with_keys && feed_is_usual(next)) {
        feed->at++;
        out->key.obj = NULL;
        (void)open_pair(next, &out->pair);
        return 1;
    }
    int rc = feed->source ? advance(feed, next) : feed->at < feed->array.count;
    if (rc <= 0)
        return rc;
    out->pair.client.owner = out->pair.server.owner = out->key.obj = NULL;
    if (!feed->source)
        rc = take_row(feed, out);
    else
        rc = feed->with_keys ? take_item(feed, out) : take_pair(feed, feed->item, out);
    if (rc < 0) {
        fed_close(out);
        return feed_blame(feed->at);
    }
    feed->at++;
    return 1;
}
