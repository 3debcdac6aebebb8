/* Queues that give jobs up or are full, and who reads their dead letters (docs/protocol.md 9.8): the broker makes that node
 * with the first of them for the account that made the queue. */
#include "core/namespaces.h"
#include "tests/sim/app.h"

#define JOIN_US     1000000u /* until it is asked again whether the node is there */
#define DELIVER_MAX 3u       /* of queue 0 */
#define ITEMS_MAX   6u       /* of queue 1 */

/* Those who make queues are of two accounts. */
static bool reads(const struct sim_client *client)
{
    return client->index == 0 || client->index == 3;
}

void sim_app_queue_bounds(struct sim_world *world)
{
    struct sim_model *model = world->model;
    model->queue_deliver[0] = world->mood.burials ? DELIVER_MAX : 0;
    model->queue_items[1] = world->mood.narrow ? ITEMS_MAX : 0;
    model->queue_buries[0] = world->mood.burials;
    model->queue_buries[1] = world->mood.burials && world->mood.narrow;
}

static void write_field(struct xy_buf *out, const char *name, unsigned value)
{
    xy_buf_printf(out, "<field var='%s'><value>%u</value></field>", name, value);
}

void sim_app_write_bounds(const struct sim_client *client, unsigned node, struct xy_buf *out)
{
    const struct sim_model *model = client->world->model;
    bool planted = client->world->options.fault == SIM_FAULT_SMALL_QUEUE;
    if (model->queue_deliver[node] > 0)
        write_field(out, "{urn:xylem:node:0}max_deliver", model->queue_deliver[node]);
    if (model->queue_items[node] > 0)
        write_field(out, "pubsub#max_items", planted ? ITEMS_MAX / 3 : model->queue_items[node]);
    if (!model->queue_buries[node])
        return;
    xy_buf_lit(out, "<field var='{urn:xylem:node:0}dead_letter'><value>e</value></field>");
    if (model->queue_items[node] > 0)
        xy_buf_lit(out, "<field var='{urn:xylem:node:0}overflow'><value>drop-oldest</value></field>");
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static bool known(const struct sim_mood *mood)
{
    return mood->burials;
}

static void write_join(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    char name[32];
    (void)pending;
    xy_buf_lit(out, "<subscribe node='e' jid='");
    xy_buf_str(out, sim_account_name(client->account, name));
    xy_buf_printf(out,
                  "/r%u'/><options><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_SUBSCRIBE_OPTIONS "</value></field>"
                  "<field var='{urn:xylem:delivery:0}mode'><value>at-least-once</value></field>"
                  "<field var='{urn:xylem:delivery:0}start'><value>all</value></field></x></options>",
                  client->index);
}

static void on_joined(struct sim_client *client, const struct sim_pending *pending,
                      const struct xy_stanza *iq)
{
    (void)pending;
    enum xy_condition condition = iq->type == XY_RESULT ? XY_NO_ERROR : xy_error_read(iq).condition;
    client->burials_joined = condition == XY_NO_ERROR;
    client->burials_us = client->world->now_us + JOIN_US;
    if (condition != XY_NO_ERROR && condition != XY_ITEM_NOT_FOUND && condition != XY_NOT_ALLOWED &&
        !sim_app_no_room(client, iq))
        sim_violation(client->world->model, "client %u could not read the dead letters of queues",
                      client->index);
}

static const struct sim_request join = { .write = write_join, .answered = on_joined };

static void act(struct sim_client *client)
{
    const struct sim_world *world = client->world;
    if (world->mood.burials && reads(client) && !client->burials_joined && !world->arrived &&
        client->burials_us <= world->now_us)
        sim_app_ask_once(client, &join, 0);
}

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_delivery delivery = { .client = client->index, .left_moment = client->left_moment };
    struct sim_letter letter;
    if (!sim_app_read_letter(client, stanza, 'e', &delivery, &letter))
        return false;
    sim_job_buried(client->world->model, &delivery, &letter);
    return true;
}

const struct sim_activity sim_burials = {
    .weight = 2, .known = known, .act = act, .hear = hear, .drain = act
};
