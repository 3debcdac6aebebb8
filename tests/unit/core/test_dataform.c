/* Data forms: what is read of a submission, what is refused, what is built. */
#include "tests/unit/unit.h"

#include "core/dataform.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

static struct xy_arena *arena;

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

static void building_and_reading(void **state)
{
    (void)state;
    struct xy_elem *x = xy_form_new(arena, "submit", "urn:form");
    xy_form_add(arena, x, XY_STR("{urn:xylem:node:0}durability"), "list-single", "Durability",
                XY_STR("sync"));
    struct xy_elem *many = xy_form_add(arena, x, XY_STR("many"), "text-multi", NULL, XY_STR_NONE);
    xy_form_add_value(arena, many, XY_STR("one"));
    xy_form_add_value(arena, many, XY_STR(""));
    xy_form_add_value(arena, many, XY_STR("three"));
    xy_form_add_option(arena, many, XY_STR("not a value"));
    xy_form_add(arena, x, XY_STR("none"), NULL, NULL, XY_STR_NONE);
    struct xy_buf out = { 0 };
    xy_xml_write(&out, x, XY_STR_NONE);
    assert_str(xy_buf_view(&out),
               "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' "
               "type='hidden'><value>urn:form</value></field>"
               "<field var='{urn:xylem:node:0}durability' type='list-single' "
               "label='Durability'><value>sync</value></field>"
               "<field var='many' type='text-multi'><value>one</value><value/><value>three</value>"
               "<option><value>not a value</value></option></field><field var='none'/></x>");
    xy_buf_free(&out);

    struct xy_form form;
    assert_true(xy_form_read(arena, x, &form));
    assert_str(form.type, "submit");
    assert_str(form.form_type, "urn:form");
    assert_null(xy_form_field(&form, "FORM_TYPE"));
    assert_str(xy_form_value(&form, "{urn:xylem:node:0}durability"), "sync");
    const struct xy_form_field *field = xy_form_field(&form, "many");
    assert_int_equal(field->values_count, 3);
    assert_str(field->values[1], "");
    assert_str(field->values[2], "three");
    assert_str(field->type, "text-multi");
    assert_non_null(xy_form_field(&form, "none"));
    assert_absent(xy_form_field(&form, "none")->type);
    assert_absent(xy_form_value(&form, "none"));
    assert_absent(xy_form_value(&form, "unknown"));
    assert_null(xy_form_field(&form, "unknown"));
}

static void refusals(void **state)
{
    (void)state;
    struct xy_form form;
    assert_false(xy_form_read(arena, NULL, &form));
    assert_false(xy_form_read(arena, xy_elem_new(arena, XY_STR("x"), XY_STR("urn:x")), &form));
    assert_false(xy_form_read(arena, xy_form_new(arena, NULL, NULL), &form));
    assert_false(xy_form_read(arena, xy_form_new(arena, "other", NULL), &form));
    const char *types[] = { "form", "cancel", "result", "submit" };
    for (size_t i = 0; i < 4; i++) { /* a field without var is text to show, but nothing to submit */
        struct xy_elem *x = xy_form_new(arena, types[i], NULL);
        assert_true(xy_form_read(arena, x, &form));
        assert_absent(form.form_type);
        xy_form_add(arena, x, XY_STR_NONE, "fixed", NULL, XY_STR("hello"));
        assert_int_equal(xy_form_read(arena, x, &form), i != 3);
    }
    struct xy_elem *twice = xy_form_new(arena, "submit", "a");
    xy_form_add(arena, twice, XY_STR("FORM_TYPE"), "hidden", NULL, XY_STR("b"));
    assert_false(xy_form_read(arena, twice, &form));
    assert_absent(form.type);
    assert_null(form.fields);
}

static void number_of_fields(void **state)
{
    (void)state;
    struct xy_form form;
    struct xy_elem *x = xy_form_new(arena, "submit", NULL);
    for (size_t i = 1; i <= XY_FORM_FIELDS_MAX + 1; i++) {
        xy_form_add(arena, x, xy_arena_printf(arena, "f%zu", i), NULL, NULL, XY_STR("v"));
        if (i >= XY_FORM_FIELDS_MAX - 1)
            assert_int_equal(xy_form_read(arena, x, &form), i <= XY_FORM_FIELDS_MAX);
    }
}

int main(void)
{
#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = { test(building_and_reading), test(refusals), test(number_of_fields) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
