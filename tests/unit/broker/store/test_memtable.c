/* The memory table against a model that cannot be wrong: an array searched from end to end. Random puts, deletions and
 * range deletions under a seed; both generations' rules are checked after each step that reads. */
#include "fixture.h"

#include "broker/store/memtable.h"

enum { KEYS = 3000, KEY_BYTES = 24 };

struct slot {
    enum memtable_hit hit;
    bool fresh;
    char value[40];
    size_t len;
};

struct model {
    struct slot slots[KEYS];
};

/* Keys of different lengths that share prefixes and differ only in trailing zeros here and there. */
static struct xy_str key_of(unsigned number, char room[KEY_BYTES])
{
    static const size_t lens[] = { 8, 9, 16, 17, 24 };
    memset(room, 0, KEY_BYTES);
    be64_put(room, number / 5);
    return xy_str_n(room, lens[number % 5]); /* sorted by number: the longer of equal bytes comes later */
}

static void check_key(const struct memtable *mem, const struct model *model, unsigned number)
{
    char room[KEY_BYTES];
    struct xy_str value;
    const struct slot *slot = &model->slots[number];
    assert_int_equal(memtable_get(mem, STORE_ITEMS, key_of(number, room), &value), slot->hit);
    if (slot->hit == MEMTABLE_VALUE) {
        assert_int_equal(value.len, slot->len);
        assert_memory_equal(value.data, slot->value, slot->len);
    }
}

static void check_order(const struct memtable *mem, const struct model *model, unsigned from)
{
    char room[KEY_BYTES];
    const struct tree_entry *entry = memtable_seek(mem, STORE_ITEMS, key_of(from, room));
    for (unsigned i = from; i < KEYS; i++) {
        if (model->slots[i].hit != MEMTABLE_VALUE)
            continue;
        while (entry != NULL && !xy_str_present(memtable_value(entry)))
            entry = memtable_next(entry);
        assert_non_null(entry);
        assert_true(xy_str_eq(memtable_key(entry), key_of(i, room)));
        entry = memtable_next(entry);
    }
    for (; entry != NULL; entry = memtable_next(entry))
        assert_false(xy_str_present(memtable_value(entry)));
}

/* Ranges are disjoint, ordered and not adjacent. */
static void check_ranges(const struct memtable *mem)
{
    const struct tree_entry *range = memtable_ranges(mem, STORE_ITEMS), *next;
    for (; range != NULL; range = next) {
        struct xy_str end = memtable_value(range);
        next = memtable_next(range);
        if (end.len > 0)
            assert_true(xy_str_cmp(memtable_key(range), end) < 0);
        if (next != NULL) {
            assert_true(end.len > 0);
            assert_true(xy_str_cmp(end, memtable_key(next)) < 0);
        }
    }
}

static void put(struct memtable *mem, struct model *model, unsigned number, uint64_t *seed)
{
    char room[KEY_BYTES];
    struct slot *slot = &model->slots[number];
    bool fresh = slot->hit == MEMTABLE_MISS && next_random(seed) % 2 == 0;
    size_t head = next_random(seed) % 3;
    slot->len = head + next_random(seed) % 36;
    for (size_t i = 0; i < slot->len; i++)
        slot->value[i] = (char)next_random(seed);
    assert_true(memtable_put(mem, STORE_ITEMS, key_of(number, room), xy_str_n(slot->value, head),
                             xy_str_n(slot->value + head, slot->len - head), fresh));
    if (slot->hit != MEMTABLE_VALUE)
        slot->fresh = fresh;
    slot->hit = MEMTABLE_VALUE;
}

static void del(struct memtable *mem, struct model *model, unsigned number)
{
    char room[KEY_BYTES];
    struct slot *slot = &model->slots[number];
    assert_true(memtable_del(mem, STORE_ITEMS, key_of(number, room)));
    slot->hit = slot->hit == MEMTABLE_VALUE && slot->fresh ? MEMTABLE_MISS : MEMTABLE_GONE;
}

static void del_range(struct memtable *mem, struct model *model, unsigned from, unsigned to)
{
    char from_room[KEY_BYTES], to_room[KEY_BYTES];
    struct xy_str end = to < KEYS ? key_of(to, to_room) : XY_STR_NONE;
    assert_true(memtable_del_range(mem, STORE_ITEMS, key_of(from, from_room), end));
    for (unsigned i = from; i < to; i++)
        model->slots[i].hit = MEMTABLE_GONE;
}

static void run(uint64_t seed, unsigned steps)
{
    struct model *model = calloc(1, sizeof(*model));
    struct memtable *mem = memtable_new();
    assert_non_null(model);
    for (unsigned step = 0; step < steps; step++) {
        unsigned number = (unsigned)(next_random(&seed) % KEYS);
        unsigned what = (unsigned)(next_random(&seed) % 1000);
        if (what < 500)
            put(mem, model, number, &seed);
        else if (what < 990)
            del(mem, model, number);
        else if (what < 999)
            del_range(mem, model, number,
                      number + 1 + (unsigned)(next_random(&seed) % 200) % (KEYS - number));
        else if (number > KEYS - 100)
            del_range(mem, model, number, KEYS);
        check_key(mem, model, number);
        check_key(mem, model, (unsigned)(next_random(&seed) % KEYS));
        if (step % 500 == 0) {
            check_order(mem, model, number);
            check_ranges(mem);
        }
        /* A range that covers everything hides the rest of the run: begin a new generation now and then. */
        if (step % 5000 == 4999) {
            memtable_free(&mem);
            mem = memtable_new();
            memset(model, 0, sizeof(*model));
        }
    }
    memtable_free(&mem);
    free(model);
}

/* A fresh key that was covered by a range, put and deleted again, is gone because of the range, not missing. */
static void test_model(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    struct xy_str value;
    assert_true(memtable_del_range(mem, STORE_ITEMS, XY_STR("a"), XY_STR("c")));
    assert_true(memtable_put(mem, STORE_ITEMS, XY_STR("b"), XY_STR("r"), XY_STR("1"), true));
    assert_int_equal(memtable_get(mem, STORE_ITEMS, XY_STR("b"), &value), MEMTABLE_VALUE);
    assert_true(memtable_del(mem, STORE_ITEMS, XY_STR("b")));
    assert_int_equal(memtable_get(mem, STORE_ITEMS, XY_STR("b"), &value), MEMTABLE_GONE);
    assert_int_equal(memtable_get(mem, STORE_ITEMS, XY_STR("c"), &value), MEMTABLE_MISS);
    memtable_free(&mem);
    for (uint64_t seed = 1; seed <= 5; seed++)
        run(seed * 7919, 20000);
}

static void test_head_byte(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    struct xy_str value;
    assert_false(memtable_set_head(mem, STORE_ITEMS, XY_STR("a"), 'o'));
    assert_true(memtable_put(mem, STORE_ITEMS, XY_STR("a"), XY_STR("r"), XY_STR("body"), true));
    assert_true(memtable_set_head(mem, STORE_ITEMS, XY_STR("a"), 'o'));
    assert_int_equal(memtable_get(mem, STORE_ITEMS, XY_STR("a"), &value), MEMTABLE_VALUE);
    assert_true(xy_str_is(value, "obody"));
    assert_true(memtable_del(mem, STORE_ITEMS, XY_STR("a")));
    assert_false(memtable_set_head(mem, STORE_ITEMS, XY_STR("a"), 'r'));
    memtable_free(&mem);
}

/* What is put and deleted leaves nothing; what was overwritten in place takes no more memory. */
static void test_churn_leaves_no_entries(void **state)
{
    (void)state;
    struct memtable *mem = memtable_new();
    char key[16];
    for (uint64_t seq = 1; seq <= 10000; seq++) {
        assert_true(memtable_put(mem, STORE_ITEMS, item_key(key, 1, seq), XY_STR("r"), XY_STR("x"), true));
        assert_true(memtable_del(mem, STORE_ITEMS, item_key(key, 1, seq)));
    }
    assert_int_equal(memtable_count(mem), 0);
    assert_true(memtable_put(mem, STORE_CURSORS, XY_STR("k"), XY_STR_NONE, XY_STR("12345678"), false));
    size_t bytes = memtable_bytes(mem);
    for (int i = 0; i < 1000; i++)
        assert_true(memtable_put(mem, STORE_CURSORS, XY_STR("k"), XY_STR_NONE, XY_STR("abcdefgh"), false));
    assert_int_equal(memtable_bytes(mem), bytes);
    memtable_free(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_head_byte),
        cmocka_unit_test(test_churn_leaves_no_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
