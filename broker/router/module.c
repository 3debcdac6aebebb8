/* The search for who handles an IQ, and what handlers share. Called by the router for every IQ to the server or to an
 * account; the tables together have a dozen rows, so walking them costs less than a hash would. */
#include "broker/router/module.h"

const struct module_iq *module_find(const struct xy_stanza *iq, enum module_scope scope)
{
    const struct xy_elem *child = xy_elem_first(iq->elem);
    for (const struct module *const *module = module_registry; child && *module; module++) {
        for (const struct module_iq *row = (*module)->iq; row && row->type != XY_TYPE_NONE; row++) {
            if (row->type == iq->type && (row->scope & scope) && xy_elem_is(child, row->name, row->ns))
                return row;
        }
    }
    return NULL;
}

struct xy_elem *module_result(struct request *request, const char *name, const char *ns,
                              struct xy_elem **child)
{
    struct xy_elem *result = xy_stanza_result(request->stanza.arena, &request->stanza);
    *child = xy_elem_add(request->stanza.arena, result, name, ns);
    return result;
}
