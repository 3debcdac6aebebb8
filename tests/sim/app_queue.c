/* Queue nodes (XEP-0254, docs/protocol.md 9): publishers put jobs in, consumers do them, or not, or not in time. */
#include <stdio.h>
#include <string.h>

#include "core/namespaces.h"
#include "tests/sim/app.h"

#define NS_QUEUE "urn:xmpp:pubsub:queueing:0"

/* --- saying ------------------------------------------------------------------------------------------------------- */

static void write_create(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out,
                  "<create node='q%u'/><configure><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_NODE_CONFIG "</value></field>"
                  "<field var='pubsub#publish_model'><value>open</value></field>"
                  "<field var='{urn:xylem:node:0}queue'><value>1</value></field>"
                  "<field var='{urn:xylem:node:0}lock_timeout'><value>%u</value></field>",
                  pending->node, 1 + client->world->mood.sm_seconds / 3);
    if (pending->node == 1)
        xy_buf_lit(out, "<field var='{urn:xylem:node:0}backoff'><value>0 1 3</value></field>");
    sim_app_write_bounds(client, pending->node, out);
    xy_buf_lit(out, "</x></configure>");
}

/* Some wait: nobody has them before. */
static unsigned delay_s(const struct sim_client *client, unsigned token)
{
    return client->world->mood.delays && token % 4 == 0 ? 1 + token % 3 : 0;
}

static void write_headers(const struct sim_client *client, unsigned token, struct xy_buf *out)
{
    static const char *const urgencies[] = { "low", "medium", "medium", "high" };
    unsigned wait_s = client->world->options.fault == SIM_FAULT_NO_DELAY ? 0 : delay_s(client, token);
    if (token % 3 != 0 && wait_s == 0)
        return;
    xy_buf_lit(out, "<headers xmlns='" NS_SHIM "'>");
    if (token % 3 == 0)
        xy_buf_printf(out, "<header name='Group'>g%u</header><header name='Urgency'>%s</header>", token % 2,
                      urgencies[token / 3 % 4]);
    if (wait_s > 0)
        xy_buf_printf(out, "<header name='Delay'>%u</header>", wait_s);
    xy_buf_lit(out, "</headers>");
}

static void write_publish(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out,
                  "<publish node='q%u' xmlns:d='" NS_XYLEM_DELIVERY "' d:publish-id='j%u:%u'>"
                  "<item id='j%u'><job xmlns='urn:example'>",
                  pending->node, client->index, pending->number, pending->token);
    sim_token_write(out, pending->token);
    sim_app_padding(client, out);
    xy_buf_lit(out, "</job>");
    write_headers(client, pending->token, out);
    xy_buf_lit(out, "</item></publish>");
    sim_model_sent(client->world->model, pending->token);
}

static void write_join(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<subscribe node='q%u'", pending->node);
    sim_app_write_jid(client, out);
    xy_buf_printf(out,
                  "/><options><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_SUBSCRIBE_OPTIONS "</value></field>"
                  "<field var='pubsub#queue_requests'><value>%u</value></field></x></options>",
                  1 + client->index % 4);
}

static void write_done(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<retract node='q%u'><item id='j%u'/></retract>", pending->node, pending->token);
    sim_job_asked(client->world->model, pending->token);
}

static void write_verdict(struct sim_client *client, unsigned token, struct xy_buf *out)
{
    bool planted = client->world->options.fault == SIM_FAULT_LOST_BURIAL;
    xy_buf_printf(out, "<%s xmlns='" NS_XYLEM_DELIVERY "' node='q%u' id='j%u'/>", planted ? "ack" : "term",
                  client->world->model->tokens[token].to, token);
    sim_job_termed(client->world->model, token);
}

static void write_term(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    write_verdict(client, pending->token, out);
}

static void write_unlock(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    (void)client;
    xy_buf_printf(out, "<unlock xmlns='" NS_QUEUE "' node='q%u'><item id='j%u'/></unlock>", pending->node,
                  pending->token);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static void on_created(struct sim_client *client, const struct sim_pending *pending,
                       const struct xy_stanza *iq)
{
    client->queue_created[pending->node] =
        iq->type == XY_RESULT || xy_error_read(iq).condition == XY_CONFLICT;
    if (iq->type == XY_RESULT)
        sim_limits_created(client->world->model, SIM_JOB, pending->node, client->account);
    if (!client->queue_created[pending->node] && !sim_app_no_room(client, iq) &&
        !sim_app_bounded(client, SIM_NODES_MAX, iq))
        sim_violation(client->world->model, "client %u could not create queue %u", client->index,
                      pending->node);
}

/* Where the oldest would make room and cannot, it passes. */
static bool is_full(const struct sim_client *client, unsigned node, const struct xy_stanza *iq)
{
    const struct sim_model *model = client->world->model;
    enum xy_condition condition = model->queue_buries[node] ? XY_RESOURCE_CONSTRAINT : XY_CONFLICT;
    return model->queue_items[node] > 0 && xy_error_read(iq).condition == condition;
}

static void on_published(struct sim_client *client, const struct sim_pending *pending,
                         const struct xy_stanza *iq)
{
    if (iq->type == XY_RESULT) {
        sim_model_told(client->world->model, pending->token, client->left_moment);
        sim_limits_kept(client->world->model);
    } else if (sim_app_no_room(client, iq))
        sim_model_refused(client->world->model, pending->token);
    else if (sim_app_bounded(client, SIM_NODES_MAX, iq))
        sim_limits_refused(client->world->model, pending->token, pending->asked_moment);
    else if (is_full(client, pending->node, iq))
        sim_job_full(client->world->model, pending->token, pending->asked_moment);
    else
        sim_violation(client->world->model, "client %u could not put job %u into queue %u", client->index,
                      pending->token, pending->node);
}

static void on_joined(struct sim_client *client, const struct sim_pending *pending,
                      const struct xy_stanza *iq)
{
    client->queue_joined[pending->node] = iq->type == XY_RESULT;
    if (iq->type != XY_RESULT && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        !sim_app_no_room(client, iq))
        sim_violation(client->world->model, "client %u could not become a consumer of queue %u",
                      client->index, pending->node);
}

/* Its session may have ended, or its lock: then it is somebody else's by now, or comes again. */
static bool is_lost(const struct xy_stanza *iq)
{
    enum xy_condition condition = xy_error_read(iq).condition;
    return condition == XY_CONFLICT || condition == XY_FORBIDDEN || condition == XY_UNEXPECTED_REQUEST;
}

static void on_done(struct sim_client *client, const struct sim_pending *pending, const struct xy_stanza *iq)
{
    struct sim_model *model = client->world->model;
    if (iq->type == XY_RESULT)
        sim_job_done(model, pending->token, client->left_moment, xy_wall_us(&client->world->env));
    else if (xy_error_read(iq).condition == XY_ITEM_NOT_FOUND)
        sim_job_gone(model, pending->token, client->index, client->left_moment,
                     xy_wall_us(&client->world->env));
    else if (!is_lost(iq) && !sim_app_no_room(client, iq))
        sim_violation(model, "client %u could not say that job %u is done", client->index, pending->token);
}

static void on_unlocked(struct sim_client *client, const struct sim_pending *pending,
                        const struct xy_stanza *iq)
{
    if (iq->type == XY_ERROR && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND && !is_lost(iq) &&
        !sim_app_no_room(client, iq))
        sim_violation(client->world->model, "client %u could not give job %u back", client->index,
                      pending->token);
}

static void on_termed(struct sim_client *client, const struct sim_pending *pending,
                      const struct xy_stanza *iq)
{
    if (iq->type == XY_RESULT)
        sim_items_retracted(client->world->model, pending->token, client->left_moment);
    on_unlocked(client, pending, iq);
}

static const struct sim_request create = { .write = write_create, .answered = on_created };
static const struct sim_request publish = { .write = write_publish, .answered = on_published };
static const struct sim_request join = { .write = write_join, .answered = on_joined };
static const struct sim_request done = { .write = write_done, .answered = on_done };
static const struct sim_request unlock = { .write = write_unlock, .answered = on_unlocked };
static const struct sim_request term = { .bare = true, .write = write_term, .answered = on_termed };

/* --- of its own will ---------------------------------------------------------------------------------------------- */

static void act_setup(struct sim_client *client)
{
    for (unsigned node = 0; client->world->mood.queues && node < SIM_QUEUES; node++) {
        if (client->publisher && !client->queue_created[node])
            sim_app_ask_once(client, &create, node);
        if (client->consumer && !client->queue_joined[node])
            sim_app_ask_once(client, &join, node);
    }
}

static void act_publish(struct sim_client *client)
{
    struct sim_world *world = client->world;
    unsigned node = sim_below(&world->random, SIM_QUEUES);
    if (!client->publisher || !client->queue_created[node])
        return;
    struct sim_pending *p = sim_app_pending(client, &publish, node);
    if (p == NULL)
        return;
    p->token = sim_token_new(world->model, SIM_JOB, client->index, node, true);
    p->number = ++client->publish_number;
    if (delay_s(client, p->token) > 0)
        world->model->tokens[p->token].not_before_us =
            world->now_us + delay_s(client, p->token) * UINT64_C(1000000);
    sim_app_say(client, p);
}

/* One of those it has; `request` NULL: it forgets it, and the lock will time out. */
static void settle(struct sim_client *client, size_t which, const struct sim_request *request)
{
    unsigned token, last;
    memcpy(&token, client->jobs.data + which * sizeof(token), sizeof(token));
    struct sim_pending *p = NULL;
    if (request != NULL) {
        p = sim_app_pending(client, request, client->world->model->tokens[token].to);
        if (p == NULL)
            return;
        p->token = token;
    }
    client->jobs.len -= sizeof(token);
    memcpy(&last, client->jobs.data + client->jobs.len, sizeof(last));
    if (which * sizeof(token) < client->jobs.len)
        memcpy(client->jobs.data + which * sizeof(token), &last, sizeof(last));
    if (p != NULL)
        sim_app_say(client, p);
}

/* Elsewhere it would stay in the queue for ever. */
static bool may_term(const struct sim_client *client, size_t which)
{
    const struct sim_model *model = client->world->model;
    unsigned token;
    memcpy(&token, client->jobs.data + which * sizeof(token), sizeof(token));
    return model->queue_buries[model->tokens[token].to];
}

static void say_term(struct sim_client *client, size_t which)
{
    struct xy_buf text = { 0 };
    unsigned token;
    memcpy(&token, client->jobs.data + which * sizeof(token), sizeof(token));
    xy_buf_lit(&text, "<message to='" SIM_SERVICE "'>");
    write_verdict(client, token, &text);
    xy_buf_lit(&text, "</message>");
    sim_client_push(client, xy_buf_view(&text), 0);
    xy_buf_free(&text);
    settle(client, which, NULL);
}

static void act_settle(struct sim_client *client)
{
    struct sim_random *random = &client->world->random;
    uint32_t count = (uint32_t)(client->jobs.len / sizeof(unsigned));
    if (count == 0)
        return;
    uint32_t how = sim_below(random, client->world->mood.burials ? 12 : 10);
    size_t which = sim_below(random, count);
    if (how == 11 && may_term(client, which))
        say_term(client, which);
    else if (how >= 10)
        settle(client, which, may_term(client, which) ? &term : &done);
    else
        settle(client, which, how < 7 ? &done : how < 9 ? &unlock : NULL);
}

static void drain(struct sim_client *client)
{
    if (client->jobs.len > 0)
        settle(client, 0, &done);
}

/* --- hearing ------------------------------------------------------------------------------------------------------ */

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_delivery delivery = { .client = client->index,
                                     .left_moment = client->left_moment,
                                     .bound_moment = client->bound_moment };
    const struct xy_elem *event = xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT);
    const struct xy_elem *items = event ? xy_elem_child(event, "items", NULL) : NULL;
    if (stanza->kind != XY_MESSAGE || stanza->type == XY_ERROR || items == NULL ||
        xy_elem_attr(items, "node").data[0] != 'q')
        return false;
    const struct xy_elem *item = xy_elem_first(items), *job = item ? xy_elem_first(item) : NULL;
    size_t at = 0;
    if (job == NULL ||
        !sim_token_find(client->world->model, xy_elem_text(job, stanza->arena), &at, &delivery.token))
        return true; /* a notice */
    sim_app_read_marks(stanza, &delivery);
    sim_job_delivered(client->world->model, &delivery, client->world->now_us);
    xy_buf_add(&client->jobs, &delivery.token, sizeof(delivery.token));
    return true;
}

static void session_new(struct sim_client *client)
{
    xy_buf_reset(&client->jobs); /* they are somebody else's */
}

const struct sim_activity sim_queue_setup = { .weight = 3, .act = act_setup };
const struct sim_activity sim_queue_publishing = { .weight = 4, .act = act_publish };
const struct sim_activity sim_queue_working = {
    .weight = 5, .act = act_settle, .hear = hear, .session_new = session_new, .drain = drain
};
