/* Tables of options: from form fields to struct members and back. Called by everything that reads or shows a node's
 * configuration or a subscription's options. */
#include "broker/pubsub/options.h"

#include <stdlib.h>

#include "core/base/assert.h"
#include "core/namespaces.h"

static void *place(const struct option *option, const void *target)
{
    return (char *)(uintptr_t)target + option->offset;
}

const struct option *option_find(const struct option *table, struct xy_str name)
{
    for (const struct option *option = table; option->name != NULL; option++)
        if (xy_str_is(name, option->name))
            return option;
    return NULL;
}

static enum option_verdict set_bool(const struct option *option, void *target, struct xy_str value)
{
    bool parsed;
    if (!xy_str_bool(value, &parsed) || (parsed && option->type == OPTION_OFF))
        return OPTION_INVALID;
    *(bool *)place(option, target) = parsed;
    return OPTION_ACCEPTED;
}

static enum option_verdict set_count(const struct option *option, void *target, struct xy_str value)
{
    uint64_t parsed;
    if (xy_str_is(value, "max"))
        parsed = OPTION_COUNT_MAX;
    else if (!xy_str_u64(value, &parsed))
        return OPTION_INVALID;
    *(uint64_t *)place(option, target) = parsed;
    return OPTION_ACCEPTED;
}

static enum option_verdict set_choice(const struct option *option, void *target, struct xy_str value)
{
    for (uint8_t i = 0; option->choices[i] != NULL; i++) {
        if (xy_str_is(value, option->choices[i])) {
            *(uint8_t *)place(option, target) = i;
            return OPTION_ACCEPTED;
        }
    }
    return OPTION_INVALID;
}

static enum option_verdict set_text(const struct option *option, void *target, const struct xy_str *values,
                                    size_t count)
{
    struct xy_buf joined = { 0 };
    for (size_t i = 0; i < count; i++) {
        if (i != 0)
            xy_buf_char(&joined, '\n');
        xy_buf_str(&joined, values[i]);
        if (option->type == OPTION_MULTI && memchr(values[i].data, '\n', values[i].len) != NULL) {
            xy_buf_free(&joined);
            return OPTION_INVALID;
        }
    }
    if (joined.len > OPTION_TEXT_MAX) {
        xy_buf_free(&joined);
        return OPTION_INVALID;
    }
    size_t len = joined.len;
    xy_buf_char(&joined, '\0');
    if (xy_buf_failed(&joined)) {
        xy_buf_free(&joined);
        return OPTION_NO_MEMORY;
    }
    struct xy_str *text = place(option, target);
    free((void *)(uintptr_t)text->data);
    *text = xy_str_n(joined.data, len);
    return OPTION_ACCEPTED;
}

enum option_verdict option_set(const struct option *option, void *target, const struct xy_str *values,
                               size_t count)
{
    struct xy_str fallback = xy_str(option->fallback);
    if (count == 0) {
        values = &fallback; /* an empty field asks for the default */
        count = 1;
    }
    if (option->type == OPTION_MULTI || option->type == OPTION_TEXT) {
        if (option->type == OPTION_TEXT && count > 1)
            return OPTION_INVALID;
        return set_text(option, target, values, count);
    }
    if (count != 1)
        return OPTION_INVALID;
    struct xy_str value = xy_str_trim(values[0]);
    switch (option->type) {
    case OPTION_COUNT:
        return set_count(option, target, value);
    case OPTION_LIST:
        return set_choice(option, target, value);
    case OPTION_BOOL:
    case OPTION_OFF:
    case OPTION_TEXT:
    case OPTION_MULTI:
        break;
    }
    return set_bool(option, target, value);
}

static bool is_text(const struct option *option)
{
    return option->type == OPTION_TEXT || option->type == OPTION_MULTI;
}

void options_free(const struct option *table, void *target)
{
    for (const struct option *option = table; option->name != NULL; option++) {
        if (!is_text(option))
            continue;
        struct xy_str *text = place(option, target);
        free((void *)(uintptr_t)text->data);
        *text = XY_STR_NONE;
    }
}

bool options_init(const struct option *table, void *target)
{
    for (const struct option *option = table; option->name != NULL; option++)
        if (is_text(option))
            *(struct xy_str *)place(option, target) = XY_STR_NONE;
    for (const struct option *option = table; option->name != NULL; option++) {
        enum option_verdict verdict = option_set(option, target, NULL, 0);
        xy_assert(verdict == OPTION_ACCEPTED || verdict == OPTION_NO_MEMORY);
        if (verdict == OPTION_NO_MEMORY) {
            options_free(table, target);
            return false;
        }
    }
    return true;
}

bool options_copy(const struct option *table, void *to, const void *from)
{
    if (!options_init(table, to))
        return false;
    for (const struct option *option = table; option->name != NULL; option++) {
        struct xy_buf value = { 0 };
        option_get(option, from, &value);
        struct xy_str text = value.data ? xy_buf_view(&value) : XY_STR("");
        enum option_verdict verdict = OPTION_NO_MEMORY;
        if (!xy_buf_failed(&value)) {
            /* a multi-line value is one text here: taken over as it is */
            verdict = is_text(option)
                          ? set_text(&(struct option){ .type = OPTION_TEXT, .offset = option->offset }, to,
                                     &text, 1)
                          : option_set(option, to, &text, 1);
        }
        xy_buf_free(&value);
        if (verdict != OPTION_ACCEPTED) {
            options_free(table, to);
            return false;
        }
    }
    return true;
}

void option_get(const struct option *option, const void *target, struct xy_buf *out)
{
    const void *at = place(option, target);
    switch (option->type) {
    case OPTION_BOOL:
    case OPTION_OFF:
        xy_buf_char(out, *(const bool *)at ? '1' : '0');
        break;
    case OPTION_COUNT:
        if (*(const uint64_t *)at == OPTION_COUNT_MAX)
            xy_buf_lit(out, "max");
        else
            xy_buf_u64(out, *(const uint64_t *)at);
        break;
    case OPTION_LIST:
        xy_buf_str(out, xy_str(option->choices[*(const uint8_t *)at]));
        break;
    case OPTION_TEXT:
    case OPTION_MULTI:
        xy_buf_str(out, *(const struct xy_str *)at);
        break;
    }
}

bool option_is(const struct option *option, const void *target, struct xy_str value)
{
    bool given;
    if ((option->type == OPTION_BOOL || option->type == OPTION_OFF) && xy_str_bool(value, &given))
        return given == *(const bool *)place(option, target);
    struct xy_buf text = { 0 };
    option_get(option, target, &text);
    bool same = !xy_buf_failed(&text) && xy_str_eq(xy_buf_view(&text), value);
    xy_buf_free(&text);
    return same;
}

enum option_verdict options_read(const struct option *table, void *target, const struct xy_form *form,
                                 struct xy_str *culprit)
{
    for (const struct xy_form_field *field = form->fields; field != NULL; field = field->next) {
        *culprit = field->var;
        const struct option *option = option_find(table, field->var);
        if (option == NULL)
            return OPTION_UNKNOWN;
        enum option_verdict verdict = option_set(option, target, field->values, field->values_count);
        if (verdict != OPTION_ACCEPTED)
            return verdict;
    }
    return OPTION_ACCEPTED;
}

/* --- as forms ------------------------------------------------------------------------------------------------------ */

static const char *const field_types[] = {
    [OPTION_BOOL] = "boolean",     [OPTION_OFF] = "boolean",      [OPTION_COUNT] = "text-single",
    [OPTION_LIST] = "list-single", [OPTION_TEXT] = "text-single", [OPTION_MULTI] = "text-multi",
};

static void add_lines(struct xy_arena *arena, struct xy_elem *field, struct xy_str lines)
{
    while (lines.len > 0) {
        const char *end = memchr(lines.data, '\n', lines.len);
        size_t len = end ? (size_t)(end - lines.data) : lines.len;
        xy_form_add_value(arena, field, xy_str_n(lines.data, len));
        size_t skip = end ? len + 1 : len;
        lines = xy_str_n(lines.data + skip, lines.len - skip);
    }
}

static void add_field(struct xy_arena *arena, struct xy_elem *x, const struct option *option,
                      const void *target, bool fillable)
{
    struct xy_buf text = { 0 };
    option_get(option, target, &text);
    struct xy_str value = xy_arena_str(arena, text.data ? xy_buf_view(&text) : XY_STR(""));
    xy_buf_free(&text);
    bool multi = option->type == OPTION_MULTI;
    struct xy_elem *field =
        xy_form_add(arena, x, xy_str(option->name), fillable ? field_types[option->type] : NULL,
                    fillable ? option->label : NULL, multi ? XY_STR_NONE : value);
    if (multi)
        add_lines(arena, field, value);
    for (size_t i = 0; fillable && option->choices != NULL && option->choices[i] != NULL; i++)
        xy_form_add_option(arena, field, xy_str(option->choices[i]));
}

struct xy_elem *options_form(struct xy_arena *arena, const struct option *table, const void *target,
                             const char *type, const char *form_type)
{
    struct xy_elem *x = xy_form_new(arena, type, form_type);
    bool fillable = strcmp(type, "form") == 0;
    for (const struct option *option = table; option->name != NULL; option++)
        add_field(arena, x, option, target, fillable);
    return x;
}

/* --- as records ---------------------------------------------------------------------------------------------------- */

static Xylem__Store__V1__Option *pack_one(const struct option *option, struct xy_str value,
                                          struct xy_arena *arena)
{
    Xylem__Store__V1__Option *packed = xy_arena_zalloc(arena, sizeof(*packed));
    char **values = xy_arena_zalloc(arena, sizeof(*values));
    struct xy_str copy = xy_arena_str(arena, value);
    if (packed == NULL || values == NULL || copy.data == NULL)
        return NULL;
    xylem__store__v1__option__init(packed);
    packed->name = (char *)(uintptr_t)option->name;
    values[0] = (char *)(uintptr_t)copy.data;
    packed->value = values;
    packed->n_value = 1;
    return packed;
}

size_t options_pack(const struct option *table, const void *target, struct xy_arena *arena,
                    Xylem__Store__V1__Option ***out)
{
    *out = xy_arena_zalloc(arena, OPTIONS_TABLE_MAX * sizeof(**out));
    size_t count = 0;
    for (const struct option *option = table; *out != NULL && option->name != NULL; option++) {
        if (option_is(option, target, xy_str(option->fallback)))
            continue;
        struct xy_buf text = { 0 };
        option_get(option, target, &text);
        (*out)[count] = pack_one(option, text.data ? xy_buf_view(&text) : XY_STR(""), arena);
        xy_buf_free(&text);
        if ((*out)[count] == NULL)
            break;
        count++;
        xy_assert(count < OPTIONS_TABLE_MAX);
    }
    return count;
}

void options_unpack(const struct option *table, void *target, Xylem__Store__V1__Option *const *options,
                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct option *option = option_find(table, xy_str(options[i]->name));
        if (option == NULL || options[i]->n_value != 1)
            continue;
        struct xy_str value = xy_str(options[i]->value[0]);
        if (is_text(option))
            (void)set_text(&(struct option){ .type = OPTION_TEXT, .offset = option->offset }, target, &value,
                           1);
        else
            (void)option_set(option, target, &value, 1);
    }
}
