/* The reader of configuration files: what it accepts, what it makes of it, and where it says an error is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/config_syntax.h"

static void show(void *ctx, const struct config_entry *entry)
{
    struct xy_buf *out = ctx;
    xy_buf_printf(out, "%u %.*s", entry->line, XY_ARG(entry->path));
    for (size_t i = 0; i < entry->count; i++)
        xy_buf_printf(out, "%s%s%.*s", i > 0 ? "," : "=", entry->values[i].quoted ? "'" : "",
                      XY_ARG(entry->values[i].text));
    xy_buf_printf(out, "%s;", entry->kind == CONFIG_OBJECT ? "{}" : entry->kind == CONFIG_ARRAY ? "[]" : "");
}

/* Entries as "LINE PATH=VALUE,VALUE;", a quote before quoted values; a syntax error ends them. */
static void expect(struct xy_str text, const char *expected)
{
    struct xy_buf out = { 0 }, errors = { 0 };
    struct xy_arena *arena = xy_arena_new();
    const struct config_reader reader = {
        .name = "f", .arena = arena, .errors = &errors, .entry = show, .ctx = &out
    };
    bool ok = config_read(&reader, text);
    assert_int_equal(ok, errors.len == 0);
    xy_buf_str(&out, xy_buf_view(&errors));
    xy_buf_char(&out, '\0');
    assert_string_equal(out.data, expected);
    xy_buf_free(&out);
    xy_buf_free(&errors);
    xy_arena_free(&arena);
}

static void test_forms(void **state)
{
    (void)state;
    expect(XY_STR(""), "");
    expect(XY_STR(" \n\t# only a comment"), "");
    expect(XY_STR("a = 1; b: 2\nc 3"), "1 a=1;1 b=2;2 c=3;");
    expect(XY_STR("a { b = 1; c { d = 2 } e = 3 }\nf = 4"), "1 a{};1 a.b=1;1 a.c{};1 a.c.d=2;1 a.e=3;2 f=4;");
    expect(XY_STR("a = { b = 1 }"), "1 a{};1 a.b=1;");
    expect(XY_STR("a = [x, 'y z',\n \"w\",]"), "1 a=x,'y z,'w[];");
    expect(XY_STR("a = []"), "1 a[];");
    expect(XY_STR("{ \"a\": 1, \"b\": {} }"), "1 a=1;1 b{};");
    expect(XY_STR("\"odd key\" = 1"), "1 odd key=1;");
    expect(XY_STR("a = 1 # one\n/* two /* nested */ lines\n */ b = 2 /**/;"), "1 a=1;3 b=2;");
    expect(XY_STR("a = /usr/lib:x"), "1 a=/usr/lib:x;");
    expect(XY_STR("a = \"\"; b = ''"), "1 a=';1 b=';");
}

static void test_strings(void **state)
{
    (void)state;
    expect(XY_STR("a = \"q\\\" b\\\\ s\\/ t\\t u\\u0041\\u00e4\\u20AC\""),
           "1 a='q\" b\\ s/ t\t uA\xC3\xA4\xE2\x82\xAC;");
    expect(XY_STR("a = 'no \\n escape'"), "1 a='no \\n escape;");
    expect(XY_STR("a = \"# no ; comment }\""), "1 a='# no ; comment };");
    expect(XY_STR("a = \"x\\q\""),
           "f:1: unknown escape in a string; known are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX\n");
    expect(XY_STR("a = \"\\u12"), "f:1: \\u needs four hexadecimal digits\n");
    expect(XY_STR("a = \"\\u12x4\""), "f:1: \\u needs four hexadecimal digits\n");
    expect(XY_STR("a = \"\\uD800\""), "f:1: \\u does not name a character\n");
    expect(XY_STR("a = \"\\u0000\""), "f:1: \\u does not name a character\n");
    expect(XY_STR("a = \"\\"), "f:1: a string is not closed\n");
    expect(XY_STR("\na = \"open\nb = \"x\""), "f:2: a string is not closed on its line\n");
    expect(XY_STR("a = 'open"), "f:1: a string is not closed on its line\n");
}

static void test_errors_name_their_line(void **state)
{
    (void)state;
    expect(XY_STR("a = 1\nb {\n c = 2\n"),
           "1 a=1;2 b{};3 b.c=2;f:4: expected '}' before the end of the file\n");
    expect(XY_STR("a = 1 b = 2"), "1 a=1;f:1: expected ';' after the value, found 'b'\n");
    expect(XY_STR("a = ;"), "f:1: expected a value, found ';'\n");
    expect(XY_STR("a ="), "f:1: expected a value before the end of the file\n");
    expect(XY_STR("= 1"), "f:1: expected a key, found '='\n");
    expect(XY_STR("a = 1\n}\n"), "1 a=1;f:2: expected a key, found '}'\n");
    expect(XY_STR("{ a = 1 } b = 2"), "1 a=1;f:1: expected the end of the file, found 'b'\n");
    expect(XY_STR("a = [1 2]"), "f:1: expected ',' or ']', found '2'\n");
    expect(XY_STR("a = [1,"), "f:1: expected a value before the end of the file\n");
    expect(XY_STR("a = [{}]"), "f:1: expected a value, found '{'\n");
    expect(XY_STR("\n/* open\n"), "f:2: a comment is not closed\n");
    expect(XY_STR(".include \"x\""), "f:1: macros such as .include are not supported\n");
    expect(XY_STR("a = 1\n\nb = \"\xC3\"\n"), "f:3: not valid UTF-8\n");
    expect(XY_STR("a = 1\0"), "f:1: not valid UTF-8\n");
}

static void test_bounds(void **state)
{
    (void)state;
    struct xy_buf text = { 0 }, expected = { 0 };
    for (unsigned depth = CONFIG_DEPTH_MAX; depth <= CONFIG_DEPTH_MAX + 1; depth++) {
        struct xy_buf path = { 0 };
        xy_buf_reset(&text);
        xy_buf_reset(&expected);
        for (unsigned i = 0; i < depth; i++) {
            xy_buf_printf(&text, "a{");
            xy_buf_printf(&path, i > 0 ? ".a" : "a");
            xy_buf_printf(&expected, "1 %.*s{};", XY_ARG(xy_buf_view(&path)));
        }
        for (unsigned i = 0; i < depth; i++)
            xy_buf_char(&text, '}');
        if (depth > CONFIG_DEPTH_MAX)
            xy_buf_printf(&expected, "f:1: objects are nested too deeply\n");
        xy_buf_char(&expected, '\0');
        expect(xy_buf_view(&text), expected.data);
        xy_buf_free(&path);
    }
    for (unsigned count = CONFIG_VALUES_MAX; count <= CONFIG_VALUES_MAX + 1; count++) {
        xy_buf_reset(&text);
        xy_buf_reset(&expected);
        xy_buf_printf(&text, "a=[");
        xy_buf_printf(&expected, "1 a");
        for (unsigned i = 0; i < count; i++) {
            xy_buf_printf(&text, "1,");
            xy_buf_printf(&expected, i > 0 ? ",1" : "=1");
        }
        xy_buf_printf(&text, "]");
        xy_buf_printf(&expected, "[];");
        if (count > CONFIG_VALUES_MAX) {
            xy_buf_reset(&expected);
            xy_buf_printf(&expected, "f:1: too many elements in an array\n");
        }
        xy_buf_char(&expected, '\0');
        expect(xy_buf_view(&text), expected.data);
    }
    for (unsigned len = 255; len <= 256; len++) {
        xy_buf_reset(&text);
        xy_buf_reset(&expected);
        for (unsigned i = 0; i < len; i++)
            xy_buf_char(&text, 'k');
        if (len == 255)
            xy_buf_printf(&expected, "1 %.*s=1;", XY_ARG(xy_buf_view(&text)));
        else
            xy_buf_printf(&expected, "f:1: a key is too long\n");
        xy_buf_printf(&text, "=1");
        xy_buf_char(&expected, '\0');
        expect(xy_buf_view(&text), expected.data);
    }
    xy_buf_free(&text);
    xy_buf_free(&expected);
}

/* Any prefix of a valid file is valid or refused, never worse. */
static void test_every_prefix(void **state)
{
    (void)state;
    static const char text[] = "{ a = \"x\\u0041\"; b [1, 'two'] /* c */ d { e: 5 } } # end";
    for (size_t len = 0; len < sizeof text; len++) {
        struct xy_buf out = { 0 }, errors = { 0 };
        struct xy_arena *arena = xy_arena_new();
        char *copy = malloc(len + 1); /* its own block, so that a sanitizer sees reads beyond the end */
        assert_non_null(copy);
        memcpy(copy, text, len);
        const struct config_reader reader = {
            .name = "f", .arena = arena, .errors = &errors, .entry = show, .ctx = &out
        };
        bool ok = config_read(&reader, xy_str_n(copy, len));
        assert_int_equal(ok, errors.len == 0);
        free(copy);
        xy_buf_free(&out);
        xy_buf_free(&errors);
        xy_arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_errors_name_their_line),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_every_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
