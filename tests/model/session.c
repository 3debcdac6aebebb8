/* Sessions of the model: there, gone, detached, replaced; time; the end of the process. */
#include <string.h>

#include "core/base/assert.h"
#include "tests/model/model.h"

void model_init(struct model *model)
{
    memset(model, 0, sizeof(*model));
    for (unsigned n = 0; n < MODEL_NODES; n++)
        for (unsigned s = 0; s < MODEL_SUBS; s++)
            model->nodes[n].subs[s].holder = -1;
}

static void session_reset(struct model_session *session)
{
    session->state = SESSION_OFF;
    session->available = session->sm = false;
    session->expected_count = 0;
}

/* Whoever held something through it holds it no longer, even if the slot comes back at once. */
void model_ended(struct model *model, unsigned slot)
{
    if (model->sessions[slot].state == SESSION_OFF)
        return;
    session_reset(&model->sessions[slot]);
    model_recheck(model);
}

void model_connected(struct model *model, unsigned slot, bool sm)
{
    struct model_session *session = &model->sessions[slot];
    model_ended(model, slot);
    session->dormant.there = false;
    session->acked = 0;
    session->state = SESSION_ON;
    session->sm = sm;
}

void model_presence(struct model *model, unsigned slot, int priority)
{
    struct model_session *session = &model->sessions[slot];
    bool available = priority != MODEL_UNAVAILABLE;
    if (available && !session->available)
        session->since = ++model->sinces;
    session->available = available;
    session->priority = available ? priority : 0;
    model_recheck(model);
}

void model_dropped(struct model *model, unsigned slot)
{
    struct model_session *session = &model->sessions[slot];
    if (!session->sm) {
        model_ended(model, slot);
        return;
    }
    session->state = SESSION_DETACHED;
    session->expires_us = model->now_us + MODEL_SM_US;
}

/* What it had no room for while it was away is offered again. */
void model_resumed(struct model *model, unsigned slot)
{
    model->sessions[slot].state = SESSION_ON;
    for (unsigned n = 0; n < MODEL_NODES; n++)
        for (unsigned s = 0; s < MODEL_SUBS; s++)
            if (model->nodes[n].subs[s].holder == (int)slot)
                model->nodes[n].subs[s].stalled = false;
}

bool model_may_restore(const struct model *model, unsigned slot)
{
    const struct model_dormant *dormant = &model->sessions[slot].dormant;
    return dormant->there && model->now_us < dormant->expires_us;
}

/* What it was: but for what it has not acknowledged, which is with its owners. */
void model_restored(struct model *model, unsigned slot, uint32_t h)
{
    struct model_session *session = &model->sessions[slot];
    const struct model_dormant was = session->dormant;
    session->dormant.there = false;
    model_acked_before(model, slot, h);
    session->state = SESSION_ON;
    session->sm = true;
    model_presence(model, slot, was.available ? was.priority : MODEL_UNAVAILABLE);
}

static void interrupt(struct model *model, struct model_session *session)
{
    struct model_dormant *dormant = &session->dormant;
    if (session->state != SESSION_OFF)
        *dormant = (struct model_dormant){ .there = session->sm,
                                           .available = session->available,
                                           .detached = session->state == SESSION_DETACHED,
                                           .priority = session->priority,
                                           .expires_us = session->expires_us };
    else if (!model_may_restore(model, (unsigned)(session - model->sessions)))
        dormant->there = false;
    if (!dormant->detached)
        dormant->expires_us = model->now_us + MODEL_SM_US;
    session_reset(session);
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

uint64_t model_deadline_us(const struct model *model)
{
    uint64_t due_us = UINT64_MAX;
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++) {
        const struct model_session *session = &model->sessions[slot];
        if (session->state == SESSION_DETACHED && session->expires_us < due_us)
            due_us = session->expires_us;
    }
    for (unsigned n = 0; n < MODEL_NODES; n++) {
        for (unsigned s = 0; s < MODEL_SUBS; s++) {
            const struct model_sub *sub = &model->nodes[n].subs[s];
            if (!model->nodes[n].there || !sub->there)
                continue;
            uint64_t own_us = sub->one_by_one ? model_one_due(&model->nodes[n], sub)
                                              : model_backlog_due(&model->nodes[n], sub);
            due_us = own_us < due_us ? own_us : due_us;
            if (sub->leaving && sub->leaving_us < due_us)
                due_us = sub->leaving_us;
        }
    }
    return due_us;
}

static uint64_t next_deadline(const struct model *model)
{
    uint64_t queues_us = model_queues_due(model), others_us = model_deadline_us(model);
    return queues_us < others_us ? queues_us : others_us;
}

static void sub_come_due(struct model *model, unsigned n, unsigned s)
{
    struct model_node *node = &model->nodes[n];
    struct model_sub *sub = &node->subs[s];
    if (!node->there || !sub->there)
        return;
    if (sub->one_by_one) {
        model_one_pass(model, node, sub);
        model_settled(model, n, s);
    } else if (model_backlog_due(node, sub) <= model->now_us) {
        model_backlog_skip(model, n, s);
    }
}

void model_pass(struct model *model, uint64_t us)
{
    uint64_t end_us = model->now_us + us, due_us;
    while (!model->full && (due_us = next_deadline(model)) <= end_us) {
        model->now_us = due_us > model->now_us ? due_us : model->now_us;
        for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
            if (model->sessions[slot].state == SESSION_DETACHED &&
                model->sessions[slot].expires_us <= model->now_us)
                model_ended(model, slot);
        for (unsigned n = 0; n < MODEL_NODES; n++)
            for (unsigned s = 0; s < MODEL_SUBS; s++)
                sub_come_due(model, n, s);
        model_recheck(model);
        model_queues_settle(model);
    }
    model->now_us = end_us;
}

static void forget_memory(struct model_node *node)
{
    for (unsigned i = 0; i < node->items_count; i++) {
        node->items[i].retained = false;
        node->items[i].gone = true;
    }
    for (unsigned i = 0; i < node->once_count; i++)
        node->vague |= node->once[i].stored;
    node->once_count = 0;
    node->next_seq = node->stored_seq + 1;
    node->life++;
    node->last_epoch = node->epoch != 0 ? node->epoch : node->last_epoch;
    node->epoch = 0;
}

/* When an item was superseded is known by the one that took its id, while that is there. One by one, whether it comes then
 * depends on how far the cursor is on disk. */
static void forget_superseded(struct model *model, const struct model_node *node, struct model_sub *sub)
{
    unsigned oldest = 0;
    while (oldest < node->items_count && !node->items[oldest].retained)
        oldest++;
    for (unsigned i = 0; i < node->items_count; i++) {
        unsigned next = i + 1;
        while (next < node->items_count &&
               (node->items[next].gone || node->items[next].id != node->items[i].id))
            next++;
        uint64_t by = next < node->items_count ? node->items[next].seq : i < oldest ? 0 : node->next_seq - 1;
        if (!sub->never[i] || (by != 0 && by < sub->born))
            continue;
        sub->never[i] = false;
        model->full |= sub->one_by_one && !node->items[i].gone && node->items[i].seq <= sub->taken;
    }
}

/* What was committed stays. Who had been sent something may have got it. */
void model_restarted(struct model *model)
{
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        interrupt(model, &model->sessions[slot]);
    model_queues_restarted(model);
    for (unsigned n = 0; n < MODEL_NODES; n++) {
        struct model_node *node = &model->nodes[n];
        unsigned kept = 0;
        if (node->durability == MODEL_MEMORY)
            forget_memory(node);
        for (unsigned i = 0; i < node->once_count; i++)
            if (node->once[i].stored)
                node->once[kept++] = node->once[i];
        node->once_count = kept;
        for (unsigned s = 0; s < MODEL_SUBS; s++) {
            struct model_sub *sub = &node->subs[s];
            sub->holder = -1;
            sub->leaving = false;
            sub->sent = sub->cursor;
            forget_superseded(model, node, sub);
            if (sub->one_by_one)
                model_one_restarted(model, node, sub);
            model_gap_lost(sub);
            sub->gap.was_told = false;
            sub->gap.vague = sub->gap.all.last != 0;
            sub->ever_sent = 0;
            sub->maybe_sent = node->there ? node->next_seq - 1 : 0;
        }
    }
}
