/* errors.h: codes of the C library become Python exceptions. */
#ifndef PYSHMKEY_ERRORS_H
#define PYSHMKEY_ERRORS_H

#include "state.h"

/* Raises what the failed call returned and returns NULL. -EINTR with an exception
 * set (a signal handler raised) leaves that exception. Call it on the thread that
 * made the call: the detail is thread-local. */
PyObject *errors_raise(struct module_state *state, int code);
/* The same, where the caller knows a key that the failed call did not see. */
PyObject *errors_raise_with_key(struct module_state *state, int code, key_t key);

#endif
