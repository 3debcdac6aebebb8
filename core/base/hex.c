/* Hexadecimal, lower case out, either case in. */
#include "core/base/encoding.h"

void xy_hex_encode(char *out, const void *data, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *in = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool xy_hex_decode(void *out, struct xy_str hex)
{
    if (hex.len % 2 != 0)
        return false;
    unsigned char *to = out;
    for (size_t i = 0; i < hex.len; i += 2) {
        int high = digit_value(hex.data[i]), low = digit_value(hex.data[i + 1]);
        if (high < 0 || low < 0)
            return false;
        *to++ = (unsigned char)(high << 4 | low);
    }
    return true;
}
