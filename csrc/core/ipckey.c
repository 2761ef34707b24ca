/* ipckey.c: where System V keys come from. */
#include "error.h"
#include "hash.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

/* As in glibc and musl, but computed here: ftok(3) answers -1 both for "no such
 * file" and for the file whose key that is. */
int shk_file_address(const char *path, int proj, struct shk_address *out)
{
    if (proj < 1 || proj > 255)
        return shk__fail(SHK_E_INVALID, "ftok: proj %d is out of range: 1 to 255", proj);
    struct stat file;
    if (stat(path, &file) != 0)
        return shk__fail(-errno, "ftok(path=\"%s\", proj=%d)", path, proj);
    out->name = (struct shk_bytes){NULL, 0};
    out->key = (key_t)((uint32_t)proj << 24 | (uint32_t)(file.st_dev & 0xFF) << 16 |
                       (uint32_t)(file.st_ino & 0xFFFF));
    out->device = file.st_dev;
    out->inode = file.st_ino;
    return 0;
}

int shk_ftok(const char *path, int proj, key_t *key)
{
    struct shk_address address;
    int rc = shk_file_address(path, proj, &address);
    if (rc == 0)
        *key = address.key;
    return rc;
}

/* 31 of 64 random or hashed bits; 0 would mean IPC_PRIVATE. */
static key_t fold(uint64_t bits)
{
    key_t key = (key_t)((bits ^ bits >> 31 ^ bits >> 62) & INT32_MAX);
    return key ? key : 1;
}

int shk_named_key(const void *name, size_t size, uid_t owner, key_t *key)
{
    /* Part of the format, like the text below: programs of every release must agree. */
    static const uint64_t hash_key[2] = {UINT64_C(0x79656B6D68737970),  /* "pyshmkey" */
                                         UINT64_C(0x79656B64656D616E)}; /* "namedkey" */
    if (size == 0 || size > SHK_NAME_MAX)
        return shk__fail(SHK_E_INVALID, "a name of %zu bytes: 1 to %u are possible", size,
                         SHK_NAME_MAX);
    if (memchr(name, 0, size))
        return shk__fail(SHK_E_INVALID, "the name holds a NUL byte");
    char text[16 + SHK_NAME_MAX];
    int prefix = snprintf(text, sizeof text, "%u:", owner);
    memcpy(text + prefix, name, size);
    *key = fold(shk__siphash13(hash_key, text, (size_t)prefix + size));
    return 0;
}

int shk_random_key(key_t *key)
{
    uint64_t bits;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        return shk__fail(-errno, "getrandom(%zu bytes)", sizeof bits);
    *key = fold(bits);
    return 0;
}
