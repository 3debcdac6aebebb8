/* Subscribers that ask for what they have acknowledged once more (docs/protocol.md 1.10). */
#include <stdio.h>

#include "core/namespaces.h"
#include "tests/sim/app.h"

static bool known(const struct sim_mood *mood)
{
    return mood->replays;
}

static void write_replay(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    bool planted = client->world->options.fault == SIM_FAULT_LOST_REPLAY;
    xy_buf_printf(out, "<replay xmlns='" NS_XYLEM_DELIVERY "' node='n%u' subid='%s' start='%s'/>",
                  pending->node, pending->subid, planted ? "seq:1000000" : "all");
    sim_replay_asked(client->world->model, pending->node, xy_str(pending->subid));
}

/* The subscription may be over since it was asked first. */
static void on_replayed(struct sim_client *client, const struct sim_pending *pending,
                        const struct xy_stanza *iq)
{
    struct sim_model *model = client->world->model;
    sim_replay_answered(model, pending->node, xy_str(pending->subid), iq->type == XY_RESULT);
    if (iq->type == XY_ERROR && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        !sim_app_no_room(client, iq))
        sim_violation(model, "client %u could not replay node %u", client->index, pending->node);
}

static const struct sim_request replay = { .bare = true, .write = write_replay, .answered = on_replayed };

static void act(struct sim_client *client)
{
    struct sim_random *random = &client->world->random;
    unsigned node = sim_below(random, SIM_NODES_MAX);
    if (!client->durable || client->subid[node][0] == '\0' || sim_app_is_asked(client, &replay, node))
        return;
    struct sim_pending *p = sim_app_pending(client, &replay, node);
    if (p == NULL)
        return;
    snprintf(p->subid, sizeof(p->subid), "%.*s", (int)sizeof(p->subid) - 1, client->subid[node]);
    sim_app_say(client, p);
}

const struct sim_activity sim_replaying = { .weight = 6, .known = known, .act = act };
