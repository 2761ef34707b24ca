/* keyrecord.h: KeyRecord, one pair's record in private memory that wipes itself. */
#ifndef PYSHMKEY_KEYRECORD_H
#define PYSHMKEY_KEYRECORD_H

#include "state.h"

/* Room for a key of up to capacity bytes. */
/* An id as a str; bytes that are not UTF-8 become surrogate escapes. */
PyObject *keyrecord_id(struct shk_bytes id);
bool keyrecord_expired(const struct shk_record *about);
PyObject *keyrecord_new(struct module_state *state, size_t capacity);
/* Where the C library writes the key, and what about describes. */
void *keyrecord_key(PyObject *record);
struct shk_record *keyrecord_about(PyObject *record);
/* Ends the making: the ids, as the caller's bytes. 0 or -1. */
int keyrecord_set_ids(PyObject *record, struct shk_bytes client, struct shk_bytes server);

#endif
