/* semaphorestat.c: SemaphoreStat, a named tuple like os.stat_result. */
#include "semaphorestat.h"

static PyObject *time_of(time_t time)
{
    return time ? PyLong_FromLongLong(time) : Py_NewRef(Py_None);
}

PyObject *semaphorestat_field(const struct shk_semset_info *info, int field)
{
    switch (field) {
#define SEMSTAT_VALUE(name, value, doc)                                                            \
    case SEMSTAT_##name:                                                                           \
        return value;
        SEMSTAT_FIELDS(SEMSTAT_VALUE)
#undef SEMSTAT_VALUE
    default:
        Py_UNREACHABLE();
    }
}

PyObject *semaphorestat_new(struct module_state *state, const struct shk_semset_info *info)
{
    PyObject *result = PyStructSequence_New((PyTypeObject *)state->semaphorestat_type);
    for (int i = 0; result && i < SEMSTAT_COUNT; i++) {
        PyObject *value = semaphorestat_field(info, i);
        if (value)
            PyStructSequence_SetItem(result, i, value);
        else
            Py_CLEAR(result);
    }
    return result;
}

static PyStructSequence_Field fields[] = {
#define SEMSTAT_FIELD(name, value, doc) {#name, doc},
    SEMSTAT_FIELDS(SEMSTAT_FIELD)
#undef SEMSTAT_FIELD
    {NULL, NULL},
};

static PyStructSequence_Desc description = {
    .name = "pyshmkey.SemaphoreStat",
    .doc = "What the kernel knows of a semaphore set (IPC_STAT), at one moment.",
    .fields = fields,
    .n_in_sequence = SEMSTAT_COUNT,
};

int semaphorestat_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->semaphorestat_type = (PyObject *)PyStructSequence_NewType(&description);
    if (!state->semaphorestat_type)
        return -1;
    return PyModule_AddObjectRef(module, "SemaphoreStat", state->semaphorestat_type);
}
