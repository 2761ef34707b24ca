/* keytool.h: what the parts of keytool share.
 *
 * Every command returns 0; a negative code of shk.h, which main puts into words; or a
 * positive exit status, if it has said itself what is wrong.
 */
#ifndef KEYTOOL_H
#define KEYTOOL_H

#include "shk.h"

enum { FAILED = 1, MISUSED = 2, PAIR_NOT_SO = 3 };

/* What the command line asks for. Times are nanoseconds. */
struct request {
    char **words; /* STORE, and what follows it */
    const char *key_file;
    uid_t owner; /* whose name STORE is */
    uint64_t ttl, grace, timeout;
    uint64_t capacity, count, since;
    uint32_t id_size, key_size;
    int32_t key_id, if_key_id; /* -1: not given */
    bool if_absent, group, readonly, at_once, hex, raw, since_given;
};

typedef int command(const struct request *request);

/* pairs.c */
command command_put, command_get, command_show, command_rotate, command_revoke, command_touch,
    command_delete;
/* whole.c */
command command_create, command_list, command_classic, command_stats, command_verify,
    command_repair, command_purge, command_move, command_destroy;
/* follow.c */
command command_watch, command_serve;

/* keytool.c: "keytool: ..." on standard error. Returns FAILED. */
int complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* opening.c */
enum use { READING, WRITING, CREATING };
int open_store(const struct request *request, const char *store, enum use use, shk_store **out);
/* Where the store has moved: closes it and opens its successor, if that may be found. */
int open_successor(shk_store **store);

/* secret.c: a key, in memory that no core dump has and that is wiped when it is freed. */
struct secret {
    size_t size;
    unsigned char bytes[SHK_KEY_SIZE_MAX];
};
struct secret *secret_new(void); /* NULL: complained */
void secret_free(struct secret *secret);
/* All of a file; of standard input, if path is NULL. */
int secret_read(struct secret *secret, const char *path);
/* To standard output: in hex and a newline, or as it is. */
int secret_print(const struct secret *secret, bool hex);

/* whole.c: one word, whatever bytes the id has: a terminal obeys some of them. */
void print_id(struct shk_bytes id);

#endif
