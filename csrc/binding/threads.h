/* threads.h: what guards an object's fields where there is no GIL.
 *
 * With the GIL a method runs alone until it lets go of it. Without, GUARDED methods take the
 * critical section of their object, which CPython lets go of wherever it would let go of the GIL
 * (PEP 703): so whatever holds for the fields of one object under the GIL holds here too. Lookups
 * take no lock; they stand between lookup_begin and lookup_end instead, and who unmaps a store
 * waits in lookups_await for those that began before.
 *
 * os.fork stops all other threads where they hold no critical section, but for one that is just
 * being handed one: its lock would stay locked in the child for ever. So each thread notes whose
 * it asks for, and the child unlocks what its parent's other threads had noted.
 */
#ifndef PYSHMKEY_THREADS_H
#define PYSHMKEY_THREADS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#ifdef Py_GIL_DISABLED

#define NOTES 8 /* of guards within guards; more are not noted */

/* A thread's own. */
struct lane {
    uint64_t turns; /* odd while it looks something up */
    struct lane *next;
    uint32_t taken;
    PyObject *notes[NOTES];
} __attribute__((aligned(64)));

extern _Thread_local struct lane *lane_mine;
bool lane_take(void);

static inline void lane_replace_note(PyObject *old, PyObject *new)
{
    if (!lane_mine && !lane_take())
        return; /* no memory: a child may find this object locked */
    for (int i = 0; i < NOTES; i++)
        if (lane_mine->notes[i] == old) {
            lane_mine->notes[i] = new;
            break;
        }
}

/* Around statements that touch the fields of an object, or of two. */
#define GUARD(object)                                                                              \
    {                                                                                              \
        PyObject *const guarded = (PyObject *)(object);                                            \
        lane_replace_note(NULL, guarded);                                                          \
        Py_BEGIN_CRITICAL_SECTION(guarded)
#define UNGUARD                                                                                    \
        Py_END_CRITICAL_SECTION();                                                                 \
        lane_replace_note(guarded, NULL);                                                          \
    }
#define GUARD2(one, other)                                                                         \
    {                                                                                              \
        PyObject *const guarded = (PyObject *)(one);                                               \
        PyObject *const guarded2 = (PyObject *)(other);                                            \
        lane_replace_note(NULL, guarded);                                                          \
        lane_replace_note(NULL, guarded2);                                                         \
        Py_BEGIN_CRITICAL_SECTION2(guarded, guarded2)
#define UNGUARD2                                                                                   \
        Py_END_CRITICAL_SECTION2();                                                                \
        lane_replace_note(guarded2, NULL);                                                         \
        lane_replace_note(guarded, NULL);                                                          \
    }

/* False with MemoryError. What follows, up to lookup_end, must call nothing of Python's that
 * could run other code; or wait, but for what is held briefly, as an allocator's lock or that of a
 * list which nobody else has. */
static inline bool lookup_begin(void)
{
    if (!lane_mine && !lane_take()) {
        PyErr_NoMemory();
        return false;
    }
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
        GUARD(self);                                                                               \
        result = function arguments;                                                               \
        UNGUARD;                                                                                   \
        return result;                                                                             \
    }

#else

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

#define GUARD(object)                                                                              \
    {                                                                                              \
        (void)(object)
#define UNGUARD }
#define GUARD2(one, other)                                                                         \
    {                                                                                              \
        (void)(one), (void)(other)
#define UNGUARD2 }
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
