/* What a node retains: what of it may be seen, and what comes again when a subscriber asks for it (docs/protocol.md 1.10,
 * 3.1). app_items.c and app_replay.c report. */
#include <inttypes.h>

#include "tests/sim/model.h"

void sim_items_published(struct sim_model *model, unsigned token, uint64_t now_us)
{
    if (model->tokens[token].told_us == 0)
        model->tokens[token].told_us = now_us;
}

void sim_items_retracted(struct sim_model *model, unsigned token, uint64_t left_moment)
{
    if (model->tokens[token].gone_moment == 0)
        model->tokens[token].gone_moment = left_moment;
}

void sim_items_seen(struct sim_model *model, const struct sim_look *look, unsigned number)
{
    const struct sim_token *token = &model->tokens[number];
    uint64_t expire_us = model->expire_s[look->node] * UINT64_C(1000000);
    model->seen++;
    if (token->kind != SIM_ITEM || token->to != look->node)
        sim_violation(model, "client %u was shown token %u in node %u", look->client, number, look->node);
    sim_model_must_be_durable(model, number, look->left_moment, "shown");
    if (token->gone_moment != 0 && token->gone_moment < look->asked_moment)
        sim_violation(model, "client %u was shown item %u of node %u, which had been retracted", look->client,
                      number, look->node);
    if (expire_us != 0 && token->told_us != 0 && model->deleted[look->node] == 0 &&
        look->asked_us > token->told_us + expire_us)
        sim_violation(model,
                      "client %u asked for the items of node %u %" PRIu64 " us after item %u had expired, "
                      "and was shown it",
                      look->client, look->node, look->asked_us - token->told_us - expire_us, number);
}

/* --- replays ------------------------------------------------------------------------------------------------------ */

struct due { /* an item that comes again */
    size_t subscription;
    unsigned token;
    uint64_t moment; /* not before then */
    bool granted;
};

static void forget_settled(struct sim_subscription *s)
{
    xy_buf_reset(&s->settled);
    xy_buf_reset(&s->settled_us);
}

/* It was acknowledged, or came to where nothing but its order says that it is: what comes before the answer is not it. */
static bool is_past(const struct sim_subscription *s, uint64_t seq)
{
    return sim_number_get(&s->settled, seq) != 0 || (!s->bare && sim_number_get(&s->came, seq) != 0);
}

void sim_replay_asked(struct sim_model *model, unsigned node, struct xy_str subid)
{
    struct sim_subscription *s = sim_subscription_find(model, node, subid);
    if (s == NULL)
        return;
    for (unsigned i = 0; i < model->tokens_count; i++) {
        const struct sim_token *token = &model->tokens[i];
        struct due due = { (size_t)(s - model->subscriptions), i, model->moment, false };
        if (token->kind == SIM_ITEM && token->to == node && token->seq != 0 && token->told_us != 0 &&
            is_past(s, token->seq))
            xy_buf_add(&model->due, &due, sizeof(due));
    }
    forget_settled(s);
    s->replayed_moment = UINT64_MAX;
}

/* As many as may be behind it are fewer than the node keeps. */
static bool is_retained(const struct sim_model *model, const struct sim_token *token)
{
    unsigned behind = 0;
    for (size_t i = 0; i < model->tokens_count; i++) {
        const struct sim_token *other = &model->tokens[i];
        behind += other != token && other->kind == SIM_ITEM && other->to == token->to &&
                  (other->seq == 0 || other->seq > token->seq);
    }
    return behind < SIM_MAX_ITEMS(token->to);
}

static bool is_judged(const struct sim_model *model, const struct sim_subscription *s,
                      const struct sim_token *token)
{
    return !s->ended && !token->retracted && model->deleted[token->to] == 0 &&
           model->expire_s[token->to] == 0 && is_retained(model, token);
}

void sim_replay_answered(struct sim_model *model, unsigned node, struct xy_str subid, bool granted)
{
    struct sim_subscription *s = sim_subscription_find(model, node, subid);
    size_t kept = 0;
    model->replays += granted;
    if (s == NULL)
        return;
    for (size_t at = 0; at < model->due.len; at += sizeof(struct due)) {
        struct due due;
        memcpy(&due, model->due.data + at, sizeof(due));
        bool ours = &model->subscriptions[due.subscription] == s && !due.granted;
        if (ours && !(granted && is_judged(model, s, &model->tokens[due.token])))
            continue;
        due.granted |= ours;
        memcpy(model->due.data + kept, &due, sizeof(due));
        kept += sizeof(due);
    }
    model->due.len = kept;
    forget_settled(s);
    s->replayed_moment = model->moment;
}

/* The items first to last of what was asked for before are not due any more. */
static void forget_due(struct sim_model *model, const struct sim_subscription *s, uint64_t first,
                       uint64_t last, uint64_t moment)
{
    size_t kept = 0;
    for (size_t at = 0; at < model->due.len; at += sizeof(struct due)) {
        struct due due;
        memcpy(&due, model->due.data + at, sizeof(due));
        uint64_t seq = model->tokens[due.token].seq;
        if (&model->subscriptions[due.subscription] == s && seq >= first && seq <= last &&
            due.moment <= moment)
            continue;
        memcpy(model->due.data + kept, &due, sizeof(due));
        kept += sizeof(due);
    }
    model->due.len = kept;
}

void sim_replay_came(struct sim_model *model, const struct sim_subscription *s, const struct sim_delivery *d)
{
    forget_due(model, s, d->seq, d->seq, d->left_moment);
}

void sim_replay_acked(struct sim_model *model, unsigned node, struct xy_str subid, uint64_t seq,
                      bool cumulative)
{
    const struct sim_subscription *s = sim_subscription_find(model, node, subid);
    if (s != NULL)
        forget_due(model, s, cumulative ? 1 : seq, seq, model->moment);
}

bool sim_replays_complete(struct sim_model *model, bool explain)
{
    for (size_t at = 0; at < model->due.len; at += sizeof(struct due)) {
        struct due due;
        memcpy(&due, model->due.data + at, sizeof(due));
        const struct sim_subscription *s = &model->subscriptions[due.subscription];
        const struct sim_token *token = &model->tokens[due.token];
        if (!due.granted || s->ended || token->retracted || model->deleted[token->to] != 0 ||
            s->skipped.len > 0 || sim_number_get(&s->buried, token->seq) != 0)
            continue;
        if (explain)
            sim_violation(model, "item %u of node %u, which client %u asked for once more, did not come",
                          due.token, token->to, s->client);
        return false;
    }
    return true;
}
