/* bell.h: descriptors that become readable when a store changes.
 *
 * All bells of one handle share one thread, the sentry, which sleeps in shk_store_wait
 * while any of them is armed. It knows no Python and takes no GIL, so it can neither hold
 * up nor outlive the interpreter's end; whoever stops it waits until it has left the store.
 */
#ifndef PYSHMKEY_BELL_H
#define PYSHMKEY_BELL_H

#include "keystore.h"

/* Stops the handle's sentry, if there is one, and rings: its bells find the handle closed. */
void bells_close(KeyStore *store);

#endif
