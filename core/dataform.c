/* Reading and building data forms; see dataform.h. Node and subscription options, commands and discovery use them. */
#include "core/dataform.h"

#include "core/namespaces.h"

static size_t count_values(const struct xy_elem *field)
{
    size_t count = 0;
    for (const struct xy_elem *v = xy_elem_child(field, "value", NS_DATA_FORM); v != NULL;
         v = xy_elem_next_is(v, "value", NS_DATA_FORM))
        count++;
    return count;
}

static struct xy_form_field *read_field(struct xy_arena *arena, const struct xy_elem *e)
{
    struct xy_form_field *field = xy_arena_zalloc(arena, sizeof(*field));
    if (field == NULL)
        return NULL;
    field->var = xy_elem_attr(e, "var");
    field->type = xy_elem_attr(e, "type");
    size_t count = count_values(e);
    if (count == 0)
        return field;
    field->values = xy_arena_alloc(arena, count * sizeof(*field->values));
    if (field->values == NULL)
        return NULL;
    for (const struct xy_elem *v = xy_elem_child(e, "value", NS_DATA_FORM); v != NULL;
         v = xy_elem_next_is(v, "value", NS_DATA_FORM))
        field->values[field->values_count++] = xy_elem_text(v, arena);
    return field;
}

static bool read_fields(struct xy_arena *arena, const struct xy_elem *x, struct xy_form *out)
{
    struct xy_form_field **slot = &out->fields;
    bool submitted = xy_str_is(out->type, "submit"), form_type_seen = false;
    size_t count = 0;
    for (const struct xy_elem *e = xy_elem_child(x, "field", NS_DATA_FORM); e != NULL;
         e = xy_elem_next_is(e, "field", NS_DATA_FORM)) {
        struct xy_form_field *field = ++count <= XY_FORM_FIELDS_MAX ? read_field(arena, e) : NULL;
        if (field == NULL || (submitted && field->var.len == 0))
            return false;
        if (!xy_str_is(field->var, "FORM_TYPE")) {
            *slot = field;
            slot = &field->next;
            continue;
        }
        if (form_type_seen)
            return false;
        form_type_seen = true;
        out->form_type = field->values_count > 0 ? field->values[0] : XY_STR_NONE;
    }
    return !xy_arena_failed(arena);
}

bool xy_form_read(struct xy_arena *arena, const struct xy_elem *x, struct xy_form *out)
{
    static const char *const types[] = { "form", "submit", "cancel", "result" };
    *out = (struct xy_form){ 0 };
    if (!xy_elem_is(x, "x", NS_DATA_FORM))
        return false;
    struct xy_str type = xy_elem_attr(x, "type");
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (xy_str_is(type, types[i]))
            out->type = type;
    }
    if (xy_str_present(out->type) && read_fields(arena, x, out))
        return true;
    *out = (struct xy_form){ 0 };
    return false;
}

const struct xy_form_field *xy_form_field(const struct xy_form *form, const char *var)
{
    const struct xy_form_field *field = form->fields;
    while (field != NULL && !xy_str_is(field->var, var))
        field = field->next;
    return field;
}

struct xy_str xy_form_value(const struct xy_form *form, const char *var)
{
    const struct xy_form_field *field = xy_form_field(form, var);
    return field != NULL && field->values_count > 0 ? field->values[0] : XY_STR_NONE;
}

struct xy_elem *xy_form_new(struct xy_arena *arena, const char *type, const char *form_type)
{
    struct xy_elem *x = xy_elem_new(arena, XY_STR("x"), XY_STR(NS_DATA_FORM));
    xy_elem_set(arena, x, "type", xy_str(type));
    if (form_type != NULL) /* in a submission fields need no type (XEP-0068), but it does no harm */
        xy_form_add(arena, x, XY_STR("FORM_TYPE"), "hidden", NULL, xy_str(form_type));
    return x;
}

struct xy_elem *xy_form_add(struct xy_arena *arena, struct xy_elem *x, struct xy_str var, const char *type,
                            const char *label, struct xy_str value)
{
    struct xy_elem *field = xy_elem_add(arena, x, "field", NS_DATA_FORM);
    xy_elem_set(arena, field, "var", var);
    xy_elem_set(arena, field, "type", xy_str(type));
    xy_elem_set(arena, field, "label", xy_str(label));
    if (xy_str_present(value))
        xy_form_add_value(arena, field, value);
    return field;
}

void xy_form_add_value(struct xy_arena *arena, struct xy_elem *field, struct xy_str value)
{
    xy_elem_add_text(arena, xy_elem_add(arena, field, "value", NS_DATA_FORM), value);
}

void xy_form_add_option(struct xy_arena *arena, struct xy_elem *field, struct xy_str value)
{
    xy_form_add_value(arena, xy_elem_add(arena, field, "option", NS_DATA_FORM), value);
}
