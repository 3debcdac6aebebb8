/* Addresses: canonical forms, the examples of RFC 7622, refusals, limits, idempotence. Line 41 of the project's list of
 * hostile input. */
#include "tests/unit/unit.h"

#include "core/base/limits.h"
#include "core/base/buf.h"
#include "core/jid.h"

static struct xy_arena *arena;

static int setup(void **state)
{
    (void)state;
    arena = xy_arena_new();
    return arena == NULL;
}

static int teardown(void **state)
{
    (void)state;
    xy_arena_free(&arena);
    return 0;
}

static void assert_canonical(const char *text, const char *canonical)
{
    struct xy_jid jid, again;
    if (!xy_jid_parse(arena, xy_str(text), &jid))
        print_error("refused: %s\n", text);
    assert_true(xy_jid_present(jid));
    assert_str(xy_jid_full(jid), canonical);
    assert_int_equal(jid.data[jid.len], 0);
    assert_true(xy_jid_parse(arena, xy_jid_full(jid), &again));
    assert_true(xy_jid_eq(jid, again));
    struct xy_jid split = xy_jid_canonical(xy_jid_full(jid));
    assert_int_equal(split.bare_len, jid.bare_len);
    assert_int_equal(split.local_len, jid.local_len);
}

static void assert_malformed(const char *text)
{
    struct xy_jid jid;
    bool ok = xy_jid_parse(arena, xy_str(text), &jid);
    if (ok)
        print_error("accepted: %s\n", text);
    assert_false(ok);
    assert_false(xy_jid_present(jid));
}

static void parts(void **state)
{
    (void)state;
    struct xy_jid jid;
    assert_true(xy_jid_parse(arena, xy_str("Juliet@Example.COM/Balcony@x/y"), &jid));
    assert_str(xy_jid_full(jid), "juliet@example.com/Balcony@x/y");
    assert_str(xy_jid_bare(jid), "juliet@example.com");
    assert_str(xy_jid_local(jid), "juliet");
    assert_str(xy_jid_domain(jid), "example.com");
    assert_str(xy_jid_resource(jid), "Balcony@x/y");
    assert_false(xy_jid_is_bare(jid));
    struct xy_jid bare = xy_jid_to_bare(jid);
    assert_true(xy_jid_is_bare(bare));
    assert_true(xy_jid_same_bare(bare, jid));
    assert_false(xy_jid_eq(bare, jid));
    assert_absent(xy_jid_resource(bare));

    assert_true(xy_jid_parse(arena, xy_str("example.com/a@b"), &jid));
    assert_absent(xy_jid_local(jid));
    assert_str(xy_jid_domain(jid), "example.com");
    assert_str(xy_jid_resource(jid), "a@b");
    assert_false(xy_jid_present(xy_jid_canonical(XY_STR_NONE)));
    assert_absent(xy_jid_domain((struct xy_jid){ 0 }));
}

static void rfc7622_examples(void **state)
{
    (void)state;
    const char *same[] = { "juliet@example.com",
                           "juliet@example.com/foo",
                           "juliet@example.com/foo bar",
                           "juliet@example.com/foo@bar",
                           "foo\\20bar@example.com",
                           "fussball@example.com",
                           "\xcf\x80@example.com",
                           "\xcf\x83@example.com/foo",
                           "king@example.com/\xe2\x99\x9a",
                           "example.com",
                           "example.com/foobar",
                           "a.example.com/b@example.net" };
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        assert_canonical(same[i], same[i]);
    /* stringprep folds what PRECIS keeps apart or refuses */
    assert_canonical("fu\xc3\x9f"
                     "ball@example.com",
                     "fussball@example.com");
    assert_canonical("\xce\xa3@example.com/foo", "\xcf\x83@example.com/foo");
    assert_canonical("\xcf\x82@example.com/foo", "\xcf\x83@example.com/foo");
    assert_canonical("henry\xe2\x85\xa3@example.com", "henryiv@example.com");
    const char *bad[] = { "\"juliet\"@example.com",
                          "foo bar@example.com",
                          "@example.com/",
                          "@example.com",
                          "juliet@",
                          "/foobar",
                          "",
                          "juliet@/foo" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_malformed(bad[i]);
    assert_malformed("juliet@example.com/");
}

static void local_parts(void **state)
{
    (void)state;
    assert_canonical("A.B-c_d+e=f!#$%*,;?[]^`{|}~@x", "a.b-c_d+e=f!#$%*,;?[]^`{|}~@x");
    const char *bad[] = { " a@x",
                          "a b@x",
                          "a\"@x",
                          "a&@x",
                          "a'@x",
                          "a:@x",
                          "a<@x",
                          "a>@x",
                          "a@b@x",
                          "a\t@x",
                          "a\x7f@x",
                          "a\x01@x",
                          "\xc2\xad@x" /* only a soft hyphen: nothing is left */,
                          "a\xc2\xa0"
                          "b@x",
                          "\xd7\x90"
                          "a@x" /* mixed directions */,
                          "\xe2\x80\x8f"
                          "a@x",
                          "\xff@x",
                          "\xed\xa0\x80@x",
                          "\xf0\x9f\x98\x80@x" /* unassigned when stringprep was made */ };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_malformed(bad[i]);
    assert_canonical("\xef\xbc\xa1"
                     "B@x",
                     "ab@x"); /* fullwidth A */
    assert_canonical("a\xc2\xad"
                     "b@x",
                     "ab@x"); /* soft hyphen */
    assert_canonical("\xd7\x90\xd7\x91@x", "\xd7\x90\xd7\x91@x");
    assert_canonical("A\xcc\x8a@x", "\xc3\xa5@x"); /* combining ring */
    assert_malformed("a\xef\xbc\xa0"
                     "b@x"); /* a fullwidth @ stays inside its part and is refused */
}

static void domains(void **state)
{
    (void)state;
    assert_canonical("Example.COM.", "example.com");
    assert_canonical("a@x-1.2y", "a@x-1.2y");
    assert_canonical("192.0.2.1", "192.0.2.1");
    assert_canonical("b\xc3\xbc"
                     "cher.example",
                     "b\xc3\xbc"
                     "cher.example");
    assert_canonical("B\xc3\x9c"
                     "CHER.example",
                     "b\xc3\xbc"
                     "cher.example");
    assert_canonical("XN--bcher-kva.Example", "b\xc3\xbc"
                                              "cher.example"); /* A-label to U-label */
    assert_canonical("b\xc3\xbc"
                     "cher\xe3\x80\x82"
                     "example",
                     "b\xc3\xbc"
                     "cher.example"); /* ideographic full stop */
    assert_canonical("b\xc3\xbc"
                     "cher.example\xe3\x80\x82",
                     "b\xc3\xbc"
                     "cher.example");
    assert_canonical("\xef\xbd\x85xample.com", "example.com");
    const char *bad[] = { ".",
                          "..",
                          ".a",
                          "a..b",
                          "-a",
                          "a-",
                          "a.-b",
                          "a-.b",
                          "a_b",
                          "a b",
                          "a,b",
                          "xn--\xc3\xbc",
                          "a\x01",
                          "b\xc3\xbc"
                          "cher..x",
                          "xn--",
                          "xn--a-",
                          "xn--99999999999",
                          "a.xn--zzzzzzzz.b",
                          "\xe2\x84\x80.example" /* becomes a/c */,
                          "\xed\xa0\x80",
                          "example.com..",
                          "a:5222" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_malformed(bad[i]);
    char label[70];
    memset(label, 'a', sizeof(label));
    for (size_t len = 62; len <= 64; len++) {
        struct xy_jid jid;
        assert_int_equal(xy_jid_parse(arena, xy_str_n(label, len), &jid), len <= 63);
    }
}

static void ip_literals(void **state)
{
    (void)state;
    assert_canonical("[::1]", "[::1]");
    assert_canonical("a@[2001:DB8:0::0001]/r", "a@[2001:db8::1]/r");
    assert_canonical("[::FFFF:192.0.2.1]", "[::ffff:192.0.2.1]");
    const char *bad[] = { "[",
                          "[]",
                          "[]]",
                          "[::1",
                          "::1",
                          "[::1]x",
                          "[1.2.3.4]",
                          "[fe80::1%eth0]",
                          "[:::1]",
                          "[g::1]",
                          "[00000000000000000000000000000000000000000000000000000000000000000::1]" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_malformed(bad[i]);
}

static void resources(void **state)
{
    (void)state;
    assert_canonical("x/ a ", "x/ a ");
    assert_canonical("x/a/b//c", "x/a/b//c");
    assert_canonical("x/\xf0\x9f\x98\x80", "x/\xf0\x9f\x98\x80");
    assert_canonical("x/UPPER", "x/UPPER");
    assert_canonical("x/\xef\xbc\xa1", "x/A");
    assert_malformed("x/\x01");
    assert_malformed("x/\x7f");
    assert_malformed("x/\xc2\x85");
    assert_malformed("x/\xff");
    assert_malformed("x/\xc2\xad");
}

static void lengths(void **state)
{
    (void)state;
    char text[XY_JID_MAX + 10];
    for (size_t len = XY_JID_PART_MAX - 1; len <= XY_JID_PART_MAX + 1; len++) {
        bool fits = len <= XY_JID_PART_MAX;
        struct xy_jid jid;
        memset(text, 'l', len);
        memcpy(text + len, "@x", 2);
        assert_int_equal(xy_jid_parse(arena, xy_str_n(text, len + 2), &jid), fits);
        memcpy(text, "x/", 2);
        memset(text + 2, 'r', len);
        assert_int_equal(xy_jid_parse(arena, xy_str_n(text, len + 2), &jid), fits);
        memcpy(text + 2, "\xc3\xa9", 2); /* through the library */
        assert_int_equal(xy_jid_parse(arena, xy_str_n(text, len + 2), &jid), fits);
        for (size_t i = 0; i < len; i++)
            text[i] = i % 2 == 0 ? 'd' : '.';
        text[len - 1] = 'd';
        text[len - 2] = 'd';
        assert_int_equal(xy_jid_parse(arena, xy_str_n(text, len), &jid), fits);
    }
    /* U+FDFA becomes 33 bytes: the limit holds for the result */
    text[0] = 'x', text[1] = '/';
    for (size_t i = 0; i < 300; i++)
        memcpy(text + 2 + 3 * i, "\xef\xb7\xba", 3);
    struct xy_jid jid;
    assert_false(xy_jid_parse(arena, xy_str_n(text, 902), &jid));
    assert_true(xy_jid_parse(arena, xy_str_n(text, 2 + 3 * 30), &jid));
    assert_int_equal(jid.len, 2 + 33 * 30);
    /* all parts at their largest */
    memset(text, 'a', sizeof(text));
    text[XY_JID_PART_MAX] = '@';
    for (size_t i = XY_JID_PART_MAX + 2; i < 2 * XY_JID_PART_MAX; i += 2)
        text[i] = '.';
    text[2 * XY_JID_PART_MAX + 1] = '/';
    assert_true(xy_jid_parse(arena, xy_str_n(text, XY_JID_MAX), &jid));
    assert_int_equal(jid.len, XY_JID_MAX);
    assert_int_equal(jid.local_len, XY_JID_PART_MAX);
    assert_int_equal(jid.bare_len, 2 * XY_JID_PART_MAX + 1);
}

static void making(void **state)
{
    (void)state;
    struct xy_jid jid, other;
    assert_true(xy_jid_make(arena, xy_str("Ab"), xy_str("X."), xy_str("R s"), &jid));
    assert_str(xy_jid_full(jid), "ab@x/R s");
    assert_true(xy_jid_make(arena, XY_STR_NONE, xy_str("x"), XY_STR_NONE, &jid));
    assert_str(xy_jid_full(jid), "x");
    assert_false(xy_jid_make(arena, xy_str(""), xy_str("x"), XY_STR_NONE, &jid));
    assert_false(xy_jid_make(arena, XY_STR_NONE, xy_str("x"), xy_str(""), &jid));
    assert_false(xy_jid_make(arena, XY_STR_NONE, XY_STR_NONE, XY_STR_NONE, &jid));
    assert_false(xy_jid_make(arena, xy_str("a/b"), xy_str("x"), XY_STR_NONE, &jid));

    assert_true(xy_jid_parse(arena, xy_str("a@x/one"), &jid));
    assert_true(xy_jid_with_resource(arena, jid, xy_str("two"), &other));
    assert_str(xy_jid_full(other), "a@x/two");
    assert_true(xy_jid_with_resource(arena, jid, XY_STR_NONE, &other));
    assert_str(xy_jid_full(other), "a@x");
    assert_false(xy_jid_with_resource(arena, jid, xy_str("\x01"), &other));
    assert_false(xy_jid_with_resource(arena, (struct xy_jid){ 0 }, xy_str("r"), &other));
}

static void single_parts(void **state)
{
    (void)state;
    struct xy_str out;
    assert_true(xy_jid_prep_local(arena, xy_str("ABC"), &out));
    assert_str(out, "abc");
    assert_false(xy_jid_prep_local(arena, xy_str("a@b"), &out));
    assert_absent(out);
    assert_true(xy_jid_prep_domain(arena, xy_str("EXAMPLE.org."), &out));
    assert_str(out, "example.org");
    assert_false(xy_jid_prep_domain(arena, XY_STR_NONE, &out));
    assert_true(xy_jid_prep_resource(arena, xy_str("Home"), &out));
    assert_str(out, "Home");
    assert_false(xy_jid_prep_resource(arena, xy_str(""), &out));
}

static void append_utf8(struct xy_buf *out, unsigned c)
{
    if (c < 0x80) {
        xy_buf_char(out, (char)c);
    } else if (c < 0x800) {
        xy_buf_char(out, (char)(0xc0 | c >> 6));
        xy_buf_char(out, (char)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        xy_buf_char(out, (char)(0xe0 | c >> 12));
        xy_buf_char(out, (char)(0x80 | (c >> 6 & 63)));
        xy_buf_char(out, (char)(0x80 | (c & 63)));
    } else {
        xy_buf_char(out, (char)(0xf0 | c >> 18));
        xy_buf_char(out, (char)(0x80 | (c >> 12 & 63)));
        xy_buf_char(out, (char)(0x80 | (c >> 6 & 63)));
        xy_buf_char(out, (char)(0x80 | (c & 63)));
    }
}

/* What was accepted is canonical: it is accepted again, unchanged. Every character alone in every part, then pairs. */
static void preparation_is_idempotent(void **state)
{
    (void)state;
    struct xy_buf text = { 0 };
    uint64_t seed = 2024;
    size_t accepted = 0;
    for (unsigned c = 1; c < 0x30000; c++) {
        for (int where = 0; where < 3; where++) {
            xy_buf_reset(&text);
            if (where > 0)
                xy_buf_lit(&text, "a");
            xy_buf_str(&text, where == 1 ? XY_STR("@") : where == 2 ? XY_STR("@x/") : XY_STR_NONE);
            append_utf8(&text, c);
            if (c % 3 == 0)
                append_utf8(&text, (unsigned)unit_below(&seed, c % 2 ? 0x600 : 0x10000) + 1);
            if (where == 0)
                xy_buf_lit(&text, "@x");
            struct xy_jid jid, again;
            if (!xy_jid_parse(arena, xy_buf_view(&text), &jid))
                continue;
            accepted++;
            bool same = xy_jid_parse(arena, xy_jid_full(jid), &again) && xy_jid_eq(jid, again);
            if (!same)
                print_error("U+%04X in part %d\n", c, where);
            assert_true(same);
            assert_int_equal(jid.bare_len, again.bare_len);
            assert_int_equal(jid.local_len, again.local_len);
        }
        xy_arena_reset(arena);
    }
    assert_true(accepted > 100000);
    xy_buf_free(&text);
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        test(parts),        test(rfc7622_examples),
        test(local_parts),  test(domains),
        test(ip_literals),  test(resources),
        test(lengths),      test(making),
        test(single_parts), test(preparation_is_idempotent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
