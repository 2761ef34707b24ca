/* opening.c: finding a store by name, by key or by the id of its segment. */
#include "keytool.h"

#include <errno.h>
#include <stdlib.h>

/* Whether the text is the prefix and a number of 32 bits. */
static bool is_number(const char *text, const char *prefix, int *out)
{
    size_t length = strlen(prefix);
    char *end;
    if (strncmp(text, prefix, length) != 0 || text[length] < '0' || text[length] > '9')
        return false;
    errno = 0;
    unsigned long number = strtoul(text + length, &end, 0);
    *out = (int)number;
    return errno == 0 && *end == 0 && number <= UINT32_MAX;
}

int open_store(const struct request *request, const char *store, enum use use, shk_store **out)
{
    struct shk_access access = {.readonly = use == READING,
                                .open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                .lock_timeout = SHK_LOCK_TIMEOUT_DEFAULT};
    struct shk_shape shape = {.capacity = request->capacity,
                              .id_size = request->id_size,
                              .key_size = request->key_size,
                              .mode = request->group ? 0640 : 0600};
    /* The owner is always set: a name belongs to a user, and 0 is root. */
    struct shk_address address = {.owner = request->owner};
    int number;
    if (is_number(store, "id:", &number)) {
        if (use == CREATING)
            return complain("%s: the kernel chooses the id; create a name, or key:NUMBER", store);
        return shk_store_from_id(number, &access, out);
    }
    if (is_number(store, "key:", &number))
        address.key = number; /* 0, IPC_PRIVATE, makes one that is found by its id alone */
    else
        address.name = shk_text(store);
    return shk_store_open(use == CREATING ? SHK_CREATE : SHK_OPEN, &address, &shape, &access, out);
}

int open_successor(shk_store **store)
{
    struct shk_successor next;
    struct shk_info info;
    shk_store *opened;
    int rc = shk_store_successor(*store, &next);
    if (rc < 0)
        return rc;
    shk_store_info(*store, &info);
    /* By the id, and only if it is still that very store: ids are used again. */
    struct shk_access access = {.readonly = info.readonly,
                                .trust = &info.owner,
                                .trust_count = 1,
                                .open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                .lock_timeout = shk_store_lock_timeout(*store),
                                .store_id = next.store_id};
    rc = shk_store_from_id(next.id, &access, &opened);
    if (rc == 0) {
        shk_store_close(*store);
        *store = opened;
    }
    return rc;
}
