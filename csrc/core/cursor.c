/* cursor.c: iterating beside writers.
 *
 * A pair may be deleted and put back elsewhere while somebody iterates, so going through
 * the entries could meet it twice. Its home bucket never changes: the cursor goes from
 * home to home and gathers, along the way a search would take from there, the pairs that
 * have this home. Those of one home are few, and compared with each other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "index.h"

struct shk_cursor {
    const shk_store *store;
    uint32_t home;      /* the next to look at */
    uint32_t id_size;
    size_t count, next; /* pairs of the last home, and how many of them were given out */
    size_t room;
    unsigned char *ids; /* 2 * id_size bytes each */
};

int shk_cursor_open(const shk_store *store, shk_cursor **out)
{
    shk_cursor *cursor = calloc(1, sizeof *cursor);
    if (!cursor)
        return shk__fail(-ENOMEM, "a cursor");
    cursor->store = store;
    cursor->id_size = store->geometry.id_size;
    *out = cursor;
    return 0;
}

void shk_cursor_close(shk_cursor *cursor)
{
    if (!cursor)
        return;
    free(cursor->ids);
    free(cursor);
}

static int gather(shk_cursor *cursor, const unsigned char *ids)
{
    const size_t size = 2 * (size_t)cursor->id_size;
    for (size_t i = 0; i < cursor->count; i++)
        if (memcmp(cursor->ids + i * size, ids, size) == 0)
            return 0;
    if (cursor->count == cursor->room) {
        size_t room = cursor->room ? 2 * cursor->room : 16;
        unsigned char *more = realloc(cursor->ids, room * size);
        if (!more)
            return shk__fail(-ENOMEM, "a cursor over %zu pairs of one bucket", room);
        cursor->ids = more;
        cursor->room = room;
    }
    memcpy(cursor->ids + cursor->count++ * size, ids, size);
    return 0;
}

static int gather_bucket(shk_cursor *cursor, uint32_t number, uint64_t *words)
{
    const shk_store *store = cursor->store;
    const struct shk_bucket_shm *bucket = shk__bucket(store, number);
    for (unsigned way = 0; way < SHK_WAYS; way++) {
        struct shk__query query;
        struct shk_record record;
        int rc = shk__entry_read(store, &bucket->entries[way], words);
        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        shk__query_of_image(store, words, &query);
        if (query.role || query.home != cursor->home)
            continue;
        shk__image_describe(store, words, &record);
        if (shk__record_expired(&record))
            continue;
        rc = gather(cursor, query.pair.ids);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int gather_home(shk_cursor *cursor)
{
    const shk_store *store = cursor->store;
    struct shk__image image;
    int rc = shk__image_open(store, &image);
    if (rc < 0)
        return rc;
    uint32_t number = cursor->home;
    for (uint32_t probe = 0; probe < store->geometry.probe_limit && rc == 0; probe++) {
        rc = gather_bucket(cursor, number, image.words);
        if (shk__load(&shk__bucket(store, number)->overflow) == 0)
            break;
        number = shk__next_bucket(store, number);
    }
    shk__image_close(store, &image);
    return rc < 0 ? rc : shk__store_check_live(store);
}

int shk_cursor_next(shk_cursor *cursor, struct shk_pair *out)
{
    while (cursor->next == cursor->count) {
        if (cursor->home == cursor->store->geometry.buckets)
            return 0;
        cursor->count = cursor->next = 0;
        int rc = gather_home(cursor);
        if (rc < 0)
            return rc;
        cursor->home++;
    }
    const size_t size = cursor->id_size;
    const char *client = (const char *)cursor->ids + cursor->next++ * 2 * size;
    const struct shk_pair pair = {{client, strnlen(client, size - 1)},
                                  {client + size, strnlen(client + size, size - 1)}};
    if (!shk__ids_are_named(client, size))
        return shk__fail(SHK_E_CORRUPT, "a record of home bucket %u has an empty id",
                         cursor->home - 1);
    *out = pair;
    return 1;
}
