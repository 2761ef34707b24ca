/* guard.c: what the library maps and makes, between areas that nobody may touch.
 *
 * The linker puts these in place of the calls that the library makes (--wrap). What lies
 * in the last page behind the segment's bytes is poisoned, so that AddressSanitizer finds
 * an access there; an access further off faults.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include "arena.h"

#define GUARD ((size_t)256 << 20)
#define ATTACHED_MAX 64u

static struct {
    unsigned char *base;
    size_t size, length;
} attached[ATTACHED_MAX];

/* As the sanitizer's header has them, which not every clang finds. */
void __asan_poison_memory_region(const volatile void *address, size_t size);
void __asan_unpoison_memory_region(const volatile void *address, size_t size);

void *__real_shmat(int id, const void *address, int flags);
int __real_shmdt(const void *address);
int __real_shmget(key_t key, size_t size, int flags);
int __real_semget(key_t key, int count, int flags);
void *__wrap_shmat(int id, const void *address, int flags);
int __wrap_shmdt(const void *address);
int __wrap_shmget(key_t key, size_t size, int flags);
int __wrap_semget(key_t key, int count, int flags);

void *__wrap_shmat(int id, const void *address, int flags)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct shmid_ds about;
    if (shmctl(id, IPC_STAT, &about) != 0)
        return __real_shmat(id, address, flags); /* for its error */
    size_t length = (about.shm_segsz + page - 1) / page * page;
    unsigned char *area = mmap(NULL, length + 2 * GUARD, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(!address && area != MAP_FAILED);
    unsigned char *base = __real_shmat(id, area + GUARD, flags | SHM_REMAP);
    if (base == (void *)-1) {
        int error = errno;
        (void)munmap(area, length + 2 * GUARD);
        errno = error;
        return base;
    }
    unsigned free_place = 0;
    while (attached[free_place].base)
        CHECK(++free_place < ATTACHED_MAX);
    attached[free_place].base = base;
    attached[free_place].size = about.shm_segsz;
    attached[free_place].length = length;
    __asan_poison_memory_region(base + about.shm_segsz, length - about.shm_segsz);
    return base;
}

int __wrap_shmdt(const void *address)
{
    for (unsigned i = 0; i < ATTACHED_MAX; i++)
        if (attached[i].base == address) {
            __asan_unpoison_memory_region(attached[i].base + attached[i].size,
                                          attached[i].length - attached[i].size);
            attached[i].base = NULL;
            int rc = __real_shmdt(address);
            (void)munmap((unsigned char *)(uintptr_t)address - GUARD,
                         attached[i].length + 2 * GUARD);
            return rc;
        }
    return __real_shmdt(address);
}

static void note(bool is_set, int id)
{
    uint32_t place = __atomic_fetch_add(&arena->made_count, 1, __ATOMIC_ACQ_REL);
    CHECK(place < MADE_MAX);
    arena->made[place] = (struct made){is_set, id};
}

int __wrap_shmget(key_t key, size_t size, int flags)
{
    int id = __real_shmget(key, size, flags);
    if (id >= 0 && flags & IPC_CREAT)
        note(false, id);
    return id;
}

int __wrap_semget(key_t key, int count, int flags)
{
    int id = __real_semget(key, count, flags);
    if (id >= 0 && flags & IPC_CREAT)
        note(true, id);
    return id;
}
