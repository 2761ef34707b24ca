/* segment.c: the kernel's shared-memory segments, with errors that say what to do.
 *
 * A segment is known by its id; a key is only a way to find the id. An id of a
 * removed segment is EINVAL or EIDRM to the kernel, depending on how long ago; both
 * become -ENOENT here, as a missing key is.
 */
#include "segment.h"
#include "error.h"
#include "hugepages.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <unistd.h>

#define HUGEST_PAGE ((size_t)1 << 34) /* of all Linux architectures */

/* ENOSPC: the table is full (SHMMNI), or all segments together too large (SHMALL). */
static int fail_for_space(key_t key, size_t size, const struct shminfo *limits)
{
    struct shm_info used;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = size / page + (size % page != 0);
    /* The cast: SHM_INFO fills another struct than the prototype's. */
    if (shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&used) < 0)
        memset(&used, 0, sizeof used);
    if ((unsigned long)used.used_ids >= limits->shmmni)
        return shk__fail(-ENOSPC,
                         "shmget(key=0x%x, size=%zu): SHMMNI is reached: kernel.shmmni is %lu "
                         "segments, raise it with sysctl -w kernel.shmmni=%lu, or remove unused "
                         "ones with ipcrm",
                         (unsigned)key, size, limits->shmmni, limits->shmmni * 2);
    if (pages > limits->shmall || used.shm_tot > limits->shmall - pages)
        return shk__fail(-ENOSPC,
                         "shmget(key=0x%x, size=%zu): beyond SHMALL: kernel.shmall is %lu pages of "
                         "%zu bytes for all segments, %lu are used, raise it with sysctl -w "
                         "kernel.shmall=%lu",
                         (unsigned)key, size, limits->shmall, page, used.shm_tot,
                         used.shm_tot + pages);
    return shk__fail(-ENOSPC,
                     "shmget(key=0x%x, size=%zu): SHMMNI (%lu segments) or SHMALL (%lu pages) was "
                     "reached, but there is room again: try again",
                     (unsigned)key, size, limits->shmmni, limits->shmall);
}

static int fail_to_create(int error, key_t key, size_t size, int flags)
{
    struct shminfo limits; /* /proc/sys/kernel/shm{max,all,mni}, without needing /proc */
    if (shmctl(0, IPC_INFO, (struct shmid_ds *)(void *)&limits) < 0)
        return shk__fail(-error, "shmget(key=0x%x, size=%zu)", (unsigned)key, size);
    if (error == EINVAL && size > limits.shmmax)
        return shk__fail(-error,
                         "shmget(key=0x%x, size=%zu): beyond SHMMAX: kernel.shmmax is %lu bytes, "
                         "raise it with sysctl -w kernel.shmmax=%zu",
                         (unsigned)key, size, limits.shmmax, size);
    if (error == ENOSPC)
        return fail_for_space(key, size, &limits);
    if (flags & SHM_HUGETLB)
        return shk__hugepages_fail(error, key, size, flags);
    if (error == EINVAL)
        return shk__fail(-error, "shmget(key=0x%x, size=%zu): larger than any segment can be",
                         (unsigned)key, size);
    if (error == ENOMEM)
        return shk__fail(-error,
                         "shmget(key=0x%x, size=%zu): the kernel won't promise so much memory; ask "
                         "for less, add memory or swap, or let it overcommit "
                         "(vm.overcommit_memory, SHM_NORESERVE)",
                         (unsigned)key, size);
    return shk__fail(-error, "shmget(key=0x%x, size=%zu)", (unsigned)key, size);
}

int shk_segment_create(key_t key, size_t size, mode_t mode, int flags, int *id)
{
    if (size == 0)
        return shk__fail(SHK_E_INVALID, "a segment of 0 bytes: at least 1 is needed");
    int found = shmget(key, size, IPC_CREAT | IPC_EXCL | flags | (int)(mode & 0777));
    if (found < 0)
        return fail_to_create(errno, key, size, flags);
    *id = found;
    return 0;
}

int shk_segment_find(key_t key, int *id)
{
    if (key == IPC_PRIVATE)
        return shk__fail(SHK_E_INVALID,
                         "key 0 (IPC_PRIVATE) always makes a new segment: find this one by its id");
    int found = shmget(key, 0, 0);
    if (found < 0)
        return shk__fail(-errno, "shmget(key=0x%x, size=0)", (unsigned)key);
    *id = found;
    return 0;
}

static int fail_gone(const char *call, int id, const char *command)
{
    return shk__fail(-ENOENT, "%s(id=%d%s): the segment is gone (removed, or never there)", call,
                     id, command);
}

/* For commands where EINVAL can only mean the id. */
static int fail_to_control(int error, int id, const char *command)
{
    if (error == EINVAL || error == EIDRM)
        return fail_gone("shmctl", id, command);
    return shk__fail(-error, "shmctl(id=%d%s)", id, command);
}

static bool is_gone(int id)
{
    struct shmid_ds status;
    return shmctl(id, IPC_STAT, &status) < 0 && (errno == EINVAL || errno == EIDRM);
}

/* All of the mapping, whose last page may be a huge one: the kernel splits a mapping
 * only between its pages, so a length that fits no page of its kind is EINVAL and
 * changes nothing. */
static int keep_out_of_dumps(void *mapping, size_t size)
{
    int rc = -1;
    errno = EINVAL;
    for (size_t page = (size_t)getpagesize();
         rc != 0 && errno == EINVAL && page <= HUGEST_PAGE; page *= 2)
        rc = madvise(mapping, (size + page - 1) & ~(page - 1), MADV_DONTDUMP);
    return rc;
}

static int fail_to_attach(int error, int id, const void *address, int flags)
{
    if (error == EIDRM || (error == EINVAL && is_gone(id)))
        return fail_gone("shmat", id, "");
    const char *why = "";
    if (error == EINVAL && address && (uintptr_t)address % (uintptr_t)SHMLBA && !(flags & SHM_RND))
        why = ": the address is no multiple of the page size: choose another, or round it down "
              "(SHM_RND)";
    else if (error == EINVAL && address && !(flags & SHM_REMAP))
        why = ": something is mapped there already, or the segment has huge pages and the address "
              "is no multiple of their size: choose another, or replace what is there (SHM_REMAP)";
    else if (error == ENOMEM)
        why = ": no room for it in the address space: see ulimit -v and vm.max_map_count";
    return shk__fail(-error, "shmat(id=%d, address=%p, flags=0x%x)%s", id, address,
                     (unsigned)flags, why);
}

__attribute__((hot)) int shk_segment_map(int id, void *address, int flags,
                                          struct shk_segment_info *info, void **out)
{
    void *mapping = shmat(id, address, flags);
    if (mapping == (void *)-1)
        return fail_to_attach(errno, id, address, flags);
    /* Only now, attached, is the id sure to mean the same segment until we detach. */
    struct shk_segment_info found;
    int error = shk_segment_stat(id, &found);
    if (!error && keep_out_of_dumps(mapping, found.size) != 0)
        error = shk__fail(-errno, "madvise(segment %d, size=%zu, MADV_DONTDUMP)", id, found.size);
    if (error) {
        (void)shmdt(mapping);
        return error;
    }
    *info = found;
    *out = mapping;
    return 0;
}

int shk_segment_attach(int id, void *address, int flags, void **out)
{
    struct shk_segment_info info;
    return shk_segment_map(id, address, flags, &info, out);
}

int shk_segment_detach(void *address)
{
    if (shmdt(address) != 0)
        return shk__fail(-errno, "shmdt(%p): no segment is attached there", address);
    return 0;
}

int shk_segment_remove(int id)
{
    if (shmctl(id, IPC_RMID, NULL) != 0)
        return fail_to_control(errno, id, ", IPC_RMID");
    return 0;
}

void shk__segment_describe(int id, const struct shmid_ds *status, struct shk_segment_info *out)
{
    *out = (struct shk_segment_info){
        .id = id,
        .key = status->shm_perm.__key,
        .size = status->shm_segsz,
        .mode = status->shm_perm.mode,
        .uid = status->shm_perm.uid,
        .cuid = status->shm_perm.cuid,
        .gid = status->shm_perm.gid,
        .cgid = status->shm_perm.cgid,
        .creator_pid = status->shm_cpid,
        .last_pid = status->shm_lpid,
        .attached = status->shm_nattch,
        .attach_time = status->shm_atime,
        .detach_time = status->shm_dtime,
        .change_time = status->shm_ctime,
    };
}

__attribute__((hot)) int shk_segment_stat(int id, struct shk_segment_info *out)
{
    struct shmid_ds status;
    if (shmctl(id, IPC_STAT, &status) != 0)
        return fail_to_control(errno, id, ", IPC_STAT");
    shk__segment_describe(id, &status, out);
    return 0;
}

int shk_segment_set(int id, uid_t uid, gid_t gid, mode_t mode)
{
    struct shmid_ds status = {.shm_perm = {.uid = uid, .gid = gid, .mode = mode & 0777}};
    if (shmctl(id, IPC_SET, &status) != 0) {
        int error = errno;
        if (error == EIDRM || (error == EINVAL && is_gone(id)))
            return fail_gone("shmctl", id, ", IPC_SET");
        return shk__fail(-error, "shmctl(id=%d, IPC_SET, uid=%u, gid=%u, mode=0%o)", id, uid, gid,
                         mode & 0777u);
    }
    return 0;
}

int shk_segment_lock(int id)
{
    if (shmctl(id, SHM_LOCK, NULL) == 0)
        return 0;
    int error = errno;
    struct rlimit limit = {0, 0};
    struct shk_segment_info info = {.size = 0};
    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    if (error != ENOMEM && !(error == EPERM && limit.rlim_cur == 0))
        return fail_to_control(error, id, ", SHM_LOCK");
    (void)shk_segment_stat(id, &info);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (info.size + page - 1) / page * page;
    /* What else the user has locked isn't shown to him; it fills the limit at most. */
    unsigned long long needed = size + (size <= limit.rlim_cur ? limit.rlim_cur : 0);
    return shk__fail(-error,
                     "shmctl(id=%d, SHM_LOCK): beyond RLIMIT_MEMLOCK, %llu bytes for all that this "
                     "user has locked, and this segment needs %zu: raise it (ulimit -l %llu, or "
                     "LimitMEMLOCK=%lluK of a service)",
                     id, (unsigned long long)limit.rlim_cur, size, (needed + 1023) / 1024,
                     (needed + 1023) / 1024);
}

int shk_segment_unlock(int id)
{
    if (shmctl(id, SHM_UNLOCK, NULL) != 0)
        return fail_to_control(errno, id, ", SHM_UNLOCK");
    return 0;
}
