/* pair.c: why a pair is none. */
#include "pair.h"

#include "error.h"

static int check_id(const shk_store *store, const char *role, struct shk_bytes id)
{
    uint32_t limit = store->geometry.id_size - 1;
    if (id.size < 1 || id.size > limit)
        return shk__fail(SHK_E_INVALID,
                         "the %s id has %zu bytes; this store takes 1 to %u (id_size %u with its "
                         "closing NUL, fixed at creation)",
                         role, id.size, limit, store->geometry.id_size);
    if (memchr(id.data, 0, id.size))
        return shk__fail(SHK_E_INVALID, "the %s id holds a NUL byte, which ends an id", role);
    return 0;
}

int shk__pair_refuse(const shk_store *store, struct shk_bytes client, struct shk_bytes server)
{
    int rc = check_id(store, "client", client);
    return rc < 0 ? rc : check_id(store, "server", server);
}
