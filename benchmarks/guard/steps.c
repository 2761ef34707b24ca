/* steps.c: each operation on fixed inputs, for guard.py to count the instructions of.
 *
 * ROUNDS * STEPS operations happen in each step_... function; the first round of get and
 * put is done before, outside, so that nothing that happens once is counted. The hash key
 * is fixed, so the same pairs stand in the same buckets each time.
 */
#include <stdio.h>
#include <string.h>

#include "store.h"

#define PAIRS 1000u
#define STEPS 500u
#define ROUNDS 2u
#define KEY_SIZE 32u

#define STEP __attribute__((noinline)) static void

static shk_store *store;
static char names[2 * PAIRS + STEPS][2][16];
static struct shk_pair pairs[2 * PAIRS + STEPS]; /* there; absent; for inserts */
static struct shk_pair *const present = pairs, *const absent = pairs + PAIRS,
                       *const fresh = pairs + 2 * PAIRS;
static struct shk_item items[STEPS];
static unsigned char key[KEY_SIZE], keys[STEPS][SHK_KEY_SIZE_DEFAULT];
static uint32_t lengths[STEPS];
static int results[STEPS];
static unsigned failures;

static void name(unsigned i, char prefix)
{
    pairs[i].client = (struct shk_bytes){
        names[i][0], (size_t)snprintf(names[i][0], sizeof names[i][0], "%c%u", prefix, i * 7919)};
    pairs[i].server = (struct shk_bytes){
        names[i][1], (size_t)snprintf(names[i][1], sizeof names[i][1], "s%u", i % 50)};
}

static int put(const struct shk_pair *pair)
{
    struct shk_put what = {.key = {key, sizeof key}, .key_id = SHK_KEY_ID_NEXT};
    return shk_store_put(store, pair->client, pair->server, &what, NULL);
}

static int get(const struct shk_pair *pair)
{
    size_t length;
    return shk_store_get_key(store, pair->client, pair->server, keys[0], sizeof keys[0], &length);
}

STEP step_get(void)
{
    for (unsigned i = 0; i < ROUNDS * STEPS; i++)
        failures += get(&present[i % STEPS]) != 0;
}

STEP step_miss(void)
{
    for (unsigned i = 0; i < ROUNDS * STEPS; i++)
        failures += get(&absent[i % STEPS]) != SHK_E_ABSENT;
}

STEP step_put(void)
{
    for (unsigned i = 0; i < ROUNDS * STEPS; i++)
        failures += put(&present[i % STEPS]) != 0;
}

STEP step_insert(void)
{
    for (unsigned i = 0; i < STEPS; i++)
        failures += put(&fresh[i]) != 0;
}

STEP step_delete(void)
{
    for (unsigned i = 0; i < STEPS; i++)
        failures += shk_store_delete(store, fresh[i].client, fresh[i].server) != 0;
}

STEP step_get_many(void)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        failures += shk_store_get_many(store, present, STEPS, keys, sizeof keys[0], lengths,
                                       results) != (int)STEPS;
}

STEP step_put_many(void)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        failures += shk_store_put_many(store, items, STEPS) != 0;
}

int main(void)
{
    struct shk_address address = {.key = IPC_PRIVATE};
    struct shk_shape shape = {.capacity = 2 * PAIRS, .mode = 0600};
    struct shk_access access = {.open_timeout = 1000000000, .lock_timeout = 10000000000};
    int rc = shk_store_open(SHK_CREATE, &address, &shape, &access, &store);
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", shk_error_message(rc), shk_error_detail());
        return 1;
    }
    store->hash_key[0] = 0x0706050403020100;
    store->hash_key[1] = 0x0F0E0D0C0B0A0908;
    memset(key, 'k', sizeof key);
    for (unsigned i = 0; i < 2 * PAIRS + STEPS; i++)
        name(i, i < PAIRS ? 'c' : i < 2 * PAIRS ? 'm' : 'n');
    for (unsigned i = 0; i < STEPS; i++)
        items[i] = (struct shk_item){
            .pair = present[i], .what = {.key = {key, sizeof key}, .key_id = SHK_KEY_ID_NEXT}};
    for (unsigned i = 0; i < PAIRS; i++)
        failures += put(&present[i]) != 0 || get(&present[i]) != 0;

    step_get();
    step_miss();
    step_put();
    step_insert();
    step_delete();
    step_get_many();
    step_put_many();

    failures += shk_store_destroy(store) != 0;
    shk_store_close(store);
    if (failures)
        fprintf(stderr, "%u operations failed\n", failures);
    return failures != 0;
}
