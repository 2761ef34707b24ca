/* module.c: pyshmkey._core, put together. */
#include "state.h"

#define STATE_REFERENCES (sizeof(struct module_state) / sizeof(PyObject *))

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    PyObject **references = PyModule_GetState(module);
    for (size_t i = 0; i < STATE_REFERENCES; i++)
        Py_VISIT(references[i]);
    return 0;
}

static int module_clear(PyObject *module)
{
    PyObject **references = PyModule_GetState(module);
    for (size_t i = 0; i < STATE_REFERENCES; i++)
        Py_CLEAR(references[i]);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

/* The parts of the module, in order: errors first, as the others raise them. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, threads_exec},
    {Py_mod_exec, errors_exec},
    {Py_mod_exec, keys_exec},
    {Py_mod_exec, segmentstat_exec},
    {Py_mod_exec, segment_exec},
    {Py_mod_exec, atomicint_exec},
    {Py_mod_exec, tables_exec},
    {Py_mod_exec, semaphorestat_exec},
    {Py_mod_exec, semaphore_exec},
    {Py_mod_exec, semaphoreset_exec},
    {Py_mod_exec, msgqueuestat_exec},
    {Py_mod_exec, msgqueue_exec},
    {Py_mod_exec, exporter_exec},
    {Py_mod_exec, keyrecord_exec},
    {Py_mod_exec, keystore_exec},
    {Py_mod_exec, iteration_exec},
    {Py_mod_exec, openers_exec},
    {Py_mod_exec, view_exec},
    {Py_mod_exec, reports_exec},
    {Py_mod_exec, bell_exec},
    {Py_mod_exec, packing_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyshmkey._core",
    .m_doc = "The C part of pyshmkey; import pyshmkey instead.",
    .m_size = sizeof(struct module_state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
