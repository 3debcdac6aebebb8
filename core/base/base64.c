/* Base64 as SASL, in-band bytestreams and typed payloads use it (RFC 4648 section 4), strict in what it
 * reads: one text has one encoding, so digests and deduplication of encoded data mean something. */
#include "core/base/encoding.h"

#define BAD 0xff

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The value of each byte, BAD where it is none: the inverse of the alphabet. */
static const unsigned char value_of[256] = {
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, 62,  BAD, BAD, BAD, 63,  52,  53,  54,  55,  56,  57,  58,  59,  60,  61,  BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, 0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,
    15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,  BAD, BAD, BAD, BAD, BAD, BAD, 26,  27,  28,
    29,  30,  31,  32,  33,  34,  35,  36,  37,  38,  39,  40,  41,  42,  43,  44,  45,  46,  47,  48,
    49,  50,  51,  BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
    BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD, BAD,
};

static size_t encoded_len(size_t len)
{
    return (len + 2) / 3 * 4;
}

static void encode(char *out, const unsigned char *in, size_t len)
{
    for (; len >= 3; in += 3, len -= 3) {
        uint32_t group = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
        *out++ = alphabet[group >> 18];
        *out++ = alphabet[group >> 12 & 63];
        *out++ = alphabet[group >> 6 & 63];
        *out++ = alphabet[group & 63];
    }
    if (len == 0)
        return;
    uint32_t group = (uint32_t)in[0] << 16 | (len == 2 ? (uint32_t)in[1] << 8 : 0);
    *out++ = alphabet[group >> 18];
    *out++ = alphabet[group >> 12 & 63];
    *out++ = len == 2 ? alphabet[group >> 6 & 63] : '=';
    *out = '=';
}

/* The decoded length, or SIZE_MAX if length or padding are wrong. Padding is part of the text: "QQ" is not
 * base64. */
static size_t decoded_len(struct xy_str in)
{
    if (in.len % 4 != 0)
        return SIZE_MAX;
    if (in.len == 0)
        return 0;
    size_t padding = in.data[in.len - 1] != '=' ? 0 : in.data[in.len - 2] != '=' ? 1 : 2;
    return in.len / 4 * 3 - padding;
}

static bool decode(unsigned char *out, const char *in, size_t len)
{
    const unsigned char *p = (const unsigned char *)in;
    unsigned bad = 0;
    for (; len >= 3; len -= 3, p += 4) {
        unsigned a = value_of[p[0]], b = value_of[p[1]], c = value_of[p[2]], d = value_of[p[3]];
        bad |= a | b | c | d;
        *out++ = (unsigned char)(a << 2 | b >> 4);
        *out++ = (unsigned char)(b << 4 | c >> 2);
        *out++ = (unsigned char)(c << 6 | d);
    }
    if (len > 0) {
        unsigned a = value_of[p[0]], b = value_of[p[1]], c = len == 2 ? value_of[p[2]] : 0;
        bad |= a | b | c;
        /* bits that no byte takes must be zero */
        if ((len == 2 && (c & 3) != 0) || (len == 1 && (b & 15) != 0))
            return false;
        *out++ = (unsigned char)(a << 2 | b >> 4);
        if (len == 2)
            *out = (unsigned char)(b << 4 | c >> 2);
    }
    return (bad & 0x80) == 0;
}

void xy_base64_encode(struct xy_buf *out, struct xy_str in)
{
    char *at = xy_buf_reserve(out, encoded_len(in.len));
    if (at == NULL)
        return;
    encode(at, (const unsigned char *)in.data, in.len);
    out->len += encoded_len(in.len);
}

bool xy_base64_decode(struct xy_buf *out, struct xy_str in)
{
    size_t len = decoded_len(in);
    if (len == SIZE_MAX)
        return false;
    char *at = xy_buf_reserve(out, len);
    if (at == NULL)
        return true; /* the text is right; the buffer remembers that it is not */
    if (!decode((unsigned char *)at, in.data, len))
        return false;
    out->len += len;
    return true;
}

struct xy_str xy_base64_encode_arena(struct xy_arena *arena, struct xy_str in)
{
    size_t len = encoded_len(in.len);
    char *text = xy_arena_alloc(arena, len + 1);
    if (text == NULL)
        return XY_STR_NONE;
    encode(text, (const unsigned char *)in.data, in.len);
    text[len] = '\0';
    return xy_str_n(text, len);
}

bool xy_base64_decode_arena(struct xy_arena *arena, struct xy_str in, struct xy_str *out)
{
    *out = XY_STR_NONE;
    size_t len = decoded_len(in);
    if (len == SIZE_MAX)
        return false;
    char *data = xy_arena_alloc(arena, len + 1);
    if (data == NULL || !decode((unsigned char *)data, in.data, len))
        return false;
    data[len] = '\0';
    *out = xy_str_n(data, len);
    return true;
}
