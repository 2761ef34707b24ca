/* packing.c: records as bytes, for pyshmkey.export, and the methods that call it.
 *
 * Packer and Unpacker hold keys in memory that is wiped before it is freed, and pass them
 * on through buffers of their caller's, so that no key becomes an object of Python's.
 * docs/export_format.md describes the bytes.
 */
#include "drain.h"
#include "keyrecord.h"

#include <string.h>

/* A record, followed by its client id, server id and key. */
struct packed {
    uint32_t key_id;
    uint32_t key_length;
    uint64_t updated, expires;
    uint8_t status, client_size, server_size, zero;
} __attribute__((packed));
_Static_assert(sizeof(struct packed) == 28, "docs/export_format.md");
_Static_assert(SHK_ID_SIZE_MAX - 1 <= UINT8_MAX, "an id's size is one byte");

static size_t packed_size(const struct packed *head)
{
    return sizeof *head + head->client_size + head->server_size + head->key_length;
}

/* ----------------------------------------------------------------- Packer -- */

typedef struct {
    PyObject_HEAD
    shk_snapshot *snapshot; /* NULL: closed */
    size_t count, packed;
    int32_t last_key_id;
} Packer;

/* Whether an import could take every record; the segment is written to by others. */
static bool is_sound(const shk_store *store, const shk_snapshot *snapshot)
{
    bool good = true;
    for (size_t i = 0; good && i < shk_snapshot_count(snapshot); i++) {
        struct shk_item item = {0};
        struct shk_record about;
        shk_snapshot_record(snapshot, i, &item.pair, &about, &item.what.key.data);
        item.what.key.size = about.key_length;
        item.what.key_id = about.key_id;
        item.what.status = about.status;
        good = about.key_id >= 0 && shk_store_check_item(store, &item) == 0;
    }
    return good;
}

static PyObject *pack(PyTypeObject *type, struct module_state *state, PyObject *keystore)
{
    shk_store *store = keystore_opened(keystore);
    Packer *self = store ? (Packer *)type->tp_alloc(type, 0) : NULL;
    struct shk_stats stats;
    struct call call;
    if (!self)
        return NULL;
    call_begin_without_gil(&call, keystore);
    int rc = shk_store_snapshot(store, &self->snapshot);
    if (rc == 0) /* afterwards, so that no key id of the snapshot is beyond the counter */
        rc = shk_store_stats(store, &stats);
    const bool good = rc == 0 && is_sound(store, self->snapshot);
    call_end(&call);
    if (!good) {
        Py_DECREF(self);
        return rc < 0 ? errors_raise(state, rc)
                      : errors_format(state, SHK_E_CORRUPT,
                                      "the store holds a record that nobody can have written: "
                                      "repair it first");
    }
    self->count = shk_snapshot_count(self->snapshot);
    self->last_key_id = stats.last_key_id;
    return (PyObject *)self;
}

static PyObject *packer_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *keystore;
    static char *names[] = {"store", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!:Packer", names, state->keystore_type,
                                     &keystore))
        return NULL;
    PyObject *packer;
    GUARD(keystore);
    packer = pack(type, state, keystore);
    UNGUARD;
    return packer;
}

static PyObject *packer_close(PyObject *self_, PyObject *nothing)
{
    (void)nothing;
    Packer *self = (Packer *)self_;
    shk_snapshot_free(self->snapshot);
    self->snapshot = NULL;
    Py_RETURN_NONE;
}

static void packer_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF(packer_close(self, NULL));
    type->tp_free(self);
    Py_DECREF(type);
}

static unsigned char *append(unsigned char *to, const void *data, size_t size)
{
    memcpy(to, data, size);
    return to + size;
}

/* The bytes that one record took; 0: there is no room. */
static size_t pack_record(const shk_snapshot *snapshot, size_t number, unsigned char *to,
                          size_t room)
{
    struct shk_pair pair;
    struct shk_record about;
    const void *key;
    shk_snapshot_record(snapshot, number, &pair, &about, &key);
    const struct packed head = {.key_id = (uint32_t)about.key_id,
                                .key_length = about.key_length,
                                .updated = about.updated,
                                .expires = about.expires,
                                .status = (uint8_t)about.status,
                                .client_size = (uint8_t)pair.client.size,
                                .server_size = (uint8_t)pair.server.size};
    const size_t size = packed_size(&head);
    if (size > room)
        return 0;
    to = append(to, &head, sizeof head);
    to = append(to, pair.client.data, pair.client.size);
    to = append(to, pair.server.data, pair.server.size);
    (void)append(to, key, about.key_length);
    return size;
}

static PyObject *packer_pack_into(PyObject *self_, PyObject *argument)
{
    Packer *self = (Packer *)self_;
    Py_buffer buffer;
    if (PyObject_GetBuffer(argument, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    size_t used = 0, size = 1;
    const size_t room = (size_t)buffer.len;
    while (self->snapshot && self->packed < self->count && size > 0) {
        size = pack_record(self->snapshot, self->packed, (unsigned char *)buffer.buf + used,
                           room - used);
        used += size;
        self->packed += size > 0;
    }
    PyBuffer_Release(&buffer);
    if (!self->snapshot)
        return PyErr_Format(PyExc_ValueError, "the packer is closed");
    if (used == 0 && self->packed < self->count)
        return PyErr_Format(PyExc_ValueError, "the next record is longer than the buffer's %zu bytes",
                            room);
    return PyLong_FromSize_t(used);
}

static PyObject *packer_get_count(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(((Packer *)self)->count);
}

static PyObject *packer_get_packed(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(((Packer *)self)->packed);
}

static PyObject *packer_get_last_key_id(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromLong(((Packer *)self)->last_key_id);
}

GUARDED_PLAIN(packer_pack_into)
GUARDED_PLAIN(packer_close)
GUARDED_GET(packer_get_packed)

static PyGetSetDef packer_attributes[] = {
    {"count", packer_get_count, NULL, "How many records there are.", NULL},
    {"packed", GUARDED(packer_get_packed), NULL, "How many of them were packed.", NULL},
    {"last_key_id", packer_get_last_key_id, NULL, "The store's counter of key ids.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef packer_methods[] = {
    {"pack_into", GUARDED(packer_pack_into), METH_O,
     "pack_into($self, buffer, /)\n--\n\n"
     "Writes as many of the next records as fit; returns the bytes used, 0 at the end."},
    {"close", GUARDED(packer_close), METH_NOARGS, "close($self)\n--\n\nWipes the records."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot packer_slots[] = {
    {Py_tp_doc, "Packer(store)\n--\n\n"
                "The unexpired records of a store as they were at one moment, as bytes."},
    {Py_tp_new, packer_new},
    {Py_tp_dealloc, packer_dealloc},
    {Py_tp_getset, packer_attributes},
    {Py_tp_methods, packer_methods},
    {0, NULL},
};

static PyType_Spec packer_spec = {
    .name = "pyshmkey._core.Packer",
    .basicsize = sizeof(Packer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = packer_slots,
};

/* --------------------------------------------------------------- Unpacker -- */

typedef struct {
    PyObject_HEAD
    PyObject *store; /* as in struct keeper */
    enum shk_present present;
    struct drain drain;
    size_t count;
} Unpacker;

static int present_argument(const char *text, enum shk_present *out)
{
    static const char *const names[] = {[SHK_PRESENT_REFUSE] = "refuse",
                                        [SHK_PRESENT_KEEP] = "keep",
                                        [SHK_PRESENT_REPLACE] = "replace"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum shk_present)i;
            return 0;
        }
    PyErr_Format(PyExc_ValueError, "existing is '%s': one of 'refuse', 'keep', 'replace'", text);
    return -1;
}

static PyObject *unpacker_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *store;
    const char *existing;
    enum shk_present present;
    static char *names[] = {"store", "existing", NULL};
    const struct module_state *state = PyType_GetModuleState(type);
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!s:Unpacker", names, state->keystore_type,
                                     &store, &existing) ||
        present_argument(existing, &present) < 0 || !keystore_opened(store))
        return NULL;
    if (((KeyStore *)store)->info.readonly)
        return errors_format(state_of(store), SHK_E_READONLY, "the store was opened read-only");
    Unpacker *self = (Unpacker *)type->tp_alloc(type, 0);
    if (self) {
        self->store = Py_NewRef(store);
        self->present = present;
    }
    return (PyObject *)self;
}

static PyObject *unpacker_close(PyObject *self_, PyObject *nothing)
{
    (void)nothing;
    Unpacker *self = (Unpacker *)self_;
    drain_close(&self->drain);
    self->drain = (struct drain){0};
    Py_RETURN_NONE;
}

static void unpacker_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_DECREF(unpacker_close(self, NULL));
    Py_DECREF(((Unpacker *)self)->store);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The bytes of the record that begins here, or 0 with an exception. What has expired meanwhile
 * is passed over. */
static size_t unpack_record(Unpacker *self, const unsigned char *from, size_t size)
{
    struct packed head;
    if (size >= sizeof head)
        memcpy(&head, from, sizeof head);
    if (size < sizeof head || packed_size(&head) > size || head.key_id > INT32_MAX || head.zero) {
        PyErr_Format(state_of(self->store)->export_file_error,
                     "record %zu is malformed: not written by export_to", self->count);
        return 0;
    }
    const unsigned char *client = from + sizeof head, *server = client + head.client_size;
    const struct shk_item item = {
        .pair = {{client, head.client_size}, {server, head.server_size}},
        .what = {.key = {server + head.server_size, head.key_length},
                 .key_id = (int32_t)head.key_id,
                 .status = head.status,
                 .updated = head.updated,
                 .expires = head.expires},
    };
    const struct shk_record about = {.expires = head.expires};
    if (!keyrecord_expired(&about) && drain_item(&self->drain, self->store, &item) < 0)
        return 0;
    self->count++;
    return packed_size(&head);
}

static PyObject *unpacker_unpack(PyObject *self, PyObject *argument)
{
    Py_buffer buffer;
    if (PyObject_GetBuffer(argument, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    const size_t size = (size_t)buffer.len;
    size_t used = 0, taken = 1;
    while (used < size && taken > 0) {
        taken = unpack_record((Unpacker *)self, (unsigned char *)buffer.buf + used, size - used);
        used += taken;
    }
    PyBuffer_Release(&buffer);
    if (taken == 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *put_all(Unpacker *self, int32_t last_key_id)
{
    shk_store *store = keystore_opened(self->store);
    if (!store)
        return NULL;
    struct drain drain = self->drain; /* other threads find the unpacker empty */
    self->drain = (struct drain){0};
    uint64_t written = 0;
    struct call call;
    call_begin_without_gil(&call, self->store);
    int rc = shk_store_import(store, drain.items, drain.count, self->present, last_key_id,
                              &written);
    call_end(&call);
    drain_close(&drain);
    return rc < 0 ? errors_raise(state_of(self->store), rc) : PyLong_FromUnsignedLongLong(written);
}

static PyObject *unpacker_put(PyObject *self, PyObject *argument)
{
    PyObject *store = ((Unpacker *)self)->store, *result;
    long long last_key_id;
    if (args_integer(argument, "last_key_id", 0, INT32_MAX, &last_key_id) < 0)
        return NULL;
    GUARD2(self, store);
    result = put_all((Unpacker *)self, (int32_t)last_key_id);
    UNGUARD2;
    return result;
}

static PyObject *unpacker_get_count(PyObject *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(((Unpacker *)self)->count);
}

GUARDED_PLAIN(unpacker_unpack)
GUARDED_PLAIN(unpacker_close)
GUARDED_GET(unpacker_get_count)

static PyGetSetDef unpacker_attributes[] = {
    {"count", GUARDED(unpacker_get_count), NULL,
     "How many records there were, expired ones too.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef unpacker_methods[] = {
    {"unpack", GUARDED(unpacker_unpack), METH_O,
     "unpack($self, buffer, /)\n--\n\n"
     "Copies the records in the buffer and checks them against the store."},
    {"put", unpacker_put, METH_O,
     "put($self, last_key_id, /)\n--\n\n"
     "Puts all of them under one lock, or none; returns how many."},
    {"close", GUARDED(unpacker_close), METH_NOARGS, "close($self)\n--\n\nWipes the records."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot unpacker_slots[] = {
    {Py_tp_doc, "Unpacker(store, existing)\n--\n\nGathers packed records for a store."},
    {Py_tp_new, unpacker_new},
    {Py_tp_dealloc, unpacker_dealloc},
    {Py_tp_traverse, keeper_traverse},
    {Py_tp_getset, unpacker_attributes},
    {Py_tp_methods, unpacker_methods},
    {0, NULL},
};

static PyType_Spec unpacker_spec = {
    .name = "pyshmkey._core.Unpacker",
    .basicsize = sizeof(Unpacker),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = unpacker_slots,
};

/* ------------------------------------------------- export_to, import_from -- */

/* A view of the passphrase's bytes. Python code gets nothing else of it: a traceback may show
 * the values of its variables, and a view's are not shown. */
static PyObject *passphrase_view(PyObject *passphrase)
{
    PyObject *bytes = Py_NewRef(passphrase);
    if (PyUnicode_Check(passphrase)) {
        Py_SETREF(bytes, PyUnicode_AsEncodedString(passphrase, "utf-8", "surrogateescape"));
        if (!bytes) { /* the error would hold it */
            PyErr_Clear();
            PyErr_SetString(PyExc_ValueError,
                            "the passphrase has characters that UTF-8 doesn't have");
            return NULL;
        }
    }
    PyObject *view = PyMemoryView_FromObject(bytes);
    Py_DECREF(bytes);
    if (view && PyMemoryView_GET_BUFFER(view)->len == 0) {
        Py_CLEAR(view);
        PyErr_SetString(PyExc_ValueError, "the passphrase is empty: 1 byte at least");
    }
    return view;
}

/* The function of pyshmkey.export: self, path, passphrase, other or None, ... */
static PyObject *forward(const char *name, PyObject *self, PyObject *const *a, size_t others)
{
    PyObject *all[5] = {self, a[0], passphrase_view(a[1]), Py_None, Py_None}, *result = NULL;
    PyObject *module = all[2] ? PyImport_ImportModule("pyshmkey.export") : NULL;
    PyObject *function = module ? PyObject_GetAttrString(module, name) : NULL;
    for (size_t i = 0; i < others; i++)
        all[3 + i] = a[2 + i] ? a[2 + i] : Py_None;
    if (function)
        result = PyObject_Vectorcall(function, all, 3 + others, NULL);
    Py_XDECREF(function);
    Py_XDECREF(module);
    Py_XDECREF(all[2]);
    return result;
}

SIGNATURE(export_to, 2, 2, "path", "passphrase", "progress");

KEYSTORE_METHOD(export_to)
{
    PyObject *a[3];
    return bind(&export_to_signature, args, count, keywords, a) < 0
               ? NULL
               : forward("export_to", self, a, 1);
}

SIGNATURE(import_from, 2, 2, "path", "passphrase", "existing", "progress");

KEYSTORE_METHOD(import_from)
{
    PyObject *a[4];
    return bind(&import_from_signature, args, count, keywords, a) < 0
               ? NULL
               : forward("import_from", self, a, 2);
}

int packing_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    PyObject *bases = PyTuple_Pack(2, state->error, PyExc_ValueError);
    if (bases)
        state->export_file_error = PyErr_NewExceptionWithDoc(
            "pyshmkey.ExportFileError",
            "The file is no export, was altered, or was made with another passphrase.", bases, NULL);
    Py_XDECREF(bases);
    if (!state->export_file_error ||
        PyModule_AddObjectRef(module, "ExportFileError", state->export_file_error) < 0)
        return -1;
    state->packer_type = PyType_FromModuleAndSpec(module, &packer_spec, NULL);
    if (!state->packer_type || PyModule_AddType(module, (PyTypeObject *)state->packer_type) < 0)
        return -1;
    state->unpacker_type = PyType_FromModuleAndSpec(module, &unpacker_spec, NULL);
    if (!state->unpacker_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->unpacker_type);
}
