/* Names in certificates: which count, which are refused, what they cover; and the hash for channel binding. */
#include "tests/unit/unit.h"

#include "core/tls/names.h"

struct der_file {
    char data[4096];
    size_t len;
};

static struct xy_str der_load(struct der_file *file, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/tls/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    file->len = fread(file->data, 1, sizeof file->data, f);
    fclose(f);
    assert_in_range(file->len, 1, sizeof file->data - 1);
    return xy_str_n(file->data, file->len);
}

static char *find(struct der_file *file, const char *text)
{
    char *at = memmem(file->data, file->len, text, strlen(text));
    assert_non_null(at);
    return at;
}

static void test_xmpp_and_dns_names_only(void **state)
{
    (void)state;
    struct der_file file;
    struct xy_tls_names names;
    struct xy_tls_name name;
    assert_true(xy_tls_names_open(&names, der_load(&file, "xmpp-names.der")));
    assert_true(xy_tls_names_next(&names, &name));
    assert_int_equal(name.kind, XY_TLS_NAME_XMPP);
    assert_true(xy_str_is(name.value, "juliet@example.org"));
    assert_true(xy_tls_names_next(&names, &name));
    assert_int_equal(name.kind, XY_TLS_NAME_DNS);
    assert_true(xy_str_is(name.value, "laptop.example.org"));
    assert_true(xy_tls_names_next(&names, &name));
    assert_true(xy_str_is(name.value, "juliet@example.net"));
    assert_false(xy_tls_names_next(&names, &name));
    assert_false(xy_tls_names_next(&names, &name));
}

static void test_an_embedded_nul_makes_it_nameless(void **state)
{
    (void)state;
    struct der_file file;
    struct xy_tls_names names;
    struct xy_tls_name name;
    der_load(&file, "xmpp-names.der");
    find(&file, "juliet@example.net")[6] = '\0';
    assert_false(xy_tls_names_open(&names, xy_str_n(file.data, file.len)));
    assert_false(xy_tls_names_next(&names, &name));

    der_load(&file, "xmpp-names.der");
    find(&file, "laptop.example.org")[6] = '\0';
    assert_false(xy_tls_names_open(&names, xy_str_n(file.data, file.len)));
    assert_false(xy_tls_certificate_covers(xy_str_n(file.data, file.len), XY_STR("laptop.example.org")));

    der_load(&file, "xmpp-names.der");
    find(&file, "juliet@example.net")[0] = (char)0xff; /* not UTF-8 */
    assert_false(xy_tls_names_open(&names, xy_str_n(file.data, file.len)));
}

static void test_the_common_name_is_no_name(void **state)
{
    (void)state;
    struct der_file file;
    struct xy_tls_names names;
    assert_false(xy_tls_names_open(&names, der_load(&file, "ecdsa-sha256.der")));
    assert_false(
        xy_tls_certificate_covers(xy_str_n(file.data, file.len), XY_STR("only in the subject.example.org")));
}

/* Whatever is cut off or changed: no read beyond the end (the sanitizers watch), and no endless walk. */
static void test_damaged_certificates(void **state)
{
    (void)state;
    struct der_file file;
    struct xy_tls_names names;
    struct xy_tls_name name;
    der_load(&file, "xmpp-names.der");
    for (size_t len = 0; len < file.len; len++) {
        char *exact = malloc(len + 1);
        assert_non_null(exact);
        memcpy(exact, file.data, len);
        assert_false(xy_tls_names_open(&names, xy_str_n(exact, len)));
        assert_int_equal(xy_tls_certificate_hash(xy_str_n(exact, len)), XY_TLS_HASH_NONE);
        free(exact);
    }
    for (size_t i = 0; i < file.len; i++) {
        static const unsigned char values[] = { 0x00, 0x30, 0x7f, 0x80, 0x84, 0xff };
        char kept = file.data[i];
        for (size_t v = 0; v < sizeof values; v++) {
            file.data[i] = (char)values[v];
            size_t count = 0;
            if (xy_tls_names_open(&names, xy_str_n(file.data, file.len)))
                while (xy_tls_names_next(&names, &name))
                    count++;
            assert_in_range(count, 0, 5);
        }
        file.data[i] = kept;
    }
    assert_false(xy_tls_names_open(&names, XY_STR_NONE));
}

static void test_name_covers(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *host;
        bool covers;
    } cases[] = {
        { "example.org", "example.org", true },
        { "example.org", "EXAMPLE.org", true },
        { "localhost", "localhost", true },
        { "example.org", "example.com", false },
        { "example.org", "a.example.org", false },
        { "*.example.org", "a.example.org", true },
        { "*.example.org", "example.org", false },
        { "*.example.org", ".example.org", false },
        { "*.example.org", "a.b.example.org", false },
        { "*.org", "example.org", false },
        { "*", "localhost", false },
        { "*.", "a.", false },
        { "a*.example.org", "ab.example.org", false },
        { "*.*.example.org", "a.b.example.org", false },
        { "a.*.example.org", "a.b.example.org", false },
        { "*.example.org", "*.example.org", true },
        { "", "", false },
        { "", "example.org", false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(xy_tls_name_covers(xy_str(cases[i].pattern), xy_str(cases[i].host)),
                         cases[i].covers);
}

static void test_hash_of_the_signature(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        enum xy_tls_hash hash;
    } cases[] = {
        { "rsa-md5.der", XY_TLS_HASH_SHA256 },      { "rsa-sha1.der", XY_TLS_HASH_SHA256 },
        { "rsa-sha256.der", XY_TLS_HASH_SHA256 },   { "rsa-sha512.der", XY_TLS_HASH_SHA512 },
        { "pss-sha384.der", XY_TLS_HASH_SHA384 },   { "ecdsa-sha1.der", XY_TLS_HASH_SHA256 },
        { "ecdsa-sha224.der", XY_TLS_HASH_SHA224 }, { "ecdsa-sha256.der", XY_TLS_HASH_SHA256 },
        { "ecdsa-sha384.der", XY_TLS_HASH_SHA384 }, { "ecdsa-sha512.der", XY_TLS_HASH_SHA512 },
        { "ed25519.der", XY_TLS_HASH_NONE },
    };
    struct der_file file;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(xy_tls_certificate_hash(der_load(&file, cases[i].file)), cases[i].hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xmpp_and_dns_names_only),
        cmocka_unit_test(test_an_embedded_nul_makes_it_nameless),
        cmocka_unit_test(test_the_common_name_is_no_name),
        cmocka_unit_test(test_damaged_certificates),
        cmocka_unit_test(test_name_covers),
        cmocka_unit_test(test_hash_of_the_signature),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
