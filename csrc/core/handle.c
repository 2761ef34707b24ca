/* handle.c: from a validated copy of the header. */
#include "handle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "collapse.h"
#include "error.h"
#include "host.h"

/* "store 123", without the microsecond that a process's first snprintf takes. */
static void write_title(char *out, unsigned id)
{
    static const char word[] = "store ";
    char text[24], *const end = text + sizeof text, *at = end;
    *--at = 0;
    do
        *--at = (char)('0' + id % 10);
    while ((id /= 10) > 0);
    at -= sizeof word - 1;
    memcpy(at, word, sizeof word - 1);
    memcpy(out, at, (size_t)(end - at));
}

static void describe(shk_store *store, const struct shk__memory *memory,
                     const struct shk_header_shm *header, int set_id)
{
    const struct shk__geometry *g = &store->geometry;
    store->info = (struct shk_info){.id = memory->id,
                                    .semaphore_id = set_id,
                                    .key = memory->key,
                                    .segment_size = memory->size,
                                    .capacity = g->capacity,
                                    .id_size = g->id_size,
                                    .key_size = g->key_size,
                                    .record_size = g->record_size,
                                    .key_id_offset = g->key_id_offset,
                                    .key_offset = g->key_offset,
                                    .times_offset = g->times_offset,
                                    .readonly = memory->readonly,
                                    .owner = header->owner,
                                    .created = header->created};
    memcpy(store->info.store_id, header->store_id, sizeof header->store_id);
    memcpy(store->info.name, header->name, header->name_size);
    if (shk__is_in_memory(store))
        strcpy(store->title, "the store in memory");
    else
        write_title(store->title, (unsigned)memory->id);
}

int shk__handle_make(const struct shk__memory *memory, const struct shk_header_shm *header,
                     const struct shk__geometry *geometry, int set_id,
                     const struct shk_access *access, shk_store **out)
{
    shk_store *store = calloc(1, sizeof *store);
    if (!store)
        return shk__fail(-ENOMEM, "a handle");
    store->base = memory->base;
    store->geometry = *geometry;
    memcpy(store->hash_key, header->hash_key, sizeof store->hash_key);
    /* The kernel takes 20 us to make a process's first entry in /proc. Who can't write may as
     * well believe the header: nothing but the time of an end depends on it. */
    store->ipc_namespace = memory->readonly ? (uint32_t)header->realm : shk__ipc_namespace();
    store->lock_timeout = access->lock_timeout;
    describe(store, memory, header, set_id);
    shk__collapse_open(store);
    if (!memory->readonly) {
        struct shk__set set;
        shk__set_describe(&set, set_id, header->store_id, memory->id);
        int rc = shk__lock_open(&store->lock, &shk__lock_word(store)->word,
                                &shk__changes(store)->revision, &set);
        if (rc < 0) {
            free(store);
            return rc;
        }
    }
    *out = store;
    return 0;
}

int shk__handle_check_shape(const struct shk_info *info, uint64_t capacity, uint32_t id_size,
                            uint32_t key_size)
{
    capacity = capacity ? capacity : info->capacity;
    id_size = id_size ? id_size : info->id_size;
    key_size = key_size ? key_size : info->key_size;
    if (info->capacity == capacity && info->id_size == id_size && info->key_size == key_size)
        return 0;
    return shk__fail(SHK_E_INCOMPATIBLE,
                     "the existing store has capacity %llu, id_size %u, key_size %u; asked for were "
                     "%llu, %u, %u: open it as it is, or destroy it first",
                     (unsigned long long)info->capacity, info->id_size, info->key_size,
                     (unsigned long long)capacity, id_size, key_size);
}
