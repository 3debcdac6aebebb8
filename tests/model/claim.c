/* At-least-once subscriptions and events, as docs/protocol.md 1.2 - 1.6 has them. */
#include <string.h>

#include "core/base/assert.h"
#include "tests/model/model.h"

/* --- expectations -------------------------------------------------------------------------------------------------- */

static void expect(struct model *model, unsigned slot, struct model_expected expected)
{
    struct model_session *session = &model->sessions[slot];
    if (session->expected_count == MODEL_EXPECTED) {
        model->full = true;
        return;
    }
    session->expected[session->expected_count++] = expected;
}

static struct model_expected of_item(const struct model *model, unsigned node, const struct model_item *item)
{
    return (struct model_expected){ .node = node,
                                    .life = model->nodes[node].life,
                                    .seq = item->seq,
                                    .id = item->id,
                                    .token = item->token,
                                    .publisher = item->publisher };
}

static bool receives(const struct model *model, unsigned slot)
{
    const struct model_session *session = &model->sessions[slot];
    return session->state != SESSION_OFF && session->available;
}

/* --- who holds a subscription -------------------------------------------------------------------------------------- */

static bool reaches(const struct model *model, unsigned sub, unsigned slot)
{
    if (sub >= MODEL_ACCOUNTS)
        return sub - MODEL_ACCOUNTS == slot;
    return model_account(slot) == sub && model->sessions[slot].priority >= 0;
}

static bool may_hold(const struct model *model, unsigned sub, bool one_by_one, int slot)
{
    return slot >= 0 && reaches(model, sub, (unsigned)slot) && receives(model, (unsigned)slot) &&
           (model->sessions[slot].sm || one_by_one);
}

int model_best(const struct model *model, unsigned sub, bool one_by_one)
{
    int found = -1;
    for (int slot = 0; slot < (int)MODEL_SESSIONS; slot++) {
        if (!may_hold(model, sub, one_by_one, slot))
            continue;
        const struct model_session *a = &model->sessions[slot];
        const struct model_session *b = found >= 0 ? &model->sessions[found] : NULL;
        if (b == NULL || a->priority > b->priority || (a->priority == b->priority && a->since > b->since))
            found = slot;
    }
    return found;
}

static bool in_flight(const struct model_node *node, const struct model_sub *sub)
{
    if (sub->one_by_one)
        return model_one_flies(node, sub);
    for (unsigned i = 0; i < node->items_count; i++)
        if (!node->items[i].gone && !sub->never[i] && node->items[i].seq > sub->cursor &&
            node->items[i].seq <= sub->sent)
            return true;
    return false;
}

static enum model_mark mark_of(const struct model_sub *sub, uint64_t seq)
{
    if (seq <= sub->ever_sent)
        return MARK_AGAIN;
    return seq <= sub->maybe_sent ? MARK_EITHER : MARK_FRESH;
}

void model_expect_item(struct model *model, unsigned number, unsigned index, unsigned item,
                       enum model_mark mark)
{
    const struct model_sub *sub = &model->nodes[number].subs[index];
    struct model_expected e = of_item(model, number, &model->nodes[number].items[item]);
    e.claimed = true;
    e.sub = index;
    e.subid = sub->subid;
    e.hold = sub->hold;
    e.mark = mark;
    expect(model, (unsigned)sub->holder, e);
}

void model_expect_gap(struct model *model, unsigned number, unsigned index, enum model_mark mark)
{
    const struct model_sub *sub = &model->nodes[number].subs[index];
    expect(model, (unsigned)sub->holder,
           (struct model_expected){ .gap = true,
                                    .claimed = true,
                                    .node = number,
                                    .life = model->nodes[number].life,
                                    .sub = index,
                                    .subid = sub->subid,
                                    .hold = sub->hold,
                                    .first = sub->gap.all.first,
                                    .seq = sub->gap.all.last,
                                    .age = sub->gap.age,
                                    .mark = mark });
}

/* Everything that is owed and was not sent to this holder yet. */
static void pump(struct model *model, unsigned number, unsigned index)
{
    struct model_node *node = &model->nodes[number];
    struct model_sub *sub = &node->subs[index];
    if (sub->one_by_one)
        model_one_pump(model, number, index);
    if (sub->one_by_one || sub->holder < 0 || sub->leaving || model_gap_waits(sub))
        return;
    for (unsigned i = 0; i < node->items_count; i++) {
        const struct model_item *item = &node->items[i];
        if (item->gone || sub->never[i] || item->seq <= sub->sent)
            continue;
        model_expect_item(model, number, index, i, mark_of(sub, item->seq));
        sub->sent = item->seq;
        if (sub->ever_sent < item->seq)
            sub->ever_sent = item->seq;
    }
}

void model_attach(struct model *model, unsigned number, unsigned index)
{
    struct model_sub *sub = &model->nodes[number].subs[index];
    if (sub->one_by_one)
        model_one_lost(model, &model->nodes[number], sub);
    sub->leaving = false;
    sub->holder = model_best(model, index, sub->one_by_one);
    sub->hold = ++model->holds;
    sub->sent = sub->cursor;
    model_gap_lost(sub);
    model_gap_tell(model, number, index);
    pump(model, number, index);
}

static void sub_recheck(struct model *model, unsigned number, unsigned index)
{
    struct model_node *node = &model->nodes[number];
    struct model_sub *sub = &node->subs[index];
    if (!sub->there || !sub->durable)
        return;
    int wanted = model_best(model, index, sub->one_by_one);
    if (sub->holder < 0 || !may_hold(model, index, sub->one_by_one, sub->holder)) {
        if (sub->holder >= 0 || wanted >= 0)
            model_attach(model, number, index);
    } else if (wanted == sub->holder) {
        sub->leaving = false;
        pump(model, number, index);
    } else if (!sub->leaving && in_flight(node, sub)) {
        sub->leaving = true;
        sub->leaving_us = model->now_us + MODEL_LEAVING_US;
    } else if (!sub->leaving || sub->leaving_us <= model->now_us) {
        model_attach(model, number, index);
    }
}

void model_settled(struct model *model, unsigned number, unsigned index)
{
    struct model_sub *sub = &model->nodes[number].subs[index];
    model_collect(&model->nodes[number]);
    if (sub->leaving && !in_flight(&model->nodes[number], sub))
        model_attach(model, number, index);
    else
        pump(model, number, index);
}

void model_recheck(struct model *model)
{
    for (unsigned n = 0; n < MODEL_NODES; n++)
        for (unsigned s = 0; s < MODEL_SUBS; s++)
            if (model->nodes[n].there)
                sub_recheck(model, n, s);
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

void model_sub_begin(struct model_node *node, struct model_sub *sub, int start, uint64_t number)
{
    uint64_t newest = node->next_seq - 1, oldest = newest;
    for (unsigned i = node->items_count; i-- > 0;)
        if (node->items[i].retained)
            oldest = node->items[i].seq - 1;
    sub->cursor = newest;
    if (start == MODEL_START_ALL)
        sub->cursor = oldest;
    else if (start == MODEL_START_SEQ && number - 1 < newest)
        sub->cursor = number - 1 > oldest ? number - 1 : oldest;
    for (unsigned i = 0; start == MODEL_START_LAST && i < node->items_count; i++)
        if (node->items[i].retained)
            sub->cursor = node->items[i].seq - 1; /* of the newest, which is the last */
    sub->durable = true;
    sub->born = node->next_seq;
    for (unsigned i = 0; i < MODEL_ITEMS; i++)
        sub->never[i] = i < node->items_count && !node->items[i].retained;
    sub->taken = sub->cursor;
    sub->stalled = false;
    memset(sub->one, 0, sizeof(sub->one));
    sub->sent = sub->cursor;
    sub->ever_sent = sub->maybe_sent = 0;
    sub->gap = (struct model_gap){ 0 };
    sub->holder = -1;
    sub->leaving = false;
}

void model_sub_end(struct model *model, struct model_node *node, unsigned sub)
{
    (void)model;
    memset(&node->subs[sub], 0, sizeof(node->subs[sub]));
    node->subs[sub].holder = -1;
    model_collect(node);
}

/* --- events -------------------------------------------------------------------------------------------------------- */

/* One copy, however many subscriptions of the account reach the session. */
static bool hears(const struct model *model, const struct model_node *node, unsigned slot)
{
    const struct model_sub *bare = &node->subs[model_sub_index(slot, true)],
                           *full = &node->subs[model_sub_index(slot, false)];
    bool of_bare = bare->there && !bare->durable && model->sessions[slot].priority >= 0;
    return receives(model, slot) && (of_bare || (full->there && !full->durable));
}

void model_published(struct model *model, unsigned number, unsigned item, bool kept)
{
    struct model_node *node = &model->nodes[number];
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        if (hears(model, node, slot))
            expect(model, slot, of_item(model, number, &node->items[item]));
    for (unsigned s = 0; kept && s < MODEL_SUBS; s++)
        if (node->subs[s].there && node->subs[s].durable)
            pump(model, number, s);
}

void model_told(struct model *model, unsigned slot, unsigned node, char what)
{
    if (model->sessions[slot].state != SESSION_OFF && model->sessions[slot].available)
        expect(model, slot, (struct model_expected){ .notice = true, .node = node, .what = what });
}

void model_notice(struct model *model, unsigned number, char what, unsigned id)
{
    struct model_node *node = &model->nodes[number];
    struct model_expected e = { .notice = true, .node = number, .what = what, .id = id };
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        if (hears(model, node, slot))
            expect(model, slot, e);
    for (unsigned s = 0; s < MODEL_SUBS; s++) { /* whoever receives for a subscription at this moment */
        const struct model_sub *sub = &node->subs[s];
        if (sub->there && sub->durable && sub->holder >= 0 &&
            ((!sub->leaving && !model_gap_waits(sub)) || sub->one_by_one))
            expect(model, (unsigned)sub->holder, e);
    }
}

/* --- acknowledgements ---------------------------------------------------------------------------------------------- */

static void acked(struct model *model, const struct model_expected *e)
{
    struct model_node *node = &model->nodes[e->node];
    struct model_sub *sub = &node->subs[e->sub];
    if (!sub->there || !sub->durable || sub->one_by_one)
        return;
    bool news = e->seq > sub->cursor;
    sub->cursor = news ? e->seq : sub->cursor;
    model_collect(node);
    if (!model_gap_acked(model, e->node, e->sub, e->seq) && news && sub->leaving && !in_flight(node, sub))
        model_attach(model, e->node, e->sub);
}

/* All that is acknowledged at once counts at once: the newest of each subscription says it. */
static bool is_newest(const struct model_session *session, uint32_t i, uint32_t h)
{
    const struct model_expected *e = &session->log[i];
    for (uint32_t k = i + 1; k < h; k++) {
        const struct model_expected *later = &session->log[k];
        if (later->claimed && later->node == e->node && later->sub == e->sub && later->hold == e->hold)
            return false;
    }
    return e->claimed;
}

void model_acked(struct model *model, unsigned slot, uint32_t h)
{
    struct model_session *session = &model->sessions[slot];
    for (uint32_t i = session->acked; i < h; i++) {
        const struct model_expected *e = &session->log[i];
        if (is_newest(session, i, h) && model->nodes[e->node].subs[e->sub].hold == e->hold)
            acked(model, e);
    }
    session->acked = h;
}

static bool still_means(const struct model *model, const struct model_expected *e)
{
    const struct model_node *node = &model->nodes[e->node];
    const struct model_sub *sub = &node->subs[e->sub];
    return e->claimed && node->life == e->life && sub->subid == e->subid && e->hold > sub->first_hold;
}

/* Whoever holds it now: it was received. What was acknowledged when the session held it no longer did not count then; now
 * it may. */
void model_acked_before(struct model *model, unsigned slot, uint32_t h)
{
    struct model_session *session = &model->sessions[slot];
    for (uint32_t i = session->acked; i < h; i++) {
        const struct model_expected *e = &session->log[i];
        if (!is_newest(session, i, h) || !still_means(model, e))
            continue;
        model->full |= model_gap_waits(&model->nodes[e->node].subs[e->sub]); /* who told of which gap? */
        acked(model, e);
    }
    for (uint32_t i = 0; i < session->acked; i++) {
        const struct model_expected *e = &session->log[i];
        const struct model_sub *sub = &model->nodes[e->node].subs[e->sub];
        model->full |=
            still_means(model, e) && !sub->one_by_one && (e->seq > sub->cursor || sub->gap.all.last != 0);
    }
    session->acked = h;
}
