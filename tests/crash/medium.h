/* medium.h: where stepped stores lie: in segments or, with --medium memory, in anonymous
 * mappings that forked children share.
 */
#ifndef MEDIUM_H
#define MEDIUM_H

#include "operations.h"

extern bool medium_is_memory;

struct site {
    unsigned char *map;
    size_t size; /* 0: there is none */
    int id;      /* -1: a mapping */
    int set;     /* the set for images of another segment's store, whose own is for that; -1 */
};
/* Zeroed. */
struct site site_new(size_t size);
/* As large, and for images of the store there: site_load makes them writable in it. */
struct site site_like(const struct site *other);
void site_load(const struct site *site, const unsigned char *image);
void site_free(const struct site *site);
/* Where the store lies: a second attachment, or the mapping itself. */
struct site site_of(const shk_store *store);
/* For operations to begin with. Its mapping goes with its site. */
shk_store *site_make_store(void);
int site_open(const struct site *site, const struct shk_access *access, shk_store **out);

#endif
