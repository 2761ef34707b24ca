/* segment.h: what the kernel says of a segment, in our terms. */
#ifndef SHK_SEGMENT_H
#define SHK_SEGMENT_H

#include "shk.h"

struct shmid_ds;
void shk__segment_describe(int id, const struct shmid_ds *status, struct shk_segment_info *out)
    __attribute__((hot));

#endif
