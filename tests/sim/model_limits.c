/* Publishes that are refused because an account has as many items as it may, or because a subscriber is owed as much as it
 * may be (docs/protocol.md 3.2): only then, and not too late. app_limits.c reports. */
#include "tests/sim/model.h"

void sim_limits_created(struct sim_model *model, enum sim_kind kind, unsigned node, unsigned account)
{
    model->node_of[node + (kind == SIM_JOB ? SIM_NODES_MAX : 0)] = account + 1;
}

struct holding {
    unsigned least, most; /* items that a node retains */
};

static unsigned at_most(unsigned count, unsigned max)
{
    return count < max ? count : max;
}

/* What was answered is there, what was sent may be. */
static struct holding items_of(const struct sim_model *model, unsigned node)
{
    struct holding h = { 0 };
    for (size_t i = 0; i < model->tokens_count; i++) {
        const struct sim_token *token = &model->tokens[i];
        if (token->kind != SIM_ITEM || token->to != node)
            continue;
        h.least += token->told;
        h.most += !token->refused;
    }
    h.least = model->steady[node] ? at_most(h.least, SIM_MAX_ITEMS(node)) : 0;
    h.most = model->rejects[node] ? h.most : at_most(h.most, SIM_MAX_ITEMS(node));
    return h;
}

static struct holding jobs_of(const struct sim_model *model, unsigned queue, uint64_t since)
{
    struct holding h = { 0 };
    for (size_t i = 0; i < model->tokens_count; i++) {
        const struct sim_token *token = &model->tokens[i];
        if (token->kind != SIM_JOB || token->to != queue)
            continue;
        h.least += token->told && token->done_asked == 0;
        h.most += sim_job_was_there(token, since);
    }
    return h;
}

/* Since that moment. */
static struct holding holding_of(const struct sim_model *model, unsigned place, uint64_t since)
{
    return place < SIM_NODES_MAX ? items_of(model, place) : jobs_of(model, place - SIM_NODES_MAX, since);
}

void sim_limits_kept(struct sim_model *model)
{
    for (unsigned account = 0; model->account_items > 0 && account < SIM_ACCOUNTS_MAX; account++) {
        unsigned least = 0;
        for (unsigned i = 0; i < SIM_NODES_MAX + SIM_QUEUES; i++)
            least += model->node_of[i] == account + 1 ? holding_of(model, i, model->moment).least : 0;
        if (least > model->account_items)
            sim_violation(model, "the nodes of account %u retain %u items or more, and may %u", account,
                          least, model->account_items);
    }
}

void sim_limits_refused(struct sim_model *model, unsigned number, uint64_t asked_moment)
{
    struct sim_token *token = &model->tokens[number];
    unsigned most = 0;
    token->refused = true;
    model->refused++;
    if (token->kind == SIM_ITEM && model->rejects[token->to])
        return; /* somebody is owed so many bytes, which are not counted here */
    for (unsigned i = 0; i < SIM_NODES_MAX + SIM_QUEUES; i++)
        most += holding_of(model, i, asked_moment).most;
    if (model->account_items == 0 || most < model->account_items)
        sim_violation(model, "token %u was refused, and all nodes together retain %u items at most", number,
                      most);
}
