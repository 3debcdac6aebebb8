/* Publishing, each item under a publish-id that stays the same until it is answered; and retracting. */
#include "core/namespaces.h"
#include "tests/sim/app.h"

static void write_publish(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out,
                  "<publish node='n%u' xmlns:d='" NS_XYLEM_DELIVERY "' d:publish-id='c%u:%u'>"
                  "<item id='i%u'><entry xmlns='urn:example'>",
                  pending->node, client->index, pending->number, pending->token);
    sim_token_write(out, pending->token);
    sim_app_padding(client, out);
    xy_buf_lit(out, "</entry></item></publish>");
    sim_model_sent(client->world->model, pending->token);
}

static void write_retract(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<retract node='n%u'><item id='i%u'/></retract>", pending->node, pending->token);
    sim_model_retracted(client->world->model, pending->token);
}

static void on_published(struct sim_client *client, const struct sim_pending *pending,
                         const struct xy_stanza *iq)
{
    if (iq->type == XY_RESULT) {
        sim_model_told(client->world->model, pending->token, client->left_moment);
        sim_items_published(client->world->model, pending->token, client->world->now_us);
        sim_limits_kept(client->world->model);
    } else if (sim_app_no_room(client, iq))
        sim_model_refused(client->world->model, pending->token);
    else if (sim_app_bounded(client, pending->node, iq))
        sim_limits_refused(client->world->model, pending->token, pending->asked_moment);
    else if (client->world->model->deleted[pending->node] > 0) /* it is gone, or somebody else's by now */
        client->created[pending->node] = false;
    else
        sim_violation(client->world->model, "client %u could not publish item %u", client->index,
                      pending->token);
}

/* It may have been pushed out by newer ones, or be gone since the first time this was asked. */
static void on_retracted(struct sim_client *client, const struct sim_pending *pending,
                         const struct xy_stanza *iq)
{
    if (iq->type == XY_RESULT)
        sim_items_retracted(client->world->model, pending->token, client->left_moment);
    if (iq->type == XY_ERROR && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        client->world->model->deleted[pending->node] == 0)
        sim_violation(client->world->model, "client %u could not retract item %u", client->index,
                      pending->token);
}

static const struct sim_request request_publish = { .write = write_publish, .answered = on_published };
static const struct sim_request request_retract = { .write = write_retract, .answered = on_retracted };

static void publish(struct sim_client *client)
{
    struct sim_world *world = client->world;
    unsigned node = sim_below(&world->random, SIM_NODES_MAX);
    if (!client->publisher || !client->created[node])
        return;
    struct sim_pending *p = sim_app_pending(client, &request_publish, node);
    if (p == NULL)
        return;
    p->token = sim_token_new(world->model, SIM_ITEM, client->index, node, true);
    p->number = ++client->publish_number;
    sim_app_say(client, p);
}

/* One that this client published, if the choice falls on such a one. */
static void retract(struct sim_client *client)
{
    struct sim_world *world = client->world;
    size_t count = world->model->tokens_count;
    unsigned number = count ? sim_below(&world->random, (uint32_t)count) : 0;
    if (!client->publisher || !world->mood.retracts || count == 0 ||
        world->model->tokens[number].kind != SIM_ITEM || !world->model->tokens[number].told ||
        world->model->tokens[number].from != client->index)
        return;
    struct sim_pending *p = sim_app_pending(client, &request_retract, world->model->tokens[number].to);
    if (p == NULL)
        return;
    p->token = number;
    sim_app_say(client, p);
}

const struct sim_activity sim_publishing = { .weight = 9, .act = publish };
const struct sim_activity sim_retracting = { .weight = 1, .act = retract };
