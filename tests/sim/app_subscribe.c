/* Subscribing, unsubscribing, and the events that come. */
#include <stdio.h>

#include "core/base/table.h"
#include "core/namespaces.h"
#include "tests/sim/app.h"

void sim_app_write_jid(struct sim_client *client, struct xy_buf *out)
{
    char name[32];
    xy_buf_lit(out, " jid='");
    xy_buf_str(out, sim_account_name(client->account, name));
    if (!client->bare)
        xy_buf_printf(out, "/r%u", client->index);
    xy_buf_char(out, '\'');
}

static void write_subscribe(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<subscribe node='n%u'", pending->node);
    sim_app_write_jid(client, out);
    xy_buf_printf(out,
                  "/><options><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_SUBSCRIBE_OPTIONS "</value></field>"
                  "<field var='{urn:xylem:delivery:0}mode'><value>%s</value></field>",
                  client->durable ? "at-least-once" : "at-most-once");
    unsigned owed_max = sim_app_owed_max(client, pending->node);
    if (owed_max > 0)
        xy_buf_printf(out, "<field var='{urn:xylem:delivery:0}max_backlog_bytes'><value>%u</value></field>",
                      owed_max);
    if (client->one_by_one)
        xy_buf_printf(out,
                      "<field var='{urn:xylem:delivery:0}ack'><value>%s</value></field>"
                      "<field var='{urn:xylem:delivery:0}ack_wait'><value>%u</value></field>"
                      "<field var='{urn:xylem:delivery:0}max_inflight'><value>%u</value></field>",
                      sim_app_by_receipt(client) ? "receipt" : "explicit",
                      2 + client->world->mood.sm_seconds / 4, 1 + 3 * (client->index % 3));
    if (sim_app_max_deliver(client) > 0)
        xy_buf_printf(out,
                      "<field var='{urn:xylem:delivery:0}max_deliver'><value>%u</value></field>"
                      "<field var='{urn:xylem:delivery:0}dead_letter'><value>d%u</value></field>",
                      sim_app_max_deliver(client), client->account);
    xy_buf_lit(out, "</x></options>");
}

static void write_unsubscribe(struct sim_client *client, const struct sim_pending *pending,
                              struct xy_buf *out)
{
    const char *subid = client->subid[pending->node];
    xy_buf_printf(out, "<unsubscribe node='n%u' subid='%s'", pending->node, subid);
    sim_app_write_jid(client, out);
    xy_buf_lit(out, "/>");
    sim_model_unsubscribed(client->world->model, pending->node, xy_str(subid));
}

static void on_subscribed(struct sim_client *client, const struct sim_pending *pending,
                          const struct xy_stanza *iq)
{
    if (iq->type == XY_ERROR) { /* the node is not there yet; asked again later */
        if (xy_error_read(iq).condition != XY_ITEM_NOT_FOUND && !sim_app_no_room(client, iq))
            sim_violation(client->world->model, "client %u could not subscribe to node %u", client->index,
                          pending->node);
        return;
    }
    const struct xy_elem *pubsub = xy_elem_child(iq->elem, "pubsub", NS_PUBSUB);
    const struct xy_elem *subscription = pubsub ? xy_elem_child(pubsub, "subscription", NULL) : NULL;
    struct xy_str subid = subscription ? xy_elem_attr(subscription, "subid") : XY_STR_NONE;
    client->subscribed[pending->node] = true;
    snprintf(client->subid[pending->node], sizeof(client->subid[0]), "%.*s", XY_ARG(subid));
    if (client->durable && subscription)
        sim_model_subscribed(client->world->model, client->index, pending->node,
                             client->bare || client->one_by_one, subid, pending->asked_moment);
}

/* Asked a second time, it may be over already. */
static void on_unsubscribed(struct sim_client *client, const struct sim_pending *pending,
                            const struct xy_stanza *iq)
{
    enum xy_condition condition = iq->type == XY_ERROR ? xy_error_read(iq).condition : XY_ITEM_NOT_FOUND;
    if (condition != XY_ITEM_NOT_FOUND && condition != XY_UNEXPECTED_REQUEST &&
        condition != XY_NOT_ACCEPTABLE && client->world->model->deleted[pending->node] == 0)
        sim_violation(client->world->model, "client %u could not unsubscribe from node %u", client->index,
                      pending->node);
    client->subscribed[pending->node] = false;
    client->subid[pending->node][0] = '\0';
}

void sim_app_read_marks(const struct xy_stanza *stanza, struct sim_delivery *delivery)
{
    const struct xy_elem *d = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    uint64_t attempt = 1;
    delivery->marked = xy_elem_child(stanza->elem, "delay", NS_DELAY) != NULL;
    if (d == NULL)
        return;
    delivery->claimed = true;
    delivery->subid = xy_elem_attr(d, "subid");
    xy_str_u64(xy_elem_attr(d, "seq"), &delivery->seq);
    xy_str_u64(xy_elem_attr(d, "attempt"), &attempt);
    struct xy_str epoch = xy_elem_attr(d, "epoch");
    delivery->epoch = xy_hash(epoch, 0) | 1;
    delivery->marked |= attempt > 1;
}

static void on_event(struct sim_client *client, const struct xy_stanza *stanza, const struct xy_elem *event,
                     struct sim_delivery *delivery)
{
    const struct xy_elem *items = xy_elem_child(event, "items", NULL);
    const struct xy_elem *gone = xy_elem_child(event, "delete", NULL);
    struct xy_str name = gone ? xy_elem_attr(gone, "node") : XY_STR_NONE;
    if (name.len == 2 && name.data[1] - '0' < (int)SIM_NODES_MAX)
        client->subscribed[name.data[1] - '0'] = false;
    for (const struct xy_elem *item = items ? xy_elem_first(items) : NULL; item; item = xy_elem_next(item)) {
        const struct xy_elem *entry = xy_elem_first(item);
        size_t at = 0;
        if (entry &&
            sim_token_find(client->world->model, xy_elem_text(entry, stanza->arena), &at, &delivery->token))
            sim_model_delivered(client->world->model, delivery);
    }
}

static void on_gap(struct sim_client *client, const struct xy_elem *gap, const struct sim_delivery *delivery)
{
    struct sim_gap told = { 0 };
    struct xy_str name = xy_elem_attr(gap, "node");
    xy_str_u64(xy_elem_attr(gap, "first"), &told.first);
    xy_str_u64(xy_elem_attr(gap, "last"), &told.last);
    if (name.len == 2 && name.data[0] == 'n' && name.data[1] - '0' < (int)SIM_NODES_MAX)
        sim_model_skipped(client->world->model, (unsigned)(name.data[1] - '0'), delivery, told);
}

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_delivery delivery = { .client = client->index,
                                     .left_moment = client->left_moment,
                                     .bound_moment = client->bound_moment,
                                     .one_by_one = client->one_by_one };
    const struct xy_elem *event = xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT);
    const struct xy_elem *gap = xy_elem_child(stanza->elem, "gap", NS_XYLEM_DELIVERY);
    if (stanza->kind != XY_MESSAGE || stanza->type == XY_ERROR || (event == NULL && gap == NULL))
        return false;
    sim_app_read_marks(stanza, &delivery);
    const struct xy_elem *d = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    const struct xy_elem *named = gap ? gap : xy_elem_child(event, "items", NULL);
    struct xy_str name = named ? xy_elem_attr(named, "node") : XY_STR_NONE;
    if (client->one_by_one && d && name.len == 2 && name.data[0] == 'n')
        sim_app_has(client, (unsigned)(name.data[1] - '0'), stanza);
    if (gap)
        on_gap(client, gap, &delivery);
    else
        on_event(client, stanza, event, &delivery);
    return true;
}

static const struct sim_request request_subscribe = { .write = write_subscribe, .answered = on_subscribed };
static const struct sim_request request_unsubscribe = { .write = write_unsubscribe,
                                                        .answered = on_unsubscribed };

static void subscribe(struct sim_client *client)
{
    for (unsigned node = 0; client->subscriber && node < SIM_NODES_MAX; node++)
        if (!client->subscribed[node])
            sim_app_ask_once(client, &request_subscribe, node);
}

static void unsubscribe(struct sim_client *client)
{
    unsigned node = sim_below(&client->world->random, SIM_NODES_MAX);
    if (client->world->mood.retracts && client->subscribed[node] && client->subid[node][0] &&
        !sim_app_is_asked(client, &request_subscribe, node))
        sim_app_ask_once(client, &request_unsubscribe, node);
}

const struct sim_activity sim_subscribing = { .weight = 4, .act = subscribe, .hear = hear };
const struct sim_activity sim_unsubscribing = { .weight = 1, .act = unsubscribe };
