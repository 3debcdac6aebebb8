/* What is owed ends where too much is (docs/protocol.md 1.4, 1.6, 3.2): who is over a bound, what is given up then, and how
 * the subscriber is told of the gap. Of subscriptions acknowledged by XEP-0198. */
#include "core/base/assert.h"
#include "tests/model/model.h"

/* --- the bounds ---------------------------------------------------------------------------------------------------- */

static unsigned oldest_owed(const struct model_node *node, const struct model_sub *sub)
{
    unsigned i = 0;
    while (i < node->items_count && (node->items[i].gone || !model_owes(node, sub, i)))
        i++;
    return i;
}

/* What was published since and is not owed may count as well, or not; and what was not owed when it began may be granted. */
static bool bytes_over(struct model *model, const struct model_node *node, const struct model_sub *sub,
                       unsigned more)
{
    unsigned surely = more, perhaps = more;
    if (sub->max_bytes == 0)
        return false;
    for (unsigned i = oldest_owed(node, sub); i < node->items_count; i++) {
        perhaps += node->items[i].bytes;
        if (!node->items[i].gone && model_owes(node, sub, i))
            surely += node->items[i].bytes;
    }
    bool over = surely > sub->max_bytes + sub->missing_bytes;
    model->full |= !over && perhaps > sub->max_bytes;
    return over;
}

static uint64_t over_us(const struct model_node *node, const struct model_sub *sub)
{
    unsigned i = oldest_owed(node, sub);
    if (sub->max_age_us == 0 || i == node->items_count)
        return UINT64_MAX;
    return node->items[i].time_us + sub->max_age_us + 1;
}

static bool is_bounded(const struct model_sub *sub)
{
    return sub->there && sub->durable && (sub->max_bytes > 0 || sub->max_age_us > 0);
}

static bool is_over(struct model *model, const struct model_node *node, const struct model_sub *sub,
                    unsigned more)
{
    return is_bounded(sub) && (bytes_over(model, node, sub, more) || over_us(node, sub) <= model->now_us);
}

bool model_backlog_refuses(struct model *model, const struct model_node *node, unsigned bytes)
{
    bool any = false;
    for (unsigned s = 0; node->rejects && s < MODEL_SUBS; s++)
        any |= is_over(model, node, &node->subs[s], bytes);
    return any;
}

bool model_backlog_is_over(struct model *model, unsigned number, unsigned index)
{
    const struct model_node *node = &model->nodes[number];
    return node->there && !node->rejects && is_over(model, node, &node->subs[index], 0);
}

uint64_t model_backlog_due(const struct model_node *node, const struct model_sub *sub)
{
    bool seen = sub->holder >= 0; /* else its node need not be in memory, and nobody sees when it happens */
    return is_bounded(sub) && seen && !node->rejects ? over_us(node, sub) : UINT64_MAX;
}

void model_backlog_began(const struct model_node *node, struct model_sub *sub)
{
    sub->missing_bytes = 0;
    for (unsigned i = oldest_owed(node, sub); i < node->items_count; i++)
        sub->missing_bytes += node->items[i].gone || !model_owes(node, sub, i) ? node->items[i].bytes : 0;
}

/* --- giving up ----------------------------------------------------------------------------------------------------- */

static void widen(struct model_range *range, uint64_t first, uint64_t last)
{
    range->first = range->last == 0 || first < range->first ? first : range->first;
    range->last = last > range->last ? last : range->last;
}

static void add(struct model *model, unsigned number, unsigned index, struct model_range given_up, bool age)
{
    struct model_sub *sub = &model->nodes[number].subs[index];
    struct model_gap *gap = &sub->gap;
    if (given_up.last > gap->all.last && gap->told.last == 0) /* another number, another gap */
        gap->was_told = false;
    if (sub->holder < 0)
        gap->vague = true;
    widen(&gap->all, given_up.first, given_up.last);
    gap->age = age;
    if (gap->told.last != 0)
        widen(&gap->since, given_up.first, given_up.last);
    else if (sub->holder >= 0)
        model_attach(model, number, index);
}

void model_backlog_skip(struct model *model, unsigned number, unsigned index)
{
    struct model_node *node = &model->nodes[number];
    struct model_sub *sub = &node->subs[index];
    struct model_range given_up = { 0 };
    bool age = !bytes_over(model, node, sub, 0);
    while (is_over(model, node, sub, 0) && !model->full) {
        uint64_t seq = node->items[oldest_owed(node, sub)].seq;
        widen(&given_up, seq, seq);
        sub->cursor = seq;
    }
    if (given_up.last == 0)
        return;
    add(model, number, index, given_up, age);
    model_settled(model, number, index);
}

/* --- telling ------------------------------------------------------------------------------------------------------- */

void model_gap_tell(struct model *model, unsigned number, unsigned index)
{
    struct model_gap *gap = &model->nodes[number].subs[index].gap;
    bool nobody = model->nodes[number].subs[index].holder < 0;
    gap->told = gap->since = (struct model_range){ 0 };
    gap->vague |= nobody && gap->all.last != 0;
    if (nobody || gap->all.last == 0)
        return;
    model_expect_gap(model, number, index,
                     gap->was_told ? MARK_AGAIN
                     : gap->vague  ? MARK_EITHER
                                   : MARK_FRESH);
    gap->told = gap->all;
    gap->was_told = true;
}

/* Nobody holds it any more: what was given up meanwhile is told together with it, under another number. */
void model_gap_lost(struct model_sub *sub)
{
    struct model_gap *gap = &sub->gap;
    if (gap->since.last > gap->told.last)
        gap->was_told = false;
    gap->told = gap->since = (struct model_range){ 0 };
}

bool model_gap_waits(const struct model_sub *sub)
{
    return sub->gap.since.last != 0;
}

bool model_gap_acked(struct model *model, unsigned number, unsigned index, uint64_t seq)
{
    struct model_gap *gap = &model->nodes[number].subs[index].gap;
    struct model_range since = gap->since;
    if (gap->all.last == 0 || seq < (gap->told.last != 0 ? gap->told.last : gap->all.last))
        return false;
    *gap = (struct model_gap){ .all = since, .age = gap->age };
    if (since.last != 0)
        model_attach(model, number, index);
    return since.last != 0;
}
