/* The running hash against the vectors of FIPS 180-2, in one piece and in many. */
#include "tests/unit/unit.h"

#include "core/base/encoding.h"
#include "core/bytestream/sha256.h"

static void expect_hash(struct xy_str data, const char *hex)
{
    unsigned char hash[XY_SHA256_BYTES];
    char got[2 * XY_SHA256_BYTES];
    struct xy_sha256 running;
    xy_sha256_of(data, hash);
    xy_hex_encode(got, hash, sizeof hash);
    assert_memory_equal(got, hex, sizeof got);

    xy_sha256_start(&running);
    for (size_t i = 0, n = 1; i < data.len; i += n, n = n * 2 + 1) {
        if (n > data.len - i)
            n = data.len - i;
        xy_sha256_add(&running, data.data + i, n);
    }
    xy_sha256_end(&running, hash);
    xy_hex_encode(got, hash, sizeof hash);
    assert_memory_equal(got, hex, sizeof got);
}

static void test_vectors(void **state)
{
    (void)state;
    expect_hash(XY_STR(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect_hash(XY_STR("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect_hash(XY_STR("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    expect_hash(xy_str_n(million, 1000000),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_vectors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
