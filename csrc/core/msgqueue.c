/* msgqueue.c: msgget, msgsnd, msgrcv and msgctl, with errors that say what to do. */
#include "shk.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "error.h"
#include "nap.h"

#ifndef MSG_COPY /* not in musl's header */
#define MSG_COPY 040000
#endif

/* /proc/sys/kernel/msg{max,mnb,mni}, without needing /proc. */
static bool read_limits(struct msginfo *limits)
{
    return msgctl(0, IPC_INFO, (struct msqid_ds *)(void *)limits) >= 0;
}

int shk_msgqueue_create(key_t key, mode_t mode, int *id)
{
    struct msginfo limits;
    int found = msgget(key, IPC_CREAT | IPC_EXCL | (int)(mode & 0777));
    if (found >= 0) {
        *id = found;
        return 0;
    }
    int error = errno;
    if (error == ENOSPC && read_limits(&limits))
        return shk__fail(-error,
                         "msgget(key=0x%x): MSGMNI is reached: kernel.msgmni is %d queues, raise "
                         "it with sysctl -w kernel.msgmni=%d, or remove unused ones with ipcrm",
                         (unsigned)key, limits.msgmni, limits.msgmni * 2);
    return shk__fail(-error, "msgget(key=0x%x)", (unsigned)key);
}

int shk_msgqueue_find(key_t key, mode_t need, int *id)
{
    if (key == IPC_PRIVATE)
        return shk__fail(SHK_E_INVALID,
                         "key 0 (IPC_PRIVATE) always makes a new queue: find this one by its id");
    int found = msgget(key, (int)(need & 0777));
    if (found < 0)
        return shk__fail(-errno, "msgget(key=0x%x)", (unsigned)key);
    *id = found;
    return 0;
}

/* Where EINVAL, if the arguments are right, can only mean the id. */
static int fail(int error, int id, const char *call)
{
    if (error == EIDRM)
        return shk__fail(-ENOENT, "%s: the message queue %d was removed", call, id);
    if (error == EINVAL)
        return shk__fail(-ENOENT, "%s: the message queue %d is gone (removed, or never there)",
                         call, id);
    return shk__fail(-error, "%s on message queue %d", call, id);
}

static int fail_to_send(int error, int id, long type, size_t size)
{
    struct msginfo limits;
    if (error == EINVAL && type < 1)
        return shk__fail(SHK_E_INVALID, "message type %ld: at least 1 is needed", type);
    if (error == EINVAL && read_limits(&limits) && size > (size_t)limits.msgmax)
        return shk__fail(-error,
                         "msgsnd(id=%d) of %zu bytes: beyond MSGMAX: kernel.msgmax is %d bytes, "
                         "raise it with sysctl -w kernel.msgmax=%zu",
                         id, size, limits.msgmax, size);
    return fail(error, id, "msgsnd");
}

/* Of a queue that is full: could it take the message if it were empty? */
static int check_fits(int id, size_t size)
{
    struct shk_msgqueue_info info;
    if (shk_msgqueue_stat(id, &info) != 0 || size <= info.bytes_max)
        return 0;
    return shk__fail(-EMSGSIZE,
                     "msgsnd(id=%d) of %zu bytes: the whole queue may hold %llu; give it more room "
                     "(IPC_SET; beyond MSGMNB, kernel.msgmnb, only the privileged may)",
                     id, size, (unsigned long long)info.bytes_max);
}

int shk_msgqueue_send(int id, const struct shk_message *message, size_t size, uint64_t deadline)
{
    int flags = IPC_NOWAIT;
    for (struct shk__naps naps = {0, 0};;) {
        if (msgsnd(id, message, size, flags) == 0)
            return 0;
        if (errno == EINTR)
            return shk__fail_plainly(-EINTR);
        if (errno != EAGAIN)
            return fail_to_send(errno, id, message->type, size);
        int error = check_fits(id, size);
        if (error)
            return error;
        if (deadline == SHK_NOW)
            return shk__fail_plainly(SHK_E_TIMEOUT);
        if (deadline == SHK_NEVER)
            flags = 0;
        else if ((error = shk__nap(deadline, &naps)) != 0)
            return error;
    }
}

int shk_msgqueue_receive(int id, struct shk_message *message, size_t capacity, long type,
                         int flags, uint64_t deadline, size_t *size)
{
    if (deadline != SHK_NEVER)
        flags |= IPC_NOWAIT;
    for (struct shk__naps naps = {0, 0};;) {
        ssize_t got = msgrcv(id, message, capacity, type, flags);
        if (got >= 0) {
            *size = (size_t)got;
            return 0;
        }
        if (errno == EINTR || errno == E2BIG)
            return shk__fail_plainly(-errno);
        if (errno != ENOMSG)
            return fail(errno, id, "msgrcv");
        if (deadline == SHK_NOW)
            return shk__fail_plainly(SHK_E_TIMEOUT);
        int error = shk__nap(deadline, &naps);
        if (error)
            return error;
    }
}

int shk_msgqueue_peek(int id, struct shk_message *message, size_t capacity, unsigned index,
                      size_t *size)
{
    ssize_t got = msgrcv(id, message, capacity, (long)index, MSG_COPY | IPC_NOWAIT);
    if (got >= 0) {
        *size = (size_t)got;
        return 0;
    }
    if (errno == E2BIG)
        return shk__fail_plainly(-E2BIG);
    if (errno == ENOMSG)
        return shk__fail(-ENOMSG, "the message queue %d has no message at index %u", id, index);
    if (errno == ENOSYS)
        return shk__fail(-ENOSYS,
                         "msgrcv(MSG_COPY): this kernel was built without CONFIG_CHECKPOINT_RESTORE");
    int error = errno;
    struct shk_msgqueue_info info;
    if (error == EINVAL && shk_msgqueue_stat(id, &info) == 0)
        return shk__fail(-error,
                         "msgrcv(id=%d, MSG_COPY): a message that is longer than MSGMAX (sysctl "
                         "kernel.msgmax) is by now can be received, but not copied",
                         id);
    return fail(error, id, "msgrcv(MSG_COPY)");
}

int shk_msgqueue_stat(int id, struct shk_msgqueue_info *out)
{
    struct msqid_ds status;
    if (msgctl(id, IPC_STAT, &status) < 0)
        return fail(errno, id, "msgctl(IPC_STAT)");
    *out = (struct shk_msgqueue_info){
        .id = id,
        .key = status.msg_perm.__key,
        .mode = status.msg_perm.mode & 0777,
        .uid = status.msg_perm.uid,
        .cuid = status.msg_perm.cuid,
        .gid = status.msg_perm.gid,
        .cgid = status.msg_perm.cgid,
        .messages = status.msg_qnum,
        .bytes = status.__msg_cbytes,
        .bytes_max = status.msg_qbytes,
        .last_send_pid = status.msg_lspid,
        .last_receive_pid = status.msg_lrpid,
        .send_time = status.msg_stime,
        .receive_time = status.msg_rtime,
        .change_time = status.msg_ctime,
    };
    return 0;
}

int shk_msgqueue_set(int id, uid_t uid, gid_t gid, mode_t mode, uint64_t bytes_max)
{
    struct msginfo limits;
    struct shk_msgqueue_info info;
    struct msqid_ds status = {.msg_perm = {.uid = uid, .gid = gid, .mode = mode & 0777},
                              .msg_qbytes = bytes_max};
    if (msgctl(id, IPC_SET, &status) == 0)
        return 0;
    int error = errno;
    if (error == EPERM && read_limits(&limits) && bytes_max > (uint64_t)limits.msgmnb)
        return shk__fail(-error,
                         "msgctl(id=%d, IPC_SET) to %llu bytes: beyond MSGMNB: kernel.msgmnb is %d "
                         "bytes for those without CAP_SYS_RESOURCE, raise it with sysctl -w "
                         "kernel.msgmnb=%llu",
                         id, (unsigned long long)bytes_max, limits.msgmnb,
                         (unsigned long long)bytes_max);
    if (error == EINVAL && shk_msgqueue_stat(id, &info) != -ENOENT)
        return shk__fail(-error, "msgctl(id=%d, IPC_SET, uid=%u, gid=%u, mode=0%o, qbytes=%llu)",
                         id, uid, gid, mode & 0777u, (unsigned long long)bytes_max);
    return fail(error, id, "msgctl(IPC_SET)");
}

int shk_msgqueue_remove(int id)
{
    if (msgctl(id, IPC_RMID, NULL) < 0)
        return fail(errno, id, "msgctl(IPC_RMID)");
    return 0;
}
