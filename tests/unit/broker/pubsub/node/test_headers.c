/* Headers of items: where they stand, and what queues read from them. */
#include "tests/unit/unit.h"

#include "broker/pubsub/node/headers.h"
#include "core/namespaces.h"
#include "core/time.h"

#define NOW_US 1700000000000000ull

static struct xy_arena *arena;

static struct xy_elem *headers_of(const char *name, const char *value)
{
    struct xy_elem *headers = xy_elem_new(arena, XY_STR("headers"), XY_STR(NS_SHIM));
    struct xy_elem *header = xy_elem_add(arena, headers, "header", NS_SHIM);
    xy_elem_set(arena, header, "name", xy_str(name));
    xy_elem_add_text(arena, header, xy_str(value));
    return headers;
}

static bool read(const char *name, const char *value, struct item_traits *traits)
{
    const char *why = NULL;
    bool good = item_traits_read(headers_of(name, value), arena, NOW_US, traits, &why);
    assert_true(good || why != NULL);
    return good;
}

static void they_stand_behind_the_payload(void **state)
{
    (void)state;
    const struct xy_elem *payload, *headers;
    struct xy_elem *item = xy_elem_new(arena, XY_STR("item"), XY_STR(NS_PUBSUB));
    assert_true(item_parts(item, &payload, &headers));
    assert_null(payload);
    assert_null(headers);
    struct xy_elem *job = xy_elem_add(arena, item, "job", "urn:x");
    assert_true(item_parts(item, &payload, &headers));
    assert_ptr_equal(payload, job);
    struct xy_elem *shim = headers_of("Group", "a");
    xy_elem_append(item, shim);
    assert_true(item_parts(item, &payload, &headers));
    assert_ptr_equal(payload, job);
    assert_ptr_equal(headers, shim);
    xy_elem_add(arena, item, "job", "urn:x");
    assert_false(item_parts(item, &payload, &headers));
    item = xy_elem_new(arena, XY_STR("item"), XY_STR(NS_PUBSUB));
    xy_elem_add(arena, item, "job", "urn:x");
    xy_elem_add(arena, item, "job", "urn:x");
    assert_false(item_parts(item, &payload, &headers));
}

static void each_says_its_part(void **state)
{
    (void)state;
    struct item_traits traits;
    assert_true(read("Whatever", "x", &traits));
    assert_true(item_traits_plain(&traits));
    assert_true(read("Urgency", " high ", &traits));
    assert_int_equal(traits.urgency, QUEUE_HIGH);
    assert_true(read("Group", "customer 7", &traits));
    assert_str(traits.group, "customer 7");
    assert_true(read("Delay", "0", &traits));
    assert_true(item_traits_plain(&traits));
    assert_true(read("Delay", "60", &traits));
    assert_int_equal(traits.not_before_us, NOW_US + 60000000);
    assert_true(read("TTL", "1", &traits));
    assert_int_equal(traits.expires_us, NOW_US + 1000000);
    char stamp[XY_TIME_LEN];
    xy_time_format(NOW_US + 5000000, stamp);
    assert_true(read("Deliver-At", stamp, &traits));
    assert_int_equal(traits.not_before_us, NOW_US + 5000000);
    xy_time_format(NOW_US - 5000000, stamp); /* in the past: now */
    assert_true(read("Deliver-At", stamp, &traits));
    assert_true(item_traits_plain(&traits));
}

static void the_later_delay_counts(void **state)
{
    (void)state;
    const char *why;
    char stamp[XY_TIME_LEN];
    struct item_traits traits;
    xy_time_format(NOW_US + 5000000, stamp);
    struct xy_elem *headers = headers_of("Deliver-At", stamp);
    struct xy_elem *second = xy_elem_add(arena, headers, "header", NS_SHIM);
    xy_elem_set(arena, second, "name", XY_STR("Delay"));
    xy_elem_add_text(arena, second, XY_STR("3"));
    assert_true(item_traits_read(headers, arena, NOW_US, &traits, &why));
    assert_int_equal(traits.not_before_us, NOW_US + 5000000);
}

static void what_cannot_be_meant_is_refused(void **state)
{
    (void)state;
    struct item_traits traits;
    char group[HEADER_GROUP_MAX + 2];
    memset(group, 'a', sizeof(group));
    group[HEADER_GROUP_MAX + 1] = '\0';
    assert_false(read("Group", group, &traits));
    group[HEADER_GROUP_MAX] = '\0';
    assert_true(read("Group", group, &traits));
    assert_false(read("Urgency", "urgent", &traits));
    assert_false(read("Delay", "-1", &traits));
    assert_false(read("Delay", "soon", &traits));
    assert_false(read("Delay", "315360001", &traits));
    assert_false(read("Deliver-At", "tomorrow", &traits));
    assert_false(read("Deliver-At", "2999-01-01T00:00:00Z", &traits));
    assert_false(read("TTL", "0", &traits));
    assert_false(read("TTL", "", &traits));
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_stand_behind_the_payload),
        cmocka_unit_test(each_says_its_part),
        cmocka_unit_test(the_later_delay_counts),
        cmocka_unit_test(what_cannot_be_meant_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
