/* segmentstat.c: SegmentStat, a named tuple like os.stat_result. */
#include "segmentstat.h"

#include <sys/shm.h>

static PyObject *time_of(time_t time)
{
    return time ? PyLong_FromLongLong(time) : Py_NewRef(Py_None);
}

PyObject *segmentstat_field(const struct shk_segment_info *info, int field)
{
    switch (field) {
#define STAT_VALUE(name, value, doc)                                                               \
    case STAT_##name:                                                                              \
        return value;
        STAT_FIELDS(STAT_VALUE)
#undef STAT_VALUE
    default:
        Py_UNREACHABLE();
    }
}

PyObject *segmentstat_new(struct module_state *state, const struct shk_segment_info *info)
{
    PyObject *result = PyStructSequence_New((PyTypeObject *)state->segmentstat_type);
    for (int i = 0; result && i < STAT_COUNT; i++) {
        PyObject *value = segmentstat_field(info, i);
        if (value)
            PyStructSequence_SetItem(result, i, value);
        else
            Py_CLEAR(result);
    }
    return result;
}

static PyStructSequence_Field fields[] = {
#define STAT_FIELD(name, value, doc) {#name, doc},
    STAT_FIELDS(STAT_FIELD)
#undef STAT_FIELD
    {NULL, NULL},
};

static PyStructSequence_Desc description = {
    .name = "pyshmkey.SegmentStat",
    .doc = "What the kernel knows of a segment (IPC_STAT), at one moment.",
    .fields = fields,
    .n_in_sequence = STAT_COUNT,
};

int segmentstat_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->segmentstat_type = (PyObject *)PyStructSequence_NewType(&description);
    if (!state->segmentstat_type)
        return -1;
    return PyModule_AddObjectRef(module, "SegmentStat", state->segmentstat_type);
}
