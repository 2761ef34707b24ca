/* handle.h: how memory that holds a published store becomes a handle. */
#ifndef SHK_HANDLE_H
#define SHK_HANDLE_H

#include "store.h"

struct shk__memory {
    void *base;
    size_t size;
    int id; /* of the segment; -1: memory of the caller's */
    key_t key;
    bool readonly;
};

/* `header` is a private copy, and `geometry` what shk__geometry_read made of it. The set: see
 * shk__set_describe. The memory stays the caller's on failure. */
int shk__handle_make(const struct shk__memory *memory, const struct shk_header_shm *header,
                     const struct shk__geometry *geometry, int set_id,
                     const struct shk_access *access, shk_store **out) __attribute__((hot));

/* INCOMPATIBLE where it has another shape than the one wanted, in which 0 is any. */
int shk__handle_check_shape(const struct shk_info *info, uint64_t capacity, uint32_t id_size,
                            uint32_t key_size);

#endif
