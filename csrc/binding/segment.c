/* segment.c: what one asks the kernel of a segment; attributes; the type. */
#include "segment.h"

#include "args.h"
#include "bind.h"
#include "errors.h"
#include "segmentstat.h"

#include <errno.h>
#include <structmember.h>
#include <sys/shm.h>

PyObject *segment_fail(const Segment *self, int error)
{
    return errors_raise_with_key(state_of((PyObject *)self), error, self->made.key);
}

/* -- the segment in the kernel ------------------------------------------------------ */

/* One that needs no read permission. */
static PyObject *control(Segment *self, int (*call)(int id))
{
    struct shk_segment_info info;
    if (!self->address && shk_segment_stat(self->made.id, &info) == 0 &&
        !segment_is_same(&info, &self->made))
        return segment_raise_replaced(self);
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = call(self->made.id);
    Py_END_ALLOW_THREADS
    if (error)
        return segment_fail(self, error);
    Py_RETURN_NONE;
}

static PyObject *remove_(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return control((Segment *)self, shk_segment_remove);
}

static PyObject *lock_memory(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return control((Segment *)self, shk_segment_lock);
}

static PyObject *unlock_memory(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return control((Segment *)self, shk_segment_unlock);
}

/* IPC_STAT of our segment, or an exception. */
static int stat_checked(Segment *self, struct shk_segment_info *info)
{
    int error = shk_segment_stat(self->made.id, info);
    if (error)
        (void)segment_fail(self, error);
    else if (!segment_is_same(info, &self->made))
        (void)segment_raise_replaced(self);
    else
        return 0;
    return -1;
}

static PyObject *stat_(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct shk_segment_info info;
    if (stat_checked((Segment *)self, &info) < 0)
        return NULL;
    return segmentstat_new(state_of(self), &info);
}

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
        return segment_fail(self, error);
    Py_RETURN_NONE;
}

/* -- attributes --------------------------------------------------------------------- */

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
        return segment_fail(self, error);
    return PyBool_FromLong(error || !segment_is_same(&info, &self->made) || info.mode & SHM_DEST);
}

static PyObject *get_address(PyObject *self, void *Py_UNUSED(closure))
{
    void *address = ((Segment *)self)->address;
    return address ? PyLong_FromVoidPtr(address) : Py_NewRef(Py_None);
}

static PyObject *get_readonly(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Segment *)self)->flags & SHM_RDONLY);
}

static PyObject *get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!((Segment *)self)->address);
}

static PyObject *get_name(PyObject *self, void *Py_UNUSED(closure))
{
    PyObject *name = ((Segment *)self)->name;
    return Py_NewRef(name ? name : Py_None);
}

static PyObject *get_buf(PyObject *self, void *Py_UNUSED(closure))
{
    return PyMemoryView_FromObject(self);
}

static PyObject *repr(PyObject *object)
{
    Segment *self = (Segment *)object;
    const char *access = self->flags & SHM_RDONLY ? " readonly" : "";
    if (!self->address)
        return PyUnicode_FromFormat("<pyshmkey.Segment id=%d key=0x%x size=%zu%s closed>",
                                    self->made.id, (unsigned)self->made.key, self->made.size,
                                    access);
    return PyUnicode_FromFormat("<pyshmkey.Segment id=%d key=0x%x size=%zu%s at %p>", self->made.id,
                                (unsigned)self->made.key, self->made.size, access, self->address);
}

/* -- the type ----------------------------------------------------------------------- */

static void dealloc(PyObject *object)
{
    Segment *self = (Segment *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_ClearWeakRefs(object);
    if (self->address)
        segment_unmap(self);
    Py_XDECREF(self->name);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *exit_(PyObject *self, PyObject *Py_UNUSED(exception))
{
    return segment_detach(self, NULL);
}

GUARDED_PLAIN(remove_)
GUARDED_PLAIN(lock_memory)
GUARDED_PLAIN(unlock_memory)
GUARDED_PLAIN(exit_)
GUARDED_PLAIN(segment_detach)
GUARDED_PLAIN(segment_enter)
GUARDED_PLAIN(segment_reduce)
GUARDED_FAST(segment_attach)
GUARDED_FAST(segment_read)
GUARDED_FAST(segment_write)
GUARDED_GET(get_address)
GUARDED_GET(get_readonly)
GUARDED_GET(get_closed)
GUARDED_CALL(PyObject *, repr, (PyObject * self), (self))
GUARDED_CALL(int, segment_get_buffer, (PyObject * self, Py_buffer *view, int flags),
             (self, view, flags))

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef methods[] = {
    {"create", FAST(segment_create) | METH_CLASS,
     "create($type, /, size, *, key=None, mode=0o600, hugepages=None, reserve=True,\n"
     "       address=None, round=False, remap=False, executable=False)\n--\n\n"
     "A new segment of `size` bytes, all zero, attached. `key`: an int, a name (str or\n"
     "bytes) of the calling user, or None for a private one, found by its id only. `mode`:\n"
     "the 9 permission bits. `hugepages`: True (the default kind), \"2M\" or \"1G\".\n"
     "`reserve=False`: no memory is set aside for it; who touches a page that the host can't\n"
     "give is killed (huge pages: by SIGBUS). It lives until remove(), or a reboot.\n\n"
     "FileExistsError: the key is in use. OSError (EINVAL, ENOSPC, ENOMEM, EPERM): a limit\n"
     "of the kernel, named with its value. ValueError: an argument is out of range."},
    {"open", FAST(segment_open) | METH_CLASS,
     "open($type, /, key, *, owner=None, readonly=False, address=None, round=False,\n"
     "     remap=False, executable=False)\n--\n\n"
     "The existing segment of `key` (an int, or a name of the user with the uid `owner`, by\n"
     "default the calling one), attached.\n\n"
     "FileNotFoundError: there is none. PermissionError: its mode denies this access.\n"
     "ValueError: key 0, which is IPC_PRIVATE."},
    {"open_or_create", FAST(segment_open_or_create) | METH_CLASS,
     "open_or_create($type, /, key, size, *, mode=0o600, hugepages=None, reserve=True,\n"
     "               readonly=False, address=None, round=False, remap=False,\n"
     "               executable=False)\n--\n\n"
     "The segment of `key`, created as by create() if there is none. However many processes\n"
     "do this at once, all get the same one.\n\n"
     "ValueError: the existing one is smaller than `size` (a larger one is fine: see size).\n"
     "Otherwise as create() and open()."},
    {"from_id", FAST(segment_from_id) | METH_CLASS,
     "from_id($type, /, shmid, *, readonly=False, address=None, round=False, remap=False,\n"
     "        executable=False)\n--\n\n"
     "The segment with this id, attached: also a private one, and one marked for removal\n"
     "that some process still has attached.\n\n"
     "FileNotFoundError: there is none. PermissionError: its mode denies this access."},
    {"attach", FAST(GUARDED(segment_attach)),
     "attach($self, /, *, readonly=None, address=None, round=False, remap=False,\n"
     "       executable=None)\n--\n\n"
     "Maps a closed segment again; nothing if it is open. `readonly` and `executable` None:\n"
     "as before.\n\n"
     "FileNotFoundError: it is gone. PermissionError: its mode denies this access now.\n"
     "ValueError: it is open in another way than asked for."},
    {"detach", GUARDED(segment_detach), METH_NOARGS,
     "detach($self, /)\n--\n\n"
     "Unmaps the segment, which lives on; nothing if it is closed already.\n\n"
     "BufferError: a view of it is alive, or another thread is in a call that uses it."},
    {"close", GUARDED(segment_detach), METH_NOARGS,
     "close($self, /)\n--\n\nThe same as detach()."},
    {"remove", GUARDED(remove_), METH_NOARGS,
     "remove($self, /)\n--\n\n"
     "Marks the segment for removal: its key is free at once, and it is gone with the last\n"
     "detach, by any process. Works on a closed handle too.\n\n"
     "FileNotFoundError: it is gone already. PermissionError: not its owner or creator."},
    {"unlink", GUARDED(remove_), METH_NOARGS,
     "unlink($self, /)\n--\n\nThe same as remove()."},
    {"stat", stat_, METH_NOARGS,
     "stat($self, /)\n--\n\n"
     "A SegmentStat of the segment; works on a closed handle too.\n\n"
     "FileNotFoundError: it is gone. PermissionError: its mode denies reading now."},
    {"set", FAST(set),
     "set($self, /, *, uid=None, gid=None, mode=None)\n--\n\n"
     "Gives the segment another owner (uid, gid) or mode (the 9 permission bits); what is\n"
     "None stays. Works on a closed handle too.\n\n"
     "TypeError: nothing given. PermissionError: neither owner nor creator.\n"
     "FileNotFoundError: it is gone."},
    {"lock_memory", GUARDED(lock_memory), METH_NOARGS,
     "lock_memory($self, /)\n--\n\n"
     "Keeps its pages in memory, once they are there: no swap sees them, for all processes\n"
     "and until unlock_memory(). Huge pages never are swapped: nothing happens to them.\n\n"
     "OSError (ENOMEM, EPERM): RLIMIT_MEMLOCK, named with its value. PermissionError:\n"
     "neither owner nor creator. FileNotFoundError: it is gone."},
    {"unlock_memory", GUARDED(unlock_memory), METH_NOARGS,
     "unlock_memory($self, /)\n--\n\nUndoes lock_memory(), whoever called it."},
    {"read", FAST(GUARDED(segment_read)),
     "read($self, /, size=-1, offset=0)\n--\n\n"
     "A copy of `size` bytes from `offset` on; -1: all up to the end. More than 1 MiB is\n"
     "copied without the GIL.\n\n"
     "ValueError: closed, or not so many bytes there."},
    {"write", FAST(GUARDED(segment_write)),
     "write($self, /, data, offset=0)\n--\n\n"
     "Copies the bytes-like `data` to `offset`; returns how many bytes it had. More than\n"
     "1 MiB is copied without the GIL.\n\n"
     "ReadOnlyError: attached read-only. ValueError: closed, or `data` would not fit; then\n"
     "nothing is written."},
    {"atomic", FAST(segment_atomic),
     "atomic($self, /, offset, width=8, signed=True)\n--\n\n"
     "The AtomicInt of `width` bytes (4 or 8) at `offset`, a multiple of `width`."},
    {"__enter__", GUARDED(segment_enter), METH_NOARGS,
     "__enter__($self, /)\n--\n\nThe open handle itself."},
    {"__exit__", GUARDED(exit_), METH_VARARGS,
     "__exit__($self, /, *exception)\n--\n\ndetach(); the segment is not removed."},
    {"__reduce__", GUARDED(segment_reduce), METH_NOARGS,
     "__reduce__($self, /)\n--\n\nPickles by id and access; unpickling attaches the same segment."},
    {NULL, NULL, 0, NULL},
};

#define MADE(name, doc) {#name, get_made, NULL, doc, (void *)STAT_##name}
#define NOW(name, doc) {#name, get_now, NULL, doc, (void *)STAT_##name}
static PyGetSetDef attributes[] = {
    MADE(id, "The segment's id."),
    MADE(key, "The key when the handle was opened; 0: private, or marked for removal."),
    MADE(size, "Bytes, as asked for at creation."),
    MADE(cuid, "The creator's uid."),
    MADE(cgid, "The creator's gid."),
    MADE(creator_pid, "Who created it; 0: another namespace."),
    {"name", get_name, NULL, "The name by which the handle was opened, or None.", NULL},
    {"address", GUARDED(get_address), NULL, "Where it is mapped; None if closed.", NULL},
    {"readonly", GUARDED(get_readonly), NULL, "True if this handle attaches it read-only.", NULL},
    {"closed", GUARDED(get_closed), NULL, "True after detach().", NULL},
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
    NOW(memory_locked, "True after lock_memory() by anybody."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Segment, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A System V shared-memory segment, made by create(), open(), open_or_create()\n"
                "or from_id(). memoryview(segment) is its bytes without a copy; segment[i] and\n"
                "segment[i:j] are copies. Closing or freeing the handle detaches it; only\n"
                "remove() removes it."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, GUARDED(repr)},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_iter, PySeqIter_New},
    {Py_tp_getset, attributes},
    {Py_sq_length, segment_length},
    {Py_sq_item, segment_item},
    {Py_mp_length, segment_length},
    {Py_mp_subscript, segment_subscript},
    {Py_mp_ass_subscript, segment_assign},
    {Py_bf_getbuffer, GUARDED(segment_get_buffer)},
    {Py_bf_releasebuffer, segment_release_buffer},
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
    if (!state->segment_type || PyModule_AddFunctions(module, segment_functions) < 0)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->segment_type);
}
