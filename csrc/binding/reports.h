/* reports.h: what the C library counted and found, as Python objects. */
#ifndef PYSHMKEY_REPORTS_H
#define PYSHMKEY_REPORTS_H

#include "state.h"

PyObject *reports_stats(struct module_state *state, const struct shk_stats *stats);
PyObject *reports_repair(struct module_state *state, const struct shk_repair_report *report);
PyObject *reports_change(struct module_state *state, const struct shk_change *change);
PyObject *reports_verify(struct module_state *state, const struct shk_report *report);

#endif
