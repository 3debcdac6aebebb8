/* Does an operation, lets the broker settle, and compares: the answer with what the model says, what every session heard
 * with what the model expects it to hear. See check.h. */
#include "tests/model/check_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"
#include "core/namespaces.h"
#include "tests/model/plant.h"
#include "tests/model/say.h"

void check_complain(struct check *check, const char *format, ...)
{
    struct check_result *r = check->result;
    va_list args;
    if (r->failed || check->model->full)
        return;
    r->failed = true;
    va_start(args, format);
    vsnprintf(r->verdict, sizeof(r->verdict), format, args);
    va_end(args);
}

/* --- the broker ---------------------------------------------------------------------------------------------------- */

static bool pump(void *ctx)
{
    struct check *check = ctx;
    bool any = false;
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        any |= peer_pump(&check->peers[slot]);
    return any;
}

static void plant_all(struct check *check)
{
    for (unsigned i = 0; check->options->fault != NULL && i < check->rig.shards; i++)
        plant(rig_shard(&check->rig, i), check->options->fault);
}

static void settle(struct check *check)
{
    rig_settle(&check->rig);
}

void check_pass(struct check *check, uint64_t us)
{
    rig_pass(&check->rig, us);
    check_queues_gather(check);
    model_pass(check->model, us);
}

/* Until what nobody waits for is on disk: with it what sessions sent and were sent, when they have asked what was handled. */
static void pass_until_stored(struct check *check)
{
    const struct model_queues *queues = &check->model->queues;
    unsigned changes;
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        if (check->peers[slot].linked && check->peers[slot].sm)
            peer_ask_ack(&check->peers[slot]);
    settle(check);
    check_pass(check, SENT_US);
    do {
        changes = queues->changes;
        if (changes > 0)
            check_pass(check, MODEL_RECORD_US);
    } while (changes != queues->changes);
}

/* --- comparing ----------------------------------------------------------------------------------------------------- */

static void describe(const struct model_expected *e, char *out, size_t size)
{
    if (e->notice)
        snprintf(out, size, "notice '%c' of node %u", e->what, e->node);
    else if (e->gap)
        snprintf(out, size, "gap %" PRIu64 " to %" PRIu64 " (%s) of node %u, subscription %u", e->first,
                 e->seq, e->age ? "age" : "bytes", e->node, e->sub);
    else if (e->claimed)
        snprintf(out, size, "number %" PRIu64 " (token %u) of node %u, subscription %u", e->seq, e->token,
                 e->node, e->sub);
    else
        snprintf(out, size, "token %u of node %u, at most once", e->token, e->node);
}

static bool same_stream(const struct heard *heard, const struct model_expected *e)
{
    return heard->node == e->node && heard->claimed == e->claimed && heard->subid == e->subid;
}

static void check_epoch(struct check *check, unsigned slot, const struct heard *heard)
{
    struct model_node *node = &check->model->nodes[heard->node];
    if (node->epoch == 0) {
        node->epoch = heard->epoch;
        if (node->epoch == node->last_epoch)
            check_complain(check, "node %u was created anew and kept its epoch", heard->node);
    }
    if (heard->epoch != node->epoch || heard->epoch == 0)
        check_complain(check, "session %u: the epoch of node %u changed", slot, heard->node);
}

static void check_mark(struct check *check, unsigned slot, const struct heard *heard,
                       const struct model_expected *e)
{
    bool again = heard->attempt > 1;
    if (heard->attempt == 0 || (e->mark == MARK_FRESH && again) || (e->mark == MARK_AGAIN && !again))
        check_complain(check, "session %u: number %" PRIu64 " of node %u came as attempt %u, which it is not",
                       slot, heard->seq, heard->node, heard->attempt);
    if (e->gap ? heard->delayed : again && !heard->delayed)
        check_complain(check, "session %u: number %" PRIu64 " of node %u came %s <delay/>", slot, heard->seq,
                       heard->node, e->gap ? "as a gap with" : "again without");
    if (heard->headline)
        check_complain(check, "session %u: an item that is owed came as a headline", slot);
}

static void check_gap(struct check *check, unsigned slot, const struct heard *heard,
                      const struct model_expected *e)
{
    char text[160];
    describe(e, text, sizeof(text));
    if (!e->gap || heard->first != e->first || heard->last != e->seq || heard->seq != e->seq ||
        heard->age != e->age) {
        check_complain(check,
                       "session %u: gap %" PRIu64 " to %" PRIu64 " (%s) of node %u came where %s was due",
                       slot, heard->first, heard->last, heard->age ? "age" : "bytes", heard->node, text);
        return;
    }
    if (e->life == check->model->nodes[e->node].life)
        check_epoch(check, slot, heard);
    check_mark(check, slot, heard, e);
}

static void check_item(struct check *check, unsigned slot, const struct heard *heard,
                       const struct model_expected *e)
{
    char text[160];
    describe(e, text, sizeof(text));
    if (heard->kind == HEARD_NOTICE) {
        if (!e->notice || heard->what != e->what || (e->what == 'r' && heard->id != e->id))
            check_complain(check, "session %u: notice '%c' (item %u) of node %u came where %s was due", slot,
                           heard->what, heard->id, heard->node, text);
        return;
    }
    if (heard->kind == HEARD_GAP) {
        check_gap(check, slot, heard, e);
        return;
    }
    if (e->notice || e->gap || heard->id != e->id || heard->token != e->token ||
        heard->publisher != e->publisher || (e->claimed && heard->seq != e->seq)) {
        check_complain(check,
                       "session %u: number %" PRIu64
                       " (id %u, token %u, publisher %u) of node %u came where %s was due",
                       slot, heard->seq, heard->id, heard->token, heard->publisher, heard->node, text);
        return;
    }
    if (!e->claimed)
        return;
    if (e->life == check->model->nodes[e->node].life)
        check_epoch(check, slot, heard);
    check_mark(check, slot, heard, e);
}

static void forget_expected(struct model_session *session, unsigned i)
{
    memmove(&session->expected[i], &session->expected[i + 1],
            (session->expected_count - i - 1) * sizeof(session->expected[0]));
    session->expected_count--;
}

static void hear(struct check *check, unsigned slot, size_t at)
{
    struct model_session *session = &check->model->sessions[slot];
    const struct heard *heard = &check->peers[slot].log[at];
    if (at >= MODEL_LOG) {
        check->model->full = true;
        return;
    }
    session->log[at] = (struct model_expected){ 0 };
    if (heard->kind == HEARD_OTHER || heard->kind == HEARD_ANSWER ||
        (heard->node >= HEARD_QUEUES && heard->node < HEARD_QUEUES + MODEL_QUEUES))
        return; /* check_queue.c looks at those */
    check->result->events++;
    for (unsigned i = 0; i < session->expected_count; i++) {
        struct model_expected e = session->expected[i];
        if (!same_stream(heard, &e))
            continue;
        check_item(check, slot, heard, &e);
        session->log[at] = e;
        forget_expected(session, i);
        return;
    }
    check_complain(check, "session %u: %s %" PRIu64 " (token %u) of node %u came, and nothing of it was due",
                   slot,
                   heard->kind == HEARD_NOTICE ? "a notice"
                   : heard->kind == HEARD_GAP  ? "a gap up to"
                   : heard->claimed            ? "number"
                                               : "an item",
                   heard->seq, heard->token, heard->node);
}

static void compare_sessions(struct check *check)
{
    for (unsigned slot = 0; slot < MODEL_SESSIONS && !check->result->failed; slot++) {
        struct peer *peer = &check->peers[slot];
        const struct model_session *session = &check->model->sessions[slot];
        char text[160];
        if (peer->trouble[0] != '\0')
            check_complain(check, "%s", peer->trouble);
        while (check->looked[slot] < peer->count && !check->result->failed)
            hear(check, slot, check->looked[slot]++);
        if (session->state == SESSION_ON && session->expected_count > 0) {
            describe(&session->expected[0], text, sizeof(text));
            check_complain(check, "session %u: %s is due and did not come", slot, text);
        }
        if (peer->linked != (session->state == SESSION_ON))
            check_complain(check, "session %u is %s", slot, peer->linked ? "still connected" : "cut off");
    }
}

static void compare_answer(struct check *check, const struct answer *came, const struct model_answer *due)
{
    if (!came->came) {
        check_complain(check, "no answer came");
    } else if (came->result != due->result || (!due->result && came->condition != due->condition)) {
        check_complain(check, "the answer is %s, not %s",
                       came->result ? "a result" : xy_condition_name(came->condition),
                       due->result ? "a result" : xy_condition_name(due->condition));
    } else if (came->result && due->sub != NULL) {
        if (came->subid == 0 || due->sub->subid != came->subid)
            check_complain(check, "the subscription changed its subid");
    }
}

static void compare_items(struct check *check, const struct answer *came, const struct model_answer *due)
{
    if (came->count != due->items_count) {
        check_complain(check, "%u items came, not %u", came->count, due->items_count);
        return;
    }
    for (unsigned i = 0; i < came->count; i++)
        if (came->ids[i] != due->items[i]->id || came->tokens[i] != due->items[i]->token ||
            came->publishers[i] != due->items[i]->publisher)
            check_complain(
                check, "item %u of the answer is id %u, token %u of account %u, not id %u, token %u of %u", i,
                came->ids[i], came->tokens[i], came->publishers[i], due->items[i]->id, due->items[i]->token,
                due->items[i]->publisher);
}

/* --- sessions ------------------------------------------------------------------------------------------------------ */

static void say_presence(struct check *check, unsigned slot, int priority)
{
    char text[80];
    int len = priority == MODEL_UNAVAILABLE
                  ? snprintf(text, sizeof(text), "<presence type='unavailable'/>")
                  : snprintf(text, sizeof(text), "<presence><priority>%d</priority></presence>", priority);
    peer_say(&check->peers[slot], xy_str_n(text, (size_t)len));
    settle(check);
    model_presence(check->model, slot, priority);
}

static bool do_connect(struct check *check, const struct op *op)
{
    unsigned slot = (unsigned)op->args[OP_SESSION];
    struct peer *peer = &check->peers[slot];
    if (peer->linked)
        return false;
    peer_connect(peer, op->args[1] != 0);
    settle(check);
    model_connected(check->model, slot, op->args[1] != 0);
    check->looked[slot] = check->sorted[slot] = 0;
    check_queues_settle(check); /* what the former one had went to others before this one was available */
    if (!peer->ready)
        check_complain(check, "session %u cannot log in", slot);
    else
        say_presence(check, slot, op->args[2]);
    return true;
}

static unsigned answers(const struct heard *heard, size_t count)
{
    unsigned found = 0;
    for (size_t i = 0; i < count; i++)
        found += heard[i].kind == HEARD_ANSWER;
    return found;
}

/* After a restart: what the client's h covers does not come again, and answers that it does not cover do. */
static bool do_restore(struct check *check, unsigned slot, size_t h)
{
    struct peer *peer = &check->peers[slot];
    unsigned due = answers(peer->log + h, peer->count - h);
    uint32_t said = peer->said;
    peer->count = check->looked[slot] = check->sorted[slot] = h;
    peer_resume(peer, (uint32_t)h);
    settle(check);
    if (!peer->ready || !peer->resumed || !peer->restored)
        check_complain(check, "session %u cannot be resumed after the restart", slot);
    else if (peer->handled != said)
        check_complain(check, "session %u: %u stanzas were handled, not %u", slot, peer->handled, said);
    else if (answers(peer->log + h, peer->count - h) < due)
        check_complain(check, "session %u: %u answers did not come again", slot, due);
    model_restored(check->model, slot, (uint32_t)h);
    return true;
}

static bool same_heard(const struct heard *a, const struct heard *b)
{
    return a->kind == b->kind && a->node == b->node && a->seq == b->seq && a->token == b->token &&
           a->what == b->what && a->first == b->first && a->claimed == b->claimed && a->subid == b->subid;
}

/* What the client has forgotten comes again, in the same order. */
static bool do_resume(struct check *check, const struct op *op)
{
    unsigned slot = (unsigned)op->args[OP_SESSION], back = (unsigned)op->args[1];
    struct peer *peer = &check->peers[slot];
    struct model_session *session = &check->model->sessions[slot];
    size_t before = peer->count, h = before - session->acked > back ? before - back : session->acked;
    if (session->state == SESSION_OFF && model_may_restore(check->model, slot))
        return do_restore(check, slot, h);
    if (session->state != SESSION_DETACHED)
        return false;
    struct heard *forgotten = malloc((before - h + 1) * sizeof(*forgotten));
    xy_assert(forgotten != NULL);
    memcpy(forgotten, peer->log + h, (before - h) * sizeof(*forgotten));
    peer->count = h;
    peer_resume(peer, (uint32_t)h);
    settle(check);
    if (!peer->ready || !peer->resumed)
        check_complain(check, "session %u cannot be resumed", slot);
    else if (peer->count < before)
        check_complain(check, "session %u: of %zu stanzas it had forgotten %zu came again", slot, before - h,
                       peer->count - h);
    for (size_t i = h; i < before && !check->result->failed; i++)
        if (!same_heard(&forgotten[i - h], &peer->log[i]))
            check_complain(check, "session %u: stanza %zu is another one after its resumption", slot, i + 1);
    free(forgotten);
    model_resumed(check->model, slot);
    model_acked(check->model, slot, (uint32_t)h);
    model_recheck(check->model);
    return true;
}

static bool do_session(struct check *check, const struct op *op)
{
    unsigned slot = (unsigned)op->args[OP_SESSION];
    struct peer *peer = &check->peers[slot];
    struct model_session *session = &check->model->sessions[slot];
    if (session->state != SESSION_ON)
        return false;
    if (op->kind == OP_CLOSE) {
        peer_close(peer);
        settle(check);
        model_ended(check->model, slot);
    } else if (op->kind == OP_DROP) {
        peer_drop(peer);
        settle(check);
        model_dropped(check->model, slot);
    } else if (op->kind == OP_PRESENCE) {
        say_presence(check, slot, op->args[1]);
    } else if (session->sm && peer->count - session->acked > (size_t)op->args[1]) {
        uint32_t h = (uint32_t)(peer->count - (size_t)op->args[1]);
        peer_ack(peer, h);
        settle(check);
        model_acked(check->model, slot, h);
        model_recheck(check->model);
    } else {
        return false;
    }
    return true;
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

static void forget_peers(struct check *check)
{
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++) {
        peer_drop(&check->peers[slot]);
        if (!check->model->sessions[slot].dormant.there)
            check->looked[slot] = 0;
        check->peers[slot].count = check->sorted[slot] = check->looked[slot]; /* and forgets what came last */
    }
}

static void restart(struct check *check, bool crash, unsigned shards)
{
    if (!crash)
        compare_sessions(check);
    rig_restart(&check->rig, crash, shards);
    plant_all(check);
    model_restarted(check->model);
    forget_peers(check);
    check->result->restarts++;
}

/* false: it would say nothing that can be judged. */
static bool may_ask(struct check *check, const struct op *op)
{
    struct model *model = check->model;
    const struct model_node *node = &model->nodes[op->args[OP_NODE]];
    const struct model_sub *sub =
        &node->subs[model_sub_index((unsigned)op->args[OP_SESSION], op->args[2] != 0)];
    if (op->kind == OP_SUBSCRIBE && op->args[7] != 0 && (op->args[6] != 0 || sub->one_by_one))
        return false;             /* where items are acknowledged one by one, bounds are not modelled */
    if (op->kind == OP_SUBSCRIBE) /* from stream to one by one and back: what is owed then is not modelled */
        return !sub->durable || op->args[3] == 0 || op->args[6] == 0 || sub->one_by_one;
    if (op->kind != OP_SETTLE)
        return true;
    model->seq = model_one_number(node, sub, (unsigned)op->args[4]);
    return node->there && sub->there && node->epoch != 0;
}

static void ask(struct check *check, const struct op *op)
{
    struct peer *peer = &check->peers[op->args[OP_SESSION]];
    const struct model_node *node = &check->model->nodes[op->args[OP_NODE]];
    const struct model_sub *sub =
        &node->subs[model_sub_index((unsigned)op->args[OP_SESSION], op->args[2] != 0)];
    if (op->kind == OP_SETTLE)
        say_settle(peer, op, node->epoch, check->model->seq, sub->subid);
    else
        say_request(peer, op);
}

/* The client would have to send again what was not handled. */
static void forget_session(struct check *check, unsigned slot)
{
    check->model->sessions[slot].dormant.there = false;
    check->peers[slot].count = check->looked[slot] = check->sorted[slot] = 0;
}

/* The power fails before the commit: nothing was promised, so nothing may have been said, and nothing is there. */
static void do_lost(struct check *check, const struct op *op)
{
    struct peer *peer = &check->peers[op->args[OP_SESSION]];
    struct model *imagined = malloc(sizeof(*imagined));
    struct model_answer answer;
    xy_assert(imagined != NULL);
    memcpy(imagined, check->model, sizeof(*imagined));
    bool durable = imagined->nodes[op->args[OP_NODE]]
                       .subs[model_sub_index((unsigned)op->args[OP_SESSION], op->args[2] != 0)]
                       .durable;
    model_request(imagined, op, &answer);
    pass_until_stored(check);
    compare_sessions(check);
    ask(check, op);
    rig_turns(&check->rig);
    if (answer.records && !answer.early && peer->answer.came)
        check_complain(check, "answered before the commit");
    bool room = op->kind == OP_SETTLE || (op->kind == OP_SUBSCRIBE && durable);
    bool heard_of = answer.records && !room; /* what has room now was on disk before */
    for (unsigned slot = 0; heard_of && slot < MODEL_SESSIONS; slot++)
        for (size_t i = check->looked[slot]; i < check->peers[slot].count; i++)
            if (check->peers[slot].log[i].kind == HEARD_ITEM ||
                check->peers[slot].log[i].kind == HEARD_NOTICE)
                check_complain(check, "session %u heard of it before the commit", slot);
    restart(check, true, check->rig.shards);
    forget_session(check, (unsigned)op->args[OP_SESSION]);
    free(imagined);
}

static bool do_request(struct check *check, const struct op *op)
{
    struct model_answer *due;
    struct peer *peer = &check->peers[op->args[OP_SESSION]];
    if (check->model->sessions[op->args[OP_SESSION]].state != SESSION_ON || !may_ask(check, op))
        return false;
    if (op->lost) {
        do_lost(check, op);
        return true;
    }
    due = malloc(sizeof(*due));
    xy_assert(due != NULL);
    ask(check, op);
    settle(check);
    check->model->subid = peer->answer.subid;
    model_request(check->model, op, due);
    if (!peer->answer.came) /* what it says depends on a record that nobody hurried */
        check_pass(check, LAZY_US);
    compare_answer(check, &peer->answer, due);
    if (op->kind == OP_ITEMS && due->result && peer->answer.result)
        compare_items(check, &peer->answer, due);
    free(due);
    return true;
}

/* --- a sequence ---------------------------------------------------------------------------------------------------- */

static bool do_op(struct check *check, const struct op *op)
{
    switch (op->kind) {
    case OP_CONNECT:
        return do_connect(check, op);
    case OP_RESUME:
        return do_resume(check, op);
    case OP_CLOSE:
    case OP_DROP:
    case OP_PRESENCE:
    case OP_ACK:
        return do_session(check, op);
    case OP_TIME:
        check_pass(check, (uint64_t)op->args[0] * 1000);
        return true;
    case OP_CRASH:
    case OP_STOP:
        pass_until_stored(check);
        compare_sessions(check);
        restart(check, op->kind == OP_CRASH, op->args[0] > 0 ? (unsigned)op->args[0] : 1);
        return true;
    case OP_CHECKPOINT:
        rig_checkpoint(&check->rig);
        return true;
    case OP_QUEUE_MAKE:
    case OP_QUEUE_JOIN:
    case OP_QUEUE_LEAVE:
    case OP_QUEUE_PUT:
    case OP_QUEUE_DONE:
    case OP_QUEUE_LOOK:
    case OP_QUEUE_DRIVE:
    case OP_QUEUE_MOVE:
        return check_queue_op(check, op);
    default:
        return do_request(check, op);
    }
}

static void begin(struct check *check, const struct check_options *options, struct check_result *result)
{
    memset(result, 0, sizeof(*result));
    check->options = options;
    check->result = result;
    check->model = malloc(sizeof(*check->model));
    xy_assert(check->model != NULL);
    model_init(check->model);
    rig_open(&check->rig, options->seed, options->shards);
    check->rig.pump = pump;
    check->rig.ctx = check;
    check->model->now_us = check->rig.now_us;
    plant_all(check);
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        peer_init(&check->peers[slot], &check->rig, slot);
}

void check_run(const struct check_options *options, const struct op *ops, unsigned count,
               struct check_result *result)
{
    struct check *check = calloc(1, sizeof(*check));
    xy_assert(check != NULL);
    begin(check, options, result);
    for (unsigned i = 0; i < count && !result->failed && !check->model->full; i++) {
        if (options->trace) {
            char text[160];
            op_print(&ops[i], text, sizeof(text));
            printf("%u %s\n", i + 1, text);
        }
        result->effective += do_op(check, &ops[i]);
        check_queues_end(check);
        check_backlogs(check);
        check_pass(check, 1); /* no two deadlines are the same */
        compare_sessions(check);
        if (check->rig.failed)
            check_complain(check, "the store failed");
        xy_assert(check->model->now_us == check->rig.now_us);
        result->done = i + 1;
    }
    rig_close(&check->rig);
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++)
        peer_free(&check->peers[slot]);
    free(check->model);
    free(check);
}
