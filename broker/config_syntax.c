/* The reader of configuration files: a recursive descent over characters, one function per construct.
 *
 * It knows nothing about keys; config.c decides what they mean. The first syntax error ends it, because
 * whatever follows a missing brace would be noise. */
#include "broker/config_syntax.h"

#include <stdio.h>

#include "core/base/assert.h"

#define PATH_MAX_BYTES 256u

struct scan {
    const struct config_reader *reader;
    const char *at, *end;
    unsigned line;
    unsigned depth;
    char path[PATH_MAX_BYTES];
    size_t path_len;
};

static bool fail(struct scan *scan, const char *what)
{
    xy_buf_printf(scan->reader->errors, "%s:%u: %s\n", scan->reader->name, scan->line, what);
    return false;
}

static bool fail_at(struct scan *scan, const char *expected)
{
    if (scan->at == scan->end)
        xy_buf_printf(scan->reader->errors, "%s:%u: expected %s before the end of the file\n",
                      scan->reader->name, scan->line, expected);
    else
        xy_buf_printf(scan->reader->errors, "%s:%u: expected %s, found '%c'\n", scan->reader->name,
                      scan->line, expected, *scan->at == '\n' ? ' ' : *scan->at);
    return false;
}

static bool peek(const struct scan *scan, char c)
{
    return scan->at < scan->end && *scan->at == c;
}

/* A comment that does not end is an error, found here: false. */
static bool skip_comment(struct scan *scan)
{
    unsigned nested = 0, opened_on = scan->line;
    do {
        if (scan->end - scan->at < 2) {
            scan->line = opened_on;
            return fail(scan, "a comment is not closed");
        }
        if (scan->at[0] == '/' && scan->at[1] == '*') {
            nested++;
            scan->at += 2;
        } else if (scan->at[0] == '*' && scan->at[1] == '/') {
            nested--;
            scan->at += 2;
        } else {
            scan->line += *scan->at == '\n';
            scan->at++;
        }
    } while (nested > 0);
    return true;
}

static bool skip_space(struct scan *scan)
{
    while (scan->at < scan->end) {
        char c = *scan->at;
        if (c == '#') {
            while (scan->at < scan->end && *scan->at != '\n')
                scan->at++;
        } else if (c == '/' && scan->end - scan->at > 1 && scan->at[1] == '*') {
            if (!skip_comment(scan))
                return false;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            scan->line += c == '\n';
            scan->at++;
        } else {
            break;
        }
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* `\uXXXX`; surrogates are refused: a file can hold the character itself. */
static bool read_unicode_escape(struct scan *scan, struct xy_buf *out)
{
    unsigned code = 0;
    if (scan->end - scan->at < 4)
        return fail(scan, "\\u needs four hexadecimal digits");
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*scan->at++);
        if (digit < 0)
            return fail(scan, "\\u needs four hexadecimal digits");
        code = code << 4 | (unsigned)digit;
    }
    if (code == 0 || (code >= 0xD800 && code <= 0xDFFF))
        return fail(scan, "\\u does not name a character");
    if (code < 0x80) {
        xy_buf_char(out, (char)code);
    } else if (code < 0x800) {
        xy_buf_char(out, (char)(0xC0 | code >> 6));
        xy_buf_char(out, (char)(0x80 | (code & 0x3F)));
    } else {
        xy_buf_char(out, (char)(0xE0 | code >> 12));
        xy_buf_char(out, (char)(0x80 | (code >> 6 & 0x3F)));
        xy_buf_char(out, (char)(0x80 | (code & 0x3F)));
    }
    return true;
}

static bool read_escape(struct scan *scan, struct xy_buf *out)
{
    static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (scan->at == scan->end)
        return fail(scan, "a string is not closed");
    char c = *scan->at++;
    if (c == 'u')
        return read_unicode_escape(scan, out);
    const char *name = c ? strchr(names, c) : NULL;
    if (!name)
        return fail(scan, "unknown escape in a string; known are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
    xy_buf_char(out, meanings[name - names]);
    return true;
}

/* Single quotes keep everything as it is, double quotes know escapes. A string stays on its line: a forgotten
 * quote is then reported where it is missing. */
static bool read_quoted(struct scan *scan, struct xy_str *out)
{
    char quote = *scan->at++;
    struct xy_buf text = { 0 };
    bool ok = true;
    while (ok && !peek(scan, quote)) {
        if (scan->at == scan->end || *scan->at == '\n') {
            ok = fail(scan, "a string is not closed on its line");
        } else if (*scan->at == '\\' && quote == '"') {
            scan->at++;
            ok = read_escape(scan, &text);
        } else {
            xy_buf_char(&text, *scan->at++);
        }
    }
    if (ok) {
        scan->at++;
        *out = xy_arena_str(scan->reader->arena, text.len > 0 ? xy_buf_view(&text) : XY_STR(""));
        ok = !xy_buf_failed(&text);
    }
    xy_buf_free(&text);
    return ok;
}

static bool is_bare(char c)
{
    return c != '\0' && !strchr(" \t\r\n;,{}[]#=\"'", c);
}

static struct xy_str read_bare(struct scan *scan, bool key)
{
    const char *start = scan->at;
    while (scan->at < scan->end && is_bare(*scan->at) && !(key && *scan->at == ':'))
        scan->at++;
    return xy_str_n(start, (size_t)(scan->at - start));
}

static bool read_scalar(struct scan *scan, struct config_value *value)
{
    *value = (struct config_value){ .line = scan->line };
    if (peek(scan, '"') || peek(scan, '\'')) {
        value->quoted = true;
        return read_quoted(scan, &value->text);
    }
    struct xy_str word = read_bare(scan, false);
    if (word.len == 0)
        return fail_at(scan, "a value");
    value->text = xy_arena_str(scan->reader->arena, word);
    return true;
}

static bool read_array(struct scan *scan, struct config_entry *entry)
{
    xy_assert(peek(scan, '['));
    scan->at++;
    size_t room = 8;
    struct config_value *values = xy_arena_alloc(scan->reader->arena, room * sizeof *values);
    for (;;) {
        if (!values)
            return fail(scan, "out of memory");
        if (!skip_space(scan))
            return false;
        if (peek(scan, ']'))
            break;
        if (entry->count == CONFIG_VALUES_MAX)
            return fail(scan, "too many elements in an array");
        if (entry->count == room) {
            struct config_value *more = xy_arena_alloc(scan->reader->arena, 2 * room * sizeof *more);
            if (more)
                memcpy(more, values, room * sizeof *more);
            values = more;
            room *= 2;
            continue;
        }
        if (!read_scalar(scan, &values[entry->count]))
            return false;
        entry->count++;
        if (!skip_space(scan))
            return false;
        if (peek(scan, ','))
            scan->at++;
        else if (!peek(scan, ']'))
            return fail_at(scan, "',' or ']'");
    }
    scan->at++;
    entry->values = values;
    return true;
}

static bool read_members(struct scan *scan, bool nested);

static bool read_object(struct scan *scan, size_t path_len_outer)
{
    if (scan->depth == CONFIG_DEPTH_MAX)
        return fail(scan, "objects are nested too deeply");
    scan->at++;
    scan->depth++;
    bool ok = read_members(scan, true);
    scan->depth--;
    scan->path_len = path_len_outer;
    return ok;
}

static bool read_value(struct scan *scan, size_t path_len_outer)
{
    struct config_entry entry = { .line = scan->line };
    entry.path = xy_arena_str(scan->reader->arena, xy_str_n(scan->path, scan->path_len));
    if (peek(scan, '{')) {
        entry.kind = CONFIG_OBJECT;
        scan->reader->entry(scan->reader->ctx, &entry);
        return read_object(scan, path_len_outer);
    }
    struct config_value scalar;
    if (peek(scan, '[')) {
        entry.kind = CONFIG_ARRAY;
        if (!read_array(scan, &entry))
            return false;
    } else {
        if (!read_scalar(scan, &scalar))
            return false;
        entry.values = &scalar;
        entry.count = 1;
    }
    scan->reader->entry(scan->reader->ctx, &entry);
    scan->path_len = path_len_outer;
    return true;
}

static bool read_key(struct scan *scan)
{
    struct xy_str key;
    if (peek(scan, '"') || peek(scan, '\'')) {
        if (!read_quoted(scan, &key))
            return false;
    } else {
        key = read_bare(scan, true);
        if (key.len == 0)
            return fail_at(scan, "a key");
        if (key.data[0] == '.')
            return fail(scan, "macros such as .include are not supported");
    }
    if (scan->path_len + key.len + 1 > sizeof scan->path)
        return fail(scan, "a key is too long");
    if (scan->path_len > 0)
        scan->path[scan->path_len++] = '.';
    if (key.len > 0)
        memcpy(scan->path + scan->path_len, key.data, key.len);
    scan->path_len += key.len;
    return true;
}

/* After a value: `;`, `,`, a new line, the closing brace or the end. */
static bool read_separator(struct scan *scan, bool after_object)
{
    unsigned line = scan->line;
    if (!skip_space(scan))
        return false;
    if (peek(scan, ';') || peek(scan, ',')) {
        scan->at++;
        return true;
    }
    if (after_object || scan->line != line || scan->at == scan->end || peek(scan, '}'))
        return true;
    return fail_at(scan, "';' after the value");
}

static bool read_members(struct scan *scan, bool nested)
{
    for (;;) {
        if (!skip_space(scan))
            return false;
        if (peek(scan, '}') && nested) {
            scan->at++;
            return true;
        }
        if (scan->at == scan->end)
            return nested ? fail_at(scan, "'}'") : true;
        size_t outer = scan->path_len;
        if (!read_key(scan) || !skip_space(scan))
            return false;
        if (peek(scan, '=') || peek(scan, ':'))
            scan->at++;
        if (!skip_space(scan))
            return false;
        bool object = peek(scan, '{');
        if (!read_value(scan, outer) || !read_separator(scan, object))
            return false;
    }
}

/* Every line on its own, so that the message can name it. */
static bool check_utf8(struct scan *scan)
{
    const char *start = scan->at;
    for (unsigned line = 1; start < scan->end; line++) {
        const char *stop = memchr(start, '\n', (size_t)(scan->end - start));
        size_t len = (size_t)((stop ? stop : scan->end) - start);
        if (!xy_str_utf8(xy_str_n(start, len))) {
            scan->line = line;
            return fail(scan, "not valid UTF-8");
        }
        start += len + 1;
    }
    return true;
}

bool config_read(const struct config_reader *reader, struct xy_str text)
{
    xy_assert(reader->name && reader->arena && reader->errors && reader->entry);
    if (text.len == 0)
        return true;
    struct scan scan = { .reader = reader, .at = text.data, .end = text.data + text.len, .line = 1 };
    if (!check_utf8(&scan) || !skip_space(&scan))
        return false;
    bool braces = peek(&scan, '{');
    if (braces)
        scan.at++;
    if (!read_members(&scan, braces) || !skip_space(&scan))
        return false;
    xy_assert(scan.depth == 0 && scan.path_len == 0);
    return scan.at == scan.end ? true : fail_at(&scan, "the end of the file");
}
