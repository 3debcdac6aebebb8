/* Reading dead letters (docs/protocol.md 1.8): who acknowledges items one by one and gives some of them up subscribes to
 * the node where these go. The broker makes it with the first of them. */
#include <stdio.h>

#include "core/base/table.h"
#include "core/namespaces.h"
#include "core/time.h"
#include "tests/sim/app.h"

#define JOIN_US 1000000u /* until it is asked again whether the node is there */

unsigned sim_app_max_deliver(const struct sim_client *client)
{
    return client->one_by_one && client->world->mood.deaths ? 1 + client->index / 3 : 0;
}

static bool known(const struct sim_mood *mood)
{
    return mood->deaths;
}

/* --- saying ------------------------------------------------------------------------------------------------------- */

static void write_join(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    char name[32];
    (void)pending;
    xy_buf_printf(out, "<subscribe node='d%u' jid='", client->account);
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
    client->letters_joined = iq->type == XY_RESULT;
    client->letters_us = client->world->now_us + JOIN_US;
    if (iq->type != XY_RESULT && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        !sim_app_no_room(client, iq))
        sim_violation(client->world->model, "client %u could not read its dead letters", client->index);
}

static const struct sim_request join = { .write = write_join, .answered = on_joined };

static void act(struct sim_client *client)
{
    const struct sim_world *world = client->world;
    if (sim_app_max_deliver(client) > 0 && !client->letters_joined && !world->arrived &&
        client->letters_us <= world->now_us)
        sim_app_ask_once(client, &join, 0);
}

/* --- hearing ------------------------------------------------------------------------------------------------------ */

static void read_header(struct xy_str name, struct xy_str value, struct sim_letter *letter)
{
    uint64_t number = 0;
    xy_str_u64(value, &number);
    if (xy_str_is(name, "Xylem-Dead-Reason"))
        letter->reason = value;
    else if (xy_str_is(name, "Xylem-Dead-Node"))
        letter->node = value;
    else if (xy_str_is(name, "Xylem-Dead-Epoch"))
        letter->epoch = xy_hash(value, 0) | 1;
    else if (xy_str_is(name, "Xylem-Dead-Seq"))
        letter->seq = number;
    else if (xy_str_is(name, "Xylem-Dead-Id"))
        letter->id = value;
    else if (xy_str_is(name, "Xylem-Dead-Publisher"))
        letter->publisher = value;
    else if (xy_str_is(name, "Xylem-Dead-Attempts"))
        letter->attempts = number;
    else if (xy_str_is(name, "Xylem-Dead-Subid"))
        letter->subid = value;
    else if (xy_str_is(name, "Xylem-Dead-Time") && !xy_time_parse(value, &letter->wall_us))
        letter->wall_us = UINT64_MAX;
}

static void read_letter(struct sim_client *client, const struct xy_stanza *stanza, const struct xy_elem *item,
                        struct sim_delivery *delivery, struct sim_letter *letter)
{
    *letter = (struct sim_letter){ .by = xy_elem_attr(item, "publisher") };
    const struct xy_elem *entry = xy_elem_first(item), *headers = xy_elem_child(item, "headers", NS_SHIM);
    const struct xy_elem *header = headers ? xy_elem_first(headers) : NULL;
    size_t at = 0;
    if (entry == NULL ||
        !sim_token_find(client->world->model, xy_elem_text(entry, stanza->arena), &at, &delivery->token)) {
        sim_violation(client->world->model, "client %u got a dead letter that nobody wrote", client->index);
        return;
    }
    for (; header; header = xy_elem_next(header))
        read_header(xy_elem_attr(header, "name"), xy_elem_text(header, stanza->arena), letter);
}

bool sim_app_read_letter(struct sim_client *client, const struct xy_stanza *stanza, char node,
                         struct sim_delivery *delivery, struct sim_letter *letter)
{
    const struct xy_elem *event = xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT);
    const struct xy_elem *items = event ? xy_elem_child(event, "items", NULL) : NULL;
    const struct xy_elem *item = items ? xy_elem_first(items) : NULL;
    if (stanza->kind != XY_MESSAGE || stanza->type == XY_ERROR || item == NULL ||
        xy_elem_attr(items, "node").data[0] != node)
        return false;
    sim_app_read_marks(stanza, delivery);
    read_letter(client, stanza, item, delivery, letter);
    return true;
}

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_delivery delivery = { .client = client->index, .left_moment = client->left_moment };
    struct sim_letter letter;
    if (!sim_app_read_letter(client, stanza, 'd', &delivery, &letter))
        return false;
    sim_letter_delivered(client->world->model, &delivery, &letter);
    return true;
}

const struct sim_activity sim_dead_letters = {
    .weight = 2, .known = known, .act = act, .hear = hear, .drain = act
};
