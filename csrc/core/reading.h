/* reading.h: a key in a private image, for who copies it to a place of its own size. */
#ifndef SHK_READING_H
#define SHK_READING_H

#include "record.h"

/* Opens an image of the record with the pair's key of this id or, that being NULL, with its current
 * one; to be closed where the result is 0. As shk_store_get_key and ..._by_id. */
int shk__key_open(const shk_store *store, struct shk_bytes client, struct shk_bytes server,
                  const int32_t *key_id, struct shk__image *image) __attribute__((hot));

#endif
