/* error.h: failures carry a code and, thread-local, a sentence about it. */
#ifndef SHK_ERROR_H
#define SHK_ERROR_H

#include "shk.h"

/* Stores the sentence and returns code. */
int shk__fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3), cold));
/* For failures that are everyday answers: no sentence, and no time spent on one. */
int shk__fail_plainly(int code);

#endif
