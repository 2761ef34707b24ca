/* segment.c: Segment, one shared-memory segment and, while open, a mapping of it.
 *
 * A handle is open (address set) or closed; it can be closed only while no view of
 * it and no copy that runs without the GIL is left, and may be opened again. An id
 * that is attached can't come to mean another segment; a closed handle's may, so
 * that one compares what never changes of a segment before it acts on it.
 */
#include "args.h"
#include "bind.h"
#include "errors.h"
#include "segmentstat.h"

#include <errno.h>
#include <sys/shm.h>
#include <unistd.h>

#define COPY_WITH_GIL (1u << 20) /* bytes; larger copies let other threads run */

typedef struct {
    PyObject_HEAD
    struct shk_segment_info made; /* as first attached: id, key, size, creator */
    void *address;                /* NULL: closed */
    bool readonly;
    Py_ssize_t views;             /* exported buffers */
    Py_ssize_t copies;            /* running without the GIL, in the process copies_pid: */
    pid_t copies_pid;             /* a forked child has none of its parent's */
} Segment;

/* -- opening: 0, or the code of the call that failed ------------------------------ */

static int map(Segment *self, int id, struct shk_segment_info *info)
{
    void *address;
    int error = shk_segment_attach(id, NULL, self->readonly ? SHM_RDONLY : 0, &address);
    if (error)
        return error;
    error = shk_segment_stat(id, info);
    if (error)
        (void)shk_segment_detach(address);
    else
        self->address = address;
    return error;
}

static void unmap(Segment *self)
{
    void *address = self->address;
    self->address = NULL;
    (void)shk_segment_detach(address);
}

static int create_and_map(Segment *self, key_t key, size_t size, mode_t mode)
{
    int id, error = shk_segment_create(key, size, mode, 0, &id);
    if (error)
        return error;
    error = map(self, id, &self->made);
    if (error && error != -ENOENT)
        (void)shk_segment_remove(id);
    return error;
}

/* size 0: only an existing one. Begins anew whenever another process created or
 * removed the segment between two of our calls; one that was marked for removal
 * since then has lost its key and is no longer what the caller asked for. */
static int map_by_key(Segment *self, key_t key, size_t size, mode_t mode)
{
    for (;;) {
        int id, error = shk_segment_find(key, &id);
        if (error == -ENOENT && size > 0)
            error = create_and_map(self, key, size, mode);
        else if (!error)
            error = map(self, id, &self->made);
        else
            return error;
        if (!error && self->made.key == key) /* else 0: marked */
            return 0;
        if (!error)
            unmap(self);
        else if (error != -ENOENT && error != -EEXIST)
            return error;
        if (PyErr_CheckSignals() < 0)
            return -EINTR;
    }
}

/* -- the openers ------------------------------------------------------------------ */

static Segment *segment_new(PyObject *type, bool readonly)
{
    Segment *self = PyObject_New(Segment, (PyTypeObject *)type);
    if (self) {
        memset((char *)self + sizeof(PyObject), 0, sizeof *self - sizeof(PyObject));
        self->readonly = readonly;
    }
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

/* A key argument: an int, or a name of the calling user. */
static int key_of(PyObject *type, PyObject *argument, key_t *key)
{
    struct shk_address address;
    struct text name;
    if (args_address(argument, geteuid(), &address, &name) < 0)
        return -1;
    *key = address.key;
    int error = 0;
    if (name.owner)
        error = shk_named_key(name.bytes.data, name.bytes.size, address.owner, key);
    Py_XDECREF(name.owner);
    if (error)
        (void)errors_raise(PyType_GetModuleState((PyTypeObject *)type), error);
    return error ? -1 : 0;
}

static int size_of(PyObject *argument, size_t *size)
{
    long long value;
    if (args_integer(argument, "size", 1, PY_SSIZE_T_MAX, &value) < 0)
        return -1;
    *size = (size_t)value;
    return 0;
}

/* A truth value; absent: false. */
static int flag_of(PyObject *argument, bool *flag)
{
    int truth = argument ? PyObject_IsTrue(argument) : 0;
    *flag = truth > 0;
    return truth < 0 ? -1 : 0;
}

PyDoc_STRVAR(create_doc, "create($type, /, size, *, key=None, mode=0o600)\n--\n\n"
"A new segment of `size` bytes, all zero, attached. `key`: an int, a name (str or\n"
"bytes) of the calling user, or None for a private one, found by its id only. `mode`:\n"
"the 9 permission bits. It lives until remove(), or a reboot.\n\n"
"FileExistsError: the key is in use. OSError (EINVAL, ENOSPC, ENOMEM): a limit of the\n"
"kernel, named with its value. ValueError: size, key or mode is out of range.");
SIGNATURE(create, 1, 1, "size", "key", "mode");

static PyObject *create(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *in[3];
    size_t size;
    key_t key = IPC_PRIVATE;
    mode_t mode = 0600;
    if (bind(&create_signature, args, count, keywords, in) < 0 || size_of(in[0], &size) < 0 ||
        (in[1] && in[1] != Py_None && key_of(type, in[1], &key) < 0) ||
        (in[2] && args_mode(in[2], &mode) < 0))
        return NULL;
    Segment *self = segment_new(type, false);
    return self ? opened(self, create_and_map(self, key, size, mode), key) : NULL;
}

PyDoc_STRVAR(open_doc, "open($type, /, key, *, readonly=False)\n--\n\n"
"The existing segment of `key` (an int, or a name of the calling user), attached.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies this access.\n"
"ValueError: key 0, which is IPC_PRIVATE.");
SIGNATURE(open, 1, 1, "key", "readonly");

static PyObject *open_(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *in[2];
    key_t key;
    bool readonly;
    if (bind(&open_signature, args, count, keywords, in) < 0 || key_of(type, in[0], &key) < 0 ||
        flag_of(in[1], &readonly) < 0)
        return NULL;
    Segment *self = segment_new(type, readonly);
    return self ? opened(self, map_by_key(self, key, 0, 0), key) : NULL;
}

PyDoc_STRVAR(open_or_create_doc,
"open_or_create($type, /, key, size, *, mode=0o600, readonly=False)\n--\n\n"
"The segment of `key`, created with `size` bytes and `mode` if there is none. However\n"
"many processes do this at once, all get the same one.\n\n"
"ValueError: the existing one is smaller than `size` (a larger one is fine: see size).\n"
"Otherwise as create() and open().");
SIGNATURE(open_or_create, 2, 2, "key", "size", "mode", "readonly");

static PyObject *open_or_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords)
{
    PyObject *in[4];
    key_t key;
    size_t size;
    mode_t mode = 0600;
    bool readonly;
    if (bind(&open_or_create_signature, args, count, keywords, in) < 0 ||
        key_of(type, in[0], &key) < 0 || size_of(in[1], &size) < 0 ||
        (in[2] && args_mode(in[2], &mode) < 0) || flag_of(in[3], &readonly) < 0)
        return NULL;
    Segment *self = segment_new(type, readonly);
    if (!self)
        return NULL;
    int error = map_by_key(self, key, size, mode);
    if (!error && self->made.size < size) {
        PyErr_Format(PyExc_ValueError,
                     "the existing segment (id=%d, key=0x%x) has %zu bytes, fewer than the %zu "
                     "asked for; ask for less, or remove it first",
                     self->made.id, (unsigned)key, self->made.size, size);
        Py_DECREF(self);
        return NULL;
    }
    return opened(self, error, key);
}

PyDoc_STRVAR(from_id_doc, "from_id($type, /, shmid, *, readonly=False)\n--\n\n"
"The segment with this id, attached: also a private one, and one marked for removal\n"
"that some process still has attached.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies this access.");
SIGNATURE(from_id, 1, 1, "shmid", "readonly");

static PyObject *from_id(PyObject *type, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *in[2];
    int id;
    bool readonly;
    if (bind(&from_id_signature, args, count, keywords, in) < 0 || args_id(in[0], &id) < 0 ||
        flag_of(in[1], &readonly) < 0)
        return NULL;
    Segment *self = segment_new(type, readonly);
    return self ? opened(self, map(self, id, &self->made), IPC_PRIVATE) : NULL;
}

/* -- open and closed -------------------------------------------------------------- */

static int check_open(Segment *self)
{
    if (self->address)
        return 0;
    PyErr_Format(PyExc_ValueError, "the segment (id=%d) is closed; attach() opens it again",
                 self->made.id);
    return -1;
}

static PyObject *fail(Segment *self, int error)
{
    return errors_raise_with_key(state_of((PyObject *)self), error, self->made.key);
}

static bool is_same(const struct shk_segment_info *a, const struct shk_segment_info *b)
{
    return a->size == b->size && a->cuid == b->cuid && a->cgid == b->cgid &&
           a->creator_pid == b->creator_pid;
}

static PyObject *raise_replaced(Segment *self)
{
    return errors_format(state_of((PyObject *)self), -ENOENT,
                         "the segment is gone: its id=%d means another one now (key=0x%x)",
                         self->made.id, (unsigned)self->made.key);
}

PyDoc_STRVAR(attach_doc, "attach($self, /)\n--\n\n"
"Maps a closed segment again, read-only if it was; nothing if it is open.\n\n"
"FileNotFoundError: it is gone. PermissionError: its mode denies this access now.");

static PyObject *attach(PyObject *object, PyObject *Py_UNUSED(unused))
{
    Segment *self = (Segment *)object;
    if (self->address)
        Py_RETURN_NONE;
    struct shk_segment_info info;
    int error = map(self, self->made.id, &info);
    if (error)
        return fail(self, error);
    if (!is_same(&info, &self->made)) {
        unmap(self);
        return raise_replaced(self);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(detach_doc, "detach($self, /)\n--\n\n"
"Unmaps the segment, which lives on; nothing if it is closed already.\n\n"
"BufferError: a view of it is alive, or another thread is in read() or write().");

static PyObject *detach(PyObject *object, PyObject *Py_UNUSED(unused))
{
    Segment *self = (Segment *)object;
    if (self->views > 0)
        return PyErr_Format(PyExc_BufferError,
                            "can't detach the segment (id=%d): release its %zd live view%s first",
                            self->made.id, self->views, self->views == 1 ? "" : "s");
    if (self->copies > 0 && self->copies_pid == getpid())
        return PyErr_Format(PyExc_BufferError,
                            "can't detach the segment (id=%d): a call in progress uses it",
                            self->made.id);
    void *address = self->address;
    if (!address)
        Py_RETURN_NONE;
    self->address = NULL; /* closed to others before they can run */
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shk_segment_detach(address);
    Py_END_ALLOW_THREADS
    if (error)
        return fail(self, error);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nThe open handle itself.");

static PyObject *enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return check_open((Segment *)self) < 0 ? NULL : Py_NewRef(self);
}

PyDoc_STRVAR(exit_doc, "__exit__($self, /, *exception)\n--\n\n"
"detach(); the segment is not removed.");

static PyObject *exit_(PyObject *self, PyObject *Py_UNUSED(exception))
{
    return detach(self, NULL);
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (((Segment *)self)->address)
        unmap((Segment *)self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- the segment in the kernel ---------------------------------------------------- */

PyDoc_STRVAR(remove_doc, "remove($self, /)\n--\n\n"
"Marks the segment for removal: its key is free at once, and it is gone with the last\n"
"detach, by any process. Works on a closed handle too.\n\n"
"FileNotFoundError: it is gone already. PermissionError: not its owner or creator.");

static PyObject *remove_(PyObject *object, PyObject *Py_UNUSED(unused))
{
    Segment *self = (Segment *)object;
    struct shk_segment_info info;
    if (!self->address && shk_segment_stat(self->made.id, &info) == 0 &&
        !is_same(&info, &self->made))
        return raise_replaced(self);
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = shk_segment_remove(self->made.id);
    Py_END_ALLOW_THREADS
    if (error)
        return fail(self, error);
    Py_RETURN_NONE;
}

/* IPC_STAT of our segment, or an exception. */
static int stat_checked(Segment *self, struct shk_segment_info *info)
{
    int error = shk_segment_stat(self->made.id, info);
    if (error)
        (void)fail(self, error);
    else if (!is_same(info, &self->made))
        (void)raise_replaced(self);
    else
        return 0;
    return -1;
}

PyDoc_STRVAR(stat_doc, "stat($self, /)\n--\n\n"
"A SegmentStat of the segment; works on a closed handle too.\n\n"
"FileNotFoundError: it is gone. PermissionError: its mode denies reading now.");

static PyObject *stat_(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct shk_segment_info info;
    if (stat_checked((Segment *)self, &info) < 0)
        return NULL;
    return segmentstat_new(state_of(self), &info);
}

PyDoc_STRVAR(set_doc, "set($self, /, *, uid=None, gid=None, mode=None)\n--\n\n"
"Gives the segment another owner (uid, gid) or mode (the 9 permission bits); what is\n"
"None stays. Works on a closed handle too.\n\n"
"TypeError: nothing given. PermissionError: neither owner nor creator.\n"
"FileNotFoundError: it is gone.");
SIGNATURE(set, 0, 0, "uid", "gid", "mode");

static PyObject *set(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Segment *self = (Segment *)object;
    PyObject *in[3];
    if (bind(&set_signature, args, count, keywords, in) < 0)
        return NULL;
    bool has_uid = in[0] && in[0] != Py_None, has_gid = in[1] && in[1] != Py_None;
    bool has_mode = in[2] && in[2] != Py_None;
    if (!has_uid && !has_gid && !has_mode) {
        PyErr_SetString(PyExc_TypeError, "set() needs at least one of uid, gid and mode");
        return NULL;
    }
    struct shk_segment_info info;
    if (stat_checked(self, &info) < 0 || (has_uid && args_account(in[0], "uid", &info.uid) < 0) ||
        (has_gid && args_account(in[1], "gid", &info.gid) < 0) ||
        (has_mode && args_mode(in[2], &info.mode) < 0))
        return NULL;
    int error = shk_segment_set(self->made.id, info.uid, info.gid, info.mode);
    if (error)
        return fail(self, error);
    Py_RETURN_NONE;
}

/* -- the bytes -------------------------------------------------------------------- */

/* Copies within an open segment. From here to its end close is refused. */
static void copy(Segment *self, void *to, const void *from, size_t size)
{
    if (size <= COPY_WITH_GIL) {
        memmove(to, from, size);
        return;
    }
    pid_t pid = getpid();
    if (self->copies_pid != pid)
        self->copies = 0, self->copies_pid = pid;
    self->copies++;
    Py_BEGIN_ALLOW_THREADS
    memmove(to, from, size);
    Py_END_ALLOW_THREADS
    self->copies--;
}

/* offset: absent is 0. */
static int offset_of(Segment *self, PyObject *argument, size_t *offset)
{
    long long value = 0;
    if (argument && args_integer(argument, "offset", 0, (long long)self->made.size, &value) < 0)
        return -1;
    *offset = (size_t)value;
    return 0;
}

static int check_range(Segment *self, const char *call, size_t size, size_t offset)
{
    if (size <= self->made.size - offset)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "%s of %zu bytes at offset %zu: the segment has %zu bytes, so %zu are left", call,
                 size, offset, self->made.size, self->made.size - offset);
    return -1;
}

PyDoc_STRVAR(read_doc, "read($self, /, size=-1, offset=0)\n--\n\n"
"A copy of `size` bytes from `offset` on; -1: all up to the end. More than 1 MiB is\n"
"copied without the GIL.\n\n"
"ValueError: closed, or not so many bytes there.");
SIGNATURE(read, 0, 2, "size", "offset");

static PyObject *read_(PyObject *object, PyObject *const *args, Py_ssize_t count,
                       PyObject *keywords)
{
    Segment *self = (Segment *)object;
    PyObject *in[2];
    long long wanted = -1;
    size_t offset;
    if (bind(&read_signature, args, count, keywords, in) < 0 ||
        (in[0] && args_integer(in[0], "size", -1, PY_SSIZE_T_MAX, &wanted) < 0) ||
        offset_of(self, in[1], &offset) < 0 || check_open(self) < 0)
        return NULL;
    size_t size = wanted < 0 ? self->made.size - offset : (size_t)wanted;
    if (check_range(self, "read", size, offset) < 0)
        return NULL;
    PyObject *result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (result)
        copy(self, PyBytes_AS_STRING(result), (char *)self->address + offset, size);
    return result;
}

PyDoc_STRVAR(write_doc, "write($self, /, data, offset=0)\n--\n\n"
"Copies the bytes-like `data` to `offset`; returns how many bytes it had. More than\n"
"1 MiB is copied without the GIL.\n\n"
"ReadOnlyError: attached read-only. ValueError: closed, or `data` would not fit; then\n"
"nothing is written.");
SIGNATURE(write, 1, 2, "data", "offset");

static PyObject *write_(PyObject *object, PyObject *const *args, Py_ssize_t count,
                        PyObject *keywords)
{
    Segment *self = (Segment *)object;
    PyObject *in[2], *result = NULL;
    size_t offset;
    Py_buffer data;
    if (bind(&write_signature, args, count, keywords, in) < 0 ||
        offset_of(self, in[1], &offset) < 0 || PyObject_GetBuffer(in[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    size_t size = (size_t)data.len;
    if (check_open(self) == 0) {
        if (self->readonly) {
            (void)errors_format(state_of(object), SHK_E_READONLY,
                                "the segment (id=%d) is attached read-only", self->made.id);
        } else if (check_range(self, "write", size, offset) == 0) {
            copy(self, (char *)self->address + offset, data.buf, size);
            result = PyLong_FromSize_t(size);
        }
    }
    PyBuffer_Release(&data);
    return result;
}

static int get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    Segment *self = (Segment *)object;
    view->obj = NULL;
    if (check_open(self) < 0)
        return -1;
    if (self->readonly && flags & PyBUF_WRITABLE) {
        PyErr_Format(PyExc_BufferError, "the segment (id=%d) is attached read-only", self->made.id);
        return -1;
    }
    if (PyBuffer_FillInfo(view, object, self->address, (Py_ssize_t)self->made.size, self->readonly,
                          flags) < 0)
        return -1;
    self->views++;
    return 0;
}

static void release_buffer(PyObject *object, Py_buffer *Py_UNUSED(view))
{
    ((Segment *)object)->views--;
}

static Py_ssize_t length(PyObject *self)
{
    return (Py_ssize_t)((Segment *)self)->made.size;
}

/* -- attributes ------------------------------------------------------------------- */

/* What was true when the handle was made stays so: asks nobody. */
static PyObject *get_made(PyObject *self, void *field)
{
    return segmentstat_field(&((Segment *)self)->made, (int)(intptr_t)field);
}

static PyObject *get_now(PyObject *self, void *field)
{
    struct shk_segment_info info;
    if (stat_checked((Segment *)self, &info) < 0)
        return NULL;
    return segmentstat_field(&info, (int)(intptr_t)field);
}

static PyObject *get_marked(PyObject *object, void *Py_UNUSED(closure))
{
    Segment *self = (Segment *)object;
    struct shk_segment_info info;
    int error = shk_segment_stat(self->made.id, &info);
    if (error && error != -ENOENT)
        return fail(self, error);
    return PyBool_FromLong(error || !is_same(&info, &self->made) || info.mode & SHM_DEST);
}

static PyObject *get_address(PyObject *self, void *Py_UNUSED(closure))
{
    void *address = ((Segment *)self)->address;
    return address ? PyLong_FromVoidPtr(address) : Py_NewRef(Py_None);
}

static PyObject *get_readonly(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Segment *)self)->readonly);
}

static PyObject *get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!((Segment *)self)->address);
}

static PyObject *get_buf(PyObject *self, void *Py_UNUSED(closure))
{
    return PyMemoryView_FromObject(self);
}

static PyObject *repr(PyObject *object)
{
    Segment *self = (Segment *)object;
    const char *access = self->readonly ? " readonly" : "";
    if (!self->address)
        return PyUnicode_FromFormat("<pyshmkey.Segment id=%d key=0x%x size=%zu%s closed>",
                                    self->made.id, (unsigned)self->made.key, self->made.size,
                                    access);
    return PyUnicode_FromFormat("<pyshmkey.Segment id=%d key=0x%x size=%zu%s at %p>", self->made.id,
                                (unsigned)self->made.key, self->made.size, access, self->address);
}

/* -- the type --------------------------------------------------------------------- */

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef methods[] = {
    {"create", FAST(create) | METH_CLASS, create_doc},
    {"open", FAST(open_) | METH_CLASS, open_doc},
    {"open_or_create", FAST(open_or_create) | METH_CLASS, open_or_create_doc},
    {"from_id", FAST(from_id) | METH_CLASS, from_id_doc},
    {"attach", attach, METH_NOARGS, attach_doc},
    {"detach", detach, METH_NOARGS, detach_doc},
    {"close", detach, METH_NOARGS, "close($self, /)\n--\n\nThe same as detach()."},
    {"remove", remove_, METH_NOARGS, remove_doc},
    {"unlink", remove_, METH_NOARGS, "unlink($self, /)\n--\n\nThe same as remove()."},
    {"stat", stat_, METH_NOARGS, stat_doc},
    {"set", FAST(set), set_doc},
    {"read", FAST(read_), read_doc},
    {"write", FAST(write_), write_doc},
    {"__enter__", enter, METH_NOARGS, enter_doc},
    {"__exit__", exit_, METH_VARARGS, exit_doc},
    {NULL, NULL, 0, NULL},
};

#define NOW(name, doc) {#name, get_now, NULL, doc, (void *)STAT_##name}
static PyGetSetDef attributes[] = {
    {"id", get_made, NULL, "The segment's id.", (void *)STAT_id},
    {"key", get_made, NULL, "The key when the handle was opened; 0: private, or marked.", (void *)STAT_key},
    {"size", get_made, NULL, "Bytes, as asked for at creation.", (void *)STAT_size},
    {"cuid", get_made, NULL, "The creator's uid.", (void *)STAT_cuid},
    {"cgid", get_made, NULL, "The creator's gid.", (void *)STAT_cgid},
    {"creator_pid", get_made, NULL, "Who created it; 0: another namespace.",
     (void *)STAT_creator_pid},
    {"address", get_address, NULL, "Where it is mapped; None if closed.", NULL},
    {"readonly", get_readonly, NULL, "True if this handle attaches it read-only.", NULL},
    {"closed", get_closed, NULL, "True after detach().", NULL},
    {"buf", get_buf, NULL, "A new memoryview of the bytes; detach() fails while it lives.", NULL},
    {"marked_for_removal", get_marked, NULL, "True after remove() by anybody, or if it is gone.",
     NULL},
    NOW(nattch, "How often it is attached, over all processes."),
    NOW(mode, "The 9 permission bits."),
    NOW(uid, "The owner's uid."),
    NOW(gid, "The owner's gid."),
    NOW(last_pid, "Who attached or detached last."),
    NOW(attach_time, "The last attach, in seconds since the epoch; None: never."),
    NOW(detach_time, "The last detach, in seconds since the epoch; None: never."),
    NOW(change_time, "Creation or the last set(), in seconds since the epoch."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A System V shared-memory segment, made by create(), open(), open_or_create()\n"
                "or from_id(). memoryview(segment) is its bytes without a copy. Closing or\n"
                "freeing the handle detaches it; only remove() removes it."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {Py_sq_length, length},
    {Py_bf_getbuffer, get_buffer},
    {Py_bf_releasebuffer, release_buffer},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.Segment",
    .basicsize = sizeof(Segment),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int segment_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->segment_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->segment_type)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->segment_type);
}
