/* Operations on queues, and what came of them. See queue.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/namespaces.h"
#include "tests/model/check_internal.h"

#define FORM(type)                                                                                           \
    "<x xmlns='" NS_DATA_FORM "' type='submit'><field var='FORM_TYPE'><value>" type "</value></field>"
#define LETTERS_MAX (HEARD_ITEMS_MAX - 4u)

static bool is_planted(const struct check *check, const char *fault)
{
    return check->options->fault != NULL && strcmp(check->options->fault, fault) == 0;
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

static const struct answer *ask(struct check *check, const struct op *op, const char *type,
                                struct xy_buf *payload)
{
    struct peer *peer = &check->peers[op->args[OP_SESSION]];
    peer_ask(peer, type, xy_buf_view(payload));
    xy_buf_free(payload);
    rig_settle(&check->rig);
    if (!peer->answer.came) { /* what it says depends on a record that nobody hurried */
        check_queues_settle(check);
        check_pass(check, LAZY_US);
    }
    if (!peer->answer.came)
        check_complain(check, "no answer came from a queue");
    return &peer->answer;
}

static void compare(struct check *check, const struct answer *answer, enum xy_condition due,
                    enum xy_condition other)
{
    enum xy_condition came = answer->result ? XY_NO_ERROR : answer->condition;
    if (came == due || (other != XY_NO_ERROR && came == other))
        return;
    check_complain(check, "a queue answers %s, not %s",
                   came == XY_NO_ERROR ? "a result" : xy_condition_name(came),
                   due == XY_NO_ERROR ? "a result" : xy_condition_name(due));
}

static const struct answer *ask_state(struct check *check, const struct op *op)
{
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<queue-state xmlns='" NS_XYLEM_DELIVERY "' node='q%d'/>", op->args[1]);
    return ask(check, op, "get", &out);
}

/* --- the operations: each returns false if there is nothing to judge ----------------------------------------------- */

static bool make(struct check *check, const struct op *op)
{
    struct model_queue *queue = &check->model->queues.queue[op->args[1]];
    const char *more = op->args[1] == 0
                           ? "<field var='{urn:xylem:node:0}max_deliver'><value>3</value></field>"
                             "<field var='{urn:xylem:node:0}backoff'><value>0 3</value></field>"
                           : "<field var='{urn:xylem:node:0}max_deliver'><value>2</value></field>"
                             "<field var='{urn:xylem:node:0}dead_letter'><value>d1</value></field>";
    struct xy_buf out = { 0 };
    xy_buf_printf(&out,
                  "<pubsub xmlns='" NS_PUBSUB "'><create node='q%d'/><configure>" FORM(
                      NS_PUBSUB_NODE_CONFIG) "<field var='pubsub#publish_model'><value>open</value></field>"
                                             "<field var='{urn:xylem:node:0}queue'><value>1</value></field>"
                                             "<field var='{urn:xylem:node:0}lock_timeout'><value>%u</value>"
                                             "</field>%s</x></configure></pubsub>",
                  op->args[1], MODEL_LOCK_S, more);
    compare(check, ask(check, op, "set", &out), queue->there ? XY_CONFLICT : XY_NO_ERROR, XY_NO_ERROR);
    if (!queue->there)
        queue->maker = model_account((unsigned)op->args[OP_SESSION]);
    queue->there = true;
    return true;
}

static void write_jid(struct xy_buf *out, const struct op *op, bool bare)
{
    xy_buf_printf(out, "jid='a%u@" RIG_DOMAIN, model_account((unsigned)op->args[OP_SESSION]));
    if (!bare)
        xy_buf_printf(out, "/r%d", op->args[OP_SESSION]);
    xy_buf_char(out, '\'');
}

static bool join(struct check *check, const struct op *op)
{
    unsigned capacity = op->args[2] > 0 ? (unsigned)op->args[2] : 1;
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<pubsub xmlns='" NS_PUBSUB "'><subscribe node='q%d' ", op->args[1]);
    write_jid(&out, op, op->args[3] != 0 && !is_planted(check, "no-bare"));
    xy_buf_printf(&out,
                  "/><options>" FORM(NS_PUBSUB_SUBSCRIBE_OPTIONS) "<field var='pubsub#queue_requests'><value>"
                                                                  "%u</value></field></x></options></pubsub>",
                  capacity);
    const struct answer *answer = ask(check, op, "set", &out);
    compare(check, answer, XY_NO_ERROR, XY_NO_ERROR);
    model_queue_join(check->model, (unsigned)op->args[1],
                     model_sub_index((unsigned)op->args[OP_SESSION], op->args[3] != 0), capacity,
                     answer->subid);
    return true;
}

static bool leave(struct check *check, const struct op *op)
{
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<pubsub xmlns='" NS_PUBSUB "'><unsubscribe node='q%d' ", op->args[1]);
    write_jid(&out, op, op->args[2] != 0);
    xy_buf_lit(&out, "/></pubsub>");
    bool was = model_queue_leave(check->model, (unsigned)op->args[1],
                                 model_sub_index((unsigned)op->args[OP_SESSION], op->args[2] != 0));
    compare(check, ask(check, op, "set", &out), was ? XY_NO_ERROR : XY_UNEXPECTED_REQUEST, XY_NO_ERROR);
    return true;
}

static bool put(struct check *check, const struct op *op)
{
    static const char *const urgencies[] = { "low", "medium", "high" };
    const int *a = op->args;
    struct model_traits traits = { .token = (unsigned)a[3],
                                   .priority = a[5] > 0 ? a[5] - 1 : 1,
                                   .group = a[4],
                                   .delay_s = (unsigned)a[6],
                                   .ttl_s = (unsigned)a[7] };
    struct xy_buf out = { 0 };
    xy_buf_printf(&out,
                  "<pubsub xmlns='" NS_PUBSUB "'><publish node='q%d'><item id='i%d'><e xmlns='urn:e'>t%d</e>"
                  "<headers xmlns='" NS_SHIM "'>",
                  a[1], a[2], a[3]);
    if (a[4] > 0 && !is_planted(check, "no-group"))
        xy_buf_printf(&out, "<header name='Group'>g%d</header>", a[4]);
    if (a[5] > 0)
        xy_buf_printf(&out, "<header name='Urgency'>%s</header>", urgencies[traits.priority]);
    if (a[6] > 0)
        xy_buf_printf(&out, "<header name='Delay'>%d</header>", a[6]);
    if (a[7] > 0 && !is_planted(check, "no-ttl"))
        xy_buf_printf(&out, "<header name='TTL'>%d</header>", a[7]);
    xy_buf_lit(&out, "</headers></item></publish></pubsub>");
    bool fresh =
        model_queue_put(check->model, (unsigned)a[1], (unsigned)a[OP_SESSION], (unsigned)a[2], &traits);
    compare(check, ask(check, op, "set", &out), fresh ? XY_NO_ERROR : XY_CONFLICT, XY_NO_ERROR);
    return true;
}

static void write_item(struct xy_buf *out, const struct op *op, int verb, unsigned id)
{
    xy_buf_printf(out, "<pubsub xmlns='" NS_PUBSUB "'>");
    xy_buf_printf(out,
                  verb == DONE_RETRACT ? "<retract node='q%d'"
                                       : "<unlock xmlns='urn:xmpp:pubsub:queueing:0' node='q%d'",
                  op->args[1]);
    if (verb == DONE_UNLOCK && op->args[5] >= 0)
        xy_buf_printf(out, " delay='%d'", op->args[5]);
    xy_buf_printf(out, "><item id='i%u'/></%s></pubsub>", id, verb == DONE_RETRACT ? "retract" : "unlock");
}

static void write_verdict(struct xy_buf *out, const struct op *op, uint64_t epoch, uint64_t seq,
                          uint64_t subid)
{
    static const char *const verbs[] = {
        [DONE_ACK] = "ack", [DONE_NACK] = "nack", [DONE_TERM] = "term", [DONE_WORKING] = "working"
    };
    xy_buf_printf(out,
                  "<%s xmlns='" NS_XYLEM_DELIVERY "' node='q%d' epoch='%016" PRIx64 "' seq='%" PRIu64
                  "' subid='%016" PRIx64 "'",
                  verbs[op->args[2]], op->args[1], epoch, seq, subid);
    if (op->args[2] == DONE_NACK && op->args[5] >= 0)
        xy_buf_printf(out, " delay='%d'", op->args[5]);
    xy_buf_lit(out, "/>");
}

static bool done(struct check *check, const struct op *op)
{
    const int *a = op->args;
    const struct model_queue *queue = &check->model->queues.queue[a[1]];
    unsigned which = model_queue_job(queue, (unsigned)a[4], a[3] != 0 ? a[OP_SESSION] : -1);
    struct xy_buf out = { 0 };
    if (which == queue->jobs_count)
        return false;
    unsigned worker = model_worker_of(queue, (unsigned)a[OP_SESSION], &queue->jobs[which]);
    bool by_id = a[2] < DONE_ACK;
    if (by_id ? queue->jobs[which].id == UINT32_MAX : worker == MODEL_WORKERS || queue->epoch == 0)
        return false;
    int said = a[2] == DONE_UNLOCK && is_planted(check, "lost-job") ? DONE_RETRACT : a[2];
    if (by_id)
        write_item(&out, op, said, queue->jobs[which].id);
    else
        write_verdict(&out, op, queue->epoch, queue->jobs[which].seq, queue->workers[worker].subid);
    enum xy_condition other, due = model_queue_done(check->model, (unsigned)a[1], (unsigned)a[OP_SESSION],
                                                    worker, a[2], which, a[5], &other);
    compare(check, ask(check, op, "set", &out), due, other);
    return true;
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static bool put_letter(struct model_queue *queue, unsigned at, unsigned token)
{
    for (unsigned i = at; i < queue->letters_count; i++) {
        if (queue->letters[i].token != token)
            continue;
        struct model_traits letter = queue->letters[i];
        queue->letters[i] = queue->letters[at];
        queue->letters[at] = letter;
        return true;
    }
    return false;
}

/* Those that were given up at the same time went there in any order. */
static void compare_letters(struct check *check, const struct op *op)
{
    struct model_queue *queue = &check->model->queues.queue[op->args[1]];
    struct xy_buf out = { 0 };
    if (!queue->letters_made || queue->letters_count > LETTERS_MAX)
        return;
    xy_buf_printf(&out, "<pubsub xmlns='" NS_PUBSUB "'><items node='d%d'/></pubsub>", op->args[1]);
    unsigned before = queue->letters_count;
    const struct answer *answer = ask(check, op, "get", &out);
    if (queue->letters_count != before) { /* one came while the answer was under way: is it among them? */
        check->model->full = true;
        return;
    }
    if (answer->count != queue->letters_count)
        check_complain(check, "%u dead letters of queue %d came, not %u", answer->count, op->args[1],
                       queue->letters_count);
    for (unsigned i = 0; i < answer->count; i++)
        if (!put_letter(queue, i, answer->tokens[i]))
            check_complain(check, "token %u is in the dead letters of queue %d, and did not go there",
                           answer->tokens[i], op->args[1]);
}

static bool is_maker(const struct check *check, const struct op *op)
{
    return check->model->queues.queue[op->args[1]].maker == model_account((unsigned)op->args[OP_SESSION]);
}

/* By a session of its owner. */
static bool look(struct check *check, const struct op *op)
{
    struct model_figures due;
    if (!is_maker(check, op))
        return false;
    model_queue_figures(check->model, (unsigned)op->args[1], &due);
    const struct answer *came = ask_state(check, op);
    const unsigned figures[HEARD_FIGURES] = { due.depth,   due.ready,   due.in_flight,
                                              due.delayed, due.blocked, due.parked };
    for (unsigned i = 0; i < HEARD_FIGURES; i++)
        if (came->figures[i] != figures[i])
            check_complain(check, "queue %d: %s is %u, not %u", op->args[1], heard_figures[i],
                           came->figures[i], figures[i]);
    compare_letters(check, op);
    return true;
}

/* --- what was given up --------------------------------------------------------------------------------------------- */

static void compare_moved(struct check *check, const struct op *op, const struct answer *answer, unsigned due)
{
    compare(check, answer, XY_NO_ERROR, XY_NO_ERROR);
    if (answer->result && answer->moved != due)
        check_complain(check, "%u items of queue %d were put back, not %u", answer->moved, op->args[1], due);
}

static bool drive(struct check *check, const struct op *op)
{
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<redrive xmlns='" NS_XYLEM_DELIVERY "' node='q%d'%s/>", op->args[1],
                  is_planted(check, "short-move") ? " max='1'" : "");
    unsigned due = is_maker(check, op) ? model_queue_redrive(check->model, (unsigned)op->args[1]) : 0;
    const struct answer *answer = ask(check, op, "set", &out);
    if (is_maker(check, op))
        compare_moved(check, op, answer, due);
    else
        compare(check, answer, XY_FORBIDDEN, XY_NO_ERROR);
    return true;
}

static bool move(struct check *check, const struct op *op)
{
    const struct model_queue *queue = &check->model->queues.queue[op->args[1]];
    struct xy_buf out = { 0 };
    if (!queue->letters_made || queue->letters_count > LETTERS_MAX || !is_maker(check, op))
        return false;
    compare_letters(check, op);
    xy_buf_printf(&out, "<move xmlns='" NS_XYLEM_DELIVERY "' node='d%d' to='q%d'%s/>", op->args[1],
                  op->args[1], is_planted(check, "short-move") ? " max='1'" : "");
    unsigned due = model_queue_move(check->model, (unsigned)op->args[1], (unsigned)op->args[OP_SESSION]);
    compare_moved(check, op, ask(check, op, "set", &out), due);
    return true;
}

bool check_queue_op(struct check *check, const struct op *op)
{
    if (check->model->sessions[op->args[OP_SESSION]].state != SESSION_ON)
        return false;
    if (op->kind == OP_QUEUE_MAKE)
        return make(check, op);
    if (!check->model->queues.queue[op->args[1]].there)
        return false;
    (void)ask_state(check, op); /* it is in memory now, and what is due after a restart was done */
    check_queues_settle(check);
    switch (op->kind) {
    case OP_QUEUE_JOIN:
        return join(check, op);
    case OP_QUEUE_LEAVE:
        return leave(check, op);
    case OP_QUEUE_PUT:
        return put(check, op);
    case OP_QUEUE_DONE:
        return done(check, op);
    case OP_QUEUE_DRIVE:
        return drive(check, op);
    case OP_QUEUE_MOVE:
        return move(check, op);
    default:
        return look(check, op);
    }
}

/* --- what came ----------------------------------------------------------------------------------------------------- */

void check_queues_gather(struct check *check)
{
    struct model_queues *queues = &check->model->queues;
    for (unsigned slot = 0; slot < MODEL_SESSIONS; slot++) {
        const struct peer *peer = &check->peers[slot];
        for (; check->sorted[slot] < peer->count; check->sorted[slot]++) {
            const struct heard *heard = &peer->log[check->sorted[slot]];
            if (heard->kind != HEARD_ITEM || heard->node < HEARD_QUEUES ||
                heard->node >= HEARD_QUEUES + MODEL_QUEUES)
                continue;
            if (queues->got_count == MODEL_GOT) {
                check->model->full = true;
                return;
            }
            queues->got[queues->got_count++] = (struct model_got){ .queue = heard->node - HEARD_QUEUES,
                                                                   .slot = slot,
                                                                   .id = heard->id,
                                                                   .token = heard->token,
                                                                   .publisher = heard->publisher,
                                                                   .attempt = heard->attempt,
                                                                   .delayed = heard->delayed,
                                                                   .seq = heard->seq,
                                                                   .subid = heard->subid,
                                                                   .at_us = heard->at_us,
                                                                   .epoch = heard->epoch };
        }
    }
}

void check_queues_settle(struct check *check)
{
    check_queues_gather(check);
    model_queues_settle(check->model);
}

void check_queues_end(struct check *check)
{
    check_queues_settle(check);
    model_queues_end(check->model);
    if (check->model->queues.verdict[0] != '\0')
        check_complain(check, "%s", check->model->queues.verdict);
}
