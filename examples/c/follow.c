/* follow.c: programs that run for long: one that is told of changes, one that answers. */
#include "keytool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* shk_store_wait looks at it whenever a signal has ended its sleep. */
static uint32_t stop;

static void on_signal(int number)
{
    (void)number;
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
}

static void stop_on_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static uint64_t now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SHK_SECOND + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------ watch -- */

static const char *const kinds[] = {
    [SHK_CHANGE_INSERT] = "insert", [SHK_CHANGE_OVERWRITE] = "overwrite",
    [SHK_CHANGE_ROTATE] = "rotate", [SHK_CHANGE_REVOKE] = "revoke",
    [SHK_CHANGE_TOUCH] = "touch",   [SHK_CHANGE_DELETE] = "delete",
    [SHK_CHANGE_EXPIRE] = "expire",
};

static void print_change(const struct shk_change *change)
{
    printf("%llu %s ", (unsigned long long)change->revision, kinds[change->kind]);
    print_id((struct shk_bytes){change->client, change->client_size});
    putchar(' ');
    print_id((struct shk_bytes){change->server, change->server_size});
    putchar('\n');
}

/* Prints the changes after *since, at most *left of them. */
static int print_changes(const shk_store *store, uint64_t *since, uint64_t *left)
{
    enum { ROOM = 64 };
    static struct shk_change changes[ROOM];
    int count = shk_store_changes(store, *since, changes, *left < ROOM ? (size_t)*left : ROOM);
    if (count == SHK_E_CHANGES_LOST) {
        /* A program that keeps copies would read all of them anew here. */
        int rc = shk_store_revision(store, since);
        if (rc == 0)
            printf("lost %llu\n", (unsigned long long)*since);
        return rc;
    }
    for (int i = 0; i < count; i++) {
        print_change(&changes[i]);
        *since = changes[i].revision;
        --*left;
    }
    return count < 0 ? count : 0;
}

/* The revision counts anew in a successor: whatever it holds is news. */
static int go_on_elsewhere(shk_store **store, uint64_t *since)
{
    int rc = open_successor(store);
    if (rc == 0)
        rc = shk_store_revision(*store, since);
    if (rc == 0)
        printf("moved %llu\n", (unsigned long long)*since);
    return rc;
}

static int watch(shk_store **store, const struct request *request)
{
    uint64_t since = request->since, left = request->count ? request->count : UINT64_MAX;
    uint64_t started = now(), revision;
    int rc = request->since_given ? 0 : shk_store_revision(*store, &since);
    if (rc == 0)
        printf("watching %llu\n", (unsigned long long)since);
    while (rc == 0 && left > 0 && !__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        (void)fflush(stdout);
        uint64_t passed = now() - started;
        if (passed >= request->timeout)
            break;
        rc = shk_store_wait(*store, since, request->timeout - passed, &stop, &revision);
        if (rc == 0 && revision != since)
            rc = print_changes(*store, &since, &left);
        if (rc == SHK_E_MOVED)
            rc = go_on_elsewhere(store, &since);
    }
    return rc == -ECANCELED ? 0 : rc; /* told to stop */
}

int command_watch(const struct request *request)
{
    shk_store *store;
    stop_on_signals();
    int rc = open_store(request, request->words[0], READING, &store);
    if (rc == 0) {
        rc = watch(&store, request);
        shk_store_close(store);
    }
    return rc;
}

/* ------------------------------------------------------------------ serve -- */

/* "CLIENT SERVER [KEY_ID]". One answer a line: "ok LENGTH", with --hex the key; or why not. */
static int answer(const struct request *request, const shk_store *store, char *line,
                  struct secret *key)
{
    char *rest = NULL;
    const char *client = strtok_r(line, " \n", &rest), *server = strtok_r(NULL, " \n", &rest);
    const char *key_id = strtok_r(NULL, " \n", &rest);
    if (!client || !server) {
        printf("usage: CLIENT SERVER [KEY_ID]\n");
        return 0;
    }
    int rc = key_id ? shk_store_get_key_by_id(store, shk_text(client), shk_text(server),
                                              atoi(key_id), key->bytes, sizeof key->bytes,
                                              &key->size)
                    : shk_store_get_key(store, shk_text(client), shk_text(server), key->bytes,
                                        sizeof key->bytes, &key->size);
    if (rc == 0 && request->hex)
        rc = secret_print(key, true);
    else if (rc == 0)
        printf("ok %zu\n", key->size);
    explicit_bzero(key->bytes, key->size);
    if (rc != SHK_E_ABSENT && rc != SHK_E_REVOKED && rc != SHK_E_EXPIRED && rc != SHK_E_INVALID)
        return rc;
    printf("%s\n", rc == SHK_E_INVALID ? shk_error_detail() : shk_error_message(rc));
    return 0;
}

/* A worker that answers from a read-only handle, and goes along when the store moves. It
 * catches no signals: one that came right before it reads would be noticed too late, and
 * while it waits for a line it holds nobody's key. */
static int serve(const struct request *request, shk_store **store, struct secret *key)
{
    char *line = NULL, *copy = NULL;
    size_t room = 0;
    int rc = 0;
    printf("serving\n");
    while (rc == 0 && fflush(stdout) == 0 && getline(&line, &room, stdin) > 0) {
        do {
            free(copy);
            copy = strdup(line);
            rc = copy ? answer(request, *store, copy, key) : complain("out of memory");
        } while (rc == SHK_E_MOVED && (rc = open_successor(store)) == 0);
    }
    free(copy);
    free(line);
    return rc;
}

int command_serve(const struct request *request)
{
    shk_store *store;
    struct secret *key = secret_new();
    int rc = key ? open_store(request, request->words[0], READING, &store) : FAILED;
    if (rc == 0) {
        rc = serve(request, &store, key);
        shk_store_close(store);
    }
    secret_free(key);
    return rc;
}
