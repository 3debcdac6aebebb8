/* Option tables: defaults, every kind of value and its refusals, forms, and what records keep of them. */
#include "tests/unit/unit.h"

#include "broker/pubsub/config.h"
#include "core/namespaces.h"

static enum option_verdict set(struct node_config *config, const char *name, const char *value)
{
    struct xy_str text = xy_str(value);
    const struct option *option = option_find(node_options, xy_str(name));
    assert_non_null(option);
    return option_set(option, config, &text, 1);
}

static void defaults(void **state)
{
    (void)state;
    struct node_config config;
    assert_true(options_init(node_options, &config));
    assert_int_equal(config.access_model, ACCESS_OPEN);
    assert_int_equal(config.publish_model, PUBLISH_BY_PUBLISHERS);
    assert_true(config.persist_items);
    assert_true(config.deliver_payloads);
    assert_int_equal(config.max_items, 20);
    assert_int_equal(config.max_payload_bytes, OPTION_COUNT_MAX);
    assert_str(config.title, "");
    options_free(node_options, &config);
}

static void values_and_refusals(void **state)
{
    (void)state;
    struct node_config config;
    static const struct {
        const char *name, *good, *bad;
    } cases[] = {
        { "pubsub#persist_items", "false", "maybe" },
        { "pubsub#max_items", "max", "-1" },
        { "pubsub#max_items", "18446744073709551614", "many" },
        { "pubsub#access_model", "whitelist", "presence" },
        { "pubsub#publish_model", "open", "" },
        { "pubsub#tempsub", "0", "1" },
        { "{urn:xylem:node:0}durability", "sync", "disk" },
        { "pubsub#notification_type", " normal ", "loud" },
    };
    assert_true(options_init(node_options, &config));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(set(&config, cases[i].name, cases[i].good), OPTION_ACCEPTED);
        assert_int_equal(set(&config, cases[i].name, cases[i].bad), OPTION_INVALID);
    }
    assert_int_equal(config.max_items, UINT64_MAX - 1); /* a refused value changes nothing */
    options_free(node_options, &config);
}

static void text_is_bounded(void **state)
{
    (void)state;
    struct node_config config;
    static char text[OPTION_TEXT_MAX + 2];
    memset(text, 'x', sizeof(text) - 1);
    assert_true(options_init(node_options, &config));
    assert_int_equal(set(&config, "pubsub#title", text), OPTION_INVALID);
    text[OPTION_TEXT_MAX] = '\0';
    assert_int_equal(set(&config, "pubsub#title", text), OPTION_ACCEPTED);
    assert_int_equal(config.title.len, OPTION_TEXT_MAX);
    assert_int_equal(set(&config, "pubsub#contact", "a\nb"), OPTION_INVALID);
    options_free(node_options, &config);
}

static struct xy_form form_of(struct xy_arena *arena, struct xy_elem *x)
{
    struct xy_form form;
    assert_true(xy_form_read(arena, x, &form));
    return form;
}

static void forms_there_and_back(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    struct node_config config, other;
    struct xy_str contacts[] = { XY_STR("a@x"), XY_STR("b@x") }, culprit;
    assert_true(options_init(node_options, &config) && options_init(node_options, &other));
    assert_int_equal(set(&config, "pubsub#title", "Rain & sun"), OPTION_ACCEPTED);
    assert_int_equal(set(&config, "pubsub#access_model", "whitelist"), OPTION_ACCEPTED);
    assert_int_equal(option_set(option_find(node_options, XY_STR("pubsub#contact")), &config, contacts, 2),
                     OPTION_ACCEPTED);
    struct xy_form form =
        form_of(arena, options_form(arena, node_options, &config, "result", NS_PUBSUB_NODE_CONFIG));
    assert_str(form.form_type, NS_PUBSUB_NODE_CONFIG);
    assert_int_equal(xy_form_field(&form, "pubsub#contact")->values_count, 2);
    assert_int_equal(options_read(node_options, &other, &form, &culprit), OPTION_ACCEPTED);
    assert_str(other.title, "Rain & sun");
    assert_str(other.contact, "a@x\nb@x");
    assert_int_equal(other.access_model, ACCESS_WHITELIST);
    options_free(node_options, &config);
    options_free(node_options, &other);
    xy_arena_free(&arena);
}

static void culprits_are_named(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    struct node_config config;
    struct xy_str culprit;
    assert_true(options_init(node_options, &config));
    struct xy_elem *x = xy_form_new(arena, "submit", NS_PUBSUB_NODE_CONFIG);
    (void)xy_form_add(arena, x, XY_STR("pubsub#title"), NULL, NULL, XY_STR("fine"));
    (void)xy_form_add(arena, x, XY_STR("pubsub#children"), NULL, NULL, XY_STR("?"));
    struct xy_form form = form_of(arena, x);
    assert_int_equal(options_read(node_options, &config, &form, &culprit), OPTION_UNKNOWN);
    assert_str(culprit, "pubsub#children");
    options_free(node_options, &config);
    xy_arena_free(&arena);
}

static void records_keep_what_differs(void **state)
{
    (void)state;
    struct xy_arena *arena = xy_arena_new();
    struct node_config config, copy, back;
    Xylem__Store__V1__Option **packed;
    assert_true(options_init(node_options, &config) && options_init(node_options, &back));
    assert_int_equal(options_pack(node_options, &config, arena, &packed), 0);
    assert_int_equal(set(&config, "pubsub#max_items", "7"), OPTION_ACCEPTED);
    assert_int_equal(set(&config, "pubsub#notify_sub", "1"), OPTION_ACCEPTED);
    assert_int_equal(set(&config, "pubsub#contact", "a@x"), OPTION_ACCEPTED);
    assert_true(options_copy(node_options, &copy, &config));
    size_t count = options_pack(node_options, &copy, arena, &packed);
    assert_int_equal(count, 3);
    options_unpack(node_options, &back, packed, count);
    assert_int_equal(back.max_items, 7);
    assert_true(back.notify_sub);
    assert_str(back.contact, "a@x");
    options_free(node_options, &config);
    options_free(node_options, &copy);
    options_free(node_options, &back);
    xy_arena_free(&arena);
}

static void starts(void **state)
{
    (void)state;
    struct start start;
    static const struct {
        const char *text;
        enum start_kind kind;
        uint64_t value;
    } good[] = {
        { "new", START_NEW, 0 },
        { "all", START_ALL, 0 },
        { "last", START_LAST, 0 },
        { "seq:1", START_SEQ, 1 },
        { "time:1970-01-01T00:00:01Z", START_TIME, 1000000 },
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        assert_true(start_parse(xy_str(good[i].text), &start));
        assert_int_equal(start.kind, good[i].kind);
        assert_int_equal(start.value, good[i].value);
    }
    for (const char *const *bad =
             (const char *const[]){ "", "yesterday", "seq:", "seq:0", "seq:-1", "time:", "NEW", NULL };
         *bad != NULL; bad++)
        assert_false(start_parse(xy_str(*bad), &start));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(values_and_refusals),
        cmocka_unit_test(text_is_bounded),
        cmocka_unit_test(forms_there_and_back),
        cmocka_unit_test(culprits_are_named),
        cmocka_unit_test(records_keep_what_differs),
        cmocka_unit_test(starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
