/* SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF"): the keyed hash of tables and of
 * the ownership of addresses. One compression and three finalisation rounds, as most hash tables use it
 * today. */
#include "core/base/table.h"

#include <endian.h>

struct sip {
    uint64_t v0, v1, v2, v3;
};

static uint64_t rotate(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotate(s->v1, 13) ^ s->v0;
    s->v0 = rotate(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotate(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotate(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotate(s->v1, 17) ^ s->v2;
    s->v2 = rotate(s->v2, 32);
}

static void sip_word(struct sip *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

/* Little-endian whatever the machine: owners of addresses must not depend on it. */
static uint64_t load(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}

/* The last bytes, fewer than a word: of a longer key as the upper end of the word that ends there. */
static uint64_t load_rest(struct xy_str key)
{
    size_t rest = key.len % 8;
    if (rest > 0 && key.len > 8)
        return load(key.data + key.len - 8) >> (64 - 8 * rest);
    uint64_t word = 0;
    for (size_t i = 0; i < rest; i++)
        word |= (uint64_t)(unsigned char)key.data[i] << (8 * i);
    return word;
}

uint64_t xy_hash(struct xy_str key, uint64_t seed)
{
    /* The 128-bit key is the seed and its complement: all its entropy is in the seed anyway. */
    struct sip s = {
        .v0 = seed ^ 0x736f6d6570736575u,
        .v1 = ~seed ^ 0x646f72616e646f6du,
        .v2 = seed ^ 0x6c7967656e657261u,
        .v3 = ~seed ^ 0x7465646279746573u,
    };
    for (size_t at = 0; at + 8 <= key.len; at += 8)
        sip_word(&s, load(key.data + at));
    sip_word(&s, load_rest(key) | (uint64_t)key.len << 56);
    s.v2 ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
