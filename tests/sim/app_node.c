/* Nodes that are created, purged and deleted. */
#include "core/namespaces.h"
#include "tests/sim/app.h"

static void write_create(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out,
                  "<create node='n%u'/><configure><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_NODE_CONFIG "</value></field>"
                  "<field var='pubsub#publish_model'><value>open</value></field>"
                  "<field var='pubsub#max_items'><value>",
                  pending->node);
    if (client->world->model->rejects[pending->node])
        xy_buf_lit(out, "max</value></field>");
    else
        xy_buf_printf(out, "%u</value></field>", SIM_MAX_ITEMS(pending->node));
    sim_app_write_overflow(client, pending->node, out);
    unsigned expire_s = sim_app_expire_s(client->world, pending->node);
    if (client->world->options.fault == SIM_FAULT_LATE_EXPIRY)
        expire_s *= 10;
    if (expire_s > 0)
        xy_buf_printf(out, "<field var='pubsub#item_expire'><value>%u</value></field>", expire_s);
    xy_buf_lit(out, "</x></configure>");
}

static void write_purge(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<purge node='n%u'/>", pending->node);
    sim_model_purged(client->world->model, pending->node);
}

static void write_delete(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<delete node='n%u'/>", pending->node);
    sim_model_deleted(client->world->model, pending->node);
}

static void on_created(struct sim_client *client, const struct sim_pending *pending,
                       const struct xy_stanza *iq)
{
    bool there = iq->type == XY_RESULT || xy_error_read(iq).condition == XY_CONFLICT;
    client->created[pending->node] = there;
    if (iq->type == XY_RESULT)
        sim_limits_created(client->world->model, SIM_ITEM, pending->node, client->account);
    if (!there && !sim_app_no_room(client, iq) && !sim_app_bounded(client, pending->node, iq))
        sim_violation(client->world->model, "client %u could not create node %u", client->index,
                      pending->node);
}

static void on_purged(struct sim_client *client, const struct sim_pending *pending,
                      const struct xy_stanza *iq)
{
    (void)iq; /* who is not the owner may not */
    sim_model_purged(client->world->model, pending->node);
}

static void on_deleted(struct sim_client *client, const struct sim_pending *pending,
                       const struct xy_stanza *iq)
{
    if (iq->type == XY_RESULT)
        client->created[pending->node] = false;
    sim_model_deleted(client->world->model, pending->node);
}

static const struct sim_request create = { .write = write_create, .answered = on_created };
static const struct sim_request purge = { .owner = true, .write = write_purge, .answered = on_purged };
static const struct sim_request delete = { .owner = true, .write = write_delete, .answered = on_deleted };

static void act_create(struct sim_client *client)
{
    for (unsigned node = 0; client->publisher && node < SIM_NODES_MAX; node++)
        if (!client->created[node])
            sim_app_ask_once(client, &create, node);
}

static void clear(struct sim_client *client, const struct sim_request *request, uint32_t once_in)
{
    struct sim_random *random = &client->world->random;
    unsigned node = sim_below(random, SIM_NODES_MAX);
    if (client->publisher && sim_once_in(random, once_in) && client->created[node])
        sim_app_ask_once(client, request, node);
}

static void act_purge(struct sim_client *client)
{
    if (client->world->mood.retracts)
        clear(client, &purge, 5);
}

static void act_delete(struct sim_client *client)
{
    if (client->world->mood.deletes)
        clear(client, &delete, 10);
}

const struct sim_activity sim_creations = { .weight = 4, .act = act_create };
const struct sim_activity sim_purges = { .weight = 1, .act = act_purge };
const struct sim_activity sim_deletions = { .weight = 1, .act = act_delete };
