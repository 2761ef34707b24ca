/* sysinfo.c: the tables of this IPC namespace, as the kernel's control calls tell.
 *
 * A table is a row of places, some of them empty. The control calls with an index in
 * place of an id (STAT_ANY) answer EINVAL for an empty place, and so does a kernel
 * that doesn't know the command.
 */
#include "sysinfo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include "error.h"
#include "segment.h"

/* The numbers are the kernel's, for C libraries that are older. */
#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif
#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif

union semun { /* semctl's fourth argument, which its callers declare */
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

void *shk__rows_add(struct shk__rows *to)
{
    if (to->count == to->capacity) {
        size_t capacity = to->capacity ? to->capacity * 2 : 64;
        void *rows = reallocarray(to->rows, capacity, to->row_size);
        if (!rows)
            return NULL;
        to->rows = rows;
        to->capacity = capacity;
    }
    return memset((char *)to->rows + to->row_size * to->count++, 0, to->row_size);
}

void shk_rows_free(void *rows)
{
    free(rows);
}

/* -- counts: what {SHM,SEM,MSG}_INFO return is the highest place in use ------------- */

static int shm_counts(struct shm_info *info)
{
    int highest = shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)info);
    return highest < 0 ? shk__fail(-errno, "shmctl(SHM_INFO)") : highest;
}

static int sem_counts(struct seminfo *info)
{
    int highest = semctl(0, 0, SEM_INFO, (union semun){.info = info});
    return highest < 0 ? shk__fail(-errno, "semctl(SEM_INFO)") : highest;
}

static int msg_counts(struct msginfo *info)
{
    int highest = msgctl(0, MSG_INFO, (struct msqid_ds *)(void *)info);
    return highest < 0 ? shk__fail(-errno, "msgctl(MSG_INFO)") : highest;
}

/* -- rows: 1 if there is one at this place, 0 if not, -errno ------------------------ */

static int no_row(const char *call, int place)
{
    if (errno == EINVAL || errno == EIDRM)
        return 0;
    return shk__fail(-errno, "%s(index=%d, STAT_ANY)", call, place);
}

static int segment_at(int place, void *out)
{
    struct shmid_ds status;
    int id = shmctl(place, SHM_STAT_ANY, &status);
    if (id < 0)
        return no_row("shmctl", place);
    shk__segment_describe(id, &status, out);
    return 1;
}

static int set_at(int place, void *out)
{
    struct semid_ds status;
    int id = semctl(place, 0, SEM_STAT_ANY, (union semun){.buf = &status});
    if (id < 0)
        return no_row("semctl", place);
    *(struct shk_semset_info *)out = (struct shk_semset_info){
        .id = id,
        .key = status.sem_perm.__key,
        .mode = status.sem_perm.mode & 0777,
        .uid = status.sem_perm.uid,
        .cuid = status.sem_perm.cuid,
        .gid = status.sem_perm.gid,
        .cgid = status.sem_perm.cgid,
        .count = (unsigned)status.sem_nsems,
        .operation_time = status.sem_otime,
        .change_time = status.sem_ctime,
    };
    return 1;
}

static int queue_at(int place, void *out)
{
    struct msqid_ds status;
    int id = msgctl(place, MSG_STAT_ANY, &status);
    if (id < 0)
        return no_row("msgctl", place);
    *(struct shk_msgqueue_info *)out = (struct shk_msgqueue_info){
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
    return 1;
}

/* Walks the places up to the highest; `used` rows were in the table just before. */
static int collect(struct shk__rows *to, int highest, unsigned long used,
                   int (*row_at)(int place, void *out))
{
    for (int place = 0; place <= highest; place++) {
        void *row = shk__rows_add(to);
        int found = row ? row_at(place, row) : shk__fail(-ENOMEM, "a table of %zu rows", to->count);
        if (found < 0)
            return found;
        if (!found)
            to->count--;
    }
    if (used > 0 && to->count == 0)
        return shk__fail(-ENOSYS, "{shm,sem,msg}ctl(STAT_ANY), which Linux has since 4.17");
    return 0;
}

static int kernel_segments(struct shk__rows *to)
{
    struct shm_info info;
    int highest = shm_counts(&info);
    return highest < 0 ? highest
                       : collect(to, highest, (unsigned long)info.used_ids, segment_at);
}

static int kernel_semsets(struct shk__rows *to)
{
    struct seminfo info;
    int highest = sem_counts(&info);
    return highest < 0 ? highest : collect(to, highest, (unsigned long)info.semusz, set_at);
}

static int kernel_msgqueues(struct shk__rows *to)
{
    struct msginfo info;
    int highest = msg_counts(&info);
    return highest < 0 ? highest : collect(to, highest, (unsigned long)info.msgpool, queue_at);
}

static int list(struct shk__rows *found, int (*reader)(struct shk__rows *), void **rows,
                size_t *count)
{
    int error = reader(found);
    if (error) {
        free(found->rows);
        return error;
    }
    *rows = found->rows;
    *count = found->count;
    return 0;
}

#define LIST(noun, row_type)                                                                       \
    int shk_##noun##_list(enum shk_source source, struct row_type **rows, size_t *count)           \
    {                                                                                              \
        struct shk__rows found = {.row_size = sizeof **rows};                                      \
        void *all;                                                                                 \
        int error = list(&found, source == SHK_SOURCE_PROC ? shk__proc_##noun : kernel_##noun,     \
                         &all, count);                                                             \
        if (!error)                                                                                \
            *rows = all;                                                                           \
        return error;                                                                              \
    }
LIST(segments, shk_segment_info)
LIST(semsets, shk_semset_info)
LIST(msgqueues, shk_msgqueue_info)

/* -- limits and usage ---------------------------------------------------------------- */

static int kernel_limits(struct shk_limits *out)
{
    struct shminfo shm;
    struct msginfo msg;
    struct seminfo sem;
    if (shmctl(0, IPC_INFO, (struct shmid_ds *)(void *)&shm) < 0)
        return shk__fail(-errno, "shmctl(IPC_INFO)");
    if (msgctl(0, IPC_INFO, (struct msqid_ds *)(void *)&msg) < 0)
        return shk__fail(-errno, "msgctl(IPC_INFO)");
    if (semctl(0, 0, IPC_INFO, (union semun){.info = &sem}) < 0)
        return shk__fail(-errno, "semctl(IPC_INFO)");
    *out = (struct shk_limits){
        .shmmax = shm.shmmax,
        .shmmin = shm.shmmin,
        .shmmni = shm.shmmni,
        .shmall = shm.shmall,
        .msgmax = (unsigned)msg.msgmax,
        .msgmnb = (unsigned)msg.msgmnb,
        .msgmni = (unsigned)msg.msgmni,
        .semmsl = (unsigned)sem.semmsl,
        .semmns = (unsigned)sem.semmns,
        .semopm = (unsigned)sem.semopm,
        .semmni = (unsigned)sem.semmni,
        .semvmx = (unsigned)sem.semvmx,
    };
    return 0;
}

int shk_limits_read(enum shk_source source, struct shk_limits *out)
{
    return source == SHK_SOURCE_PROC ? shk__proc_limits(out) : kernel_limits(out);
}

static int kernel_usage(struct shk_usage *out)
{
    struct shm_info shm;
    struct seminfo sem;
    struct msginfo msg;
    int rc;
    if ((rc = shm_counts(&shm)) < 0 || (rc = sem_counts(&sem)) < 0 || (rc = msg_counts(&msg)) < 0)
        return rc;
    *out = (struct shk_usage){
        .segments = (unsigned)shm.used_ids,
        .segment_pages = shm.shm_tot,
        .resident_pages = shm.shm_rss,
        .swapped_pages = shm.shm_swp,
        .sets = (unsigned)sem.semusz,
        .semaphores = (unsigned)sem.semaem,
        .queues = (unsigned)msg.msgpool,
        .messages = (unsigned)msg.msgmap,
        .message_bytes = (unsigned)msg.msgtql,
    };
    return 0;
}

int shk_usage_read(enum shk_source source, struct shk_usage *out)
{
    return source == SHK_SOURCE_PROC ? shk__proc_usage(out) : kernel_usage(out);
}
