/* tables.c: segments(), semaphores(), queues(), limits(), usage(): this IPC namespace.
 *
 * source=None asks the kernel, and /proc where the kernel has no STAT_ANY or a filter
 * of system calls forbids it. Rows are SegmentStat, SemaphoreStat and MessageQueueStat.
 */
#include "args.h"
#include "bind.h"
#include "errors.h"
#include "msgqueuestat.h"
#include "segmentstat.h"
#include "semaphorestat.h"

#include <unistd.h>

/* Fields: name, member of `from` as an object, meaning. */

#define UNSIGNED(member) PyLong_FromUnsignedLongLong(from->member)
#define PAGES(member)                                                                              \
    PyLong_FromUnsignedLongLong(from->member * (uint64_t)sysconf(_SC_PAGESIZE))

#define LIMITS_FIELDS(X)                                                                           \
    X(shmmax, UNSIGNED(shmmax), "Bytes of a segment, at most (kernel.shmmax).")                    \
    X(shmmin, UNSIGNED(shmmin), "Bytes of a segment, at least.")                                   \
    X(shmmni, UNSIGNED(shmmni), "Segments (kernel.shmmni).")                                       \
    X(shmall, UNSIGNED(shmall), "Pages of all segments together (kernel.shmall).")                 \
    X(msgmax, UNSIGNED(msgmax), "Bytes of a message (kernel.msgmax).")                             \
    X(msgmnb, UNSIGNED(msgmnb), "Bytes that a new queue takes (kernel.msgmnb).")                   \
    X(msgmni, UNSIGNED(msgmni), "Queues (kernel.msgmni).")                                         \
    X(semmsl, UNSIGNED(semmsl), "Semaphores of a set (kernel.sem, 1st number).")                   \
    X(semmns, UNSIGNED(semmns), "Semaphores of all sets together (2nd).")                          \
    X(semopm, UNSIGNED(semopm), "Operations of one call (3rd).")                                   \
    X(semmni, UNSIGNED(semmni), "Semaphore sets (4th).")                                           \
    X(semvmx, UNSIGNED(semvmx), "The highest value of a semaphore.")

#define USAGE_FIELDS(X)                                                                            \
    X(segments, UNSIGNED(segments), "Segments.")                                                   \
    X(segment_bytes, PAGES(segment_pages), "Bytes of all segments, in whole pages.")               \
    X(resident_bytes, PAGES(resident_pages), "Bytes of them in memory.")                           \
    X(swapped_bytes, PAGES(swapped_pages), "Bytes of them in swap.")                               \
    X(semaphore_sets, UNSIGNED(sets), "Semaphore sets.")                                           \
    X(semaphores, UNSIGNED(semaphores), "Semaphores of all sets.")                                 \
    X(queues, UNSIGNED(queues), "Message queues.")                                                 \
    X(messages, UNSIGNED(messages), "Messages in all queues.")                                     \
    X(message_bytes, UNSIGNED(message_bytes), "Bytes of their texts.")

/* A struct sequence type, and the function that makes one of the C struct. */
#define RECORD_FIELD(name, value, doc) {#name, doc},
#define RECORD_COUNT(name, value, doc) +1
#define RECORD_VALUE(name, value, doc) value,
#define RECORD(noun, source_type, class_name, doc, FIELDS)                                         \
    static PyStructSequence_Field noun##_fields[] = {FIELDS(RECORD_FIELD){NULL, NULL}};            \
    static PyStructSequence_Desc noun##_description = {"pyshmkey." class_name, doc, noun##_fields, \
                                                       0 FIELDS(RECORD_COUNT)};                    \
    static PyObject *noun##_new(struct module_state *state, const void *row)                       \
    {                                                                                              \
        const source_type *from = row;                                                             \
        PyObject *values[] = {FIELDS(RECORD_VALUE)};                                               \
        return record_new(state->noun##_type, values, sizeof values / sizeof *values);             \
    }

/* Takes over the values; any of them may be NULL, with an exception. */
static PyObject *record_new(PyObject *type, PyObject **values, size_t count)
{
    PyObject *record = PyStructSequence_New((PyTypeObject *)type);
    bool good = record != NULL;
    for (size_t i = 0; i < count; i++) {
        good = good && values[i];
        if (record)
            PyStructSequence_SetItem(record, (Py_ssize_t)i, values[i]);
        else
            Py_XDECREF(values[i]);
    }
    if (!good)
        Py_CLEAR(record);
    return record;
}

RECORD(limits, struct shk_limits, "Limits",
       "The limits of System V IPC, by their names in the manual pages.", LIMITS_FIELDS)
RECORD(usage, struct shk_usage, "Usage", "How much of System V IPC is in use.", USAGE_FIELDS)

static PyObject *segment_new(struct module_state *state, const void *row)
{
    return segmentstat_new(state, row);
}

static PyObject *semset_new(struct module_state *state, const void *row)
{
    return semaphorestat_new(state, row);
}

static PyObject *msgqueue_new(struct module_state *state, const void *row)
{
    return msgqueuestat_new(state, row);
}

/* -- the functions ------------------------------------------------------------------- */

/* What one function asks for: rows that the core allocated, or one struct. */
struct answer {
    void *rows;
    size_t count;
    union {
        struct shk_limits limits;
        struct shk_usage usage;
    } one;
};
typedef int (*reader)(enum shk_source source, struct answer *out);
typedef PyObject *(*maker)(struct module_state *state, const void *row);

#define LIST_READER(noun, row_type)                                                                \
    static int read_##noun(enum shk_source source, struct answer *out)                             \
    {                                                                                              \
        row_type *rows;                                                                            \
        int error = shk_##noun##_list(source, &rows, &out->count);                                 \
        if (!error)                                                                                \
            out->rows = rows;                                                                      \
        return error;                                                                              \
    }
LIST_READER(segments, struct shk_segment_info)
LIST_READER(semsets, struct shk_semset_info)
LIST_READER(msgqueues, struct shk_msgqueue_info)

static int read_limits(enum shk_source source, struct answer *out)
{
    return shk_limits_read(source, &out->one.limits);
}

static int read_usage(enum shk_source source, struct answer *out)
{
    return shk_usage_read(source, &out->one.usage);
}

/* The sources to try: the second if the first fails; they may be the same. */
static int sources_of(PyObject *argument, enum shk_source sources[2])
{
    sources[0] = SHK_SOURCE_KERNEL;
    sources[1] = SHK_SOURCE_PROC;
    if (!argument || argument == Py_None)
        return 0;
    bool is_text = PyUnicode_Check(argument);
    if (is_text && PyUnicode_CompareWithASCIIString(argument, "kernel") == 0) {
        sources[1] = SHK_SOURCE_KERNEL;
    } else if (is_text && PyUnicode_CompareWithASCIIString(argument, "proc") == 0) {
        sources[0] = SHK_SOURCE_PROC;
    } else {
        PyErr_Format(is_text ? PyExc_ValueError : PyExc_TypeError,
                     "source must be None, \"kernel\" or \"proc\", not %R", argument);
        return -1;
    }
    return 0;
}

static int ask(const struct signature *signature, PyObject *module, PyObject *const *args,
               Py_ssize_t count, PyObject *keywords, reader read, struct answer *out)
{
    PyObject *in[1];
    enum shk_source sources[2];
    if (bind(signature, args, count, keywords, in) < 0 || sources_of(in[0], sources) < 0)
        return -1;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = read(sources[0], out);
    if (error && sources[0] != sources[1])
        error = read(sources[1], out);
    Py_END_ALLOW_THREADS
    if (error)
        (void)errors_raise(PyModule_GetState(module), error);
    return error ? -1 : 0;
}

/* A list of records; frees the rows. */
static PyObject *list_new(PyObject *module, struct answer *answer, size_t row_size, maker make)
{
    struct module_state *state = PyModule_GetState(module);
    PyObject *list = PyList_New((Py_ssize_t)answer->count);
    for (size_t i = 0; list && i < answer->count; i++) {
        PyObject *record = make(state, (char *)answer->rows + i * row_size);
        if (record)
            PyList_SET_ITEM(list, (Py_ssize_t)i, record);
        else
            Py_CLEAR(list);
    }
    shk_rows_free(answer->rows);
    return list;
}

#define FUNCTION(name)                                                                             \
    SIGNATURE(name, 0, 0, "source");                                                               \
    static PyObject *tables_##name(PyObject *module, PyObject *const *args, Py_ssize_t count,      \
                                   PyObject *keywords)
#define ASK(name, read, answer)                                                                    \
    ask(&name##_signature, module, args, count, keywords, (read), (answer))

FUNCTION(segments)
{
    struct answer found;
    if (ASK(segments, read_segments, &found) < 0)
        return NULL;
    return list_new(module, &found, sizeof(struct shk_segment_info), segment_new);
}

FUNCTION(semaphores)
{
    struct answer found;
    if (ASK(semaphores, read_semsets, &found) < 0)
        return NULL;
    return list_new(module, &found, sizeof(struct shk_semset_info), semset_new);
}

FUNCTION(queues)
{
    struct answer found;
    if (ASK(queues, read_msgqueues, &found) < 0)
        return NULL;
    return list_new(module, &found, sizeof(struct shk_msgqueue_info), msgqueue_new);
}

FUNCTION(limits)
{
    struct answer found;
    if (ASK(limits, read_limits, &found) < 0)
        return NULL;
    return limits_new(PyModule_GetState(module), &found.one.limits);
}

FUNCTION(usage)
{
    struct answer found;
    if (ASK(usage, read_usage, &found) < 0)
        return NULL;
    return usage_new(PyModule_GetState(module), &found.one.usage);
}

/* -- the module ---------------------------------------------------------------------- */

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS
#define SOURCE                                                                                     \
    " `source`: \"kernel\" (its\n"                                                                \
    "control calls), \"proc\" (/proc/sysvipc), or None, the first that works.\n\n"                 \
    "OSError: none works."
static PyMethodDef functions[] = {
    {"segments", FAST(tables_segments),
     "segments($module, /, *, source=None)\n--\n\n"
     "A SegmentStat of each segment, whosever it is." SOURCE},
    {"semaphores", FAST(tables_semaphores),
     "semaphores($module, /, *, source=None)\n--\n\n"
     "A SemaphoreStat of each semaphore set." SOURCE},
    {"queues", FAST(tables_queues),
     "queues($module, /, *, source=None)\n--\n\n"
     "A MessageQueueStat of each message queue." SOURCE},
    {"limits", FAST(tables_limits),
     "limits($module, /, *, source=None)\n--\n\n"
     "The Limits of this IPC namespace." SOURCE},
    {"usage", FAST(tables_usage),
     "usage($module, /, *, source=None)\n--\n\n"
     "The Usage of this IPC namespace." SOURCE},
    {NULL, NULL, 0, NULL},
};

static int type_add(PyObject *module, PyObject **type, PyStructSequence_Desc *description)
{
    *type = (PyObject *)PyStructSequence_NewType(description);
    return *type ? PyModule_AddObjectRef(module, strchr(description->name, '.') + 1, *type) : -1;
}

int tables_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    if (type_add(module, &state->limits_type, &limits_description) < 0 ||
        type_add(module, &state->usage_type, &usage_description) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
