/* msgqueuestat.c: MessageQueueStat, a named tuple like os.stat_result. */
#include "msgqueuestat.h"

static PyObject *time_of(time_t time)
{
    return time ? PyLong_FromLongLong(time) : Py_NewRef(Py_None);
}

PyObject *msgqueuestat_field(const struct shk_msgqueue_info *info, int field)
{
    switch (field) {
#define MSGSTAT_VALUE(name, value, doc)                                                            \
    case MSGSTAT_##name:                                                                           \
        return value;
        MSGSTAT_FIELDS(MSGSTAT_VALUE)
#undef MSGSTAT_VALUE
    default:
        Py_UNREACHABLE();
    }
}

PyObject *msgqueuestat_new(struct module_state *state, const struct shk_msgqueue_info *info)
{
    PyObject *result = PyStructSequence_New((PyTypeObject *)state->msgqueuestat_type);
    for (int i = 0; result && i < MSGSTAT_COUNT; i++) {
        PyObject *value = msgqueuestat_field(info, i);
        if (value)
            PyStructSequence_SetItem(result, i, value);
        else
            Py_CLEAR(result);
    }
    return result;
}

static PyStructSequence_Field fields[] = {
#define MSGSTAT_FIELD(name, value, doc) {#name, doc},
    MSGSTAT_FIELDS(MSGSTAT_FIELD)
#undef MSGSTAT_FIELD
    {NULL, NULL},
};

static PyStructSequence_Desc description = {
    .name = "pyshmkey.MessageQueueStat",
    .doc = "What the kernel knows of a message queue (IPC_STAT), at one moment.",
    .fields = fields,
    .n_in_sequence = MSGSTAT_COUNT,
};

int msgqueuestat_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->msgqueuestat_type = (PyObject *)PyStructSequence_NewType(&description);
    if (!state->msgqueuestat_type)
        return -1;
    return PyModule_AddObjectRef(module, "MessageQueueStat", state->msgqueuestat_type);
}
