/* Data forms (XEP-0004): read a submitted form, write a form to fill in. Options keep their Clark-notation names
 * ({namespace}name, XEP-0068) as plain field variables. */
#pragma once

#include "core/xml/elem.h"

#define XY_FORM_FIELDS_MAX 256

struct xy_form_field {
    struct xy_str var;
    struct xy_str type; /* absent allowed */
    struct xy_str *values;
    size_t values_count;
    struct xy_form_field *next;
};

struct xy_form {
    struct xy_str type;           /* form, submit, cancel, result */
    struct xy_str form_type;      /* value of FORM_TYPE, absent if none */
    struct xy_form_field *fields; /* without FORM_TYPE */
};

/* false: not a form, over the limit, a field without var in a submission, or FORM_TYPE twice. */
bool xy_form_read(struct xy_arena *arena, const struct xy_elem *x, struct xy_form *out);
const struct xy_form_field *xy_form_field(const struct xy_form *form, const char *var);
struct xy_str xy_form_value(const struct xy_form *form, const char *var); /* first value; absent if none */

/* Building: <x xmlns='jabber:x:data' type='…'> with a hidden FORM_TYPE when given. */
struct xy_elem *xy_form_new(struct xy_arena *arena, const char *type, const char *form_type);
struct xy_elem *xy_form_add(struct xy_arena *arena, struct xy_elem *x, struct xy_str var, const char *type,
                            const char *label, struct xy_str value); /* value absent: none */
void xy_form_add_value(struct xy_arena *arena, struct xy_elem *field, struct xy_str value);
void xy_form_add_option(struct xy_arena *arena, struct xy_elem *field, struct xy_str value);
