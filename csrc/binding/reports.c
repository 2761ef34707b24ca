/* reports.c: StoreStats, VerifyReport and CHECKS. */
#include "reports.h"

static PyStructSequence_Field stats_fields[] = {
    {"records", "pairs in the store, expired and revoked ones too"},
    {"previous_keys", "keys kept for the grace of a rotation"},
    {"revision", "commits since creation"},
    {"slots_touched", "slots ever used: the high-water mark"},
    {"reclaimed", "expired records and previous keys that were wiped and freed"},
    {"takeovers", "locks taken from dead writers"},
    {"recoveries", "operations of dead writers that were finished or undone"},
    {"last_key_id", "the last key id drawn"},
    {NULL, NULL},
};
static PyStructSequence_Desc stats_description = {
    "pyshmkey.StoreStats", "Counters of a store, for all processes since its creation.",
    stats_fields, 8};

static PyStructSequence_Field report_fields[] = {
    {"ok", "True if every check holds"},
    {"records", "slots that the index names"},
    {"free_slots", "slots in the free queue"},
    {"journaled", "slots of an operation that is under way, or was when its writer died"},
    {"problems", "dict: name of a check that fails -> (times, first slot or bucket)"},
    {NULL, NULL},
};
static PyStructSequence_Desc report_description = {
    "pyshmkey.VerifyReport", "What KeyStore.verify found; CHECKS says what each check means.",
    report_fields, 5};

/* Fills a struct sequence with new references; any of them may be NULL. */
static PyObject *sequence(PyObject *type, PyObject **items, Py_ssize_t count)
{
    PyObject *result = PyStructSequence_New((PyTypeObject *)type);
    bool good = result != NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        good = good && items[i];
        if (result)
            PyStructSequence_SetItem(result, i, items[i]);
        else
            Py_XDECREF(items[i]);
    }
    if (!good)
        Py_CLEAR(result);
    return result;
}

PyObject *reports_stats(struct module_state *state, const struct shk_stats *stats)
{
    PyObject *items[] = {
        PyLong_FromUnsignedLongLong(stats->records),
        PyLong_FromUnsignedLongLong(stats->previous_keys),
        PyLong_FromUnsignedLongLong(stats->revision),
        PyLong_FromUnsignedLongLong(stats->slots_touched),
        PyLong_FromUnsignedLongLong(stats->reclaimed),
        PyLong_FromUnsignedLongLong(stats->takeovers),
        PyLong_FromUnsignedLongLong(stats->recoveries),
        PyLong_FromLong(stats->last_key_id),
    };
    return sequence(state->stats_type, items, 8);
}

static PyObject *problems_dict(const struct shk_report *report)
{
    PyObject *problems = PyDict_New();
    for (int i = 0; problems && i < SHK_CHECK_COUNT; i++) {
        if (!report->faults[i])
            continue;
        PyObject *found = Py_BuildValue("(KK)", (unsigned long long)report->faults[i],
                                        (unsigned long long)report->first[i]);
        if (!found ||
            PyDict_SetItemString(problems, shk_check_name((enum shk_check)i), found) < 0)
            Py_CLEAR(problems);
        Py_XDECREF(found);
    }
    return problems;
}

PyObject *reports_verify(struct module_state *state, const struct shk_report *report)
{
    PyObject *problems = problems_dict(report);
    if (!problems)
        return NULL;
    PyObject *items[] = {
        PyBool_FromLong(PyDict_GET_SIZE(problems) == 0),
        PyLong_FromUnsignedLongLong(report->records),
        PyLong_FromUnsignedLongLong(report->free_slots),
        PyLong_FromUnsignedLongLong(report->journaled),
        problems,
    };
    return sequence(state->report_type, items, 5);
}

static int add_checks(PyObject *module)
{
    PyObject *checks = PyDict_New();
    for (int i = 0; checks && i < SHK_CHECK_COUNT; i++) {
        PyObject *text = PyUnicode_FromString(shk_check_text((enum shk_check)i));
        if (!text || PyDict_SetItemString(checks, shk_check_name((enum shk_check)i), text) < 0)
            Py_CLEAR(checks);
        Py_XDECREF(text);
    }
    int rc = checks ? PyModule_AddObjectRef(module, "CHECKS", checks) : -1;
    Py_XDECREF(checks);
    return rc;
}

int reports_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->stats_type = (PyObject *)PyStructSequence_NewType(&stats_description);
    state->report_type = (PyObject *)PyStructSequence_NewType(&report_description);
    if (!state->stats_type || !state->report_type ||
        PyModule_AddObjectRef(module, "StoreStats", state->stats_type) < 0 ||
        PyModule_AddObjectRef(module, "VerifyReport", state->report_type) < 0)
        return -1;
    return add_checks(module);
}
