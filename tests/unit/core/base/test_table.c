/* The hash table against a plain array, and what the header promises about iteration. */
#include "tests/unit/unit.h"

#include "core/base/table.h"

#define KEYS 500

struct entry {
    char name[16];
    size_t len;
    bool in;
};

static struct xy_str key_of(const struct entry *e)
{
    return xy_str_n(e->name, e->len);
}

static void fill(struct entry *entries)
{
    for (size_t i = 0; i < KEYS; i++) {
        entries[i].len = (size_t)snprintf(entries[i].name, sizeof(entries[i].name), "key-%zu", i);
        entries[i].in = false;
    }
}

static void agrees_with_a_model(void **state)
{
    (void)state;
    static struct entry entries[KEYS];
    fill(entries);
    struct xy_table *table = xy_table_new(1234);
    uint64_t seed = 99;
    size_t count = 0;
    for (int step = 0; step < 200000; step++) {
        /* phases: mostly putting, mostly removing, so that the table grows and shrinks */
        bool put = unit_below(&seed, 10) < ((step / 20000) % 2 == 0 ? 8u : 2u);
        struct entry *e = &entries[unit_below(&seed, KEYS)];
        if (put) {
            void *old;
            assert_true(xy_table_put(table, key_of(e), e, &old));
            assert_ptr_equal(old, e->in ? e : NULL);
            count += !e->in;
            e->in = true;
        } else {
            assert_ptr_equal(xy_table_remove(table, key_of(e)), e->in ? e : NULL);
            count -= e->in;
            e->in = false;
        }
        assert_int_equal(xy_table_count(table), count);
        e = &entries[unit_below(&seed, KEYS)];
        assert_ptr_equal(xy_table_get(table, key_of(e)), e->in ? e : NULL);
    }
    xy_table_free(&table);
    assert_null(table);
    xy_table_free(&table);
}

static void iterates_once_over_all(void **state)
{
    (void)state;
    static struct entry entries[KEYS];
    fill(entries);
    struct xy_table *table = xy_table_new(7);
    for (size_t i = 0; i < KEYS; i++)
        assert_true(xy_table_put(table, key_of(&entries[i]), &entries[i], NULL));
    size_t seen = 0, position = 0;
    struct xy_str key;
    for (struct entry *e; (e = xy_table_next(table, &position, &key)) != NULL; seen++) {
        assert_false(e->in);
        assert_str_same(key, key_of(e));
        e->in = true;
    }
    assert_int_equal(seen, KEYS);
    xy_table_free(&table);
}

static void removing_while_iterating(void **state)
{
    (void)state;
    static struct entry entries[KEYS];
    for (uint64_t seed = 1; seed < 20; seed++) {
        fill(entries);
        struct xy_table *table = xy_table_new(seed);
        for (size_t i = 0; i < KEYS; i++)
            assert_true(xy_table_put(table, key_of(&entries[i]), &entries[i], NULL));
        size_t seen = 0, position = 0;
        for (struct entry *e; (e = xy_table_next(table, &position, NULL)) != NULL; seen++) {
            assert_false(e->in);
            e->in = true;
            assert_ptr_equal(xy_table_remove(table, key_of(e)), e);
        }
        assert_int_equal(seen, KEYS);
        assert_int_equal(xy_table_count(table), 0);
        assert_true(xy_table_put(table, xy_str("again"), entries, NULL));
        assert_ptr_equal(xy_table_get(table, xy_str("again")), entries);
        xy_table_free(&table);
    }
}

static void an_empty_table(void **state)
{
    (void)state;
    struct xy_table *table = xy_table_new(0);
    size_t position = 0;
    assert_null(xy_table_get(table, xy_str("x")));
    assert_null(xy_table_remove(table, xy_str("x")));
    assert_null(xy_table_next(table, &position, NULL));
    int value;
    assert_true(xy_table_put(table, xy_str(""), &value, NULL)); /* the empty key is a key */
    assert_ptr_equal(xy_table_get(table, XY_STR_NONE), &value);
    xy_table_free(&table);
}

static void replacing_takes_the_new_key(void **state)
{
    (void)state;
    struct xy_table *table = xy_table_new(3);
    char former[] = "name", later[] = "name";
    int one, two;
    void *old;
    assert_true(xy_table_put(table, xy_str(former), &one, &old));
    assert_true(xy_table_put(table, xy_str(later), &two, &old));
    assert_ptr_equal(old, &one);
    former[0] = 'X'; /* as if freed */
    assert_ptr_equal(xy_table_get(table, xy_str("name")), &two);
    assert_int_equal(xy_table_count(table), 1);
    xy_table_free(&table);
}

static void hashing_is_keyed_and_fixed(void **state)
{
    (void)state;
    assert_int_equal(xy_hash(xy_str("juliet@example.org"), 1), xy_hash(xy_str("juliet@example.org"), 1));
    assert_int_not_equal(xy_hash(xy_str("juliet@example.org"), 1), xy_hash(xy_str("juliet@example.org"), 2));
    char text[32] = { 0 };
    uint64_t seen[32];
    for (size_t len = 0; len < 32; len++) { /* zeros of different lengths differ */
        seen[len] = xy_hash(xy_str_n(text, len), 5);
        for (size_t k = 0; k < len; k++)
            assert_int_not_equal(seen[k], seen[len]);
    }
    /* every input bit changes about half of the output */
    uint64_t base = xy_hash(xy_str_n(text, 20), 5);
    for (size_t bit = 0; bit < 160; bit++) {
        text[bit / 8] = (char)(1 << bit % 8);
        int changed = __builtin_popcountll(base ^ xy_hash(xy_str_n(text, 20), 5));
        assert_true(changed > 8 && changed < 56);
        text[bit / 8] = 0;
    }
}

/* Ids that were made of it are stored and sent: it stays what it is, for every length of a last word. */
static void hashing_stays_the_same(void **state)
{
    static const struct {
        size_t len;
        uint64_t hash;
    } known[] = { { 0, 0x69641a04857b092b },  { 1, 0x86480797cfcfb1f2 },  { 7, 0xe5677c23f12f5830 },
                  { 8, 0x440995fa97c6cb57 },  { 9, 0xce2a27991631fa8a },  { 12, 0x6bed017b0164e886 },
                  { 15, 0xbe49687180b2d981 }, { 16, 0xabc575077d53af23 }, { 17, 0x505cdb6af93f4197 },
                  { 23, 0x5903318edbbead74 }, { 24, 0xc3a3c24bf39681d3 } };
    (void)state;
    char text[24];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(0xf0 - 7 * i);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        assert_true(xy_hash(xy_str_n(text, known[i].len), 5) == known[i].hash);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_model),         cmocka_unit_test(iterates_once_over_all),
        cmocka_unit_test(removing_while_iterating),    cmocka_unit_test(an_empty_table),
        cmocka_unit_test(replacing_takes_the_new_key), cmocka_unit_test(hashing_is_keyed_and_fixed),
        cmocka_unit_test(hashing_stays_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
