/* operations.c: every sort of write. */
#include "operations.h"

#include "expiry.h"

#define BYSTANDERS 8u

const char *const clients[CLIENTS] = {"target", "absent", "other", "b0", "b1", "b2", "c0",
                                      "c1",     "c2",     "c3",    "c4", "c5", "c6", "c7"};
const char *const keys[KEYS] = {KEY("target-old"), KEY("target-older"), KEY("target-oldest"),
                                KEY("target-new"), KEY("absent-new"),   KEY("other-old"),
                                KEY("other-older"), KEY("batch-new"),   KEY("bystander")};
enum { OLD, OLDER, OLDEST, NEW, ABSENT_NEW, OTHER, OTHER_OLDER, BATCH, BYSTANDER };

void prepare_bystanders(shk_store *store)
{
    for (unsigned i = 0; i < 2 * BYSTANDERS; i++)
        CHECK_CODE(put(store, numbered(i % BYSTANDERS), keys[BYSTANDER]), 0);
}

int recover(shk_store *store)
{
    int rc = shk__store_begin(store);
    if (rc == 0)
        shk__store_end(store);
    return rc;
}

/* ---------------------------------------------------------------- one pair -- */

static void with_target(shk_store *store)
{
    CHECK_CODE(put(store, "target", keys[OLD]), 0);
}

static void with_previous(shk_store *store)
{
    CHECK_CODE(put(store, "target", keys[OLDER]), 0);
    CHECK_CODE(rotate(store, "target", keys[OLD], HOUR), 0);
}

/* Of the other variant. */
static void with_second_previous(shk_store *store)
{
    CHECK_CODE(put(store, "target", keys[OLDEST]), 0);
    CHECK_CODE(rotate(store, "target", keys[OLDER], HOUR), 0);
    CHECK_CODE(rotate(store, "target", keys[OLD], HOUR), 0);
}

/* Expired, with a previous key that is not; the hand is there next. */
static void with_expired(shk_store *store)
{
    with_target(store);
    CHECK_CODE(put_for(store, "other", keys[OTHER_OLDER], 40 * SHK_MILLISECOND), 0);
    CHECK_CODE(rotate(store, "other", keys[OTHER], HOUR), 0);
    test_sleep(60);
    shk__ledger(store)->hand = shk__entry_slot(place_of(store, "other", 0).word);
}

static int insert(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? put(store, "absent", keys[ABSENT_NEW]) : 0;
}

static int insert_reclaims(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    if (steps == 2)
        return put(store, "absent", keys[ABSENT_NEW]);
    return steps ? drop(store, "other") : 0;
}

static int overwrite(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? put(store, "target", keys[NEW]) : 0;
}

static int rotate_pair(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? rotate(store, "target", keys[NEW], 0) : 0;
}

static int rotate_with_grace(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? rotate(store, "target", keys[NEW], HOUR) : 0;
}

static int revoke_pair(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? shk_store_revoke(store, text("target"), SERVER) : 0;
}

static int touch_pair(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? shk_store_touch(store, text("target"), SERVER, 100 * HOUR) : 0;
}

static int delete_pair(shk_store *store, shk_store *target, unsigned steps)
{
    (void)target;
    return steps ? drop(store, "target") : 0;
}

static int pop_pair(shk_store *store, shk_store *target, unsigned steps)
{
    struct shk_record about;
    char key[128];
    (void)target;
    return steps ? shk_store_pop(store, text("target"), SERVER, &about, key, sizeof key) : 0;
}

/* --------------------------------------------------------------- many pairs -- */

static const struct {
    const char *client;
    int key;
} batch[] = {{"b0", BATCH}, {"target", NEW}, {"b1", BATCH}};

static int put_some(shk_store *store, shk_store *target, unsigned steps)
{
    struct shk_item items[3];
    (void)target;
    for (unsigned i = 0; i < 3; i++)
        items[i] = (struct shk_item){{text(batch[i].client), SERVER},
                                     {.key = text(keys[batch[i].key]), .key_id = SHK_KEY_ID_NEXT},
                                     0};
    if (steps == 3)
        return shk_store_put_many(store, items, 3);
    for (unsigned i = 0; i < steps; i++)
        CHECK_CODE(put(store, batch[i].client, keys[batch[i].key]), 0);
    return 0;
}

static int delete_some(shk_store *store, shk_store *target, unsigned steps)
{
    static const char *const names[] = {"c0", "target", "c1"};
    struct shk_pair pairs[] = {{text("c0"), SERVER},
                               {text("target"), SERVER},
                               {text("absent"), SERVER},
                               {text("c1"), SERVER}};
    uint64_t deleted;
    (void)target;
    if (steps == 3)
        return shk_store_delete_many(store, pairs, 4, &deleted);
    for (unsigned i = 0; i < steps; i++)
        CHECK_CODE(drop(store, names[i]), 0);
    return 0;
}

static void delete_record_in(shk_store *store, const struct shk_slot_shm *slot)
{
    const char *client = (const char *)slot + SHK_IDS_OFFSET;
    char id[SHK_ID_SIZE_DEFAULT];
    (void)snprintf(id, sizeof id, "%s", client);
    CHECK_CODE(drop(store, id), 0);
}

/* In the order of entries. */
static int clear(shk_store *store, shk_store *target, unsigned steps)
{
    uint64_t deleted;
    (void)target;
    if (steps == BYSTANDERS + 1)
        return shk_store_clear(store, &deleted);
    for (uint64_t at = 0; steps > 0; at++) {
        uint64_t word = *shk__entry_at(store, at);
        if (word == 0)
            continue;
        const struct shk_slot_shm *slot = shk__slot(store, shk__entry_slot(word));
        if (slot->flags & SHK_FLAGS_IS_PREVIOUS)
            continue;
        delete_record_in(store, slot);
        steps--;
    }
    return 0;
}

static void with_expired_ones(shk_store *store)
{
    CHECK_CODE(put_for(store, "b0", keys[BATCH], 40 * SHK_MILLISECOND), 0);
    with_expired(store);
}

/* In the order of slots. */
static int purge(shk_store *store, shk_store *target, unsigned steps)
{
    uint64_t purged, now = shk__realtime_fine();
    (void)target;
    if (steps == 2)
        return shk_store_purge_expired(store, &purged);
    for (uint32_t number = 0; steps > 0; number++) {
        const struct shk_slot_shm *slot = shk__slot(store, number);
        uint64_t expires = shk__image_times(store, (const uint64_t *)slot)[1];
        if (slot->generation % 2 || !(slot->flags & SHK_FLAG_EXPIRES) || expires > now)
            continue;
        delete_record_in(store, slot);
        steps--;
    }
    return 0;
}

static void with_expired_previous(shk_store *store)
{
    CHECK_CODE(put(store, "target", keys[OLDER]), 0);
    CHECK_CODE(rotate(store, "target", keys[OLD], 1), 0);
    test_sleep(20);
}

static int purge_previous(shk_store *store, shk_store *target, unsigned steps)
{
    uint64_t purged;
    (void)target;
    return steps ? shk_store_purge_expired(store, &purged) : 0;
}

/* --------------------------------------------------------------- all of it -- */

static void with_everything(shk_store *store)
{
    with_second_previous(store);
    CHECK_CODE(put_for(store, "b0", keys[BATCH], HOUR), 0);
    CHECK_CODE(shk_store_revoke(store, text("b0"), SERVER), 0);
}

static int copy_to(shk_store *store, shk_store *target, unsigned steps)
{
    uint64_t copied;
    return steps ? shk_store_copy_to(store, target, &copied) : 0;
}

/* Lost entries, of a pair with a previous key too; a wrong one; a damaged record, an orphan, a
 * twin; counts, queue and overflow. */
static void damage(shk_store *store)
{
    with_second_previous(store);
    CHECK_CODE(put(store, "other", keys[OTHER_OLDER]), 0);
    CHECK_CODE(rotate(store, "other", keys[OTHER], HOUR), 0);
    CHECK_CODE(put(store, "b0", keys[BATCH]), 0);
    CHECK_CODE(put(store, "b1", keys[BATCH]), 0);
    const struct shk_ledger_shm *ledger = shk__ledger(store);
    struct shk_slot_shm *other = shk__slot(store, shk__entry_slot(place_of(store, "other", 0).word));
    struct shk_slot_shm *b0 = shk__slot(store, shk__entry_slot(place_of(store, "b0", 0).word));
    struct shk_slot_shm *c0 = shk__slot(store, shk__entry_slot(place_of(store, "c0", 0).word));
    struct shk_slot_shm *spare = shk__slot(store, *shk__queue_at(store, ledger->head + 2));
    uint64_t generation = spare->generation + 1;
    other->flags &= ~SHK_FLAGS_HAS_PREVIOUS;
    b0->key_length = 1000;
    memcpy(spare, c0, store->geometry.record_size);
    spare->generation = generation;
    *shk__entry_at(store, place_of(store, "target", 0).target) = 0;
    *shk__entry_at(store, place_of(store, "c1", 0).target) = 0;
    *shk__entry_at(store, place_of(store, "c2", 0).target) ^= 1;
    for (uint32_t b = 0; b < store->geometry.buckets; b++)
        shk__bucket(store, b)->overflow += b % 2 ? 7 : 0;
    *shk__queue_at(store, ledger->head) = UINT32_MAX;
    shk__ledger(store)->records = 3;
    shk__ledger(store)->high_water--;
}

static int repair(shk_store *store, shk_store *target, unsigned steps)
{
    struct shk_repair_report report;
    (void)target;
    return steps ? shk_store_repair(store, &report) : 0;
}

const struct operation operations[] = {
    {"insert", with_target, insert, 1, false, false},
    {"insert, reclaiming", with_expired, insert_reclaims, 2, false, false},
    {"overwrite", with_target, overwrite, 1, false, false},
    {"overwrite, with previous", with_previous, overwrite, 1, false, false},
    {"rotate", with_target, rotate_pair, 1, false, false},
    {"rotate, first grace", with_target, rotate_with_grace, 1, false, false},
    {"rotate, second grace", with_previous, rotate_with_grace, 1, false, false},
    {"rotate, third grace", with_second_previous, rotate_with_grace, 1, false, false},
    {"revoke", with_target, revoke_pair, 1, false, false},
    {"revoke, with previous", with_previous, revoke_pair, 1, false, false},
    {"touch", with_previous, touch_pair, 1, false, false},
    {"delete", with_target, delete_pair, 1, false, false},
    {"delete, with previous", with_second_previous, delete_pair, 1, false, false},
    {"pop", with_target, pop_pair, 1, false, false},
    {"put_many", with_previous, put_some, 3, false, false},
    {"delete_many", with_previous, delete_some, 3, false, false},
    {"clear", with_previous, clear, BYSTANDERS + 1, false, false},
    {"purge", with_expired_ones, purge, 2, false, false},
    {"purge, a previous key", with_expired_previous, purge_previous, 1, false, false},
    {"copy_to", with_everything, copy_to, 1, false, true},
    {"repair", damage, repair, 1, true, false},
};
const size_t operations_count = sizeof operations / sizeof *operations;
