/* Worlds in which an account may have a few items only, or a node refuses what a subscriber could not be owed
 * (docs/protocol.md 3.2). Publishers do not come back with what was refused. */
#include "tests/sim/app.h"

#define ITEMS_MAX 5u                   /* per account */
#define REJECTS   (SIM_NODES_MAX - 1u) /* the node */

void sim_app_limits(struct sim_world *world)
{
    struct sim_model *model = world->model;
    const struct sim_mood *mood = &world->mood;
    model->account_items = mood->quotas ? ITEMS_MAX : 0;
    model->rejects[REJECTS] = mood->rejects;
    for (unsigned node = 0; node < SIM_NODES_MAX; node++)
        model->steady[node] = !mood->retracts && !mood->deletes && model->expire_s[node] == 0;
}

unsigned sim_app_account_items(const struct sim_world *world)
{
    unsigned max = world->model->account_items;
    if (world->options.fault == SIM_FAULT_SMALL_QUOTA)
        return max / 4;
    return world->options.fault == SIM_FAULT_LARGE_QUOTA ? max * 4 : max;
}

void sim_app_write_overflow(const struct sim_client *client, unsigned node, struct xy_buf *out)
{
    if (client->world->model->rejects[node] && client->world->options.fault != SIM_FAULT_NO_REJECTION)
        xy_buf_lit(out, "<field var='{urn:xylem:node:0}overflow'><value>reject</value></field>");
}

unsigned sim_app_owed_max(const struct sim_client *client, unsigned node)
{
    const struct sim_world *world = client->world;
    if (!client->durable)
        return 0;
    if (world->model->rejects[node])
        return 600;
    return world->mood.skips && client->index % 2 == 0 ? 1500 : 0;
}

bool sim_app_bounded(const struct sim_client *client, unsigned node, const struct xy_stanza *iq)
{
    const struct sim_model *model = client->world->model;
    return (model->account_items > 0 || (node < SIM_NODES_MAX && model->rejects[node])) &&
           xy_error_read(iq).condition == XY_RESOURCE_CONSTRAINT;
}
