/* The intrusive list: order, removal while walking, removal twice. */
#include "tests/unit/unit.h"

#include "core/base/list.h"

struct item {
    int number;
    struct xy_list link;
};

static int digits(const struct xy_list *head)
{
    int sum = 0;
    xy_list_each (entry, head)
        sum = sum * 10 + xy_container_of(entry, struct item, link)->number;
    return sum;
}

static void order_and_removal(void **state)
{
    (void)state;
    struct xy_list head;
    struct item a = { .number = 1 }, b = { .number = 2 }, c = { .number = 3 };
    xy_list_init(&head);
    assert_true(xy_list_empty(&head));
    assert_false(xy_list_linked(&a.link));
    xy_list_append(&head, &b.link);
    xy_list_append(&head, &c.link);
    xy_list_prepend(&head, &a.link);
    assert_int_equal(digits(&head), 123);
    assert_true(xy_list_linked(&a.link));
    xy_list_remove(&b.link);
    assert_int_equal(digits(&head), 13);
    assert_false(xy_list_linked(&b.link));
    xy_list_remove(&b.link);
    xy_list_each (entry, &head)
        xy_list_remove(entry);
    assert_true(xy_list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(order_and_removal) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
