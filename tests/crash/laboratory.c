/* laboratory.c: looking at what was left. */
#include "laboratory.h"

#define LOCK_AT 1024u

/* ------------------------------------------------------------------ stages -- */

struct stage stage_of(const shk_store *store, const shk_store *target)
{
    struct stage stage = {{site_of(store), {0}}};
    if (target)
        stage.sites[1] = site_of(target);
    return stage;
}

struct stage stage_like(const struct stage *other)
{
    struct stage stage = {0};
    for (int i = 0; i < 2; i++)
        if (other->sites[i].size)
            stage.sites[i] = site_like(&other->sites[i]);
    return stage;
}

void stage_free(struct stage *stage)
{
    site_free(&stage->sites[0]);
    site_free(&stage->sites[1]);
}

void stage_load(const struct stage *stage, const unsigned char *image)
{
    const struct site *first = &stage->sites[0], *second = &stage->sites[1];
    site_load(first, image);
    if (second->size)
        site_load(second, image + first->size);
}

void stage_save(const struct stage *stage, unsigned char *image)
{
    const struct site *first = &stage->sites[0], *second = &stage->sites[1];
    memcpy(image, first->map, first->size);
    if (second->size)
        memcpy(image + first->size, second->map, second->size);
}

bool stage_is(const struct stage *stage, const unsigned char *image)
{
    const struct site *first = &stage->sites[0], *second = &stage->sites[1];
    return memcmp(first->map, image, first->size) == 0 &&
           (!second->size || memcmp(second->map, image + first->size, second->size) == 0);
}

/* ------------------------------------------------------------------- views -- */

static shk_store *open_on(const struct stage *stage, int place, const struct shk_access *access)
{
    shk_store *store;
    CHECK_CODE(site_open(&stage->sites[place], access, &store), 0);
    return store;
}

static const char *describe_expiry(uint64_t expires)
{
    uint64_t now = shk__realtime();
    return expires == 0                          ? "never"
           : expires <= now                      ? "past"
           : expires <= now + 10 * HOUR          ? "soon"
                                                 : "far";
}

static void describe(const shk_store *store, const char *client, char *line, size_t room)
{
    struct shk_record about;
    char key[129];
    size_t length = 0;
    int rc = shk_store_record(store, text(client), SERVER, &about, key, 128);
    if (rc == SHK_E_ABSENT || rc == SHK_E_CORRUPT) {
        (void)snprintf(line, room, rc == SHK_E_ABSENT ? "absent" : "corrupt");
        return;
    }
    CHECK_CODE(rc, 0);
    int used = snprintf(line, room, "%s %d %.*s %s", about.status ? "revoked" : "valid",
                        about.key_id, (int)about.key_length, key, describe_expiry(about.expires));
    for (int32_t id = 0; id < 48; id++) {
        if (id == about.key_id ||
            shk_store_get_key_by_id(store, text(client), SERVER, id, key, 128, &length) != 0)
            continue;
        CHECK((size_t)used < room);
        used += snprintf(line + used, room - (size_t)used, " before: %d %.*s", id, (int)length, key);
    }
}

static void look(const struct stage *stage, struct view *out)
{
    shk_store *store = open_on(stage, 0, &store_reading);
    struct shk_stats stats;
    memset(out, 0, sizeof *out);
    out->moved = shk_store_stats(store, &stats) == SHK_E_MOVED;
    if (out->moved) {
        shk_store_close(store);
        store = open_on(stage, 1, &store_reading);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        describe(store, clients[i], out->lines[i], sizeof out->lines[i]);
    shk_store_close(store);
}

static bool holds(const struct stage *stage, const char *key)
{
    char text_of[64];
    /* With what follows it in a slot: one key may begin like another. */
    size_t size = strlen(key) + 1;
    CHECK(size <= sizeof text_of);
    memcpy(text_of, key, size);
    for (int i = 0; i < 2; i++)
        if (stage->sites[i].size &&
            memmem(stage->sites[i].map, stage->sites[i].size, text_of, size))
            return true;
    return false;
}

void laboratory_open(struct laboratory *lab, const struct operation *operation,
                     const struct stage *stage, const unsigned char *base)
{
    *lab = (struct laboratory){.operation = operation, .stage = *stage, .base = base};
    CHECK(operation->steps <= STEPS_MAX);
    for (unsigned steps = 0; steps <= operation->steps; steps++) {
        stage_load(stage, base);
        shk_store *store = open_on(stage, 0, &store_writing);
        shk_store *target = operation->moves ? open_on(stage, 1, &store_writing) : NULL;
        CHECK_CODE(operation->run(store, target, steps), 0);
        shk_store_close(store);
        shk_store_close(target);
        look(stage, &lab->views[steps]);
        for (unsigned i = 0; i < KEYS; i++)
            lab->has_key[steps][i] = holds(stage, keys[i]);
    }
}

/* -------------------------------------------------------------- examination -- */

static bool is_same(const struct view *a, const struct view *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void show_difference(const struct laboratory *lab, const struct view *seen)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (strcmp(seen->lines[i], lab->views[0].lines[i]) != 0 ||
            strcmp(seen->lines[i], lab->views[lab->operation->steps].lines[i]) != 0)
            (void)fprintf(stderr, "  %s: %s (before: %s; after: %s)\n", clients[i], seen->lines[i],
                          lab->views[0].lines[i], lab->views[lab->operation->steps].lines[i]);
}

/* The state that this is: the first from *state on. */
static unsigned recognise(const struct laboratory *lab, const struct view *seen, unsigned from)
{
    for (unsigned state = from; state <= lab->operation->steps; state++)
        if (is_same(seen, &lab->views[state]))
            return state;
    show_difference(lab, seen);
    FAIL("%s: a reader sees no state that it may see, from state %u on", lab->operation->name, from);
}

/* Each pair is as before the repair or as after it. */
static void recognise_half_repaired(const struct laboratory *lab, const struct view *seen)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (strcmp(seen->lines[i], lab->views[0].lines[i]) != 0 &&
            strcmp(seen->lines[i], lab->views[1].lines[i]) != 0) {
            show_difference(lab, seen);
            FAIL("%s: a reader sees what it may not see", lab->operation->name);
        }
}

static uint64_t faults_of(shk_store *store, const char **which)
{
    struct shk_report report;
    uint64_t sum = 0;
    CHECK_CODE(shk_store_verify(store, &report), 0);
    for (int i = 0; i < SHK_CHECK_COUNT; i++) {
        if (report.faults[i])
            *which = shk_check_name((enum shk_check)i);
        sum += report.faults[i];
    }
    return sum;
}

static void check_sound(const struct laboratory *lab, shk_store *store, const char *where)
{
    const char *which = NULL;
    if (faults_of(store, &which))
        FAIL("%s: %s: %s", lab->operation->name, where, which);
}

static void check_keys(const struct laboratory *lab, unsigned state, const char *where)
{
    for (unsigned i = 0; i < KEYS; i++)
        if (!lab->has_key[state][i] && holds(&lab->stage, keys[i]))
            FAIL("%s: %s, in state %u, %s is still in memory", lab->operation->name, where, state,
                 keys[i]);
}

/* The index, the queue or a slot is not as it was. */
static bool is_touched(const struct laboratory *lab, const shk_store *store)
{
    const size_t from = store->geometry.buckets_offset;
    return memcmp(store->base + from, lab->base + from, lab->stage.sites[0].size - from) != 0;
}

static void check_next_write(const struct laboratory *lab, shk_store *store)
{
    CHECK_CODE(put(store, "next", "next"), 0);
    CHECK_CODE(get(store, "next", "next"), 0);
    CHECK_CODE(drop(store, "next"), 0);
    check_sound(lab, store, "after the next writes");
}

/* Every reader of a store that is being repaired is answered; the next writer repairs it. */
static void examine_repair(const struct laboratory *lab, unsigned *state)
{
    struct view seen;
    look(&lab->stage, &seen);
    recognise_half_repaired(lab, &seen);
    shk_store *store = open_on(&lab->stage, 0, &store_writing);
    bool touched = is_touched(lab, store);
    CHECK_CODE(recover(store), 0);
    if (!touched) /* it had not begun: whoever asked for it asks again */
        CHECK_CODE(lab->operation->run(store, NULL, 1), 0);
    check_sound(lab, store, "after recovery");
    look(&lab->stage, &seen);
    *state = recognise(lab, &seen, 1);
    check_keys(lab, 1, "after recovery");
    check_next_write(lab, store);
    shk_store_close(store);
}

/* The old store serves nobody, and holds nothing. */
static void examine_moved(const struct laboratory *lab, unsigned state)
{
    shk_store *store = open_on(&lab->stage, 0, &store_writing);
    shk_store *target = open_on(&lab->stage, 1, &store_writing);
    CHECK_CODE(recover(store), SHK_E_MOVED);
    for (unsigned i = 0; i < KEYS; i++)
        if (memmem(lab->stage.sites[0].map, lab->stage.sites[0].size, keys[i], strlen(keys[i])))
            FAIL("%s: %s is still in the store that moved", lab->operation->name, keys[i]);
    check_sound(lab, target, "the new store");
    check_keys(lab, state, "after recovery");
    check_next_write(lab, target);
    shk_store_close(store);
    shk_store_close(target);
}

/* What was begun to be filled can be emptied and filled. */
static void examine_unmoved_target(const struct laboratory *lab, shk_store *store)
{
    shk_store *target = open_on(&lab->stage, 1, &store_writing);
    struct view seen;
    check_sound(lab, target, "the half-filled store, after recovery");
    CHECK_CODE(shk_store_clear(target, NULL), 0);
    CHECK_CODE(lab->operation->run(store, target, 1), 0);
    check_sound(lab, target, "the new store, at the second attempt");
    look(&lab->stage, &seen);
    (void)recognise(lab, &seen, 1);
    shk_store_close(target);
}

void laboratory_examine(const struct laboratory *lab, unsigned *state, bool exactly)
{
    struct view seen;
    if (lab->operation->repairs) {
        examine_repair(lab, state);
        return;
    }
    look(&lab->stage, &seen);
    unsigned now = recognise(lab, &seen, *state);
    if (exactly && now != *state)
        FAIL("%s: recovery turned state %u into %u", lab->operation->name, *state, now);
    *state = now;
    if (seen.moved) {
        examine_moved(lab, now);
        return;
    }
    shk_store *reader = open_on(&lab->stage, 0, &store_reading);
    check_sound(lab, reader, "before recovery");
    shk_store_close(reader);

    shk_store *store = open_on(&lab->stage, 0, &store_writing);
    CHECK_CODE(recover(store), 0);
    check_sound(lab, store, "after recovery");
    look(&lab->stage, &seen);
    if (!is_same(&seen, &lab->views[now])) {
        show_difference(lab, &seen);
        FAIL("%s: recovery changed what readers see in state %u", lab->operation->name, now);
    }
    if (lab->operation->moves)
        examine_unmoved_target(lab, store);
    else {
        check_keys(lab, now, "after recovery");
        check_next_write(lab, store);
    }
    shk_store_close(store);
}

void laboratory_examine_end(const struct laboratory *lab, const unsigned char *image)
{
    struct view seen;
    stage_load(&lab->stage, image);
    look(&lab->stage, &seen);
    (void)recognise(lab, &seen, lab->operation->steps);
    check_keys(lab, lab->operation->steps, "when the call returns");
    const struct shk_journal_shm *journal =
        (const struct shk_journal_shm *)(lab->stage.sites[0].map + LOCK_AT + sizeof(struct shk_lock_shm));
    CHECK(journal->kind == SHK_CHANGE_NONE);
    CHECK((journal->previous[0] | journal->previous[1]) == 0);
}
