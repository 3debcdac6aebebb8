/* The heap against a sorted walk over everything in it, with objects that are in two heaps at once. */
#include "tests/unit/unit.h"

#include "core/base/heap.h"

#define OBJECTS 300

struct object {
    uint32_t small_place, large_place;
    uint64_t value;
    bool in;
};

static bool is_smaller(const void *left, const void *right)
{
    return ((const struct object *)left)->value < ((const struct object *)right)->value;
}

static bool is_larger(const void *left, const void *right)
{
    return is_smaller(right, left);
}

static void change(struct xy_heap *small, struct xy_heap *large, struct object *object, uint64_t value)
{
    object->value = value;
    if (object->in) {
        xy_heap_moved(small, object);
        xy_heap_moved(large, object);
        return;
    }
    assert_true(xy_heap_push(small, object));
    assert_true(xy_heap_push(large, object));
    object->in = true;
}

static void compare(const struct xy_heap *small, const struct xy_heap *large, const struct object *objects)
{
    uint64_t least = UINT64_MAX, most = 0;
    uint32_t count = 0;
    for (size_t i = 0; i < OBJECTS; i++) {
        if (!objects[i].in)
            continue;
        count++;
        least = objects[i].value < least ? objects[i].value : least;
        most = objects[i].value > most ? objects[i].value : most;
    }
    assert_int_equal(small->count, count);
    assert_int_equal(large->count, count);
    if (count == 0) {
        assert_null(xy_heap_least(small));
        return;
    }
    assert_int_equal(((const struct object *)xy_heap_least(small))->value, least);
    assert_int_equal(((const struct object *)xy_heap_least(large))->value, most);
}

static void agrees_with_a_walk(void **state)
{
    (void)state;
    static struct object objects[OBJECTS];
    struct xy_heap small = XY_HEAP(struct object, small_place, is_smaller);
    struct xy_heap large = XY_HEAP(struct object, large_place, is_larger);
    uint64_t seed = 7;
    for (int step = 0; step < 20000; step++) {
        struct object *object = &objects[unit_below(&seed, OBJECTS)];
        bool grow = (step / 4000) % 2 == 0;
        if (unit_below(&seed, 10) < (grow ? 8u : 3u)) {
            change(&small, &large, object, unit_below(&seed, 1000));
        } else {
            xy_heap_remove(&small, object);
            xy_heap_remove(&large, object);
            object->in = false;
        }
        compare(&small, &large, objects);
    }
    xy_heap_free(&small);
    xy_heap_free(&large);
}

static void reserved_room_is_there(void **state)
{
    (void)state;
    struct object objects[100] = { { 0 } };
    struct xy_heap heap = XY_HEAP(struct object, small_place, is_smaller);
    assert_true(xy_heap_reserve(&heap, 100));
    void **at = heap.at;
    for (size_t i = 0; i < 100; i++)
        assert_true(xy_heap_push(&heap, &objects[i]));
    assert_ptr_equal(heap.at, at);
    xy_heap_remove(&heap, &objects[50]);
    xy_heap_remove(&heap, &objects[50]);
    assert_int_equal(heap.count, 99);
    assert_false(xy_heap_reserve(&heap, (size_t)UINT32_MAX));
    assert_int_equal(heap.count, 99);
    xy_heap_free(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_walk),
        cmocka_unit_test(reserved_room_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
