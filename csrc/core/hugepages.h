/* hugepages.h: why the kernel refused a segment of huge pages, and what to do. */
#ifndef SHK_HUGEPAGES_H
#define SHK_HUGEPAGES_H

#include "shk.h"

/* After shmget with SHM_HUGETLB failed with this errno: stores a sentence that names
 * the page size, the pages needed and free, and the setting to change; -error. */
int shk__hugepages_fail(int error, key_t key, size_t size, int flags);

#endif
