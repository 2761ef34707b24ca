/* segmentstat.h: SegmentStat, what the kernel knows of a segment. */
#ifndef PYSHMKEY_SEGMENTSTAT_H
#define PYSHMKEY_SEGMENTSTAT_H

#include "state.h"

/* The fields: name, value (expanded in segmentstat.c only), meaning. */
#define STAT_FIELDS(X)                                                                             \
    X(id, PyLong_FromLong(info->id), "The segment's id.")                                          \
    X(key, PyLong_FromLong(info->key), "Its key; 0 if private or marked for removal.")             \
    X(size, PyLong_FromSize_t(info->size), "Bytes, as asked for at creation.")                     \
    X(mode, PyLong_FromLong(info->mode & 0777), "The 9 permission bits.")                          \
    X(uid, PyLong_FromUnsignedLong(info->uid), "The owner's uid.")                                 \
    X(gid, PyLong_FromUnsignedLong(info->gid), "The owner's gid.")                                 \
    X(cuid, PyLong_FromUnsignedLong(info->cuid), "The creator's uid.")                             \
    X(cgid, PyLong_FromUnsignedLong(info->cgid), "The creator's gid.")                             \
    X(creator_pid, PyLong_FromLong(info->creator_pid), "Who created it; 0: another namespace.")    \
    X(last_pid, PyLong_FromLong(info->last_pid),                                                   \
      "Who attached or detached last; 0: nobody yet, or another namespace.")                       \
    X(nattch, PyLong_FromUnsignedLongLong(info->attached), "How often it is attached.")            \
    X(attach_time, time_of(info->attach_time),                                                     \
      "The last attach, in seconds since the epoch; None: never.")                                 \
    X(detach_time, time_of(info->detach_time),                                                     \
      "The last detach, in seconds since the epoch; None: never.")                                 \
    X(change_time, time_of(info->change_time),                                                     \
      "Creation or the last set(), in seconds since the epoch.")                                   \
    X(marked_for_removal, PyBool_FromLong((info->mode & SHM_DEST) != 0),                           \
      "True after remove() by anybody.")                                                           \
    X(memory_locked, PyBool_FromLong((info->mode & SHM_LOCKED) != 0),                              \
      "True after lock_memory() by anybody.")

enum {
#define STAT_INDEX(name, value, doc) STAT_##name,
    STAT_FIELDS(STAT_INDEX)
#undef STAT_INDEX
        STAT_COUNT
};

PyObject *segmentstat_new(struct module_state *state, const struct shk_segment_info *info);
/* field: STAT_ and its name. */
PyObject *segmentstat_field(const struct shk_segment_info *info, int field);

#endif
