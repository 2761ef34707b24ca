/* reports.c: StoreStats, VerifyReport and CHECKS, RepairReport and DROPS, Change. */
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

static PyStructSequence_Field repair_fields[] = {
    {"kept", "records that stand, previous keys included"},
    {"restored", "of them those that the index had lost"},
    {"dropped", "dict: name of a reason -> (times, first slot or entry); DROPS says what it means"},
    {NULL, NULL},
};
static PyStructSequence_Desc repair_description = {
    "pyshmkey.RepairReport", "What KeyStore.repair did.", repair_fields, 3};
static PyStructSequence_Field change_fields[] = {
    {"revision", "the store's revision after it"},
    {"kind", "a ChangeKind"},
    {"client_id", "the pair's client id"},
    {"server_id", "the pair's server id"},
    {NULL, NULL},
};
static PyStructSequence_Desc change_description = {
    "pyshmkey.Change", "One commit of a store: what happened to which pair.", change_fields, 4};

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

typedef const char *describe(int number);

static const char *check_name(int number)
{
    return shk_check_name((enum shk_check)number);
}

static const char *check_text(int number)
{
    return shk_check_text((enum shk_check)number);
}

static const char *drop_name(int number)
{
    return shk_drop_name((enum shk_drop)number);
}

static const char *drop_text(int number)
{
    return shk_drop_text((enum shk_drop)number);
}

/* name -> (times, first), of what was found at all. */
static PyObject *found_dict(int count, const uint64_t *times, const uint64_t *first, describe *name)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < count; i++) {
        if (!times[i])
            continue;
        PyObject *found = Py_BuildValue("(KK)", (unsigned long long)times[i],
                                        (unsigned long long)first[i]);
        if (!found || PyDict_SetItemString(dict, name(i), found) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(found);
    }
    return dict;
}

PyObject *reports_verify(struct module_state *state, const struct shk_report *report)
{
    PyObject *problems = found_dict(SHK_CHECK_COUNT, report->faults, report->first, check_name);
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

static PyObject *id_text(const char *id, uint32_t size)
{
    return PyUnicode_DecodeUTF8(id, (Py_ssize_t)size, "surrogateescape");
}

PyObject *reports_change(struct module_state *state, const struct shk_change *change)
{
    PyObject *items[] = {
        PyLong_FromUnsignedLongLong(change->revision),
        Py_NewRef(PyTuple_GET_ITEM(state->change_kinds, change->kind - SHK_CHANGE_INSERT)),
        id_text(change->client, change->client_size),
        id_text(change->server, change->server_size),
    };
    return sequence(state->change_type, items, 4);
}

static int add_change(struct module_state *state, PyObject *module)
{
    PyObject *enum_module = PyImport_ImportModule("enum");
    if (!enum_module)
        return -1;
    PyObject *int_enum = PyObject_GetAttrString(enum_module, "IntEnum");
    PyObject *arguments = Py_BuildValue(
        "(s{sisisisisisisi})", "ChangeKind", "INSERT", SHK_CHANGE_INSERT, "OVERWRITE",
        SHK_CHANGE_OVERWRITE, "ROTATE", SHK_CHANGE_ROTATE, "REVOKE", SHK_CHANGE_REVOKE, "TOUCH",
        SHK_CHANGE_TOUCH, "DELETE", SHK_CHANGE_DELETE, "EXPIRE", SHK_CHANGE_EXPIRE);
    PyObject *where = Py_BuildValue("{ss}", "module", "pyshmkey");
    if (int_enum && arguments && where)
        state->change_kind_type = PyObject_Call(int_enum, arguments, where);
    Py_XDECREF(where);
    Py_XDECREF(arguments);
    Py_XDECREF(int_enum);
    Py_DECREF(enum_module);
    if (!state->change_kind_type)
        return -1;
    state->change_kinds = PySequence_Tuple(state->change_kind_type); /* in order of definition */
    state->change_type = (PyObject *)PyStructSequence_NewType(&change_description);
    if (!state->change_kinds || !state->change_type ||
        PyModule_AddObjectRef(module, "ChangeKind", state->change_kind_type) < 0)
        return -1;
    return PyModule_AddObjectRef(module, "Change", state->change_type);
}

PyObject *reports_repair(struct module_state *state, const struct shk_repair_report *report)
{
    PyObject *items[] = {
        PyLong_FromUnsignedLongLong(report->kept),
        PyLong_FromUnsignedLongLong(report->restored),
        found_dict(SHK_DROP_COUNT, report->dropped, report->first, drop_name),
    };
    return sequence(state->repair_type, items, 3);
}

/* A dict of the module: name -> meaning. */
static int add_meanings(PyObject *module, const char *what, int count, describe *name,
                        describe *text)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < count; i++) {
        PyObject *meaning = PyUnicode_FromString(text(i));
        if (!meaning || PyDict_SetItemString(dict, name(i), meaning) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(meaning);
    }
    int rc = dict ? PyModule_AddObjectRef(module, what, dict) : -1;
    Py_XDECREF(dict);
    return rc;
}

int reports_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    state->stats_type = (PyObject *)PyStructSequence_NewType(&stats_description);
    state->report_type = (PyObject *)PyStructSequence_NewType(&report_description);
    state->repair_type = (PyObject *)PyStructSequence_NewType(&repair_description);
    if (!state->stats_type || !state->report_type || !state->repair_type ||
        PyModule_AddObjectRef(module, "StoreStats", state->stats_type) < 0 ||
        PyModule_AddObjectRef(module, "VerifyReport", state->report_type) < 0 ||
        PyModule_AddObjectRef(module, "RepairReport", state->repair_type) < 0 ||
        add_meanings(module, "CHECKS", SHK_CHECK_COUNT, check_name, check_text) < 0 ||
        add_change(state, module) < 0)
        return -1;
    return add_meanings(module, "DROPS", SHK_DROP_COUNT, drop_name, drop_text);
}
