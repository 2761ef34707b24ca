/* call.c: the answers. */
#include "call.h"

#include <errno.h>

const struct shk_access writing = {.open_timeout = OPEN_TIMEOUT, .lock_timeout = LOCK_TIMEOUT};
const struct shk_access reading = {.readonly = true, .open_timeout = OPEN_TIMEOUT};

void call_begin(const char *name)
{
    arena->doing[role].since = shk__monotonic();
    shk__store(&arena->doing[role].call, name);
}

int call_end(int rc)
{
    /* About the store, never about the caller or the system. INVALID: the header may have
     * named another key size, or the revision be another. */
    static const int refusals[] = {SHK_E_INVALID,      SHK_E_ABSENT,   SHK_E_REVOKED,
                                   SHK_E_EXPIRED,      SHK_E_FULL,     SHK_E_EXHAUSTED,
                                   SHK_E_REMOVED,      SHK_E_BUSY,     SHK_E_MOVED,
                                   SHK_E_CHANGES_LOST, SHK_E_EXISTS,   SHK_E_CONFLICT,
                                   SHK_E_INCOMPATIBLE, -ENOENT,        -EEXIST};
    unsigned answer = rc >= 0 ? 0 : rc == SHK_E_CORRUPT ? 2 : rc == SHK_E_TIMEOUT ? 3 : 1;
    for (size_t i = 0; answer == 1; i++) {
        if (i == sizeof refusals / sizeof *refusals)
            fail("%s is %d (%s: %s)", arena->doing[role].call, rc, shk_error_message(rc),
                 shk_error_detail());
        if (rc == refusals[i])
            break;
    }
    arena->doing[role].calls++;
    arena->doing[role].answers[answer]++;
    shk__store(&arena->doing[role].call, NULL);
    return rc;
}

struct shk_bytes client_of(unsigned number)
{
    static char rooms[32][8];
    static unsigned next;
    char *room = rooms[next++ % 32];
    (void)snprintf(room, sizeof rooms[0], "c%u", number % 1000);
    return shk_text(room);
}

static unsigned char room[KEY_ROOM];

unsigned char *key_room(void)
{
    memset(room, CANARY, sizeof room);
    return room;
}

void key_check(const unsigned char *key, size_t length)
{
    CHECK(length >= 1 && length <= arena->key_size);
    for (size_t at = length; at < KEY_ROOM; at++)
        CHECK(key[at] == CANARY);
}
