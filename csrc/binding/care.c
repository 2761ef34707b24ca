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

PyObject *keystore_purge_expired(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    shk_store *store = keystore_opened(self);
    uint64_t purged;
    struct call call;
    if (!store)
        return NULL;
    call_begin_without_gil(&call, self);
    int rc = shk_store_purge_expired(store, &purged);
    call_end(&call);
    return rc < 0 ? errors_raise(state_of(self), rc) : PyLong_FromUnsignedLongLong(purged);
}

PyObject *keystore_repair(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    shk_store *store = keystore_opened(self);
    struct shk_repair_report report;
    struct call call;
    if (!store)
        return NULL;
    call_begin_without_gil(&call, self);
    int rc = shk_store_repair(store, &report);
    call_end(&call);
    return rc < 0 ? errors_raise(state_of(self), rc) : reports_repair(state_of(self), &report);
}

static PyObject *copy_to(PyObject *self, PyObject *target)
{
    shk_store *from = keystore_opened(self), *to = from ? keystore_opened(target) : NULL;
    uint64_t copied;
    struct call call;
    if (!to)
        return NULL;
    call_hold(target);
    call_begin_without_gil(&call, self);
    int rc = shk_store_copy_to(from, to, &copied);
    call_end(&call);
    call_release(target);
    return rc < 0 ? errors_raise(state_of(self), rc) : PyLong_FromUnsignedLongLong(copied);
}

PyObject *keystore_copy_to(PyObject *self, PyObject *target)
{
    PyObject *result;
    if (Py_TYPE(target) != Py_TYPE(self))
        return PyErr_Format(PyExc_TypeError, "copy_to() takes a KeyStore, not %.200s",
                            Py_TYPE(target)->tp_name);
    GUARD2(self, target);
    result = copy_to(self, target);
    UNGUARD2;
    return result;
}
