/* errors.h: codes of the C library become Python exceptions. */
#ifndef PYSHMKEY_ERRORS_H
#define PYSHMKEY_ERRORS_H

#include "state.h"

/* Each returns NULL with an exception set. */

/* What the failed call returned, with its detail: call it on the same thread. -EINTR
 * with an exception set (a signal handler raised) leaves that exception. */
PyObject *errors_raise(struct module_state *state, int code);
/* The same, naming the key where the failed call only knew an id; not IPC_PRIVATE. */
PyObject *errors_raise_with_key(struct module_state *state, int code, key_t key);
/* The exception of an SHK_E code or -errno with a message of our own; format as in
 * PyUnicode_FromFormat. */
PyObject *errors_format(struct module_state *state, int code, const char *format, ...);

#endif
