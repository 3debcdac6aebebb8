/* Messages between accounts, and presence. An assured message that is not known to be handled is sent again. */
#include <stdio.h>

#include "core/base/assert.h"
#include "core/namespaces.h"
#include "tests/sim/app.h"

/* `to`: an account; `client`: one of its clients, or -1 for the bare JID. */
static void say_message(struct sim_client *client, unsigned token, const char *type, unsigned to,
                        int resource)
{
    struct xy_buf out = { 0 };
    char name[32];
    sim_account_name(to, name);
    xy_buf_printf(&out, "<message type='%s' id='t%u' to='%s", type, token, name);
    if (resource >= 0)
        xy_buf_printf(&out, "/r%d", resource);
    xy_buf_lit(&out, "'><body>");
    sim_token_write(&out, token);
    xy_buf_printf(&out, " %u.%u ", client->session, ++client->serial);
    sim_app_padding(client, &out);
    xy_buf_lit(&out, "</body></message>");
    bool assured = client->world->model->tokens[token].assured;
    sim_model_sent(client->world->model, token);
    sim_client_push(client, xy_buf_view(&out), assured ? token + 1 : 0);
    xy_buf_free(&out);
}

static void send_message(struct sim_client *client)
{
    static const char *const types[] = { "chat", "chat", "normal", "headline" };
    struct sim_world *world = client->world;
    struct sim_random *random = &world->random;
    const char *type = types[sim_below(random, 4)];
    unsigned to = sim_below(random, world->options.accounts);
    int resource = -1;
    if (type[0] == 'c' && sim_once_in(random, 2)) {
        resource = (int)sim_below(random, world->options.clients);
        to = world->model->account_of[resource];
    }
    bool assured = client->sm && type[0] != 'h';
    unsigned token = sim_token_new(world->model, SIM_MESSAGE, client->index, to, assured);
    say_message(client, token, type, to, resource);
}

static void say_presence(struct sim_client *client)
{
    struct sim_world *world = client->world;
    char text[80];
    client->unwell = world->mood.moody && !world->draining && sim_once_in(&world->random, 3);
    if (client->unwell && sim_once_in(&world->random, 2)) {
        sim_client_push(client, XY_STR("<presence type='unavailable'/>"), 0);
        return;
    }
    int priority = client->unwell ? -1 : (int)sim_below(&world->random, 3);
    int len = snprintf(text, sizeof(text), "<presence><priority>%d</priority></presence>", priority);
    sim_client_push(client, xy_str_n(text, (size_t)len), 0);
}

static void on_body(struct sim_client *client, struct xy_str body, struct sim_delivery *delivery)
{
    struct sim_model *model = client->world->model;
    size_t at = 0;
    char text[32] = { 0 };
    if (!sim_token_find(model, body, &at, &delivery->token))
        return;
    size_t len = body.len - at < sizeof(text) - 1 ? body.len - at : sizeof(text) - 1;
    memcpy(text, body.data + at, len);
    if (sscanf(text, " %u.%u", &delivery->session, &delivery->serial) != 2 ||
        delivery->session >= SIM_SESSIONS_MAX) {
        sim_violation(model, "client %u got a message with a body that nobody wrote", client->index);
        return;
    }
    sim_model_delivered(model, delivery);
}

static void on_refused(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_model *model = client->world->model;
    uint32_t token;
    if (stanza->id.len < 2 || !xy_str_u32(xy_str_n(stanza->id.data + 1, stanza->id.len - 1), &token) ||
        token >= model->tokens_count)
        sim_violation(model, "client %u got an error for what it never sent", client->index);
    else
        sim_model_refused(model, token);
}

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_delivery delivery = { .client = client->index, .left_moment = client->left_moment };
    if (stanza->kind != XY_MESSAGE)
        return false;
    if (stanza->type == XY_ERROR) {
        on_refused(client, stanza);
        return true;
    }
    delivery.marked = xy_elem_child(stanza->elem, "delay", NS_DELAY) != NULL;
    on_body(client, xy_elem_child_text(stanza->elem, "body", stanza->arena), &delivery);
    return true;
}

static void session_new(struct sim_client *client)
{
    struct xy_buf again = client->again;
    client->again = (struct xy_buf){ 0 };
    say_presence(client);
    for (size_t at = 0; at < again.len; at += sizeof(unsigned)) {
        unsigned token;
        memcpy(&token, again.data + at, sizeof(token));
        say_message(client, token, "chat", client->world->model->tokens[token].to, -1);
    }
    xy_buf_free(&again);
}

static void drain(struct sim_client *client)
{
    if (client->unwell)
        say_presence(client);
}

const struct sim_activity sim_messages = {
    .weight = 6, .act = send_message, .hear = hear, .session_new = session_new, .drain = drain
};
const struct sim_activity sim_presence = { .weight = 1, .act = say_presence };
