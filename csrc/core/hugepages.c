/* hugepages.c: the pools of huge pages as /sys shows them, one for each size. */
#include "hugepages.h"

#include <errno.h>
#include <stdio.h>

#include "error.h"

/* The number in a file of one, or after `label` in a file of many; -1. */
static long long number_in(const char *path, const char *label)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    char line[128], format[64];
    long long number = -1;
    (void)snprintf(format, sizeof format, "%s%%lld", label);
    while (number < 0 && fgets(line, sizeof line, file))
        if (sscanf(line, format, &number) != 1)
            number = -1;
    fclose(file);
    return number;
}

static long long in_pool(long long kilobytes, const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-%lldkB/%s", kilobytes,
                   name);
    return number_in(path, "");
}

static int fail_for_pages(int error, key_t key, size_t size, int flags, long long kilobytes)
{
    size_t page = (size_t)kilobytes << 10;
    long long needed = (long long)(size / page + (size % page != 0));
    long long all = in_pool(kilobytes, "nr_hugepages");
    long long unused =
        in_pool(kilobytes, "free_hugepages") - in_pool(kilobytes, "resv_hugepages");
    if (flags >> SHK_HUGE_SHIFT)
        return shk__fail(-error,
                         "shmget(key=0x%x, size=%zu): not enough free huge pages: %lld of %lld kB "
                         "are needed, %lld are free, raise "
                         "/sys/kernel/mm/hugepages/hugepages-%lldkB/nr_hugepages to %lld",
                         (unsigned)key, size, needed, kilobytes, unused, kilobytes,
                         all + needed - unused);
    return shk__fail(-error,
                     "shmget(key=0x%x, size=%zu): not enough free huge pages: %lld of %lld kB are "
                     "needed, %lld are free, raise vm.nr_hugepages with sysctl -w "
                     "vm.nr_hugepages=%lld",
                     (unsigned)key, size, needed, kilobytes, unused, all + needed - unused);
}

int shk__hugepages_fail(int error, key_t key, size_t size, int flags)
{
    int log = flags >> SHK_HUGE_SHIFT;
    long long kilobytes =
        log ? 1ll << (log - 10) : number_in("/proc/meminfo", "Hugepagesize: ");
    if (error == EINVAL && log && in_pool(kilobytes, "nr_hugepages") < 0)
        return shk__fail(-error,
                         "shmget(key=0x%x, size=%zu): this kernel has no huge pages of %lld kB: "
                         "/sys/kernel/mm/hugepages lists its sizes",
                         (unsigned)key, size, kilobytes);
    if (error == EPERM)
        return shk__fail(-error,
                         "shmget(key=0x%x, size=%zu): huge pages are for processes with "
                         "CAP_IPC_LOCK and for the group of vm.hugetlb_shm_group, which is %lld",
                         (unsigned)key, size, number_in("/proc/sys/vm/hugetlb_shm_group", ""));
    if (error == ENOMEM && kilobytes > 0)
        return fail_for_pages(error, key, size, flags, kilobytes);
    return shk__fail(-error, "shmget(key=0x%x, size=%zu, flags=0x%x)", (unsigned)key, size,
                     (unsigned)flags);
}
