/* medium.c: segments and mappings. */
#include "medium.h"

#include <sys/mman.h>

bool medium_is_memory;

static struct site attach(int id, size_t size)
{
    struct site site = {shmat(id, NULL, 0), size, id, -1};
    CHECK(site.map != (void *)-1);
    return site;
}

struct site site_new(size_t size)
{
    if (!medium_is_memory)
        return attach(test_keep_segment(shmget(IPC_PRIVATE, size, 0600)), size);
    struct site site = {NULL, size, -1, -1};
    site.map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(site.map != MAP_FAILED);
    return site;
}

struct site site_like(const struct site *other)
{
    const struct shk_header_shm *header = (const struct shk_header_shm *)(const void *)other->map;
    struct site site = site_new(other->size);
    struct shk__set set;
    if (site.id < 0)
        return site;
    site.set = test_keep_set(semget(IPC_PRIVATE, SHK_WRITERS_MAX + SHK_IDENTITY, 0600));
    shk__set_describe(&set, site.set, header->store_id, site.id);
    CHECK_CODE(shk__set_initialise(&set), 0);
    return site;
}

void site_load(const struct site *site, const unsigned char *image)
{
    uint64_t *set = &((struct shk_header_shm *)(void *)site->map)->set;
    memcpy(site->map, image, site->size);
    if (site->set >= 0)
        *set = (*set & ~(uint64_t)UINT32_MAX) | ((uint32_t)site->set + 1);
}

void site_free(const struct site *site)
{
    if (site->size == 0)
        return;
    if (site->id < 0) {
        CHECK(munmap(site->map, site->size) == 0);
        return;
    }
    CHECK(shmdt(site->map) == 0);
    (void)shmctl(site->id, IPC_RMID, NULL);
    if (site->set >= 0)
        (void)semctl(site->set, 0, IPC_RMID);
}

struct site site_of(const shk_store *store)
{
    struct shk_info info;
    shk_store_info(store, &info);
    return info.id < 0 ? (struct site){store->base, info.segment_size, -1, -1}
                       : attach(info.id, info.segment_size);
}

shk_store *site_make_store(void)
{
    struct shk_shape shape = {.capacity = CAPACITY};
    struct shk_info info;
    shk_store *store;
    size_t size;
    if (!medium_is_memory)
        return store_make(CAPACITY, 0, 0);
    CHECK_CODE(shk_store_size(&shape, &size), 0);
    struct site site = site_new(size);
    CHECK_CODE(shk_store_in_memory(SHK_CREATE, site.map, size, &shape, &store_writing, &store), 0);
    shk_store_info(store, &info);
    test_keep_set(info.semaphore_id);
    return store;
}

int site_open(const struct site *site, const struct shk_access *access, shk_store **out)
{
    return site->id < 0
               ? shk_store_in_memory(SHK_OPEN, site->map, site->size, NULL, access, out)
               : shk_store_from_id(site->id, access, out);
}
