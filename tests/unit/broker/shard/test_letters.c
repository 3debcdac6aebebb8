/* Letters in blocks: order, boundaries of blocks, and that emptied blocks serve again. */
#include "tests/unit/unit.h"

#include <string.h>

#include "broker/shard/letters.h"

static void fn_a(struct shard *shard, void *payload)
{
    (void)shard;
    (void)payload;
}

static void fn_b(struct shard *shard, void *payload)
{
    (void)shard;
    (void)payload;
}

static void test_empty(void **state)
{
    (void)state;
    struct letters letters = { 0 };
    struct letter letter;
    assert_false(letters_peek(&letters, &letter));
}

static void test_what_goes_in_comes_out(void **state)
{
    (void)state;
    struct letters letters = { 0 };
    struct letter letter;
    letters_add(&letters, NULL, 3, fn_a, 17, "abc", 3);
    letters_add(&letters, NULL, 3, fn_b, 0, NULL, 0);
    assert_true(letters_peek(&letters, &letter));
    assert_true(letter.fn == fn_a && letter.ticket == 17 && letter.size == 3);
    assert_memory_equal(letter.payload, "abc", 3);
    assert_null(letters_take(&letters)); /* one is left in the block */
    assert_true(letters_peek(&letters, &letter));
    assert_true(letter.fn == fn_b && letter.ticket == 0 && letter.size == 0);
    struct letters_block *block = letters_take(&letters);
    assert_non_null(block);
    assert_int_equal(block->from, 3);
    assert_false(letters_peek(&letters, &letter));
    letters_add(&letters, NULL, 3, fn_a, 1, "x", 1); /* begins anew */
    assert_true(letters_peek(&letters, &letter));
    letters_blocks_free(&letters.first);
    letters_blocks_free(&block);
}

/* Random sizes, filling and emptying in waves, against a plain queue of numbers. */
static void test_many(void **state)
{
    (void)state;
    struct letters letters = { 0 };
    struct letters_spare spare = { 0 };
    struct letter letter;
    uint64_t seed = 5, taken = 0, added = 0;
    unsigned char payload[SHARD_MAIL_MAX];
    for (unsigned wave = 0; wave < 40; wave++) {
        for (size_t n = unit_below(&seed, 500); n > 0; n--, added++) {
            size_t size = unit_below(&seed, 4) == 0 ? SHARD_MAIL_MAX : unit_below(&seed, 64);
            memset(payload, (int)(added & 0xff), size);
            letters_add(&letters, &spare, 0, fn_a, added, payload, size);
        }
        for (size_t n = unit_below(&seed, 500); n > 0 && letters_peek(&letters, &letter); n--, taken++) {
            assert_int_equal(letter.ticket, taken);
            assert_int_equal((uintptr_t)letter.payload % 16, 0);
            for (uint32_t i = 0; i < letter.size; i++)
                assert_int_equal(((unsigned char *)letter.payload)[i], taken & 0xff);
            struct letters_block *empty = letters_take(&letters);
            if (empty)
                letters_recycle(&spare, empty);
        }
    }
    while (letters_peek(&letters, &letter)) {
        assert_int_equal(letter.ticket, taken++);
        struct letters_block *empty = letters_take(&letters);
        if (empty)
            letters_recycle(&spare, empty);
    }
    assert_int_equal(taken, added);
    letters_blocks_free(&spare.first);
}

static void test_spare_blocks_serve_again(void **state)
{
    (void)state;
    struct letters letters = { 0 };
    struct letters_spare spare = { 0 };
    letters_add(&letters, &spare, 0, fn_a, 0, "x", 1);
    struct letters_block *block = letters_take(&letters);
    assert_non_null(block);
    letters_recycle(&spare, block);
    assert_int_equal(spare.count, 1);
    letters_add(&letters, &spare, 5, fn_a, 0, "y", 1);
    assert_ptr_equal(letters.first, block);
    assert_int_equal(letters.first->from, 5);
    assert_int_equal(spare.count, 0);
    letters_blocks_free(&letters.first);
}

static void test_spare_blocks_are_bounded(void **state)
{
    (void)state;
    struct letters_spare spare = { 0 };
    for (unsigned i = 0; i < LETTERS_SPARE_MAX + 2; i++) {
        struct letters letters = { 0 };
        letters_add(&letters, NULL, 0, fn_a, 0, "x", 1);
        letters_recycle(&spare, letters_take(&letters));
        assert_int_equal(spare.count, i < LETTERS_SPARE_MAX ? i + 1 : LETTERS_SPARE_MAX);
    }
    letters_blocks_free(&spare.first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_what_goes_in_comes_out),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_spare_blocks_serve_again),
        cmocka_unit_test(test_spare_blocks_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
