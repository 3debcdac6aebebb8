/* Data forms for the command line; see form.h. */
#include "agents/cli/form.h"

#include <stdio.h>

#include "agents/cli/cli.h"
#include "core/namespaces.h"
#include "core/xml/writer.h"

void cli_form_begin(struct xy_buf *out, const char *form_type)
{
    xy_buf_lit(out, "<x xmlns='" NS_DATA_FORM "' type='submit'>");
    xy_buf_lit(out, "<field var='FORM_TYPE' type='hidden'><value>");
    xy_xml_escape(out, xy_str(form_type));
    xy_buf_lit(out, "</value></field>");
}

void cli_form_field(struct xy_buf *out, struct xy_str var, struct xy_str value)
{
    xy_buf_lit(out, "<field");
    xy_xml_attr(out, "var", var);
    xy_buf_lit(out, "><value>");
    xy_xml_escape(out, value);
    xy_buf_lit(out, "</value></field>");
}

void cli_form_end(struct xy_buf *out)
{
    xy_buf_lit(out, "</x>");
}

static const struct xy_elem *find_form(const struct xy_elem *e)
{
    for (const struct xy_elem *child = xy_elem_first(e); child; child = xy_elem_next(child)) {
        if (xy_elem_is(child, "x", NS_DATA_FORM))
            return child;
        const struct xy_elem *deeper = find_form(child);
        if (deeper)
            return deeper;
    }
    return NULL;
}

bool cli_form_find(struct xy_arena *arena, const struct xy_elem *e, struct xy_form *out)
{
    const struct xy_elem *x = e ? find_form(e) : NULL;
    return x && xy_form_read(arena, x, out);
}

void cli_form_print(const struct xy_form *form, bool json)
{
    struct xy_buf out = { 0 };
    if (json)
        xy_buf_char(&out, '{');
    for (const struct xy_form_field *f = form->fields; f; f = f->next) {
        if (json) {
            xy_buf_str(&out, xy_str(f == form->fields ? "" : ","));
            cli_json_string(&out, f->var);
            xy_buf_str(&out, xy_str(f->values_count == 1 ? ":" : ":["));
        } else {
            xy_buf_printf(&out, "%-40.*s", XY_ARG(f->var));
        }
        for (size_t i = 0; i < f->values_count; i++) {
            if (i > 0 || !json)
                xy_buf_char(&out, json ? ',' : ' ');
            if (json)
                cli_json_value(&out, f->values[i]);
            else
                xy_buf_str(&out, f->values[i]);
        }
        xy_buf_str(&out, xy_str(!json ? "\n" : f->values_count == 1 ? "" : "]"));
    }
    if (json)
        xy_buf_lit(&out, "}\n");
    fwrite(out.data, 1, out.len, stdout);
    xy_buf_free(&out);
}
