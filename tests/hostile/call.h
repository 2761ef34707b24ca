/* call.h: every call of a victim: when it began, and whether its answer is one that the
 * caller of a damaged store may get. */
#ifndef CALL_H
#define CALL_H

#include "arena.h"

#define LOCK_TIMEOUT (5 * SHK_MILLISECOND)
#define OPEN_TIMEOUT (2 * SHK_MILLISECOND)
#define KEY_ROOM (1024u + 8u) /* the longest key of any round, and a canary */

/* CALL("put", shk_store_put(...)) is what the call returned. */
#define CALL(name, call) (call_begin(name), call_end(call))
void call_begin(const char *name);
int call_end(int rc);

struct shk_bytes client_of(unsigned number); /* valid until the 32nd call after it */
#define SERVER shk_text("s")
/* Numbers of the pairs that victims use: some more than fit. */
static inline unsigned any_client(void)
{
    return below(arena->capacity + 4);
}

/* Checks that a key came within its bounds; the buffer was filled with the canary. */
#define CANARY 0xA5
unsigned char *key_room(void);
void key_check(const unsigned char *key, size_t length);

extern const struct shk_access writing, reading;

#endif
