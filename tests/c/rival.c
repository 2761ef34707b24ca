/* rival.c: a C program that writes to, or reads, a store beside Python's rivals.py, and may be
 * killed at any moment. Built from shk.h and the library alone.
 *
 *   rival write STORE_ID WRITER FROM ACKNOWLEDGED    a file of two uint64_t, to be mapped
 *   rival read STORE_ID WRITERS
 *
 * rivals.py says what they write, and tells which of it must be there. Both end, with 0,
 * on SIGTERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "shk.h"

#define PAIRS 8u
#define SHARED UINT32_MAX /* the writer's number in the key that all of them count up */
#define KEY_MAX 128u

struct key {
    uint32_t checksum; /* of what follows */
    uint32_t writer;
    uint64_t number;
    unsigned char filler[KEY_MAX - 16];
};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static _Noreturn void fail(const char *what, int rc)
{
    (void)fprintf(stderr, "rival: %s: %s: %s\n", what, shk_error_message(rc), shk_error_detail());
    exit(1);
}

/* As zlib's. */
static uint32_t crc32(const unsigned char *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

static size_t make_key(uint32_t writer, uint64_t number, struct key *out)
{
    size_t filler = number % 97;
    out->writer = writer;
    out->number = number;
    for (size_t i = 0; i < filler; i++)
        out->filler[i] = (unsigned char)(number * 7 + i);
    out->checksum = crc32((unsigned char *)out + 4, 12 + filler);
    return 16 + filler;
}

static void check_key(uint32_t writer, const struct key *key, size_t length)
{
    struct key expected;
    if (length < 16 || make_key(writer, key->number, &expected) != length ||
        memcmp(key, &expected, length) != 0) {
        (void)fprintf(stderr, "rival: a torn key of writer %u, number %llu, %zu bytes\n", writer,
                      (unsigned long long)key->number, length);
        exit(1);
    }
}

static struct shk_bytes client_of(uint32_t writer, char *room)
{
    (void)snprintf(room, 12, "w%u", writer % 1000);
    return shk_text(room);
}

static struct shk_bytes server_of(uint64_t pair, char *room)
{
    (void)snprintf(room, 12, "s%u", (unsigned)(pair % PAIRS));
    return shk_text(room);
}

/* ---------------------------------------------------------------- writing -- */

static void operate(shk_store *store, uint32_t writer, uint64_t number)
{
    char client[12], server[12];
    struct key key;
    int rc;
    if (number / PAIRS % 4 == 3) {
        rc = shk_store_delete(store, client_of(writer, client), server_of(number, server));
        if (rc == SHK_E_ABSENT) /* the killed one before us had done it */
            rc = 0;
    } else {
        struct shk_put what = {.key_id = SHK_KEY_ID_NEXT};
        what.key = (struct shk_bytes){&key, make_key(writer, number, &key)};
        rc = shk_store_put(store, client_of(writer, client), server_of(number, server), &what,
                           NULL);
    }
    if (rc < 0)
        fail("operate", rc);
}

/* Compare and put, until nobody was faster. */
static void count_up(shk_store *store)
{
    struct shk_bytes client = shk_text("shared"), server = shk_text("counter");
    int rc;
    do {
        struct key key;
        struct shk_record record;
        rc = shk_store_record(store, client, server, &record, &key, sizeof key);
        if (rc < 0)
            fail("count_up", rc);
        check_key(SHARED, &key, record.key_length);
        struct shk_put what = {.key_id = SHK_KEY_ID_NEXT,
                               .condition = SHK_IF_KEY_ID,
                               .if_key_id = record.key_id};
        what.key = (struct shk_bytes){&key, make_key(SHARED, key.number + 1, &key)};
        rc = shk_store_put(store, client, server, &what, NULL);
    } while (rc == SHK_E_CONFLICT);
    if (rc < 0)
        fail("count_up", rc);
}

static void write_all(shk_store *store, uint32_t writer, uint64_t from, const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint64_t *acknowledged =
        fd < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (acknowledged == MAP_FAILED)
        fail(path, -errno);
    for (uint64_t number = from; !stop; number++) {
        operate(store, writer, number);
        __atomic_store_n(&acknowledged[0], number, __ATOMIC_RELEASE);
        if (number % 4 == 0) {
            count_up(store);
            __atomic_store_n(&acknowledged[1], acknowledged[1] + 1, __ATOMIC_RELEASE);
        }
    }
}

/* ---------------------------------------------------------------- reading -- */

static void read_all(const shk_store *store, uint32_t writers)
{
    uint64_t reads = 0, missing = 0;
    while (!stop)
        for (uint32_t writer = 0; writer < writers; writer++)
            for (uint64_t pair = 0; pair < PAIRS; pair++) {
                char client[12], server[12];
                struct key key;
                size_t length;
                int rc = shk_store_get_key(store, client_of(writer, client),
                                           server_of(pair, server), &key, sizeof key, &length);
                if (rc == 0)
                    check_key(writer, &key, length);
                else if (rc != SHK_E_ABSENT)
                    fail("read", rc);
                missing += rc != 0;
                reads++;
            }
    printf("%llu %llu\n", (unsigned long long)reads, (unsigned long long)missing);
}

int main(int argc, char **argv)
{
    bool writes = argc == 6 && strcmp(argv[1], "write") == 0;
    if (!writes && !(argc == 4 && strcmp(argv[1], "read") == 0)) {
        (void)fputs("rival write STORE_ID WRITER FROM ACKNOWLEDGED | read STORE_ID WRITERS\n",
                    stderr);
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGTERM, on_signal);
    struct shk_access access = {.readonly = !writes,
                                .open_timeout = SHK_OPEN_TIMEOUT_DEFAULT,
                                .lock_timeout = 30 * SHK_SECOND};
    shk_store *store;
    int rc = shk_store_from_id(atoi(argv[2]), &access, &store);
    if (rc < 0)
        fail("open", rc);
    uint32_t number = (uint32_t)atoi(argv[3]);
    if (writes)
        write_all(store, number, strtoull(argv[4], NULL, 10), argv[5]);
    else
        read_all(store, number);
    shk_store_close(store);
    return 0;
}
