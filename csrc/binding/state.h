/* state.h: what one interpreter's copy of the module owns. */
#ifndef PYSHMKEY_STATE_H
#define PYSHMKEY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/shk.h"

enum {
#define STATE_COUNT_CODE(name, number, message) ERROR_##name,
    SHK_CODES(STATE_COUNT_CODE)
#undef STATE_COUNT_CODE
        ERROR_COUNT
};

/* Every member is one object reference: module.c visits and clears the struct as an array. */
struct module_state {
    PyObject *module;                   /* pyshmkey._core itself */
    PyObject *error;                    /* pyshmkey.Error */
    PyObject *warning;                  /* pyshmkey.StoreWarning */
    PyObject *exceptions[ERROR_COUNT];  /* in the order of SHK_CODES; a builtin where one fits */
    PyObject *segmentstat_type;
    PyObject *segment_type;
    PyObject *atomicint_type;
    PyObject *limits_type;
    PyObject *usage_type;
    PyObject *semaphorestat_type;
    PyObject *semaphore_type;
    PyObject *semaphoreset_type;
    PyObject *msgqueuestat_type;
    PyObject *msgqueue_type;
    PyObject *message_type;
    PyObject *exporter_type;
    PyObject *status_type; /* Status, an IntEnum */
    PyObject *keyrecord_type;
    PyObject *keystore_type;
    PyObject *copy_type;   /* view.c */
    PyObject *stats_type;
    PyObject *report_type;
    PyObject *repair_type;
    PyObject *iterator_type; /* over pairs, KeyRecords or both */
    PyObject *view_types[3]; /* keys, values, items */
    PyObject *change_type;
    PyObject *change_kind_type; /* ChangeKind, an IntEnum */
    PyObject *change_kinds;     /* its members, a tuple: INSERT first */
    PyObject *bell_type;
    PyObject *export_file_error; /* ExportFileError */
    PyObject *packer_type;
    PyObject *unpacker_type;
};

/* Of an instance of one of our types; none of them can be subclassed. */
static inline struct module_state *state_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* One Py_mod_exec step a file: makes its types and adds them to the module. */
int threads_exec(PyObject *module);
int errors_exec(PyObject *module);
int keys_exec(PyObject *module);
int segmentstat_exec(PyObject *module);
int segment_exec(PyObject *module);
int atomicint_exec(PyObject *module);
int tables_exec(PyObject *module);
int semaphorestat_exec(PyObject *module);
int semaphore_exec(PyObject *module);
int semaphoreset_exec(PyObject *module);
int msgqueuestat_exec(PyObject *module);
int msgqueue_exec(PyObject *module);
int exporter_exec(PyObject *module);
int keyrecord_exec(PyObject *module);
int keystore_exec(PyObject *module);
int iteration_exec(PyObject *module);
int openers_exec(PyObject *module);
int view_exec(PyObject *module);
int reports_exec(PyObject *module);
int bell_exec(PyObject *module);
int packing_exec(PyObject *module);

#endif
