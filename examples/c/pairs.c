/* pairs.c: one pair of ids and its key. */
#include "keytool.h"

#include <stdio.h>

static struct shk_bytes client_of(const struct request *request)
{
    return shk_text(request->words[1]);
}

static struct shk_bytes server_of(const struct request *request)
{
    return shk_text(request->words[2]);
}

/* Compare and put: with --if-key-id it is refused if another was faster. */
static int put(const struct request *request, shk_store *store, const struct secret *key)
{
    struct shk_put what = {.key = {key->bytes, key->size},
                           .key_id = request->key_id < 0 ? SHK_KEY_ID_NEXT : request->key_id,
                           .ttl = request->ttl};
    if (request->if_absent)
        what.condition = SHK_IF_ABSENT;
    else if (request->if_key_id >= 0) {
        what.condition = SHK_IF_KEY_ID;
        what.if_key_id = request->if_key_id;
    }
    int32_t key_id;
    int rc = shk_store_put(store, client_of(request), server_of(request), &what, &key_id);
    if (rc == 0)
        printf("key id %d\n", key_id);
    return rc;
}

/* A random key, or with --key-file a given one. Within the grace `get --key-id` still finds
 * the old one, for messages that are under way. */
static int rotate(const struct request *request, shk_store *store, const struct secret *key)
{
    struct shk_rotation how = {.new_key = {key->bytes, key->size},
                               .conditional = request->if_key_id >= 0,
                               .if_key_id = request->if_key_id,
                               .grace = request->grace};
    struct shk_record record;
    int rc = shk_store_rotate(store, client_of(request), server_of(request), &how, &record, NULL,
                              0);
    if (rc == 0)
        printf("key id %d\n", record.key_id);
    return rc;
}

/* The key is read before the store is opened, and no longer there when this returns. */
static int with_key(const struct request *request, bool wanted,
                    int (*use)(const struct request *, shk_store *, const struct secret *))
{
    struct secret *key = secret_new();
    shk_store *store;
    if (!key)
        return FAILED;
    int rc = wanted ? secret_read(key, request->key_file) : 0;
    if (rc == 0 && wanted && key->size == 0)
        rc = complain("an empty key");
    if (rc == 0)
        rc = open_store(request, request->words[0], WRITING, &store);
    if (rc == 0) {
        rc = use(request, store, key);
        shk_store_close(store);
    }
    secret_free(key);
    return rc;
}

int command_put(const struct request *request)
{
    return with_key(request, true, put);
}

int command_rotate(const struct request *request)
{
    return with_key(request, request->key_file != NULL, rotate);
}

int command_get(const struct request *request)
{
    if (request->hex == request->raw) {
        (void)complain("get shows a secret: say --hex or --raw, or use show");
        return MISUSED;
    }
    shk_store *store;
    int rc = open_store(request, request->words[0], READING, &store);
    if (rc != 0)
        return rc;
    struct secret *key = secret_new();
    if (!key)
        rc = FAILED;
    else if (request->key_id < 0)
        rc = shk_store_get_key(store, client_of(request), server_of(request), key->bytes,
                               sizeof key->bytes, &key->size);
    else
        rc = shk_store_get_key_by_id(store, client_of(request), server_of(request),
                                     request->key_id, key->bytes, sizeof key->bytes, &key->size);
    shk_store_close(store);
    if (rc == 0)
        rc = secret_print(key, request->hex);
    secret_free(key);
    return rc;
}

/* All about the pair, whatever its status, but the key. */
int command_show(const struct request *request)
{
    shk_store *store;
    struct shk_record record;
    int rc = open_store(request, request->words[0], READING, &store);
    if (rc != 0)
        return rc;
    rc = shk_store_record(store, client_of(request), server_of(request), &record, NULL, 0);
    shk_store_close(store);
    if (rc == 0)
        printf("key id %d, %u bytes, %s, updated %.3f, expires %.3f\n", record.key_id,
               record.key_length, record.status == SHK_VALID ? "valid" : "revoked",
               (double)record.updated / 1e9, (double)record.expires / 1e9);
    return rc;
}

/* ------------------------------------------------ without any key's bytes -- */

static int change(const struct request *request,
                  int (*use)(const struct request *request, shk_store *store))
{
    shk_store *store;
    int rc = open_store(request, request->words[0], WRITING, &store);
    if (rc == 0) {
        rc = use(request, store);
        shk_store_close(store);
    }
    return rc;
}

static int revoke(const struct request *request, shk_store *store)
{
    return shk_store_revoke(store, client_of(request), server_of(request));
}

static int touch(const struct request *request, shk_store *store)
{
    return shk_store_touch(store, client_of(request), server_of(request), request->ttl);
}

static int delete(const struct request *request, shk_store *store)
{
    return shk_store_delete(store, client_of(request), server_of(request));
}

int command_revoke(const struct request *request)
{
    return change(request, revoke);
}

int command_touch(const struct request *request)
{
    return change(request, touch);
}

int command_delete(const struct request *request)
{
    return change(request, delete);
}
