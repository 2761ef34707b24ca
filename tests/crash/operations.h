/* operations.h: what is stepped: how a store is prepared, the call, and its single effects.
 *
 * Most calls take effect at one moment. Those that are several writes (batches, a purge, an
 * insert that reclaims) take effect one by one, in an order that is known: run(.., n) does the
 * first n of them, by other calls where need be, and run(.., steps) is the call itself.
 */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "store_fixture.h"

#define HOUR (3600 * SHK_SECOND)
#define CAPACITY 21u

/* Each key that is ever put begins with it, so that none is overlooked in a segment. */
#define KEY(name) "KEY-of-" name

struct operation {
    const char *name;
    void (*prepare)(shk_store *store); /* a store with the bystanders */
    int (*run)(shk_store *store, shk_store *target, unsigned steps);
    unsigned steps;
    bool repairs; /* of a damaged store: pairs come back one by one, in any order */
    bool moves;   /* to a second store */
};
extern const struct operation operations[];
extern const size_t operations_count;

/* Every client that an operation may touch, bystanders last. */
#define CLIENTS 14u
extern const char *const clients[CLIENTS];
/* All keys that an operation puts or finds. */
#define KEYS 9u
extern const char *const keys[KEYS];

/* The bystanders of every store. */
void prepare_bystanders(shk_store *store);
/* What the next writer does first, and nothing else. */
int recover(shk_store *store);

#endif
