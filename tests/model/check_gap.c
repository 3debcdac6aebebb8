/* Waits until what is too much was given up. A broker does that within seconds: the model does it at once, so nothing else
 * may happen meanwhile. See gap.c. */
#include "core/base/buf.h"
#include "core/namespaces.h"
#include "tests/model/check_internal.h"

#define SKIP_US   1200000u
#define SKIPS_MAX 4u /* one may be given up because another was not acknowledged */

static bool is_over(struct check *check, bool over[MODEL_NODES])
{
    bool any = false;
    for (unsigned n = 0; n < MODEL_NODES; n++) {
        over[n] = false;
        for (unsigned s = 0; s < MODEL_SUBS; s++)
            over[n] |= model_backlog_is_over(check->model, n, s);
        any |= over[n];
    }
    return any;
}

/* A node that is not in memory is looked at when somebody asks for it. */
static void ask_for(struct check *check, unsigned node)
{
    unsigned slot = 0;
    struct xy_buf out = { 0 };
    while (slot < MODEL_SESSIONS && check->model->sessions[slot].state != SESSION_ON)
        slot++;
    if (slot == MODEL_SESSIONS) {
        check->model->full = true;
        return;
    }
    xy_buf_printf(&out, "<pubsub xmlns='" NS_PUBSUB "'><items node='n%u' max_items='1'/></pubsub>", node);
    peer_ask(&check->peers[slot], "get", xy_buf_view(&out));
    xy_buf_free(&out);
    rig_settle(&check->rig);
}

void check_backlogs(struct check *check)
{
    struct model *model = check->model;
    bool over[MODEL_NODES];
    for (unsigned i = 0; is_over(check, over); i++) {
        for (unsigned n = 0; n < MODEL_NODES; n++)
            if (over[n])
                ask_for(check, n);
        model->full |= i == SKIPS_MAX || model_deadline_us(model) <= model->now_us + SKIP_US;
        if (model->full)
            return;
        check_pass(check, SKIP_US);
        for (unsigned n = 0; n < MODEL_NODES; n++)
            for (unsigned s = 0; s < MODEL_SUBS; s++)
                if (model_backlog_is_over(model, n, s))
                    model_backlog_skip(model, n, s);
    }
}
