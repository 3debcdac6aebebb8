/* The parts of struct xy_str that are too long to be inline: numbers, booleans, UTF-8 and comparison of
 * secrets.
 *
 * Everything here reads peers' bytes, so nothing depends on a terminating NUL and nothing accepts "almost
 * right". */
#include "core/base/str.h"

bool xy_str_eq_secret(struct xy_str a, struct xy_str b)
{
    if (a.len != b.len)
        return false;
    /* volatile: the compiler must not learn to stop at the first difference */
    volatile unsigned char difference = 0;
    for (size_t i = 0; i < a.len; i++)
        difference = (unsigned char)(difference | (unsigned char)(a.data[i] ^ b.data[i]));
    return difference == 0;
}

bool xy_str_u64(struct xy_str s, uint64_t *out)
{
    if (s.len == 0)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.data[i] - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

bool xy_str_u32(struct xy_str s, uint32_t *out)
{
    uint64_t value;
    if (!xy_str_u64(s, &value) || value > UINT32_MAX)
        return false;
    *out = (uint32_t)value;
    return true;
}

bool xy_str_bool(struct xy_str s, bool *out)
{
    if (xy_str_is(s, "true") || xy_str_is(s, "1"))
        *out = true;
    else if (xy_str_is(s, "false") || xy_str_is(s, "0"))
        *out = false;
    else
        return false;
    return true;
}

static bool continuation(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

/* The length of the multi-byte character at p, 0 if it is not one that XML 1.0 allows. */
static size_t utf8_multibyte(const unsigned char *p, size_t len)
{
    unsigned char lead = p[0];
    if (lead < 0xc2 || lead > 0xf4 || len < 2 || !continuation(p[1]))
        return 0;
    if (lead < 0xe0)
        return 2;
    if (len < 3 || !continuation(p[2]))
        return 0;
    if (lead < 0xf0) {
        if ((lead == 0xe0 && p[1] < 0xa0) || (lead == 0xed && p[1] > 0x9f))
            return 0; /* overlong; surrogate */
        if (lead == 0xef && p[1] == 0xbf && p[2] >= 0xbe)
            return 0; /* U+FFFE, U+FFFF */
        return 3;
    }
    if (len < 4 || !continuation(p[3]))
        return 0;
    if ((lead == 0xf0 && p[1] < 0x90) || (lead == 0xf4 && p[1] > 0x8f))
        return 0; /* overlong; above U+10FFFF */
    return 4;
}

bool xy_str_utf8(struct xy_str s)
{
    const unsigned char *p = (const unsigned char *)s.data;
    size_t left = s.len;
    while (left > 0) {
        size_t step = 1;
        if (*p >= 0x80)
            step = utf8_multibyte(p, left);
        else if (*p < 0x20 && *p != '\t' && *p != '\n' && *p != '\r')
            step = 0;
        if (step == 0)
            return false;
        p += step;
        left -= step;
    }
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

struct xy_str xy_str_trim(struct xy_str s)
{
    while (s.len > 0 && is_space(s.data[0])) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && is_space(s.data[s.len - 1]))
        s.len--;
    return s;
}
