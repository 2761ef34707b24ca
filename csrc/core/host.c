/* host.c: read from /proc. */
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "error.h"
#include "hash.h"

uint64_t shk__ipc_namespace(void)
{
    /* This thread's. The main thread's has a shorter way: half the 40 us that the kernel takes
     * to make the entries of /proc for a process that asks for the first time. */
    struct stat about;
    bool main_thread = syscall(SYS_gettid) == getpid();
    const char *path = main_thread ? "/proc/self/ns/ipc" : "/proc/thread-self/ns/ipc";
    return stat(path, &about) == 0 ? about.st_ino : 0;
}

int shk__namespace_check(const shk_store *store)
{
    uint64_t here = shk__ipc_namespace();
    if (here == store->ipc_namespace)
        return 0;
    return shk__fail(SHK_E_INCOMPATIBLE,
                     "%s was made in IPC namespace %llu and this thread is in %llu, where "
                     "its semaphores mean nothing: use it where it was made",
                     store->title, (unsigned long long)store->ipc_namespace,
                     (unsigned long long)here);
}

/* How many bytes of the file were had; -errno. */
static ssize_t read_file(const char *path, char *out, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, out, room);
    int error = errno;
    if (fd >= 0)
        close(fd);
    return size < 0 ? shk__fail(-error, "reading %s", path) : size;
}

int shk_rmid_forced(void)
{
    char digit = '0';
    ssize_t size = read_file("/proc/sys/kernel/shm_rmid_forced", &digit, 1);
    return size < 0 ? (int)size : digit != '0';
}

void shk__boot_id(uint8_t out[16])
{
    char text[64] = "";
    memset(out, 0, 16);
    ssize_t size = read_file("/proc/sys/kernel/random/boot_id", text, sizeof text - 1);
    for (unsigned digit = 0, at = 0; at < (unsigned)(size > 0 ? size : 0) && digit < 32; at++) {
        char c = text[at];
        if (c == '-')
            continue;
        unsigned value = (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10) & 15;
        out[digit / 2] = (uint8_t)((unsigned)out[digit / 2] << 4 | value);
        digit++;
    }
}

uint64_t shk__realm_here(void)
{
    static const uint64_t key[2];
    static const uint8_t unknown[16];
    uint8_t boot[16];
    uint64_t ipc_namespace = shk__ipc_namespace(); /* 32 bits: the kernel's proc_inum */
    shk__boot_id(boot);
    if (ipc_namespace == 0 || memcmp(boot, unknown, sizeof boot) == 0)
        return 0;
    return shk__siphash13(key, boot, sizeof boot) << 32 | (uint32_t)ipc_namespace;
}

void shk_realm_here(struct shk_realm *out)
{
    shk__boot_id(out->boot);
    out->ipc_namespace = shk__ipc_namespace();
}
