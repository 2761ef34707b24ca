/* msgqueue.c: MessageQueue, and Message, what it gives.
 *
 * The kernel takes and gives a message with its type before its bytes, so each is copied
 * once more here; those of up to AT_ONCE bytes on the stack. A message that is longer
 * than the room offered stays in the queue, so a receiver offers little at first, and
 * more when the kernel says E2BIG.
 */
#include "ipc.h"
#include "bind.h"
#include "msgqueuestat.h"

#include "../core/shk.h"

#include <limits.h>

#define AT_ONCE 8192          /* bytes: kernel.msgmax, unless it was changed */
#define COPY_WITH_GIL 65536u  /* bytes; longer messages let other threads run */
#define MESSAGES_LOOKED_AT 256u

typedef struct {
    PyObject_HEAD
    int id;
    key_t key;
    bool closed; /* all that changes: is_closed() */
} MessageQueue;

/* Room for a message of up to capacity bytes. */
struct room {
    struct shk_message *message;
    size_t capacity;
    union {
        struct shk_message first;
        char bytes[sizeof(struct shk_message) + AT_ONCE];
    } small;
};

static void room_release(struct room *room)
{
    if (room->message != &room->small.first)
        PyMem_RawFree(room->message);
    room->message = &room->small.first;
    room->capacity = AT_ONCE;
}

/* What was in it is lost; what is beyond AT_ONCE is zero. */
static int room_grow(struct room *room, size_t capacity)
{
    room_release(room);
    if (capacity > AT_ONCE) {
        struct shk_message *message = PyMem_RawCalloc(1, sizeof *message + capacity);
        if (!message) {
            PyErr_NoMemory();
            return -1;
        }
        room->message = message;
    }
    room->capacity = capacity;
    return 0;
}

static PyObject *fail(MessageQueue *self, int error)
{
    return errors_raise_with_key(state_of((PyObject *)self), error, self->key);
}

static bool is_closed(const MessageQueue *self)
{
    return __atomic_load_n(&self->closed, __ATOMIC_RELAXED);
}

static int check_open(MessageQueue *self)
{
    if (!is_closed(self))
        return 0;
    PyErr_Format(PyExc_ValueError, "the message queue (id=%d) is closed", self->id);
    return -1;
}

/* -- the openers ------------------------------------------------------------------ */

static PyObject *opened(PyObject *type, int error, int id, key_t key)
{
    if (error)
        return errors_raise_with_key(PyType_GetModuleState((PyTypeObject *)type), error, key);
    MessageQueue *self = PyObject_New(MessageQueue, (PyTypeObject *)type);
    if (self) {
        self->id = id;
        self->key = key;
        self->closed = false;
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(create_doc, "create($type, /, *, key=None, mode=0o600)\n--\n\n"
"A new, empty queue. `key`: an int, a name (str or bytes) of the calling user, or None\n"
"for a private one, found by its id only. `mode`: the 9 permission bits. It lives until\n"
"remove(), or a reboot.\n\n"
"FileExistsError: the key is in use. OSError (ENOSPC): MSGMNI, named with its value.\n"
"ValueError: key or mode is out of range.");
SIGNATURE(create, 0, 0, "key", "mode");

static PyObject *create(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *in[2];
    key_t key;
    mode_t mode = 0600;
    int id = 0;
    if (bind(&create_signature, args, count, keywords, in) < 0 ||
        ipc_key_or_private(type, in[0], &key) < 0 || ipc_mode_of(in[1], &mode) < 0)
        return NULL;
    int error = shk_msgqueue_create(key, mode, &id);
    return opened(type, error, id, key);
}

PyDoc_STRVAR(open_doc, "open($type, /, key, *, access=0)\n--\n\n"
"The existing queue of `key` (an int, or a name of the calling user). `access`: the\n"
"permissions needed, as in a mode; 0: none yet.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies this access.\n"
"ValueError: key 0, which is IPC_PRIVATE.");
SIGNATURE(open, 1, 1, "key", "access");

static PyObject *open_(PyObject *type, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    PyObject *in[2];
    key_t key;
    mode_t need = 0;
    int id = 0;
    if (bind(&open_signature, args, count, keywords, in) < 0 ||
        ipc_key_of(type, in[0], &key) < 0 || ipc_mode_of(in[1], &need) < 0)
        return NULL;
    int error = shk_msgqueue_find(key, need, &id);
    return opened(type, error, id, key);
}

PyDoc_STRVAR(open_or_create_doc, "open_or_create($type, /, key, *, mode=0o600)\n--\n\n"
"The queue of `key`, created with `mode` if there is none. However many processes do\n"
"this at once, all get the same one. Otherwise as create() and open().");
SIGNATURE(open_or_create, 1, 1, "key", "mode");

static PyObject *open_or_create(PyObject *type, PyObject *const *args, Py_ssize_t count,
                                PyObject *keywords)
{
    PyObject *in[2];
    key_t key;
    mode_t mode = 0600;
    int id = 0, error;
    if (bind(&open_or_create_signature, args, count, keywords, in) < 0 ||
        ipc_key_of(type, in[0], &key) < 0 || ipc_mode_of(in[1], &mode) < 0)
        return NULL;
    /* Anew whenever another process created or removed it between the two calls. */
    while ((error = shk_msgqueue_find(key, 0, &id)) == -ENOENT &&
           (error = shk_msgqueue_create(key, mode, &id)) == -EEXIST)
        if (PyErr_CheckSignals() < 0)
            return NULL;
    return opened(type, error, id, key);
}

PyDoc_STRVAR(from_id_doc, "from_id($type, /, msqid)\n--\n\n"
"The queue with this id; also a private one.\n\n"
"FileNotFoundError: there is none. PermissionError: its mode denies reading.");
SIGNATURE(from_id, 1, 1, "msqid");

static PyObject *from_id(PyObject *type, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    PyObject *in[1];
    struct shk_msgqueue_info info = {.key = IPC_PRIVATE};
    int id;
    if (bind(&from_id_signature, args, count, keywords, in) < 0 ||
        ipc_id_of(in[0], "queue id", &id) < 0)
        return NULL;
    int error = shk_msgqueue_stat(id, &info);
    return opened(type, error, id, info.key);
}

/* -- sending ---------------------------------------------------------------------- */

PyDoc_STRVAR(send_doc, "send($self, /, message, type=1, *, timeout=None)\n--\n\n"
"Appends the bytes-like `message` under `type` (1 or more), once the queue has room.\n"
"`timeout`: how many seconds to wait for that; 0: not at all; None: for ever. Until a\n"
"timeout, attempts are repeated every 10 ms or more often; None sleeps in the kernel.\n\n"
"TimeoutError: the queue was full. OSError (EINVAL): longer than MSGMAX; (EMSGSIZE):\n"
"longer than the whole queue may ever hold. ValueError: closed, or type < 1.\n"
"FileNotFoundError: the queue is gone, or was removed meanwhile.");
SIGNATURE(send, 1, 2, "message", "type", "timeout");

static int send_buffer(MessageQueue *self, const Py_buffer *data, long type,
                       struct patience *patience)
{
    struct room room = {.message = &room.small.first};
    size_t size = (size_t)data->len;
    /* Nothing is copied of what the kernel refuses unread: kernel.msgmax is an int. */
    if (size <= INT_MAX) {
        if (room_grow(&room, size) < 0)
            return -1;
        memcpy(room.message->bytes, data->buf, size);
    }
    room.message->type = type;
    int rc, id = self->id;
    IPC_CALL(rc, patience, size <= COPY_WITH_GIL,
             shk_msgqueue_send(id, room.message, size, patience->deadline));
    room_release(&room);
    if (rc == SHK_E_TIMEOUT)
        (void)errors_format(state_of((PyObject *)self), rc,
                            "message queue %d had no room for %zu bytes in time", self->id, size);
    else if (rc)
        (void)fail(self, rc);
    return rc ? -1 : 0;
}

static PyObject *send_(PyObject *object, PyObject *const *args, Py_ssize_t count,
                       PyObject *keywords)
{
    MessageQueue *self = (MessageQueue *)object;
    PyObject *in[3];
    long long type = 1;
    struct patience patience;
    Py_buffer data;
    if (bind(&send_signature, args, count, keywords, in) < 0 ||
        (in[1] && args_integer(in[1], "message type", 1, LONG_MAX, &type) < 0) ||
        ipc_patience_of(in[2], &patience) < 0 ||
        PyObject_GetBuffer(in[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    int rc = check_open(self) < 0 ? -1 : send_buffer(self, &data, (long)type, &patience);
    PyBuffer_Release(&data);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* -- receiving -------------------------------------------------------------------- */

/* Which message, and how much of it. */
struct wish {
    long type;
    int flags; /* MSG_EXCEPT, MSG_NOERROR */
    size_t size_max;
};

static PyObject *message_new(MessageQueue *self, const struct room *room, size_t size)
{
    PyObject *type = state_of((PyObject *)self)->message_type;
    PyObject *result = PyStructSequence_New((PyTypeObject *)type);
    PyObject *data = PyBytes_FromStringAndSize(room->message->bytes, (Py_ssize_t)size);
    PyObject *number = PyLong_FromLong(room->message->type);
    if (result && data && number) {
        PyStructSequence_SetItem(result, 0, data);
        PyStructSequence_SetItem(result, 1, number);
        return result;
    }
    Py_XDECREF(result);
    Py_XDECREF(data);
    Py_XDECREF(number);
    return NULL;
}

/* More room, after a message that needs it was refused: as much as the queue holds, which
 * the message is part of, but not beyond limit. */
static int grow_for_queue(MessageQueue *self, struct room *room, size_t limit)
{
    struct shk_msgqueue_info info;
    int error = shk_msgqueue_stat(self->id, &info);
    if (error) {
        (void)fail(self, error);
        return -1;
    }
    size_t capacity = room->capacity + 1;
    if (capacity < info.bytes)
        capacity = info.bytes;
    return room_grow(room, capacity < limit ? capacity : limit);
}

/* Whether the kernel would prefer a message of this type to the best one so far (0: none). */
static bool is_better(const struct wish *wish, long type, long best)
{
    if (wish->flags & MSG_EXCEPT)
        return !best && type != wish->type;
    if (wish->type < 0)
        return type <= -wish->type && (!best || type < best);
    return !best && (wish->type == 0 || type == wish->type);
}

/* The size of the message that the kernel would give now; 0 if it can't be told. */
static size_t size_of_wish(int id, const struct wish *wish)
{
    struct shk_msgqueue_info info;
    struct room room = {.message = &room.small.first};
    size_t found = 0, size;
    long best = 0;
    if (shk_msgqueue_stat(id, &info) != 0 || room_grow(&room, info.bytes) < 0) {
        PyErr_Clear();
        return 0;
    }
    memset(&room.small, 0, sizeof room.small);
    for (unsigned i = 0; i < MESSAGES_LOOKED_AT; i++) {
        if (shk_msgqueue_peek(id, room.message, room.capacity, i, &size) != 0)
            break;
        if (is_better(wish, room.message->type, best)) {
            best = room.message->type;
            found = size;
        }
    }
    room_release(&room);
    return found;
}

static PyObject *raise_too_long(MessageQueue *self, const struct wish *wish)
{
    struct module_state *state = state_of((PyObject *)self);
    size_t size = size_of_wish(self->id, wish);
    if (size > wish->size_max)
        return errors_format(state, -E2BIG,
                             "the message of %zu bytes is longer than max_size=%zu, and stays in "
                             "message queue %d; allow more, or truncate",
                             size, wish->size_max, self->id);
    return errors_format(state, -E2BIG,
                         "the message is longer than max_size=%zu, and stays in message queue %d; "
                         "allow more, or truncate",
                         wish->size_max, self->id);
}

static PyObject *receive_wish(MessageQueue *self, const struct wish *wish,
                              struct patience *patience)
{
    struct room room = {.message = &room.small.first};
    room.capacity = wish->size_max < AT_ONCE ? wish->size_max : AT_ONCE;
    PyObject *result = NULL;
    int rc, id = self->id;
    size_t size;
    do {
        bool is_last = room.capacity == wish->size_max; /* only then, cut off what is beyond */
        int flags = is_last ? wish->flags : wish->flags & ~MSG_NOERROR;
        IPC_CALL(rc, patience, room.capacity <= COPY_WITH_GIL,
                 shk_msgqueue_receive(id, room.message, room.capacity, wish->type, flags,
                                      patience->deadline, &size));
    } while (rc == -E2BIG && room.capacity < wish->size_max &&
             grow_for_queue(self, &room, wish->size_max) == 0);
    if (rc == 0)
        result = message_new(self, &room, size);
    else if (rc == SHK_E_TIMEOUT)
        (void)errors_format(state_of((PyObject *)self), rc,
                            "message queue %d had no such message in time", id);
    else if (rc != -E2BIG)
        (void)fail(self, rc);
    else if (!PyErr_Occurred())
        (void)raise_too_long(self, wish);
    room_release(&room);
    return result;
}

PyDoc_STRVAR(receive_doc,
"receive($self, /, type=0, *, except_type=None, timeout=None, max_size=None, truncate=False)\n"
"--\n\n"
"Takes a message out of the queue: a Message (data, type). `type` 0: the first; > 0: the\n"
"first of this type; < 0: the first of the lowest type up to -type. `except_type`: the\n"
"first whose type is another. `timeout`: how many seconds to wait for one; 0: not at all;\n"
"None: for ever. Until a timeout, attempts are repeated every 10 ms or more often; None\n"
"sleeps in the kernel. `max_size`: a longer message is refused and stays in the queue, or\n"
"is cut off and the rest lost (`truncate`); None: as long as it may be.\n\n"
"TimeoutError: there was none. OSError (E2BIG): longer than `max_size`. ValueError:\n"
"closed. FileNotFoundError: the queue is gone, or was removed meanwhile.");
SIGNATURE(receive, 0, 1, "type", "except_type", "timeout", "max_size", "truncate");

static PyObject *receive(PyObject *object, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    MessageQueue *self = (MessageQueue *)object;
    PyObject *in[5];
    long long type = 0, size_max = INT_MAX;
    struct patience patience;
    bool truncate;
    if (bind(&receive_signature, args, count, keywords, in) < 0 ||
        (in[0] && args_integer(in[0], "message type", -LONG_MAX, LONG_MAX, &type) < 0))
        return NULL;
    bool has_except = in[1] && in[1] != Py_None, has_max = in[3] && in[3] != Py_None;
    if ((has_except && args_integer(in[1], "except_type", 1, LONG_MAX, &type) < 0) ||
        ipc_patience_of(in[2], &patience) < 0 ||
        (has_max && args_integer(in[3], "max_size", 0, INT_MAX, &size_max) < 0) ||
        ipc_flag_of(in[4], &truncate) < 0)
        return NULL;
    if (has_except && in[0]) {
        PyErr_SetString(PyExc_TypeError, "receive() takes either type or except_type");
        return NULL;
    }
    if (truncate && !has_max) {
        PyErr_SetString(PyExc_TypeError, "receive() can truncate only to a max_size");
        return NULL;
    }
    if (check_open(self) < 0)
        return NULL;
    struct wish wish = {(long)type, (has_except ? MSG_EXCEPT : 0) | (truncate ? MSG_NOERROR : 0),
                        (size_t)size_max};
    return receive_wish(self, &wish, &patience);
}

PyDoc_STRVAR(peek_doc, "peek($self, /, index=0)\n--\n\n"
"A copy of the message at `index`, counted from the one sent first; it stays in the\n"
"queue.\n\n"
"IndexError: not so many are there. OSError (ENOSYS): this kernel can't. ValueError:\n"
"closed. FileNotFoundError: the queue is gone.");
SIGNATURE(peek, 0, 1, "index");

static PyObject *peek(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    MessageQueue *self = (MessageQueue *)object;
    PyObject *in[1], *result = NULL;
    long long index = 0;
    size_t size;
    if (bind(&peek_signature, args, count, keywords, in) < 0 ||
        (in[0] && args_integer(in[0], "index", 0, INT_MAX, &index) < 0) || check_open(self) < 0)
        return NULL;
    struct room room = {.message = &room.small.first, .capacity = AT_ONCE};
    memset(&room.small, 0, sizeof room.small);
    int rc;
    do {
        rc = shk_msgqueue_peek(self->id, room.message, room.capacity, (unsigned)index, &size);
    } while (rc == -E2BIG && grow_for_queue(self, &room, INT_MAX) == 0);
    if (rc == 0)
        result = message_new(self, &room, size);
    else if (rc == -ENOMSG)
        PyErr_SetString(PyExc_IndexError, shk_error_detail());
    else if (!PyErr_Occurred())
        (void)fail(self, rc);
    room_release(&room);
    return result;
}

/* -- open and closed -------------------------------------------------------------- */

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
"Ends the use of this handle; the queue lives on. Nothing if it is closed already.");

static PyObject *close_(PyObject *self, PyObject *Py_UNUSED(unused))
{
    __atomic_store_n(&((MessageQueue *)self)->closed, true, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\nThe open handle itself.");

static PyObject *enter(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return check_open((MessageQueue *)self) < 0 ? NULL : Py_NewRef(self);
}

PyDoc_STRVAR(exit_doc, "__exit__($self, /, *exception)\n--\n\n"
"close(); the queue is not removed.");

static PyObject *exit_(PyObject *self, PyObject *Py_UNUSED(exception))
{
    return close_(self, NULL);
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(reduce_doc, "__reduce__($self, /)\n--\n\n"
"Pickles by id: for other processes in the same IPC namespace, while the queue lives.");

static PyObject *reduce(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (check_open((MessageQueue *)self) < 0)
        return NULL;
    PyObject *opener = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "from_id");
    return Py_BuildValue("N(i)", opener, ((MessageQueue *)self)->id);
}

/* -- the queue in the kernel ------------------------------------------------------ */

PyDoc_STRVAR(stat_doc, "stat($self, /)\n--\n\n"
"A MessageQueueStat of the queue; works on a closed handle too.\n\n"
"FileNotFoundError: it is gone. PermissionError: its mode denies reading now.");

static PyObject *stat_(PyObject *object, PyObject *Py_UNUSED(unused))
{
    struct shk_msgqueue_info info;
    int error = shk_msgqueue_stat(((MessageQueue *)object)->id, &info);
    if (error)
        return fail((MessageQueue *)object, error);
    return msgqueuestat_new(state_of(object), &info);
}

PyDoc_STRVAR(set_doc, "set($self, /, *, uid=None, gid=None, mode=None, max_bytes=None)\n--\n\n"
"Gives the queue another owner (uid, gid), mode (the 9 permission bits) or size (how many\n"
"bytes its messages may have together); what is None stays. Works on a closed handle too.\n\n"
"TypeError: nothing given. PermissionError: neither owner nor creator, or more bytes than\n"
"MSGMNB without the privilege. FileNotFoundError: it is gone.");
SIGNATURE(set, 0, 0, "uid", "gid", "mode", "max_bytes");

static PyObject *set(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    MessageQueue *self = (MessageQueue *)object;
    PyObject *in[4];
    bool has[4], any = false;
    if (bind(&set_signature, args, count, keywords, in) < 0)
        return NULL;
    for (int i = 0; i < 4; i++)
        any |= has[i] = in[i] && in[i] != Py_None;
    if (!any) {
        PyErr_SetString(PyExc_TypeError, "set() needs at least one of uid, gid, mode and max_bytes");
        return NULL;
    }
    struct shk_msgqueue_info info;
    int error = shk_msgqueue_stat(self->id, &info);
    if (error)
        return fail(self, error);
    long long bytes_max = (long long)info.bytes_max;
    if ((has[0] && args_account(in[0], "uid", &info.uid) < 0) ||
        (has[1] && args_account(in[1], "gid", &info.gid) < 0) ||
        (has[2] && args_mode(in[2], &info.mode) < 0) ||
        (has[3] && args_integer(in[3], "max_bytes", 1, LLONG_MAX, &bytes_max) < 0))
        return NULL;
    error = shk_msgqueue_set(self->id, info.uid, info.gid, info.mode, (uint64_t)bytes_max);
    if (error)
        return fail(self, error);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(remove_doc, "remove($self, /)\n--\n\n"
"Removes the queue and its messages at once; whoever waits for it gets\n"
"FileNotFoundError. Works on a closed handle too.\n\n"
"FileNotFoundError: it is gone already. PermissionError: not its owner or creator.");

static PyObject *remove_(PyObject *self, PyObject *Py_UNUSED(unused))
{
    int error = shk_msgqueue_remove(((MessageQueue *)self)->id);
    if (error)
        return fail((MessageQueue *)self, error);
    Py_RETURN_NONE;
}

/* -- attributes ------------------------------------------------------------------- */

static PyObject *get_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((MessageQueue *)self)->id);
}

static PyObject *get_key(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((MessageQueue *)self)->key);
}

static PyObject *get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(is_closed((MessageQueue *)self));
}

static PyObject *get_now(PyObject *self, void *field)
{
    struct shk_msgqueue_info info;
    int error = shk_msgqueue_stat(((MessageQueue *)self)->id, &info);
    if (error)
        return fail((MessageQueue *)self, error);
    return msgqueuestat_field(&info, (int)(intptr_t)field);
}

static PyObject *repr(PyObject *object)
{
    MessageQueue *self = (MessageQueue *)object;
    return PyUnicode_FromFormat("<pyshmkey.MessageQueue id=%d key=0x%x%s>", self->id,
                                (unsigned)self->key, is_closed(self) ? " closed" : "");
}

/* -- the types -------------------------------------------------------------------- */

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
static PyMethodDef methods[] = {
    {"create", FAST(create) | METH_CLASS, create_doc},
    {"open", FAST(open_) | METH_CLASS, open_doc},
    {"open_or_create", FAST(open_or_create) | METH_CLASS, open_or_create_doc},
    {"from_id", FAST(from_id) | METH_CLASS, from_id_doc},
    {"send", FAST(send_), send_doc},
    {"receive", FAST(receive), receive_doc},
    {"peek", FAST(peek), peek_doc},
    {"close", close_, METH_NOARGS, close_doc},
    {"stat", stat_, METH_NOARGS, stat_doc},
    {"set", FAST(set), set_doc},
    {"remove", remove_, METH_NOARGS, remove_doc},
    {"__enter__", enter, METH_NOARGS, enter_doc},
    {"__exit__", exit_, METH_VARARGS, exit_doc},
    {"__reduce__", reduce, METH_NOARGS, reduce_doc},
    {NULL, NULL, 0, NULL},
};

#define NOW(name, doc) {#name, get_now, NULL, doc, (void *)MSGSTAT_##name}
static PyGetSetDef attributes[] = {
    {"id", get_id, NULL, "The queue's id.", NULL},
    {"key", get_key, NULL, "The key when the handle was opened; 0: private.", NULL},
    {"closed", get_closed, NULL, "True after close().", NULL},
    NOW(messages, "How many messages are in it."),
    NOW(bytes, "How many bytes these have together."),
    NOW(max_bytes, "How many they may have."),
    NOW(mode, "The 9 permission bits."),
    NOW(uid, "The owner's uid."),
    NOW(gid, "The owner's gid."),
    NOW(cuid, "The creator's uid."),
    NOW(cgid, "The creator's gid."),
    NOW(last_send_pid, "Who sent last; 0: nobody yet."),
    NOW(last_receive_pid, "Who received last; 0: nobody yet."),
    NOW(send_time, "The last message sent, in seconds since the epoch; None: never."),
    NOW(receive_time, "The last message received, in seconds since the epoch; None: never."),
    NOW(change_time, "Creation or the last set(), in seconds since the epoch."),
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A System V message queue, made by create(), open(), open_or_create() or\n"
                "from_id(). Closing or freeing the handle changes nothing for others; only\n"
                "remove() removes the queue."},
    {Py_tp_dealloc, dealloc},
    {Py_tp_repr, repr},
    {Py_tp_methods, methods},
    {Py_tp_getset, attributes},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pyshmkey.MessageQueue",
    .basicsize = sizeof(MessageQueue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static PyStructSequence_Field message_fields[] = {
    {"data", "Its bytes."},
    {"type", "Its type, 1 or more."},
    {NULL, NULL},
};
static PyStructSequence_Desc message_description = {
    "pyshmkey.Message", "A message that was received, or peeked at.", message_fields, 2};

int msgqueue_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->message_type = (PyObject *)PyStructSequence_NewType(&message_description);
    state->msgqueue_type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (!state->message_type || !state->msgqueue_type ||
        PyModule_AddObjectRef(module, "Message", state->message_type) < 0)
        return -1;
    return PyModule_AddType(module, (PyTypeObject *)state->msgqueue_type);
}
