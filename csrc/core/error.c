/* error.c: the version, codes, their messages, and the last failure's detail. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char detail[512];

int shk__fail(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    return code;
}

int shk__fail_plainly(int code)
{
    detail[0] = 0;
    return code;
}

const char *shk_error_detail(void)
{
    return detail;
}

const char *shk_version(void)
{
    return SHK_VERSION;
}

const char *shk_error_message(int code)
{
    switch (code) {
#define SHK_CODE_CASE(name, number, message)                                                       \
    case SHK_E_##name:                                                                             \
        return message;
        SHK_CODES(SHK_CODE_CASE)
#undef SHK_CODE_CASE
    default:
        return strerror(-code);
    }
}
