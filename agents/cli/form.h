/* Data forms in requests and answers, as the commands for nodes, users and figures need them. */
#pragma once

#include "core/base/buf.h"
#include "core/dataform.h"

/* Fields of a submitted form, one by one between begin and end. */
void cli_form_begin(struct xy_buf *out, const char *form_type);
void cli_form_field(struct xy_buf *out, struct xy_str var, struct xy_str value);
void cli_form_end(struct xy_buf *out);

/* The form anywhere below `e`; false: there is none, or it is malformed. */
bool cli_form_find(struct xy_arena *arena, const struct xy_elem *e, struct xy_form *out);
/* NAME VALUE lines, or one JSON object. */
void cli_form_print(const struct xy_form *form, bool json);
