/* iteration.c: going through a KeyStore, and the views of it that keys(), values() and
 * items() give. A value is read when it is handed out; a pair deleted since is passed over. */
#include "keyrecord.h"
#include "keystore.h"

enum kind { KEYS, VALUES, ITEMS };

/* ---------------------------------------------------------------- iterator -- */

typedef struct {
    PyObject_HEAD
    PyObject *store; /* as in struct keeper */
    shk_cursor *cursor; /* NULL: exhausted */
    enum kind kind;
} Iterator;

static PyObject *iterate(PyObject *store, enum kind kind)
{
    PyTypeObject *type = (PyTypeObject *)state_of(store)->iterator_type;
    Iterator *self = (Iterator *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->store = Py_NewRef(store);
    self->kind = kind;
    const shk_store *handle = keystore_lookup(store);
    int rc = 0;
    if (handle) {
        rc = shk_cursor_open(handle, &self->cursor);
        lookup_end();
    }
    if (!handle || rc < 0) {
        Py_DECREF(self);
        return handle ? errors_raise(state_of(store), rc) : NULL;
    }
    return (PyObject *)self;
}

PyObject *keystore_iterate(PyObject *self)
{
    return iterate(self, KEYS);
}

static PyObject *pair_of(const struct shk_pair *ids)
{
    return Py_BuildValue("(NN)", keyrecord_id(ids->client), keyrecord_id(ids->server));
}

/* NULL without an exception: the pair is gone. */
static PyObject *element(const Iterator *self, const struct shk_pair *ids)
{
    int code;
    if (self->kind == KEYS)
        return pair_of(ids);
    PyObject *record = record_of(self->store, ids, &code);
    if (code < 0 && code != SHK_E_ABSENT)
        errors_raise(state_of(self->store), code);
    if (record && keyrecord_expired(keyrecord_about(record)))
        Py_CLEAR(record);
    if (!record || self->kind == VALUES)
        return record;
    PyObject *pair = pair_of(ids);
    PyObject *item = pair ? PyTuple_Pack(2, pair, record) : NULL;
    Py_XDECREF(pair);
    Py_DECREF(record);
    return item;
}

/* The ids of the next pair, copied: another thread may have the one after it before they are
 * used. 1; 0 at the end; -1 with an exception. */
static int advance(Iterator *self, char *room, struct shk_pair *ids)
{
    const shk_store *store = keystore_lookup(self->store);
    if (!store)
        return -1;
    int rc = shk_cursor_next(self->cursor, ids);
    lookup_end();
    if (rc > 0)
        keystore_keep_ids(ids, room);
    if (rc < 0) {
        errors_raise(state_of(self->store), rc);
        return -1;
    }
    if (rc == 0) {
        shk_cursor_close(self->cursor);
        self->cursor = NULL;
    }
    return rc;
}

static PyObject *next(PyObject *self_)
{
    Iterator *self = (Iterator *)self_;
    PyObject *result = NULL;
    char room[IDS_ROOM];
    struct shk_pair ids;
    while (self->cursor && !result) {
        int rc = advance(self, room, &ids);
        if (rc < 0 || (rc > 0 && !(result = element(self, &ids)) && PyErr_Occurred()))
            return NULL;
    }
    return result;
}
GUARDED_CALL(PyObject *, next, (PyObject * self), (self))

static void iterator_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    shk_cursor_close(((Iterator *)self)->cursor);
    Py_XDECREF(((Iterator *)self)->store);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_traverse, keeper_traverse},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, GUARDED(next)},
    {0, NULL},
};

#define FLAGS                                                                                      \
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE |            \
        Py_TPFLAGS_HAVE_GC

static PyType_Spec iterator_spec = {
    .name = "pyshmkey._core.KeyStoreIterator",
    .basicsize = sizeof(Iterator),
    .flags = FLAGS,
    .slots = iterator_slots,
};

/* ------------------------------------------------------------------- views -- */

typedef struct {
    PyObject_HEAD
    PyObject *store; /* as in struct keeper */
    enum kind kind;
} View;

static PyObject *view(PyObject *store, enum kind kind)
{
    if (!keystore_opened(store))
        return NULL;
    PyTypeObject *type = (PyTypeObject *)state_of(store)->view_types[kind];
    View *self = (View *)type->tp_alloc(type, 0);
    if (self) {
        self->store = Py_NewRef(store);
        self->kind = kind;
    }
    return (PyObject *)self;
}

PyObject *keystore_keys(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return view(self, KEYS);
}

PyObject *keystore_values(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return view(self, VALUES);
}

PyObject *keystore_items(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return view(self, ITEMS);
}

static void view_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((View *)self)->store);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *view_iterate(PyObject *self)
{
    return iterate(((View *)self)->store, ((View *)self)->kind);
}

static Py_ssize_t view_length(PyObject *self)
{
    return mapping_length(((View *)self)->store);
}

static PyObject *view_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<%s of %R>", Py_TYPE(self)->tp_name, ((View *)self)->store);
}

static int keys_contain(PyObject *self, PyObject *pair)
{
    return mapping_contains(((View *)self)->store, pair);
}

static int items_contain(PyObject *self, PyObject *item)
{
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2)
        return 0;
    PyObject *record = mapping_subscript(((View *)self)->store, PyTuple_GET_ITEM(item, 0));
    if (!record) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    int equal = PyObject_RichCompareBool(record, PyTuple_GET_ITEM(item, 1), Py_EQ);
    Py_DECREF(record);
    return equal;
}

/* A set of what a view gives, or of any other iterable. */
static PyObject *set_operation(PyObject *left, PyObject *right,
                               PyObject *(*operation)(PyObject *, PyObject *))
{
    PyObject *result = NULL, *a = PySet_New(left), *b = a ? PySet_New(right) : NULL;
    if (b)
        result = operation(a, b);
    Py_XDECREF(b);
    Py_XDECREF(a);
    return result;
}

static PyObject *view_and(PyObject *left, PyObject *right)
{
    return set_operation(left, right, PyNumber_And);
}

static PyObject *view_or(PyObject *left, PyObject *right)
{
    return set_operation(left, right, PyNumber_Or);
}

static PyObject *view_xor(PyObject *left, PyObject *right)
{
    return set_operation(left, right, PyNumber_Xor);
}

static PyObject *view_subtract(PyObject *left, PyObject *right)
{
    return set_operation(left, right, PyNumber_Subtract);
}

static PyObject *isdisjoint(PyObject *self, PyObject *other)
{
    PyObject *both = view_and(self, other);
    if (!both)
        return NULL;
    bool empty = PySet_GET_SIZE(both) == 0;
    Py_DECREF(both);
    return PyBool_FromLong(empty);
}

static PyObject *view_compare(PyObject *self, PyObject *other, int operation)
{
    if (!PyAnySet_Check(other) && Py_TYPE(other) != Py_TYPE(self))
        Py_RETURN_NOTIMPLEMENTED;
    PyObject *result = NULL, *a = PySet_New(self), *b = a ? PySet_New(other) : NULL;
    if (b)
        result = PyObject_RichCompare(a, b, operation);
    Py_XDECREF(b);
    Py_XDECREF(a);
    return result;
}

static PyObject *get_mapping(PyObject *self, void *closure)
{
    (void)closure;
    return Py_NewRef(((View *)self)->store);
}

static PyGetSetDef view_attributes[] = {
    {"mapping", get_mapping, NULL, "The KeyStore that this is a view of.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef set_methods[] = {
    {"isdisjoint", isdisjoint, METH_O, "True if no element is in the iterable."},
    {NULL, NULL, 0, NULL},
};

#define VIEW_SLOTS                                                                                 \
    {Py_tp_dealloc, view_dealloc}, {Py_tp_traverse, keeper_traverse},                              \
        {Py_tp_iter, view_iterate}, {Py_sq_length, view_length},                                   \
        {Py_tp_repr, view_repr}, {Py_tp_getset, view_attributes}
#define SET_SLOTS                                                                                  \
    {Py_nb_and, view_and}, {Py_nb_or, view_or}, {Py_nb_xor, view_xor},                             \
        {Py_nb_subtract, view_subtract}, {Py_tp_richcompare, view_compare},                        \
        {Py_tp_hash, PyObject_HashNotImplemented}, {Py_tp_methods, set_methods}

static PyType_Slot keys_slots[] = {VIEW_SLOTS, SET_SLOTS, {Py_sq_contains, keys_contain}, {0, NULL}};
static PyType_Slot values_slots[] = {VIEW_SLOTS, {0, NULL}};
/* Records have no hash, so that set operations on items fail as on a dict of lists. */
static PyType_Slot items_slots[] = {
    VIEW_SLOTS, SET_SLOTS, {Py_sq_contains, items_contain}, {0, NULL}};

static PyType_Spec view_specs[] = {
    {"pyshmkey._core.KeyStoreKeys", sizeof(View), 0, FLAGS, keys_slots},
    {"pyshmkey._core.KeyStoreValues", sizeof(View), 0, FLAGS, values_slots},
    {"pyshmkey._core.KeyStoreItems", sizeof(View), 0, FLAGS, items_slots},
};

int keystore_register(PyObject *type, const char *name)
{
    PyObject *abc = PyImport_ImportModule("collections.abc");
    PyObject *base = abc ? PyObject_GetAttrString(abc, name) : NULL;
    PyObject *done = base ? PyObject_CallMethod(base, "register", "O", type) : NULL;
    Py_XDECREF(done);
    Py_XDECREF(base);
    Py_XDECREF(abc);
    return done ? 0 : -1;
}

int iteration_exec(PyObject *module)
{
    static const char *const names[] = {"KeysView", "ValuesView", "ItemsView"};
    struct module_state *state = PyModule_GetState(module);
    state->iterator_type = PyType_FromModuleAndSpec(module, &iterator_spec, NULL);
    if (!state->iterator_type)
        return -1;
    for (int kind = KEYS; kind <= ITEMS; kind++) {
        state->view_types[kind] = PyType_FromModuleAndSpec(module, &view_specs[kind], NULL);
        if (!state->view_types[kind] ||
            keystore_register(state->view_types[kind], names[kind]) < 0)
            return -1;
    }
    return 0;
}
