/* threads.c: who is looking something up, where there is no GIL that says so.
 *
 * Each thread has a lane, which only it writes. A lane is never freed: a thread that ends leaves
 * it to the next one, so that whoever goes through the list needs no lock.
 */
#include "threads.h"

#include "state.h"

#ifdef Py_GIL_DISABLED

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Thread_local struct lane *lane_mine;

static struct lane *lanes; /* grows at its head only */
static pthread_key_t leaving;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int setup_error;

/* A daemon thread may end, with the interpreter, in the midst of a guard. */
static void leave(void *lane_)
{
    struct lane *lane = lane_;
    lane_mine = NULL; /* what else the thread does as it ends takes one anew */
    memset(lane->notes, 0, sizeof lane->notes);
    __atomic_store_n(&lane->taken, 0, __ATOMIC_RELEASE);
}

/* Whether the calling thread has it locked: of sections within sections only the innermost is
 * locked again after a wait, until it ends. As in CPython's pycore_critical_section.h, which says
 * so nowhere public: bit 0 of a link is set where that section and those around it are let go of,
 * bit 1 where it has two mutexes. */
static bool is_held(const PyMutex *mutex)
{
    const PyThreadState *thread = PyThreadState_GetUnchecked();
    uintptr_t link = thread ? thread->critical_section : 0;
    while (link && !(link & 1)) {
        const PyCriticalSection2 *section = (const PyCriticalSection2 *)(link & ~(uintptr_t)3);
        if (section->_cs_base._cs_mutex == mutex || (link & 2 && section->_cs_mutex2 == mutex))
            return true;
        link = section->_cs_base._cs_prev;
    }
    return false;
}

/* The other threads of the parent don't exist in the child, nor their lookups, and nobody unlocks
 * what they were handed. */
static void after_fork(void)
{
    for (struct lane *lane = lanes; lane; lane = lane->next) {
        if (lane == lane_mine)
            continue;
        for (int i = 0; i < NOTES; i++) {
            if (lane->notes[i] && !is_held(&lane->notes[i]->ob_mutex))
                lane->notes[i]->ob_mutex = (PyMutex){0};
            lane->notes[i] = NULL;
        }
        lane->turns += lane->turns % 2;
        lane->taken = 0;
    }
}

static void setup(void)
{
    setup_error = pthread_key_create(&leaving, leave);
    if (setup_error == 0)
        setup_error = pthread_atfork(NULL, NULL, after_fork);
}

int threads_exec(PyObject *module)
{
    (void)module;
    pthread_once(&once, setup);
    if (setup_error == 0)
        return 0;
    errno = setup_error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static bool claim(struct lane *lane)
{
    uint32_t free_one = 0;
    return __atomic_compare_exchange_n(&lane->taken, &free_one, 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

bool lane_take(void)
{
    struct lane *lane = __atomic_load_n(&lanes, __ATOMIC_ACQUIRE);
    while (lane && !claim(lane))
        lane = lane->next;
    if (!lane) {
        lane = aligned_alloc(_Alignof(struct lane), sizeof *lane);
        if (!lane)
            return false;
        *lane = (struct lane){.next = __atomic_load_n(&lanes, __ATOMIC_RELAXED), .taken = 1};
        while (!__atomic_compare_exchange_n(&lanes, &lane->next, lane, false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_RELAXED)) /* see lookups_await */
            ;
    }
    if (pthread_setspecific(leaving, lane) != 0) {
        leave(lane);
        return false;
    }
    lane_mine = lane;
    return true;
}

/* A thread that looks things up over and over shows other turns each time, so that one look at
 * another turn is enough. */
static bool is_in(const struct lane *lane, uint64_t turn)
{
    return __atomic_load_n(&lane->turns, __ATOMIC_SEQ_CST) == turn;
}

void lookups_await(void)
{
    /* A lane that is added from here on begins after the store was taken out. */
    for (struct lane *lane = __atomic_load_n(&lanes, __ATOMIC_SEQ_CST); lane; lane = lane->next) {
        const uint64_t turn = __atomic_load_n(&lane->turns, __ATOMIC_SEQ_CST);
        if (turn % 2 == 0 || !is_in(lane, turn))
            continue;
        /* It may have lost its core. Detached: it may, before it goes on, wait for a stop of the
         * world that waits for this thread. */
        Py_BEGIN_ALLOW_THREADS;
        while (is_in(lane, turn))
            nanosleep(&(struct timespec){0, 20000}, NULL);
        Py_END_ALLOW_THREADS;
    }
}

#else

int threads_exec(PyObject *module)
{
    (void)module;
    return 0;
}

#endif
