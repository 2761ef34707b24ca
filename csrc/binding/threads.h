/* threads.h: what guards an object's fields where there is no GIL.
 *
 * With the GIL a method runs alone until it lets go of it. Without, GUARDED methods take the
 * critical section of their object, which CPython lets go of wherever it would let go of the GIL
 * (PEP 703): so whatever holds for the fields of one object under the GIL holds here too. Lookups
 * take no lock; they stand between lookup_begin and lookup_end instead, and who unmaps a store
 * waits in lookups_await for those that began before.
 */
#ifndef PYSHMKEY_THREADS_H
#define PYSHMKEY_THREADS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030D0000
#define Py_BEGIN_CRITICAL_SECTION(object) { (void)(object);
#define Py_END_CRITICAL_SECTION() }
#define Py_BEGIN_CRITICAL_SECTION2(one, other) { (void)(one), (void)(other);
#define Py_END_CRITICAL_SECTION2() }
#endif

#ifdef Py_GIL_DISABLED

/* A thread's own: odd while it looks something up. */
struct lane {
    uint64_t turns;
    struct lane *next;
    uint32_t taken;
} __attribute__((aligned(64)));

extern _Thread_local struct lane *lane_mine;
int lane_take(void);
int lanes_setup(void);

/* False with MemoryError. What follows, up to lookup_end, must call nothing of Python's that
 * could run other code or wait. */
static inline bool lookup_begin(void)
{
    if (!lane_mine && lane_take() < 0)
        return false;
    /* Before every load of what the object holds; pairs with lookups_await. */
    (void)__atomic_exchange_n(&lane_mine->turns, lane_mine->turns + 1, __ATOMIC_SEQ_CST);
    return true;
}

static inline void lookup_end(void)
{
    __atomic_store_n(&lane_mine->turns, lane_mine->turns + 1, __ATOMIC_RELEASE);
}

/* After the store was taken out of its object: no lookup can have it still. Lets other threads
 * run meanwhile. */
void lookups_await(void);

/* Names of functions that run in the critical section of their first argument. */
#define GUARDED(function) function##_guarded
#define GUARDED_CALL(result_type, function, parameters, arguments)                                 \
    static result_type function##_guarded parameters                                               \
    {                                                                                              \
        result_type result;                                                                        \
        Py_BEGIN_CRITICAL_SECTION(self);                                                           \
        result = function arguments;                                                               \
        Py_END_CRITICAL_SECTION();                                                                 \
        return result;                                                                             \
    }

#else

static inline int lanes_setup(void)
{
    return 0;
}
static inline bool lookup_begin(void)
{
    return true;
}
static inline void lookup_end(void)
{
}
static inline void lookups_await(void)
{
}

#define GUARDED(function) function
#define GUARDED_CALL(result_type, function, parameters, arguments)

#endif

/* Declares the guarded twin of a method: METH_FASTCALL | METH_KEYWORDS, METH_NOARGS or METH_O, or
 * of the attribute `name`: get_name, set_name. */
#define GUARDED_FAST(function)                                                                     \
    GUARDED_CALL(PyObject *, function,                                                             \
                 (PyObject * self, PyObject *const *args, Py_ssize_t count, PyObject *keywords),   \
                 (self, args, count, keywords))
#define GUARDED_PLAIN(function)                                                                    \
    GUARDED_CALL(PyObject *, function, (PyObject * self, PyObject * argument), (self, argument))
#define GUARDED_GET(function)                                                                      \
    GUARDED_CALL(PyObject *, function, (PyObject * self, void *closure), (self, closure))
#define GUARDED_SET(function)                                                                      \
    GUARDED_CALL(int, function, (PyObject * self, PyObject * value, void *closure),                \
                 (self, value, closure))

#endif
