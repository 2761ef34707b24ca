/* semaphorestat.h: SemaphoreStat, what the kernel knows of a semaphore set. */
#ifndef PYSHMKEY_SEMAPHORESTAT_H
#define PYSHMKEY_SEMAPHORESTAT_H

#include "state.h"

#include "../core/shk.h"

/* The fields: name, value (expanded in semaphorestat.c only), meaning. */
#define SEMSTAT_FIELDS(X)                                                                          \
    X(id, PyLong_FromLong(info->id), "The set's id.")                                              \
    X(key, PyLong_FromLong(info->key), "Its key; 0 if private.")                                   \
    X(count, PyLong_FromUnsignedLong(info->count), "How many semaphores it has.")                  \
    X(mode, PyLong_FromLong(info->mode), "The 9 permission bits.")                                 \
    X(uid, PyLong_FromUnsignedLong(info->uid), "The owner's uid.")                                 \
    X(gid, PyLong_FromUnsignedLong(info->gid), "The owner's gid.")                                 \
    X(cuid, PyLong_FromUnsignedLong(info->cuid), "The creator's uid.")                             \
    X(cgid, PyLong_FromUnsignedLong(info->cgid), "The creator's gid.")                             \
    X(operation_time, time_of(info->operation_time),                                               \
      "The last operation, in seconds since the epoch; None: never, so not initialised.")          \
    X(change_time, time_of(info->change_time),                                                     \
      "Creation, or the last set() or stored value, in seconds since the epoch.")

enum {
#define SEMSTAT_INDEX(name, value, doc) SEMSTAT_##name,
    SEMSTAT_FIELDS(SEMSTAT_INDEX)
#undef SEMSTAT_INDEX
        SEMSTAT_COUNT
};

PyObject *semaphorestat_new(struct module_state *state, const struct shk_semset_info *info);
/* field: SEMSTAT_ and its name. */
PyObject *semaphorestat_field(const struct shk_semset_info *info, int field);

#endif
