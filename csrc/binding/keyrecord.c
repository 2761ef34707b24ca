/* keyrecord.c: KeyRecord. The key lives inside the object and is wiped with it;
 * it leaves only through the attribute `key`, as bytes that nobody can wipe. */
#include "keyrecord.h"

#include <string.h>

typedef struct {
    PyObject_VAR_HEAD /* ob_size: room for the key */
    PyObject *client, *server;
    struct shk_record about;
    unsigned char key[];
} KeyRecord;

PyObject *keyrecord_new(struct module_state *state, size_t capacity)
{
    PyTypeObject *type = (PyTypeObject *)state->keyrecord_type;
    return type->tp_alloc(type, (Py_ssize_t)capacity);
}

void *keyrecord_key(PyObject *self)
{
    return ((KeyRecord *)self)->key;
}

struct shk_record *keyrecord_about(PyObject *self)
{
    return &((KeyRecord *)self)->about;
}

PyObject *keyrecord_id(struct shk_bytes id)
{
    return PyUnicode_DecodeUTF8(id.data, (Py_ssize_t)id.size, "surrogateescape");
}

int keyrecord_set_ids(PyObject *self, struct shk_bytes client, struct shk_bytes server)
{
    KeyRecord *record = (KeyRecord *)self;
    record->client = keyrecord_id(client);
    record->server = keyrecord_id(server);
    return record->client && record->server ? 0 : -1;
}

static void dealloc(PyObject *self)
{
    KeyRecord *record = (KeyRecord *)self;
    PyTypeObject *type = Py_TYPE(self);
    explicit_bzero(record->key, (size_t)Py_SIZE(self));
    Py_XDECREF(record->client);
    Py_XDECREF(record->server);
    type->tp_free(self);
    Py_DECREF(type);
}

bool keyrecord_expired(const struct shk_record *about)
{
    struct timespec now;
    if (about->expires == 0)
        return false;
    clock_gettime(CLOCK_REALTIME_COARSE, &now); /* as the library's readers do */
    return about->expires <= (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool is_valid(const KeyRecord *record)
{
    return record->about.status == SHK_VALID && !keyrecord_expired(&record->about);
}

static PyObject *get_status(PyObject *self, void *closure)
{
    (void)closure;
    PyObject *status = state_of(self)->status_type;
    return PyObject_CallFunction(status, "i", (int)((KeyRecord *)self)->about.status);
}

static PyObject *get_client(PyObject *self, void *closure)
{
    (void)closure;
    return Py_NewRef(((KeyRecord *)self)->client);
}

static PyObject *get_server(PyObject *self, void *closure)
{
    (void)closure;
    return Py_NewRef(((KeyRecord *)self)->server);
}

static PyObject *get_key_id(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(((KeyRecord *)self)->about.key_id);
}

static PyObject *get_key(PyObject *self, void *closure)
{
    (void)closure;
    KeyRecord *record = (KeyRecord *)self;
    return PyBytes_FromStringAndSize((char *)record->key, record->about.key_length);
}

static PyObject *get_updated_at(PyObject *self, void *closure)
{
    (void)closure;
    return PyFloat_FromDouble((double)((KeyRecord *)self)->about.updated / 1e9);
}

static PyObject *get_expires_at(PyObject *self, void *closure)
{
    (void)closure;
    uint64_t expires = ((KeyRecord *)self)->about.expires;
    return expires ? PyFloat_FromDouble((double)expires / 1e9) : Py_NewRef(Py_None);
}

static PyObject *get_valid(PyObject *self, void *closure)
{
    (void)closure;
    return PyBool_FromLong(is_valid((KeyRecord *)self));
}

static PyGetSetDef attributes[] = {
    {"client_id", get_client, NULL, "The client's id, a str.", NULL},
    {"server_id", get_server, NULL, "The server's id, a str.", NULL},
    {"key_id", get_key_id, NULL, "The key's id, 0 to 2**31 - 1; grows with each rotation.", NULL},
    {"status", get_status, NULL, "Status.VALID or Status.REVOKED.", NULL},
    {"key", get_key, NULL,
     "The key, as new bytes: a copy that Python can't wipe. See KeyStore.get_key_into.", NULL},
    {"updated_at", get_updated_at, NULL, "When it was written: seconds since the epoch.", NULL},
    {"expires_at", get_expires_at, NULL, "When it expires: seconds since the epoch; None: never.",
     NULL},
    {"valid", get_valid, NULL, "True if the status is VALID and the record has not expired.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *repr(PyObject *self)
{
    KeyRecord *record = (KeyRecord *)self;
    return PyUnicode_FromFormat("KeyRecord(client_id=%R, server_id=%R, key_id=%d, status=%s, "
                                "key=<%u bytes>, valid=%s)",
                                record->client, record->server, (int)record->about.key_id,
                                record->about.status == SHK_VALID ? "VALID" : "REVOKED",
                                record->about.key_length, is_valid(record) ? "True" : "False");
}

/* Looks at every byte whatever it finds. */
static bool same_key(const KeyRecord *a, const KeyRecord *b)
{
    if (a->about.key_length != b->about.key_length)
        return false;
    volatile unsigned char difference = 0;
    for (uint32_t i = 0; i < a->about.key_length; i++)
        difference |= a->key[i] ^ b->key[i];
    return difference == 0;
}

static PyObject *compare(PyObject *self, PyObject *other, int operation)
{
    if (Py_TYPE(self) != Py_TYPE(other) || (operation != Py_EQ && operation != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    KeyRecord *a = (KeyRecord *)self, *b = (KeyRecord *)other;
    bool equal = same_key(a, b); /* always in full; the rest is no secret */
    equal = equal && a->about.key_id == b->about.key_id && a->about.status == b->about.status &&
            a->about.updated == b->about.updated && a->about.expires == b->about.expires &&
            PyUnicode_Compare(a->client, b->client) == 0 &&
            PyUnicode_Compare(a->server, b->server) == 0;
    return PyBool_FromLong(equal == (operation == Py_EQ));
}

static PyObject *refuse_pickling(PyObject *self, PyObject *protocol)
{
    (void)self, (void)protocol;
    PyErr_SetString(PyExc_TypeError, "a KeyRecord holds a secret and is neither pickled nor copied; "
                                     "pass the ids and read the record where it is needed");
    return NULL;
}

static PyMethodDef methods[] = {
    {"__reduce_ex__", refuse_pickling, METH_O, "Refused: a record holds a secret."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "What a store holds of one pair. repr never shows the key; equality takes the same\n"
                "time whichever bytes of the key differ; the key is wiped with the object."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, repr},
    {Py_tp_richcompare, compare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_getset, attributes},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.KeyRecord",
    .basicsize = sizeof(KeyRecord),
    .itemsize = 1,
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

/* Status is an IntEnum, as Python users would write it. */
static PyObject *status_new(void)
{
    PyObject *status = NULL, *enum_module = PyImport_ImportModule("enum");
    if (!enum_module)
        return NULL;
    PyObject *int_enum = PyObject_GetAttrString(enum_module, "IntEnum");
    PyObject *arguments = Py_BuildValue("(s{sisi})", "Status", "VALID", SHK_VALID, "REVOKED",
                                        SHK_REVOKED);
    PyObject *where = Py_BuildValue("{ss}", "module", "pyshmkey");
    if (int_enum && arguments && where)
        status = PyObject_Call(int_enum, arguments, where);
    Py_XDECREF(where);
    Py_XDECREF(arguments);
    Py_XDECREF(int_enum);
    Py_DECREF(enum_module);
    return status;
}

int keyrecord_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->status_type = status_new();
    if (!state->status_type || PyModule_AddObjectRef(module, "Status", state->status_type) < 0)
        return -1;
    state->keyrecord_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->keyrecord_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->keyrecord_type);
}
