/* segmentopen.c: the ways to a Segment, attach and detach, pickling. */
#include "segment.h"

#include "args.h"
#include "bind.h"
#include "errors.h"

#include <errno.h>
#include <sys/shm.h>
#include <unistd.h>

/* -- arguments: 0, or -1 with an exception set -------------------------------------- */

/* Where and how to attach. The flags are shmat's. */
struct attachment {
    void *address;
    int flags;
};

/* What a new segment is made with. */
struct shape {
    size_t size; /* 0: make none */
    mode_t mode;
    int flags; /* of shmget */
};

/* A truth value; absent: false. */
static int flag_of(PyObject *argument, int flag, int *flags)
{
    int truth = argument ? PyObject_IsTrue(argument) : 0;
    if (truth > 0)
        *flags |= flag;
    return truth < 0 ? -1 : 0;
}

/* `in`: the arguments address, round, remap, executable. */
static int attachment_of(PyObject *readonly, PyObject *const *in, struct attachment *out)
{
    *out = (struct attachment){NULL, 0};
    if (in[0] && in[0] != Py_None) {
        long long address;
        if (args_integer(in[0], "address", 1, INT64_MAX, &address) < 0)
            return -1;
        out->address = (void *)(uintptr_t)address;
    }
    if (flag_of(readonly, SHM_RDONLY, &out->flags) < 0 ||
        flag_of(in[1], SHM_RND, &out->flags) < 0 || flag_of(in[2], SHM_REMAP, &out->flags) < 0 ||
        flag_of(in[3], SHM_EXEC, &out->flags) < 0)
        return -1;
    if (out->address || !(out->flags & (SHM_RND | SHM_REMAP)))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s=True needs an address",
                 out->flags & SHM_REMAP ? "remap" : "round");
    return -1;
}

static int hugepages_of(PyObject *argument, int *flags)
{
    if (!argument || argument == Py_None || argument == Py_False)
        return 0;
    bool is_text = PyUnicode_Check(argument);
    if (is_text && PyUnicode_CompareWithASCIIString(argument, "2M") == 0) {
        *flags |= SHK_HUGE_2M;
    } else if (is_text && PyUnicode_CompareWithASCIIString(argument, "1G") == 0) {
        *flags |= SHK_HUGE_1G;
    } else if (argument != Py_True) {
        PyErr_Format(is_text ? PyExc_ValueError : PyExc_TypeError,
                     "hugepages must be None, True (the default kind), \"2M\" or \"1G\", not %R",
                     argument);
        return -1;
    }
    *flags |= SHM_HUGETLB;
    return 0;
}

/* The arguments size, mode, hugepages and reserve; all but size may be absent. */
static int shape_of(PyObject *size, PyObject *mode, PyObject *hugepages, PyObject *reserve,
                    struct shape *out)
{
    long long bytes;
    *out = (struct shape){.mode = 0600};
    if (args_integer(size, "size", 1, PY_SSIZE_T_MAX, &bytes) < 0 ||
        (mode && args_mode(mode, &out->mode) < 0) || hugepages_of(hugepages, &out->flags) < 0)
        return -1;
    out->size = (size_t)bytes;
    int reserved = reserve ? PyObject_IsTrue(reserve) : 1;
    if (reserved == 0)
        out->flags |= SHM_NORESERVE;
    return reserved < 0 ? -1 : 0;
}

/* A key argument: an int, or a name, whose str is a new reference then. */
static int key_of(PyObject *type, PyObject *argument, uid_t owner, key_t *key, PyObject **name)
{
    struct shk_address address;
    struct text text;
    *name = NULL;
    if (args_address(argument, owner, &address, &text) < 0)
        return -1;
    if (!text.owner) {
        *key = address.key;
        return 0;
    }
    int error = shk_named_key(text.bytes.data, text.bytes.size, address.owner, key);
    if (error)
        (void)errors_raise(PyType_GetModuleState((PyTypeObject *)type), error);
    else
        *name = PyUnicode_DecodeUTF8(text.bytes.data, (Py_ssize_t)text.bytes.size,
                                     "surrogateescape");
    Py_DECREF(text.owner);
    return *name ? 0 : -1;
}

/* -- mapping: 0, or the code of the call that failed -------------------------------- */

/* Opens it, as the flags say, or, with NULL, closes it; before other code can run. */
static void place(Segment *self, void *address)
{
    void *writable = self->flags & SHM_RDONLY ? NULL : address;
    __atomic_store_n(&self->writable, writable, __ATOMIC_SEQ_CST); /* see lookup_begin */
    __atomic_store_n(&self->address, address, __ATOMIC_SEQ_CST);
}

/* A new handle, as the next two: others don't have it yet, or not any more. */
static int map(Segment *self, int id, const struct attachment *how)
{
    void *address;
    int error = shk_segment_map(id, how->address, how->flags, &self->made, &address);
    if (!error)
        place(self, address);
    return error;
}

void segment_unmap(Segment *self)
{
    void *address = self->address;
    place(self, NULL);
    (void)shk_segment_detach(address);
}

static int create_and_map(Segment *self, key_t key, const struct shape *shape,
                          const struct attachment *how)
{
    int id, error = shk_segment_create(key, shape->size, shape->mode, shape->flags, &id);
    if (error)
        return error;
    error = map(self, id, how);
    if (error && error != -ENOENT)
        (void)shk_segment_remove(id);
    return error;
}

/* Begins anew whenever another process created or removed the segment between two of
 * our calls; one that was marked for removal since then has lost its key and is no
 * longer what the caller asked for. */
static int map_by_key(Segment *self, key_t key, const struct shape *shape,
                      const struct attachment *how)
{
    for (;;) {
        int id, error = shk_segment_find(key, &id);
        if (error == -ENOENT && shape->size > 0)
            error = create_and_map(self, key, shape, how);
        else if (!error)
            error = map(self, id, how);
        else
            return error;
        if (!error && self->made.key == key) /* else 0: marked */
            return 0;
        if (!error)
            segment_unmap(self);
        else if (error != -ENOENT && error != -EEXIST)
            return error;
        if (PyErr_CheckSignals() < 0)
            return -EINTR;
    }
}

/* -- the openers -------------------------------------------------------------------- */

/* Takes over name. */
static Segment *segment_new(PyObject *type, const struct attachment *how, PyObject *name)
{
    Segment *self = PyObject_New(Segment, (PyTypeObject *)type);
    if (!self) {
        Py_XDECREF(name);
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
    self->flags = how->flags & (SHM_RDONLY | SHM_EXEC);
    self->name = name;
    return self;
}

/* Gives the handle out, or releases it and raises. */
static PyObject *opened(Segment *self, int error, key_t key)
{
    if (!error)
        return (PyObject *)self;
    (void)errors_raise_with_key(state_of((PyObject *)self), error, key);
    Py_DECREF(self);
    return NULL;
}

SIGNATURE(create, 1, 1, "size", "key", "mode", "hugepages", "reserve", "address", "round",
          "remap", "executable");

SEGMENT_FAST(create)
{
    PyObject *in[9], *name = NULL;
    key_t key = IPC_PRIVATE;
    struct shape shape;
    struct attachment how;
    if (bind(&create_signature, args, count, keywords, in) < 0 ||
        shape_of(in[0], in[2], in[3], in[4], &shape) < 0 ||
        attachment_of(NULL, in + 5, &how) < 0 ||
        (in[1] && in[1] != Py_None && key_of(self, in[1], geteuid(), &key, &name) < 0))
        return NULL;
    Segment *made = segment_new(self, &how, name);
    return made ? opened(made, create_and_map(made, key, &shape, &how), key) : NULL;
}

SIGNATURE(open, 1, 1, "key", "owner", "readonly", "address", "round", "remap", "executable");

SEGMENT_FAST(open)
{
    PyObject *in[7], *name;
    key_t key;
    struct attachment how;
    uid_t owner = geteuid();
    if (bind(&open_signature, args, count, keywords, in) < 0 || attachment_of(in[2], in + 3, &how) < 0 ||
        (in[1] && in[1] != Py_None && args_account(in[1], "owner", &owner) < 0) ||
        key_of(self, in[0], owner, &key, &name) < 0)
        return NULL;
    Segment *made = segment_new(self, &how, name);
    const struct shape none = {0, 0, 0};
    return made ? opened(made, map_by_key(made, key, &none, &how), key) : NULL;
}

SIGNATURE(open_or_create, 2, 2, "key", "size", "mode", "hugepages", "reserve", "readonly",
          "address", "round", "remap", "executable");

SEGMENT_FAST(open_or_create)
{
    PyObject *in[10], *name;
    key_t key;
    struct shape shape;
    struct attachment how;
    if (bind(&open_or_create_signature, args, count, keywords, in) < 0 ||
        shape_of(in[1], in[2], in[3], in[4], &shape) < 0 ||
        attachment_of(in[5], in + 6, &how) < 0 ||
        key_of(self, in[0], geteuid(), &key, &name) < 0)
        return NULL;
    Segment *made = segment_new(self, &how, name);
    if (!made)
        return NULL;
    int error = map_by_key(made, key, &shape, &how);
    if (!error && made->made.size < shape.size) {
        PyErr_Format(PyExc_ValueError,
                     "the existing segment (id=%d, key=0x%x) has %zu bytes, fewer than the %zu "
                     "asked for; ask for less, or remove it first",
                     made->made.id, (unsigned)key, made->made.size, shape.size);
        Py_DECREF(made);
        return NULL;
    }
    return opened(made, error, key);
}

SIGNATURE(from_id, 1, 1, "shmid", "readonly", "address", "round", "remap", "executable");

SEGMENT_FAST(from_id)
{
    PyObject *in[6];
    int id;
    struct attachment how;
    if (bind(&from_id_signature, args, count, keywords, in) < 0 || args_id(in[0], &id) < 0 ||
        attachment_of(in[1], in + 2, &how) < 0)
        return NULL;
    Segment *made = segment_new(self, &how, NULL);
    return made ? opened(made, map(made, id, &how), IPC_PRIVATE) : NULL;
}

/* -- open and closed ---------------------------------------------------------------- */

bool segment_is_same(const struct shk_segment_info *a, const struct shk_segment_info *b)
{
    /* A creator who is in no PID namespace of the asker has the pid 0. */
    return a->size == b->size && a->cuid == b->cuid && a->cgid == b->cgid &&
           (a->creator_pid == b->creator_pid || a->creator_pid == 0 || b->creator_pid == 0);
}

PyObject *segment_raise_replaced(const Segment *self)
{
    return errors_format(state_of((PyObject *)self), -ENOENT,
                         "the segment is gone: its id=%d means another one now (key=0x%x)",
                         self->made.id, (unsigned)self->made.key);
}

SIGNATURE(attach, 0, 0, "readonly", "address", "round", "remap", "executable");

SEGMENT_FAST(attach)
{
    Segment *segment = (Segment *)self;
    PyObject *in[5];
    struct attachment how;
    if (bind(&attach_signature, args, count, keywords, in) < 0)
        return NULL;
    bool is_placed = in[1] && in[1] != Py_None;
    bool keeps_readonly = !in[0] || in[0] == Py_None, keeps_executable = !in[4] || in[4] == Py_None;
    if (keeps_readonly)
        in[0] = segment->flags & SHM_RDONLY ? Py_True : Py_False;
    if (keeps_executable)
        in[4] = segment->flags & SHM_EXEC ? Py_True : Py_False;
    if (attachment_of(in[0], in + 1, &how) < 0)
        return NULL;
    int lasting = how.flags & (SHM_RDONLY | SHM_EXEC);
    if (segment->address) {
        if ((!is_placed || how.address == segment->address) && lasting == segment->flags)
            Py_RETURN_NONE;
        return PyErr_Format(PyExc_ValueError,
                            "the segment (id=%d) is attached at %p already, in another way; "
                            "detach() it first, or open another handle with from_id()",
                            segment->made.id, segment->address);
    }
    struct shk_segment_info info;
    void *address;
    int error = shk_segment_map(segment->made.id, how.address, how.flags, &info, &address);
    if (error)
        return segment_fail(segment, error);
    if (!segment_is_same(&info, &segment->made)) {
        (void)shk_segment_detach(address);
        return segment_raise_replaced(segment);
    }
    segment->flags = lasting;
    place(segment, address);
    Py_RETURN_NONE;
}

void segment_use_begin(Segment *self)
{
    pid_t pid = getpid();
    if (self->uses_pid != pid)
        self->uses = 0, self->uses_pid = pid;
    self->uses++;
}

void segment_use_end(Segment *self)
{
    self->uses--;
}

SEGMENT_PLAIN(detach)
{
    (void)unused;
    Segment *segment = (Segment *)self;
    if (segment->views > 0)
        return PyErr_Format(PyExc_BufferError,
                            "can't detach the segment (id=%d): release its %zd live view%s first",
                            segment->made.id, segment->views, segment->views == 1 ? "" : "s");
    if (segment->uses > 0 && segment->uses_pid == getpid())
        return PyErr_Format(PyExc_BufferError,
                            "can't detach the segment (id=%d): a call in progress uses it",
                            segment->made.id);
    void *address = segment->address;
    if (!address)
        Py_RETURN_NONE;
    place(segment, NULL);
    lookups_await();
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shk_segment_detach(address);
    Py_END_ALLOW_THREADS
    if (error)
        return segment_fail(segment, error);
    Py_RETURN_NONE;
}

SEGMENT_PLAIN(enter)
{
    (void)unused;
    return segment_check_open((Segment *)self) < 0 ? NULL : Py_NewRef(self);
}

/* -- pickling ----------------------------------------------------------------------- */

/* A pickle holds the id, what to know the segment by, the realm in which the id means
 * it, and the access. The change time only grows, by set(). */
#define PICKLE_FORMAT "y#KiinIIiLiO"

SEGMENT_PLAIN(reduce)
{
    (void)unused;
    const Segment *segment = (Segment *)self;
    if (segment_check_open(segment) < 0)
        return NULL;
    struct shk_realm here;
    shk_realm_here(&here);
    PyObject *module = PyType_GetModule(Py_TYPE(self));
    PyObject *restore = PyObject_GetAttrString(module, segment_functions[0].ml_name);
    if (!restore)
        return NULL;
    const struct shk_segment_info *made = &segment->made;
    return Py_BuildValue("N(" PICKLE_FORMAT ")", restore, (const char *)here.boot,
                         (Py_ssize_t)sizeof here.boot, (unsigned long long)here.ipc_namespace,
                         made->id, (int)made->key, (Py_ssize_t)made->size, made->cuid, made->cgid,
                         (int)made->creator_pid, (long long)made->change_time, segment->flags,
                         segment->name ? segment->name : Py_None);
}

/* What is unknown, for want of /proc, is taken for the same. */
static bool is_elsewhere(const struct shk_realm *there)
{
    static const struct shk_realm unknown;
    struct shk_realm here;
    shk_realm_here(&here);
    bool knows_boots = memcmp(there->boot, unknown.boot, sizeof here.boot) != 0 &&
                       memcmp(here.boot, unknown.boot, sizeof here.boot) != 0;
    if (knows_boots && memcmp(there->boot, here.boot, sizeof here.boot) != 0)
        return true;
    return there->ipc_namespace && here.ipc_namespace &&
           there->ipc_namespace != here.ipc_namespace;
}

static PyObject *restore(PyObject *module, PyObject *args)
{
    struct shk_realm there;
    const char *boot;
    Py_ssize_t boot_size, size;
    unsigned long long ipc_namespace;
    int id, key, creator_pid, flags;
    unsigned cuid, cgid;
    long long change_time;
    PyObject *name;
    if (!PyArg_ParseTuple(args, PICKLE_FORMAT ":_segment_restore", &boot, &boot_size,
                          &ipc_namespace, &id, &key, &size, &cuid, &cgid, &creator_pid,
                          &change_time, &flags, &name))
        return NULL;
    if (boot_size != sizeof there.boot || size < 1 ||
        (name != Py_None && !PyUnicode_CheckExact(name))) { /* a subclass could lead back here */
        PyErr_SetString(PyExc_ValueError, "this is no pickled Segment");
        return NULL;
    }
    memcpy(there.boot, boot, sizeof there.boot);
    there.ipc_namespace = ipc_namespace;
    struct module_state *state = PyModule_GetState(module);
    if (is_elsewhere(&there))
        return errors_format(state, -ENOENT,
                             "the segment (id=%d, key=0x%x) was pickled before a reboot or in "
                             "another IPC namespace, where ids mean other segments",
                             id, (unsigned)key);
    const struct attachment how = {NULL, flags & (SHM_RDONLY | SHM_EXEC)};
    Segment *self =
        segment_new(state->segment_type, &how, name == Py_None ? NULL : Py_NewRef(name));
    if (!self)
        return NULL;
    const struct shk_segment_info pickled = {
        .id = id, .size = (size_t)size, .cuid = cuid, .cgid = cgid, .creator_pid = creator_pid};
    int error = map(self, id, &how);
    if (error)
        return opened(self, error, key);
    if (segment_is_same(&self->made, &pickled) && self->made.change_time >= change_time &&
        (self->made.key == key || self->made.key == IPC_PRIVATE))
        return (PyObject *)self;
    self->made.key = key; /* for the message */
    PyObject *raised = segment_raise_replaced(self);
    Py_DECREF(self);
    return raised;
}

PyMethodDef segment_functions[] = {
    {"_segment_restore", restore, METH_VARARGS, "Unpickles a Segment."},
    {NULL, NULL, 0, NULL},
};
