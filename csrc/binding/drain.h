/* drain.h: a whole batch in private memory, before the library takes any lock. */
#ifndef PYSHMKEY_DRAIN_H
#define PYSHMKEY_DRAIN_H

#include "keystore.h"

struct block;

struct drain {
    struct block *blocks;  /* ids and keys; they never move, and are wiped before they are freed */
    struct shk_item *items; /* either of the two points into blocks */
    struct shk_pair *pairs;
    size_t count, room;
};

/* 0, or -1 with an exception; to be closed in either case. */
int drain_pairs(struct drain *drain, PyObject *self, PyObject *argument);
int drain_items(struct drain *drain, PyObject *self, PyObject *argument);
/* A copy of one more item, to a drain that began as zeros. */
int drain_item(struct drain *drain, PyObject *self, const struct shk_item *item);
void drain_close(struct drain *drain);

#endif
