/* ipc.h: what semaphores and message queues have in common: keys, waiting, owners.
 *
 * The functions return 0, or -1 with an exception set.
 */
#ifndef PYSHMKEY_IPC_H
#define PYSHMKEY_IPC_H

#include "args.h"
#include "errors.h"

#include "../core/shk.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

/* A key argument: an int, or a name of the calling user. */
static inline int ipc_key_of(PyObject *type, PyObject *argument, key_t *key)
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

/* Absent, None: IPC_PRIVATE. */
static inline int ipc_key_or_private(PyObject *type, PyObject *argument, key_t *key)
{
    *key = IPC_PRIVATE;
    return argument && argument != Py_None ? ipc_key_of(type, argument, key) : 0;
}

/* Absent: the default stays. */
static inline int ipc_mode_of(PyObject *argument, mode_t *mode)
{
    return argument ? args_mode(argument, mode) : 0;
}

static inline int ipc_id_of(PyObject *argument, const char *what, int *id)
{
    long long value;
    if (args_integer(argument, what, 0, INT_MAX, &value) < 0)
        return -1;
    *id = (int)value;
    return 0;
}

/* A truth value; absent: false. */
static inline int ipc_flag_of(PyObject *argument, bool *flag)
{
    int truth = argument ? PyObject_IsTrue(argument) : 0;
    *flag = truth > 0;
    return truth < 0 ? -1 : 0;
}

/* How long a call may wait. The first attempt doesn't: it needs no deadline, and keeps
 * the GIL if it is short. */
struct patience {
    uint64_t timeout;  /* nanoseconds; SHK_NOW, SHK_NEVER */
    uint64_t deadline; /* of the next attempt; SHK_NOW: it is the first */
};

/* Absent, None: for ever. */
static inline int ipc_patience_of(PyObject *argument, struct patience *out)
{
    *out = (struct patience){SHK_NEVER, SHK_NOW};
    return argument && argument != Py_None ? args_seconds(argument, "timeout", &out->timeout) : 0;
}

/* After a failed attempt: whether there is to be another. Runs the signal handlers; one
 * that raises ends the waiting, and rc stays -EINTR, which errors_raise knows. */
static inline bool ipc_again(struct patience *patience, int rc)
{
    if (rc == -EINTR)
        return PyErr_CheckSignals() == 0;
    if (rc != SHK_E_TIMEOUT || patience->timeout == SHK_NOW || patience->deadline != SHK_NOW)
        return false;
    patience->deadline = SHK_NEVER;
    if (patience->timeout != SHK_NEVER) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        patience->deadline = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec +
                             patience->timeout;
    }
    return true;
}

/* rc = call, which uses patience->deadline, until it succeeds, fails, or patience ends. */
#define IPC_CALL(rc, patience, is_short, call)                                                     \
    do {                                                                                           \
        if ((is_short) && (patience)->deadline == SHK_NOW) {                                       \
            rc = (call);                                                                           \
        } else {                                                                                   \
            Py_BEGIN_ALLOW_THREADS                                                                 \
            rc = (call);                                                                           \
            Py_END_ALLOW_THREADS                                                                   \
        }                                                                                          \
    } while (rc && ipc_again(patience, rc))

#endif
