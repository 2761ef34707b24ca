/* sysinfo.h: the two readers of the host's tables; sysinfo.c chooses. */
#ifndef SHK_SYSINFO_H
#define SHK_SYSINFO_H

#include "shk.h"

/* Rows of one size that collect in one allocation. Zeros but for the size: empty. */
struct shk__rows {
    size_t row_size, count, capacity;
    void *rows;
};
/* Room for one more, zeroed; NULL where memory is out. */
void *shk__rows_add(struct shk__rows *to);

/* /proc/sysvipc, /proc/sys/kernel. */
int shk__proc_segments(struct shk__rows *to);
int shk__proc_semsets(struct shk__rows *to);
int shk__proc_msgqueues(struct shk__rows *to);
int shk__proc_limits(struct shk_limits *out);
int shk__proc_usage(struct shk_usage *out);

#endif
