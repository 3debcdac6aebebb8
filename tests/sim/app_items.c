/* Looking at what a node retains: nothing that is not on disk, nothing that was retracted or has expired (docs/protocol.md
 * 3.1), after a crash either. */
#include "core/namespaces.h"
#include "tests/sim/app.h"

unsigned sim_app_expire_s(const struct sim_world *world, unsigned node)
{
    return world->mood.expires && node % 2 == 1 ? 2 * node : 0;
}

static bool known(const struct sim_mood *mood)
{
    return mood->expires;
}

static void write_items(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    (void)client;
    xy_buf_printf(out, "<items node='n%u'/>", pending->node);
}

static void on_items(struct sim_client *client, const struct sim_pending *pending, const struct xy_stanza *iq)
{
    struct sim_model *model = client->world->model;
    struct sim_look look = { .client = client->index,
                             .node = pending->node,
                             .asked_moment = pending->asked_moment,
                             .asked_us = pending->asked_us,
                             .left_moment = client->left_moment };
    const struct xy_elem *pubsub = xy_elem_child(iq->elem, "pubsub", NS_PUBSUB);
    const struct xy_elem *items = pubsub ? xy_elem_child(pubsub, "items", NULL) : NULL;
    for (const struct xy_elem *item = items ? xy_elem_first(items) : NULL; item; item = xy_elem_next(item)) {
        const struct xy_elem *entry = xy_elem_first(item);
        size_t at = 0;
        unsigned token;
        if (entry && sim_token_find(model, xy_elem_text(entry, iq->arena), &at, &token))
            sim_items_seen(model, &look, token);
    }
    if (iq->type == XY_ERROR && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        !sim_app_no_room(client, iq) && model->deleted[pending->node] == 0)
        sim_violation(model, "client %u could not look at node %u", client->index, pending->node);
}

static const struct sim_request items = { .get = true, .write = write_items, .answered = on_items };

static void act(struct sim_client *client)
{
    sim_app_ask_once(client, &items, sim_below(&client->world->random, SIM_NODES_MAX));
}

const struct sim_activity sim_looking = { .weight = 2, .known = known, .act = act };
