/* segment.h: the Segment object, and what its files share.
 *
 *     segmentopen.c   the ways to a Segment; attach and detach; pickling
 *     segmentbytes.c  read, write, items and slices, the buffer protocol
 *     segment.c       control, attributes, the type
 *
 * A handle is open (address set) or closed; it can be closed only while no view of
 * it and no call that uses its bytes without the GIL is left, and may be opened again.
 * An id that is attached can't come to mean another segment; a closed handle's may, so
 * that one compares what never changes of a segment before it acts on it.
 *
 * Without the GIL (threads.h), what copies, exports, opens or closes is in the critical section
 * of the Segment. Items and AtomicInts are lookups, which look at one field each: of two, one
 * could be of before a detach() and an attach(), and the other of after them.
 */
#ifndef PYSHMKEY_SEGMENT_H
#define PYSHMKEY_SEGMENT_H

#include "state.h"
#include "threads.h"

typedef struct {
    PyObject_HEAD
    struct shk_segment_info made; /* as first attached: id, key, size, creator */
    char *address;                /* NULL: closed */
    char *writable;               /* the same; NULL: closed, or read-only */
    int flags;                    /* of SHM_RDONLY and SHM_EXEC; attach() uses them again */
    PyObject *name;               /* the str under which it was made or found; NULL */
    Py_ssize_t views;             /* exported buffers */
    Py_ssize_t uses;              /* without the GIL, in the process uses_pid: */
    pid_t uses_pid;               /* a forked child has none of its parent's */
    PyObject *weakrefs;
} Segment;

/* 0, or -1 with an exception set. The first two in the critical section, the third, which is
 * both for a change, outside. */
int segment_check_open(const Segment *self);
int segment_check_writable(const Segment *self);
int segment_check(Segment *self, bool is_changed);

/* Where the bytes are to be seen or changed, until lookup_end(). NULL with an exception set:
 * there is nothing to end. */
static inline char *segment_lookup(Segment *self, bool is_changed)
{
    char *const *place = is_changed ? &self->writable : &self->address;
    do {
        if (!lookup_begin())
            return NULL;
        char *bytes = __atomic_load_n(place, __ATOMIC_SEQ_CST); /* see lookup_begin */
        if (bytes)
            return bytes;
        lookup_end();
    } while (segment_check(self, is_changed) == 0); /* opened meanwhile */
    return NULL;
}

/* Raises what a failed call returned, naming the key. NULL. */
PyObject *segment_fail(const Segment *self, int error);

/* From begin to end, both called with the GIL and in the critical section, detach() is refused.
 * In between no Python code of this thread may run: it could fork. */
void segment_use_begin(Segment *self);
void segment_use_end(Segment *self);

/* Whether both may describe the same segment, at two moments or in two processes. */
bool segment_is_same(const struct shk_segment_info *a, const struct shk_segment_info *b);
PyObject *segment_raise_replaced(const Segment *self);
void segment_unmap(Segment *self);

/* Of the module: what unpickles. */
extern PyMethodDef segment_functions[];

#define SEGMENT_FAST(name)                                                                         \
    PyObject *segment_##name(PyObject *self, PyObject *const *args, Py_ssize_t count,              \
                             PyObject *keywords)
#define SEGMENT_PLAIN(name) PyObject *segment_##name(PyObject *self, PyObject *unused)
SEGMENT_FAST(create);
SEGMENT_FAST(open);
SEGMENT_FAST(open_or_create);
SEGMENT_FAST(from_id);
SEGMENT_FAST(attach);
SEGMENT_PLAIN(detach);
SEGMENT_PLAIN(enter);
SEGMENT_PLAIN(reduce);
SEGMENT_FAST(read);
SEGMENT_FAST(write);
SEGMENT_FAST(atomic);

Py_ssize_t segment_length(PyObject *self);
PyObject *segment_item(PyObject *self, Py_ssize_t index);
PyObject *segment_subscript(PyObject *self, PyObject *index);
int segment_assign(PyObject *self, PyObject *index, PyObject *value);
int segment_get_buffer(PyObject *self, Py_buffer *view, int flags);
void segment_release_buffer(PyObject *self, Py_buffer *view);

#endif
