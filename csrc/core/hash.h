/* hash.h: SipHash-1-3.
 *
 * Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012), with one
 * compression and three finalisation rounds, as CPython and Rust hash strings.
 * Keyed per store: whoever chooses the ids can't choose their buckets.
 */
#ifndef SHK_HASH_H
#define SHK_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SHK__ROTATE(x, bits) ((x) << (bits) | (x) >> (64 - (bits)))
#define SHK__SIP_ROUND(a, b, c, d)                                                                 \
    do {                                                                                           \
        (a) += (b), (b) = SHK__ROTATE(b, 13) ^ (a), (a) = SHK__ROTATE(a, 32);                      \
        (c) += (d), (d) = SHK__ROTATE(d, 16) ^ (c);                                                \
        (a) += (d), (d) = SHK__ROTATE(d, 21) ^ (a);                                                \
        (c) += (b), (b) = SHK__ROTATE(b, 17) ^ (c), (c) = SHK__ROTATE(c, 32);                      \
    } while (0)

/* data holds size bytes. */
static inline __attribute__((always_inline)) uint64_t shk__siphash13(const uint64_t key[2], const void *data, size_t size)
{
    uint64_t a = key[0] ^ UINT64_C(0x736f6d6570736575), b = key[1] ^ UINT64_C(0x646f72616e646f6d);
    uint64_t c = key[0] ^ UINT64_C(0x6c7967656e657261), d = key[1] ^ UINT64_C(0x7465646279746573);
    const unsigned char *bytes = data;
    uint64_t word;
    for (size_t left = size / 8; left > 0; left--, bytes += 8) {
        memcpy(&word, bytes, 8);
        d ^= word;
        SHK__SIP_ROUND(a, b, c, d);
        a ^= word;
    }
    word = (uint64_t)size << 56;
    for (size_t i = 0; i < size % 8; i++)
        word |= (uint64_t)bytes[i] << (8 * i);
    d ^= word;
    SHK__SIP_ROUND(a, b, c, d);
    a ^= word;
    c ^= 0xFF;
    SHK__SIP_ROUND(a, b, c, d);
    SHK__SIP_ROUND(a, b, c, d);
    SHK__SIP_ROUND(a, b, c, d);
    return a ^ b ^ c ^ d;
}

#endif
