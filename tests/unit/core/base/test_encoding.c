/* Base64, hexadecimal and CRC-32C against published vectors, every refusal, and each other. */
#include "tests/unit/unit.h"

#include "core/base/encoding.h"

static const struct {
    const char *plain, *encoded;
} rfc4648[] = { { "", "" },
                { "f", "Zg==" },
                { "fo", "Zm8=" },
                { "foo", "Zm9v" },
                { "foob", "Zm9vYg==" },
                { "fooba", "Zm9vYmE=" },
                { "foobar", "Zm9vYmFy" },
                { "\xff\xfe\xfd", "//79" },
                { "\xfb\xef\xbe", "++++" } };

static void base64_vectors(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    for (size_t i = 0; i < sizeof(rfc4648) / sizeof(*rfc4648); i++) {
        struct xy_buf out = { 0 };
        xy_base64_encode(&out, xy_str(rfc4648[i].plain));
        assert_int_equal(out.len, strlen(rfc4648[i].encoded));
        assert_memory_equal(out.data, rfc4648[i].encoded, out.len);
        xy_buf_reset(&out);
        assert_true(xy_base64_decode(&out, xy_str(rfc4648[i].encoded)));
        assert_int_equal(out.len, strlen(rfc4648[i].plain));
        assert_memory_equal(out.data, rfc4648[i].plain, out.len);
        xy_buf_free(&out);

        assert_str(xy_base64_encode_arena(arena, xy_str(rfc4648[i].plain)), rfc4648[i].encoded);
        struct xy_str decoded;
        assert_true(xy_base64_decode_arena(arena, xy_str(rfc4648[i].encoded), &decoded));
        assert_str(decoded, rfc4648[i].plain);
    }
    xy_arena_free(&arena);
}

static void base64_refusals(void **state)
{
    (void)state;
    const char *bad[] = { "Z",
                          "Zg",
                          "Zg=",
                          "Zg===",
                          "=",
                          "====",
                          "Z===",
                          "Zh==",
                          "Zm9=",
                          "Zm 9v",
                          "Zm9v\n",
                          "Zm9v====",
                          "Zg==Zg==",
                          "Zm9-",
                          "Zm9_",
                          "Z=g=",
                          "=Zg=",
                          "\xff\xff\xff\xff",
                          "Zm9v\xc3\xa9==" };
    struct xy_arena *arena = xy_arena_new();
    struct xy_buf out = { 0 };
    xy_buf_lit(&out, "before");
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct xy_str decoded = xy_str("x");
        assert_false(xy_base64_decode(&out, xy_str(bad[i])));
        assert_str(xy_buf_view(&out), "before");
        assert_false(xy_base64_decode_arena(arena, xy_str(bad[i]), &decoded));
        assert_absent(decoded);
    }
    xy_buf_free(&out);
    xy_arena_free(&arena);
}

static void base64_round_trip(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (size_t len = 0; len < 300; len++) {
        char data[300];
        for (size_t i = 0; i < len; i++)
            data[i] = (char)unit_random(&seed);
        struct xy_buf encoded = { 0 }, decoded = { 0 };
        xy_base64_encode(&encoded, xy_str_n(data, len));
        assert_true(xy_base64_decode(&decoded, xy_buf_view(&encoded)));
        assert_int_equal(decoded.len, len);
        assert_true(len == 0 || memcmp(decoded.data, data, len) == 0);
        xy_buf_free(&encoded);
        xy_buf_free(&decoded);
    }
}

static void hexadecimal(void **state)
{
    (void)state;
    char text[8];
    xy_hex_encode(text, "\x00\x9f\xa0\xff", 4);
    assert_memory_equal(text, "009fa0ff", 8);
    unsigned char bytes[4] = { 0 };
    assert_true(xy_hex_decode(bytes, xy_str("009Fa0Ff")));
    assert_memory_equal(bytes, "\x00\x9f\xa0\xff", 4);
    assert_true(xy_hex_decode(bytes, XY_STR_NONE));
    assert_false(xy_hex_decode(bytes, xy_str("0")));
    assert_false(xy_hex_decode(bytes, xy_str("0g")));
    assert_false(xy_hex_decode(bytes, xy_str("g0")));
    assert_false(xy_hex_decode(bytes, xy_str("/:")));
}

static void crc32c(void **state)
{
    (void)state;
    /* RFC 3720 B.4 and the check value of the catalogue of CRCs */
    unsigned char data[32];
    assert_int_equal(xy_crc32c(0, "123456789", 9), 0xe3069283u);
    memset(data, 0, sizeof(data));
    assert_int_equal(xy_crc32c(0, data, sizeof(data)), 0x8a9136aau);
    memset(data, 0xff, sizeof(data));
    assert_int_equal(xy_crc32c(0, data, sizeof(data)), 0x62a8ab43u);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)i;
    assert_int_equal(xy_crc32c(0, data, sizeof(data)), 0x46dd794eu);
    assert_int_equal(xy_crc32c(0, NULL, 0), 0);
}

static void crc32c_chains_and_agrees(void **state)
{
    (void)state;
    unsigned char data[200];
    uint64_t seed = 11;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)unit_random(&seed);
    for (size_t start = 0; start < 9; start++) {
        for (size_t end = start; end < sizeof(data); end++) {
            uint32_t whole = xy_crc32c(0, data + start, end - start);
            assert_int_equal(whole, xy_crc32c_portable(0, data + start, end - start));
            size_t cut = start + (end - start) / 3;
            assert_int_equal(whole,
                             xy_crc32c(xy_crc32c(0, data + start, cut - start), data + cut, end - cut));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_vectors),
        cmocka_unit_test(base64_refusals),
        cmocka_unit_test(base64_round_trip),
        cmocka_unit_test(hexadecimal),
        cmocka_unit_test(crc32c),
        cmocka_unit_test(crc32c_chains_and_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
