/* care.c: what KeyStore does with the store as a whole. */
#include "keystore.h"
#include "reports.h"

PyObject *keystore_stats(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    shk_store *store = keystore_opened(self);
    if (!store)
        return NULL;
    struct shk_stats stats;
    int rc = shk_store_stats(store, &stats);
    if (rc < 0)
        return errors_raise(state_of(self), rc);
    return reports_stats(state_of(self), &stats);
}

PyObject *keystore_verify(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    shk_store *store = keystore_opened(self);
    if (!store)
        return NULL;
    struct shk_report report;
    struct call call;
    call_begin_without_gil(&call, self);
    int rc = shk_store_verify(store, &report);
    call_end(&call);
    if (rc < 0)
        return errors_raise(state_of(self), rc);
    return reports_verify(state_of(self), &report);
}

PyObject *keystore_destroy(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    shk_store *store = keystore_opened(self);
    if (!store)
        return NULL;
    struct call call;
    call_begin_without_gil(&call, self);
    int rc = shk_store_destroy(store);
    call_end(&call);
    if (rc < 0)
        return errors_raise(state_of(self), rc);
    Py_RETURN_NONE;
}
