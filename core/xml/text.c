/* Looks for plain text, sixteen bytes at a time; called by parser.c for everything that is fed. See text.h. */
#include "core/xml/text.h"

#include "core/xml/bytes16.h"

static bool is_plain(unsigned char byte)
{
    return byte >= ' ' && byte <= '~' && byte != '<' && byte != '>' && byte != '&' && byte != ']';
}

static bool are_plain(bytes16 bytes)
{
    return bytes16_none((bytes16)(bytes < ' ') | (bytes16)(bytes > '~') | (bytes16)(bytes == '<') |
                        (bytes16)(bytes == '>') | (bytes16)(bytes == '&') | (bytes16)(bytes == ']'));
}

size_t xml_text_plain(struct xy_str input)
{
    size_t len = 0;
    while (input.len - len >= sizeof(bytes16) && are_plain(bytes16_load(input.data + len)))
        len += sizeof(bytes16);
    while (len < input.len && is_plain((unsigned char)input.data[len]))
        len++;
    return len;
}

size_t xml_text_before(struct xy_str input)
{
    const char *at = input.data, *end = input.data + input.len;
    while ((at = memchr(at, '>', (size_t)(end - at))) != NULL) {
        at++;
        if (end - at < XML_TEXT_MIN)
            break;
        if (is_plain((unsigned char)*at) && xml_text_plain(xy_str_n(at, XML_TEXT_MIN)) == XML_TEXT_MIN)
            return (size_t)(at - input.data);
    }
    return input.len;
}
