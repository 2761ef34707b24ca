/* msgqueuestat.h: MessageQueueStat, what the kernel knows of a message queue. */
#ifndef PYSHMKEY_MSGQUEUESTAT_H
#define PYSHMKEY_MSGQUEUESTAT_H

#include "state.h"

#include "../core/shk.h"

/* The fields: name, value (expanded in msgqueuestat.c only), meaning. */
#define MSGSTAT_FIELDS(X)                                                                          \
    X(id, PyLong_FromLong(info->id), "The queue's id.")                                            \
    X(key, PyLong_FromLong(info->key), "Its key; 0 if private.")                                   \
    X(messages, PyLong_FromUnsignedLongLong(info->messages), "How many messages are in it.")       \
    X(bytes, PyLong_FromUnsignedLongLong(info->bytes), "How many bytes these have together.")      \
    X(max_bytes,                                                                                   \
      info->bytes_max ? PyLong_FromUnsignedLongLong(info->bytes_max) : Py_NewRef(Py_None),         \
      "How many they may have; None: /proc doesn't tell, and its mode denies asking.")             \
    X(mode, PyLong_FromLong(info->mode), "The 9 permission bits.")                                 \
    X(uid, PyLong_FromUnsignedLong(info->uid), "The owner's uid.")                                 \
    X(gid, PyLong_FromUnsignedLong(info->gid), "The owner's gid.")                                 \
    X(cuid, PyLong_FromUnsignedLong(info->cuid), "The creator's uid.")                             \
    X(cgid, PyLong_FromUnsignedLong(info->cgid), "The creator's gid.")                             \
    X(last_send_pid, PyLong_FromLong(info->last_send_pid), "Who sent last; 0: nobody yet.")        \
    X(last_receive_pid, PyLong_FromLong(info->last_receive_pid),                                   \
      "Who received last; 0: nobody yet.")                                                         \
    X(send_time, time_of(info->send_time),                                                         \
      "The last message sent, in seconds since the epoch; None: never.")                           \
    X(receive_time, time_of(info->receive_time),                                                   \
      "The last message received, in seconds since the epoch; None: never.")                       \
    X(change_time, time_of(info->change_time),                                                     \
      "Creation or the last set(), in seconds since the epoch.")

enum {
#define MSGSTAT_INDEX(name, value, doc) MSGSTAT_##name,
    MSGSTAT_FIELDS(MSGSTAT_INDEX)
#undef MSGSTAT_INDEX
        MSGSTAT_COUNT
};

PyObject *msgqueuestat_new(struct module_state *state, const struct shk_msgqueue_info *info);
/* field: MSGSTAT_ and its name. */
PyObject *msgqueuestat_field(const struct shk_msgqueue_info *info, int field);

#endif
