/* msgqueue.h: the kernel's message queues.
 *
 * A message is a type (1 or more) and bytes. -ENOENT: the queue is gone, whether the
 * kernel says EINVAL or EIDRM, and whether before the call or while it waited. The
 * calls that wait end with -EINTR when a signal's handler has run, or may
 * have: call again, with the same deadline. The kernel can wait for ever or not at all; to wait until a
 * deadline is to ask again and again, in naps that grow to 10 ms.
 */
#ifndef SHK_MSGQUEUE_H
#define SHK_MSGQUEUE_H

#include <sys/msg.h>

#include "deadline.h"
#include "shk.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As msgsnd(2) and msgrcv(2) take it: the type, then the bytes. */
struct shk_message {
    long type;
    char bytes[];
};

struct shk_msgqueue_info {
    int id;
    key_t key;
    mode_t mode; /* permission bits */
    uid_t uid, cuid;
    gid_t gid, cgid;
    uint64_t messages, bytes; /* in the queue now */
    uint64_t bytes_max;       /* as many may be in it */
    pid_t last_send_pid, last_receive_pid;         /* 0: nobody yet */
    time_t send_time, receive_time, change_time; /* seconds since the epoch; 0: never */
};

/* The detail of ENOSPC names the limit (MSGMNI) and its value. */
SHK_API int shk_msgqueue_create(key_t key, mode_t mode, int *id);
/* need: the permissions (of the 9 bits) without which -EACCES; 0: none. */
SHK_API int shk_msgqueue_find(key_t key, mode_t need, int *id);

/* SHK_E_TIMEOUT, without a detail: the queue was full until the deadline. -EINVAL:
 * longer than MSGMAX. -EMSGSIZE: longer than this queue can ever hold, which the kernel
 * would wait for in vain; told only if the queue may be read. */
SHK_API int shk_msgqueue_send(int id, const struct shk_message *message, size_t size,
                              uint64_t deadline);
/* Which message: type 0 the first, > 0 the first of that type, < 0 the first of the
 * lowest type up to -type. flags: MSG_NOERROR cuts off what is beyond capacity;
 * MSG_EXCEPT takes the first whose type is another. Returns the size in *size.
 * SHK_E_TIMEOUT, without a detail: there was none. -E2BIG, without a detail: it is
 * longer than capacity, and stays. */
SHK_API int shk_msgqueue_receive(int id, struct shk_message *message, size_t capacity, long type,
                                 int flags, uint64_t deadline, size_t *size);
/* A copy of the index-th message; never waits. All of the capacity is read, so it must
 * be initialised. -ENOMSG: not so many there. -E2BIG, without a detail: longer than
 * capacity. -ENOSYS: this kernel has no MSG_COPY. */
SHK_API int shk_msgqueue_peek(int id, struct shk_message *message, size_t capacity,
                              unsigned index, size_t *size);

SHK_API int shk_msgqueue_stat(int id, struct shk_msgqueue_info *out);
/* IPC_SET. mode: the low 9 bits. More bytes_max than MSGMNB is for the privileged only. */
SHK_API int shk_msgqueue_set(int id, uid_t uid, gid_t gid, mode_t mode, uint64_t bytes_max);
/* IPC_RMID: at once, with its messages, and whoever waits gets -ENOENT. */
SHK_API int shk_msgqueue_remove(int id);

#ifdef __cplusplus
}
#endif
#endif
