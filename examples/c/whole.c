/* whole.c: a store as a whole: making it, looking through it, care, moving, the end. */
#include "keytool.h"

#include <stdio.h>

void print_id(struct shk_bytes id)
{
    const unsigned char *bytes = id.data;
    for (size_t i = 0; i < id.size; i++)
        if (bytes[i] > ' ' && bytes[i] < 0x7F && bytes[i] != '\\')
            putchar(bytes[i]);
        else
            printf("\\x%02x", bytes[i]);
}

int command_create(const struct request *request)
{
    shk_store *store;
    struct shk_info info;
    int rc = open_store(request, request->words[0], CREATING, &store);
    if (rc != 0)
        return rc;
    shk_store_info(store, &info);
    if (info.id < 0)
        printf("store of %llu pairs\n", (unsigned long long)info.capacity);
    else
        printf("store id:%d key:0x%x\n", info.id, (unsigned)info.key);
    shk_store_close(store);
    return 0;
}

/* ---------------------------------------------------------------- looking -- */

static void print_line(const struct shk_pair *pair, const struct shk_record *record)
{
    print_id(pair->client);
    putchar(' ');
    print_id(pair->server);
    printf(" %d %u %s\n", record->key_id, record->key_length,
           record->status == SHK_VALID ? "valid" : "revoked");
}

/* Beside writers: each pair that stays comes once. */
static int list_by_cursor(shk_store *store)
{
    shk_cursor *cursor;
    struct shk_pair pair;
    int rc = shk_cursor_open(store, &cursor);
    if (rc < 0)
        return rc;
    while ((rc = shk_cursor_next(cursor, &pair)) > 0) {
        struct shk_record record;
        rc = shk_store_record(store, pair.client, pair.server, &record, NULL, 0);
        if (rc == 0)
            print_line(&pair, &record);
        else if (rc != SHK_E_ABSENT && rc != SHK_E_EXPIRED) /* deleted since */
            break;
    }
    shk_cursor_close(cursor);
    return rc;
}

/* As it was at one moment. */
static int list_by_snapshot(shk_store *store)
{
    shk_snapshot *snapshot;
    int rc = shk_store_snapshot(store, &snapshot);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < shk_snapshot_count(snapshot); i++) {
        struct shk_pair pair;
        struct shk_record record;
        const void *key;
        shk_snapshot_record(snapshot, i, &pair, &record, &key);
        print_line(&pair, &record);
    }
    shk_snapshot_free(snapshot); /* it held keys, which are wiped now */
    return 0;
}

int command_list(const struct request *request)
{
    shk_store *store;
    int rc = open_store(request, request->words[0], READING, &store);
    if (rc == 0) {
        rc = request->at_once ? list_by_snapshot(store) : list_by_cursor(store);
        shk_store_close(store);
    }
    return rc;
}

/* The record that C programs have kept in such segments all along. */
struct classic {
    int status;
    char client_id[SHK_ID_SIZE_DEFAULT];
    char server_id[SHK_ID_SIZE_DEFAULT];
    int key_id;
    unsigned char key[SHK_KEY_SIZE_DEFAULT];
};

/* Laid over the slots. What one sees so is a hint: a writer may be at it. A slot whose
 * generation is even and the same before and after was not changed in between, but it may
 * be the one that an overwrite is just leaving, or a rotation has kept. A lookup tells. */
static void print_slot(const unsigned char *slot)
{
    const uint64_t *generation = (const uint64_t *)(slot + SHK_GENERATION_OFFSET);
    const struct classic *classic = (const struct classic *)(slot + SHK_STATUS_OFFSET);
    uint64_t before = __atomic_load_n(generation, __ATOMIC_ACQUIRE);
    if (before == 0 || before % 2)
        return; /* never used, free, or being filled */
    int status = classic->status, key_id = classic->key_id;
    char client[SHK_ID_SIZE_DEFAULT], server[SHK_ID_SIZE_DEFAULT];
    memcpy(client, classic->client_id, sizeof client);
    memcpy(server, classic->server_id, sizeof server);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(generation, __ATOMIC_RELAXED) != before)
        return;
    print_id((struct shk_bytes){client, strnlen(client, sizeof client)});
    putchar(' ');
    print_id((struct shk_bytes){server, strnlen(server, sizeof server)});
    printf(" %d %d\n", key_id, status);
}

int command_classic(const struct request *request)
{
    shk_store *store;
    struct shk_info info;
    const void *slots;
    uint64_t count;
    int rc = open_store(request, request->words[0], READING, &store);
    if (rc != 0)
        return rc;
    shk_store_info(store, &info);
    if (info.id_size != SHK_ID_SIZE_DEFAULT || info.key_size != SHK_KEY_SIZE_DEFAULT)
        rc = complain("the classic record has ids of %u and keys of %u bytes, this store %u and %u",
                      SHK_ID_SIZE_DEFAULT, SHK_KEY_SIZE_DEFAULT, info.id_size, info.key_size);
    else
        rc = shk_store_slots(store, &slots, &count);
    if (rc == 0)
        for (uint64_t i = 0; i < count; i++)
            print_slot((const unsigned char *)slots + i * info.record_size);
    shk_store_close(store); /* and so the slots are gone */
    return rc;
}

/* ------------------------------------------------------------------- care -- */

int command_stats(const struct request *request)
{
    shk_store *store;
    struct shk_info info;
    struct shk_stats stats;
    int rc = open_store(request, request->words[0], READING, &store);
    if (rc != 0)
        return rc;
    rc = shk_store_stats(store, &stats);
    shk_store_info(store, &info);
    shk_store_close(store);
    if (rc < 0)
        return rc;
    const struct {
        const char *name;
        uint64_t value;
    } lines[] = {
        {"capacity", info.capacity},       {"records", stats.records},
        {"revision", stats.revision},      {"previous_keys", stats.previous_keys},
        {"reclaimed", stats.reclaimed},    {"last_key_id", (uint64_t)stats.last_key_id},
        {"takeovers", stats.takeovers},    {"recoveries", stats.recoveries},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        printf("%s %llu\n", lines[i].name, (unsigned long long)lines[i].value);
    return 0;
}

/* Every write first finishes or undoes what a killed writer had begun, and so does this:
 * what it then checks is sound, or damaged by something that is no user of the library. */
int command_verify(const struct request *request)
{
    shk_store *store;
    struct shk_stats before, after;
    struct shk_report report;
    int rc = open_store(request, request->words[0], request->readonly ? READING : WRITING,
                        &store);
    if (rc != 0)
        return rc;
    rc = shk_store_stats(store, &before);
    if (rc == 0)
        rc = shk_store_verify(store, &report);
    if (rc == 0)
        rc = shk_store_stats(store, &after);
    shk_store_close(store);
    if (rc < 0)
        return rc;
    printf("%llu records, %llu free slots\n", (unsigned long long)report.records,
           (unsigned long long)report.free_slots);
    if (after.takeovers > before.takeovers)
        printf("a writer had died in the middle: %llu of its operations finished or undone\n",
               (unsigned long long)(after.recoveries - before.recoveries));
    for (int check = 0; check < SHK_CHECK_COUNT; check++)
        if (report.faults[check]) {
            printf("%s: %llu times, first at %llu. What should hold: %s\n",
                   shk_check_name((enum shk_check)check),
                   (unsigned long long)report.faults[check],
                   (unsigned long long)report.first[check],
                   shk_check_text((enum shk_check)check));
            rc = FAILED;
        }
    return rc;
}

int command_repair(const struct request *request)
{
    shk_store *store;
    struct shk_repair_report report;
    int rc = open_store(request, request->words[0], WRITING, &store);
    if (rc != 0)
        return rc;
    rc = shk_store_repair(store, &report);
    shk_store_close(store);
    if (rc < 0)
        return rc;
    printf("%llu records kept, %llu of them restored\n", (unsigned long long)report.kept,
           (unsigned long long)report.restored);
    for (int drop = 0; drop < SHK_DROP_COUNT; drop++)
        if (report.dropped[drop])
            printf("%s: %llu dropped: %s\n", shk_drop_name((enum shk_drop)drop),
                   (unsigned long long)report.dropped[drop],
                   shk_drop_text((enum shk_drop)drop));
    return 0;
}

int command_purge(const struct request *request)
{
    shk_store *store;
    uint64_t purged;
    int rc = open_store(request, request->words[0], WRITING, &store);
    if (rc != 0)
        return rc;
    rc = shk_store_purge_expired(store, &purged);
    shk_store_close(store);
    if (rc == 0)
        printf("%llu expired records wiped\n", (unsigned long long)purged);
    return rc;
}

/* How a store grows: create a larger one, then move. Whoever uses the old one gets MOVED,
 * and from shk_store_successor where to go. */
int command_move(const struct request *request)
{
    shk_store *store, *target;
    uint64_t copied;
    int rc = open_store(request, request->words[0], WRITING, &store);
    if (rc != 0)
        return rc;
    rc = open_store(request, request->words[1], WRITING, &target);
    if (rc == 0) {
        rc = shk_store_copy_to(store, target, &copied);
        shk_store_close(target);
    }
    shk_store_close(store);
    if (rc == 0)
        printf("%llu records moved\n", (unsigned long long)copied);
    return rc;
}

int command_destroy(const struct request *request)
{
    shk_store *store;
    int rc = open_store(request, request->words[0], WRITING, &store);
    if (rc != 0)
        return rc;
    rc = shk_store_destroy(store);
    shk_store_close(store); /* still needed */
    return rc;
}
