/* semaphores.c: the openers, the waiting and the answers of Semaphore and SemaphoreSet. */
#include "semaphores.h"
#include "bind.h"

#include <errno.h>

#define WAIT_DEFAULT UINT64_C(5000000000)

PyObject *semaphores_fail(Semaphores *self, int error)
{
    return errors_raise_with_key(state_of((PyObject *)self), error, self->key);
}

void semaphores_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* -- the openers ------------------------------------------------------------------ */

static PyObject *handle_new(PyObject *type, int id, key_t key, unsigned count, unsigned index)
{
    Semaphores *self = PyObject_New(Semaphores, (PyTypeObject *)type);
    if (self) {
        self->id = id;
        self->key = key;
        self->count = count;
        self->index = index;
    }
    return (PyObject *)self;
}

PyObject *semaphores_at(PyObject *type, const Semaphores *set, unsigned index)
{
    return handle_new(type, set->id, set->key, set->count, index);
}

static PyObject *raise_opening(PyObject *type, int error, key_t key)
{
    return errors_raise_with_key(PyType_GetModuleState((PyTypeObject *)type), error, key);
}

/* 0, or the code of the call that failed. A set that can't be initialised is removed. */
static int create(key_t key, const unsigned short *values, unsigned count, mode_t mode, int *id)
{
    int made, error = shk_semset_create(key, count, mode, &made);
    if (error)
        return error;
    if (values)
        error = shk_semset_initialise(made, values);
    if (error && error != -ENOENT)
        (void)shk_semset_remove(made);
    if (!error)
        *id = made;
    return error;
}

/* The same for an existing set. */
static int await_and_stat(int id, struct patience *patience, struct shk_semset_info *info)
{
    int error = shk_semset_stat(id, info);
    if (!error && info->operation_time == 0 && patience) {
        patience->deadline = SHK_NOW; /* another set, another wait */
        IPC_CALL(error, patience, true, shk_semset_await(id, patience->deadline));
        if (!error)
            error = shk_semset_stat(id, info);
    }
    return error;
}

PyObject *semaphores_create(PyObject *type, const unsigned short *values, unsigned count,
                            PyObject *key_argument, PyObject *mode_argument)
{
    key_t key;
    mode_t mode = 0600;
    int id;
    if (ipc_key_or_private(type, key_argument, &key) < 0 || ipc_mode_of(mode_argument, &mode) < 0)
        return NULL;
    int error = create(key, values, count, mode, &id);
    return error ? raise_opening(type, error, key) : handle_new(type, id, key, count, 0);
}

/* None: *patience is NULL; else it stays. */
static int wait_of(PyObject *argument, struct patience **patience)
{
    (*patience)->timeout = WAIT_DEFAULT;
    if (argument == Py_None)
        *patience = NULL;
    else if (argument)
        return args_seconds(argument, "wait", &(*patience)->timeout);
    return 0;
}

PyObject *semaphores_open(PyObject *type, PyObject *key_argument, PyObject *access,
                          PyObject *wait_argument)
{
    key_t key;
    mode_t need = 0;
    struct patience wait, *patience = &wait;
    struct shk_semset_info info;
    int id;
    if (ipc_key_of(type, key_argument, &key) < 0 || ipc_mode_of(access, &need) < 0 ||
        wait_of(wait_argument, &patience) < 0)
        return NULL;
    int error = shk_semset_find(key, need, &id);
    if (!error)
        error = await_and_stat(id, patience, &info);
    return error ? raise_opening(type, error, key) : handle_new(type, id, key, info.count, 0);
}

PyObject *semaphores_open_or_create(PyObject *type, const unsigned short *values, unsigned count,
                                    PyObject *key_argument, PyObject *mode_argument,
                                    PyObject *wait_argument)
{
    key_t key;
    mode_t mode = 0600;
    struct patience wait, *patience = &wait;
    if (ipc_key_of(type, key_argument, &key) < 0 || ipc_mode_of(mode_argument, &mode) < 0 ||
        wait_of(wait_argument, &patience) < 0)
        return NULL;
    /* Begins anew whenever another process created or removed the set between two of
     * our calls. */
    for (;;) {
        struct shk_semset_info info;
        int id, error = shk_semset_find(key, 0, &id);
        if (error == -ENOENT) {
            error = create(key, values, count, mode, &id);
            if (!error)
                return handle_new(type, id, key, count, 0);
        } else if (!error) {
            error = await_and_stat(id, patience, &info);
            if (!error && info.count >= count)
                return handle_new(type, id, key, info.count, 0);
            if (!error)
                return PyErr_Format(PyExc_ValueError,
                                    "the existing set (id=%d, key=0x%x) has %u semaphores, fewer "
                                    "than the %u asked for; ask for less, or remove it first",
                                    id, (unsigned)key, info.count, count);
        }
        if (error != -ENOENT && error != -EEXIST)
            return raise_opening(type, error, key);
        if (PyErr_CheckSignals() < 0)
            return NULL;
    }
}

PyObject *semaphores_from_id(PyObject *type, PyObject *argument)
{
    int id;
    struct shk_semset_info info;
    if (ipc_id_of(argument, "semaphore id", &id) < 0)
        return NULL;
    int error = shk_semset_stat(id, &info);
    return error ? raise_opening(type, error, IPC_PRIVATE)
                 : handle_new(type, id, info.key, info.count, 0);
}

/* -- operations ------------------------------------------------------------------- */

int semaphores_value_of(PyObject *argument, unsigned short *value)
{
    long long number;
    if (args_integer(argument, "semaphore value", 0, SHK_SEMAPHORE_MAX, &number) < 0)
        return -1;
    *value = (unsigned short)number;
    return 0;
}

int semaphores_undo_of(PyObject *argument, int *flag)
{
    bool undo;
    if (ipc_flag_of(argument, &undo) < 0)
        return -1;
    *flag = undo ? SEM_UNDO : 0;
    return 0;
}

static void raise_timeout(Semaphores *self, const struct sembuf *operations, size_t count)
{
    struct module_state *state = state_of((PyObject *)self);
    if (count > 1)
        (void)errors_format(state, SHK_E_TIMEOUT,
                            "semaphore set %d: the %zu operations were not possible at once in time",
                            self->id, count);
    else if (operations->sem_op == 0)
        (void)errors_format(state, SHK_E_TIMEOUT,
                            "semaphore set %d: semaphore %d did not become 0 in time", self->id,
                            (int)operations->sem_num);
    else
        (void)errors_format(state, SHK_E_TIMEOUT,
                            "semaphore set %d: semaphore %d was not as high as %d in time", self->id,
                            (int)operations->sem_num, -operations->sem_op);
}

int semaphores_operate(Semaphores *self, struct sembuf *operations, size_t count,
                       struct patience *patience)
{
    int rc, id = self->id;
    IPC_CALL(rc, patience, true, shk_semset_operate(id, operations, count, patience->deadline));
    if (rc == SHK_E_TIMEOUT)
        raise_timeout(self, operations, count);
    else if (rc)
        (void)semaphores_fail(self, rc);
    return rc ? -1 : 0;
}

/* -- the set in the kernel -------------------------------------------------------- */

const char semaphores_stat_doc[] = "stat($self, /)\n--\n\n"
"A SemaphoreStat of the whole set.\n\n"
"FileNotFoundError: it is gone. PermissionError: its mode denies reading now.";

PyObject *semaphores_stat(PyObject *object, PyObject *Py_UNUSED(unused))
{
    struct shk_semset_info info;
    int error = shk_semset_stat(((Semaphores *)object)->id, &info);
    if (error)
        return semaphores_fail((Semaphores *)object, error);
    return semaphorestat_new(state_of(object), &info);
}

const char semaphores_set_doc[] = "set($self, /, *, uid=None, gid=None, mode=None)\n--\n\n"
"Gives the set another owner (uid, gid) or mode (the 9 permission bits); what is None\n"
"stays.\n\n"
"TypeError: nothing given. PermissionError: neither owner nor creator.\n"
"FileNotFoundError: it is gone.";
SIGNATURE(set, 0, 0, "uid", "gid", "mode");

PyObject *semaphores_set(PyObject *object, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords)
{
    Semaphores *self = (Semaphores *)object;
    PyObject *in[3];
    if (bind(&set_signature, args, count, keywords, in) < 0)
        return NULL;
    bool has_uid = in[0] && in[0] != Py_None, has_gid = in[1] && in[1] != Py_None;
    bool has_mode = in[2] && in[2] != Py_None;
    if (!has_uid && !has_gid && !has_mode) {
        PyErr_SetString(PyExc_TypeError, "set() needs at least one of uid, gid and mode");
        return NULL;
    }
    struct shk_semset_info info;
    int error = shk_semset_stat(self->id, &info);
    if (error)
        return semaphores_fail(self, error);
    if ((has_uid && args_account(in[0], "uid", &info.uid) < 0) ||
        (has_gid && args_account(in[1], "gid", &info.gid) < 0) ||
        (has_mode && args_mode(in[2], &info.mode) < 0))
        return NULL;
    error = shk_semset_set(self->id, info.uid, info.gid, info.mode);
    if (error)
        return semaphores_fail(self, error);
    Py_RETURN_NONE;
}

const char semaphores_remove_doc[] = "remove($self, /)\n--\n\n"
"Removes the whole set at once; whoever waits for one of it gets FileNotFoundError.\n\n"
"FileNotFoundError: it is gone already. PermissionError: not its owner or creator.";

PyObject *semaphores_remove(PyObject *self, PyObject *Py_UNUSED(unused))
{
    int error = shk_semset_remove(((Semaphores *)self)->id);
    if (error)
        return semaphores_fail((Semaphores *)self, error);
    Py_RETURN_NONE;
}

PyObject *semaphores_get_id(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((Semaphores *)self)->id);
}

PyObject *semaphores_get_key(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((Semaphores *)self)->key);
}

PyObject *semaphores_get_now(PyObject *self, void *field)
{
    struct shk_semset_info info;
    int error = shk_semset_stat(((Semaphores *)self)->id, &info);
    if (error)
        return semaphores_fail((Semaphores *)self, error);
    return semaphorestat_field(&info, (int)(intptr_t)field);
}
