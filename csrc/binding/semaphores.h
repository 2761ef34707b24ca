/* semaphores.h: what Semaphore and SemaphoreSet share: one handle, its openers and answers. */
#ifndef PYSHMKEY_SEMAPHORES_H
#define PYSHMKEY_SEMAPHORES_H

#include "ipc.h"
#include "semaphorestat.h"

/* A handle holds nothing of the kernel's, so there is nothing to close, and nothing changes once
 * it is given out. */
typedef struct {
    PyObject_HEAD
    int id;
    key_t key;
    unsigned count; /* of the set: never changes */
    unsigned index; /* which one a Semaphore stands for; SemaphoreSet: 0 */
} Semaphores;

/* New handles, or NULL with an exception. values: `count` of them; NULL: all zero, and
 * not initialised. wait: how long to wait for the creator to initialise; NULL, 5 seconds;
 * None: don't look. */
PyObject *semaphores_create(PyObject *type, const unsigned short *values, unsigned count,
                            PyObject *key, PyObject *mode);
PyObject *semaphores_open(PyObject *type, PyObject *key, PyObject *access, PyObject *wait);
PyObject *semaphores_open_or_create(PyObject *type, const unsigned short *values, unsigned count,
                                    PyObject *key, PyObject *mode, PyObject *wait);
PyObject *semaphores_from_id(PyObject *type, PyObject *id);
PyObject *semaphores_at(PyObject *type, const Semaphores *set, unsigned index);

int semaphores_value_of(PyObject *argument, unsigned short *value);
int semaphores_undo_of(PyObject *argument, int *flag);
/* 0, or -1 with an exception: TimeoutError if all at once was not possible in time. */
int semaphores_operate(Semaphores *self, struct sembuf *operations, size_t count,
                       struct patience *patience);
PyObject *semaphores_fail(Semaphores *self, int error);
void semaphores_dealloc(PyObject *self);

/* Methods and attributes of both types. */
extern const char semaphores_stat_doc[], semaphores_set_doc[], semaphores_remove_doc[];
PyObject *semaphores_stat(PyObject *self, PyObject *unused);
PyObject *semaphores_set(PyObject *self, PyObject *const *args, Py_ssize_t count,
                         PyObject *keywords);
PyObject *semaphores_remove(PyObject *self, PyObject *unused);
PyObject *semaphores_get_id(PyObject *self, void *unused);
PyObject *semaphores_get_key(PyObject *self, void *unused);
PyObject *semaphores_get_now(PyObject *self, void *field);

#define SEMAPHORES_NOW(name, doc) {#name, semaphores_get_now, NULL, doc, (void *)SEMSTAT_##name}
#define SEMAPHORES_ATTRIBUTES                                                                      \
    {"id", semaphores_get_id, NULL, "The id of the set.", NULL},                                   \
    {"key", semaphores_get_key, NULL, "The key when the handle was opened; 0: private.", NULL},    \
    SEMAPHORES_NOW(mode, "The 9 permission bits."),                                                \
    SEMAPHORES_NOW(uid, "The owner's uid."),                                                       \
    SEMAPHORES_NOW(gid, "The owner's gid."),                                                       \
    SEMAPHORES_NOW(cuid, "The creator's uid."),                                                    \
    SEMAPHORES_NOW(cgid, "The creator's gid."),                                                    \
    SEMAPHORES_NOW(operation_time,                                                                 \
                   "The last operation on the set, in seconds since the epoch; None: never."),     \
    SEMAPHORES_NOW(change_time,                                                                    \
                   "Creation, or the last set() or stored value, in seconds since the epoch.")

#endif
