/* Strings: numbers, booleans, UTF-8 as XML accepts it, trimming, order. */
#include "tests/unit/unit.h"

static void numbers(void **state)
{
    (void)state;
    uint64_t n = 7;
    assert_true(xy_str_u64(xy_str("0"), &n) && n == 0);
    assert_true(xy_str_u64(xy_str("007"), &n) && n == 7);
    assert_true(xy_str_u64(xy_str("18446744073709551615"), &n) && n == UINT64_MAX);
    n = 5;
    const char *bad[] = { "",  "18446744073709551616", "99999999999999999999", "-1", "+1", " 1", "1 ", "0x1",
                          "1a" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(xy_str_u64(xy_str(bad[i]), &n));
    assert_false(xy_str_u64(XY_STR_NONE, &n));
    assert_int_equal(n, 5);

    uint32_t m = 9;
    assert_true(xy_str_u32(xy_str("4294967295"), &m) && m == UINT32_MAX);
    m = 9;
    assert_false(xy_str_u32(xy_str("4294967296"), &m));
    assert_int_equal(m, 9);
}

static void booleans(void **state)
{
    (void)state;
    bool b = false;
    assert_true(xy_str_bool(xy_str("true"), &b) && b);
    assert_true(xy_str_bool(xy_str("false"), &b) && !b);
    assert_true(xy_str_bool(xy_str("1"), &b) && b);
    assert_false(xy_str_bool(xy_str("TRUE"), &b));
    assert_false(xy_str_bool(xy_str(""), &b));
    assert_true(b);
    assert_true(xy_str_bool(xy_str("0"), &b) && !b);
}

static void utf8(void **state)
{
    (void)state;
    const char *good[] = { "",
                           "plain\t\r\n",
                           "\xc2\x80",
                           "\xdf\xbf",
                           "\xe0\xa0\x80",
                           "\xed\x9f\xbf",
                           "\xee\x80\x80",
                           "\xef\xbf\xbd",
                           "\xf0\x90\x80\x80",
                           "\xf4\x8f\xbf\xbf",
                           "\x7f" };
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
        assert_true(xy_str_utf8(xy_str(good[i])));
    const char *bad[] = { "\xc0\x80",
                          "\xc1\xbf",
                          "\x80",
                          "\xbf",
                          "\xe0\x9f\xbf",
                          "\xed\xa0\x80",
                          "\xc2",
                          "\xe1\x80",
                          "\xf1\x80\x80",
                          "\xef\xbf\xbe",
                          "\xef\xbf\xbf",
                          "\xf0\x8f\xbf\xbf",
                          "\xff",
                          "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80",
                          "\x01",
                          "\x1f",
                          "a\xc2"
                          "a",
                          "\xe1\x80"
                          "a",
                          "\xf1\x80\x80"
                          "a" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(xy_str_utf8(xy_str(bad[i])));
    assert_false(xy_str_utf8(xy_str_n("a\0b", 3)));
}

static void trimming(void **state)
{
    (void)state;
    assert_str(xy_str_trim(xy_str(" \t\r\n a b \n")), "a b");
    assert_str(xy_str_trim(xy_str("ab")), "ab");
    assert_str(xy_str_trim(xy_str(" \n ")), "");
    assert_int_equal(xy_str_trim(XY_STR_NONE).len, 0);
}

static void comparison(void **state)
{
    (void)state;
    assert_true(xy_str_cmp(xy_str("a"), xy_str("ab")) < 0);
    assert_true(xy_str_cmp(xy_str("b"), xy_str("ab")) > 0);
    assert_int_equal(xy_str_cmp(xy_str(""), XY_STR_NONE), 0);
    assert_true(xy_str_starts(xy_str("urn:xmpp:ping"), xy_str("urn:")));
    assert_false(xy_str_starts(xy_str("ur"), xy_str("urn:")));
    assert_true(xy_str_eq_secret(xy_str("proof"), xy_str("proof")));
    assert_false(xy_str_eq_secret(xy_str("proof"), xy_str("prooF")));
    assert_false(xy_str_eq_secret(xy_str("Proof"), xy_str("proof")));
    assert_false(xy_str_eq_secret(xy_str("proof"), xy_str("proofs")));
    assert_true(xy_str_eq_secret(xy_str(""), XY_STR_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),  cmocka_unit_test(booleans),   cmocka_unit_test(utf8),
        cmocka_unit_test(trimming), cmocka_unit_test(comparison),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
