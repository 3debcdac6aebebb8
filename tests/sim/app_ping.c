/* Pings between clients (XEP-0199): each is answered once at most. */
#include <stdio.h>

#include "core/namespaces.h"
#include "tests/sim/app.h"

static void ping(struct sim_client *client)
{
    struct sim_world *world = client->world;
    unsigned to = sim_below(&world->random, world->options.clients);
    char name[32];
    struct xy_buf out = { 0 };
    sim_account_name(world->model->account_of[to], name);
    xy_buf_printf(&out, "<iq type='get' to='%s/r%u' id='p%u'><ping xmlns='" NS_PING "'>", name, to,
                  client->pings_next++);
    sim_app_padding(client, &out);
    xy_buf_lit(&out, "</ping></iq>");
    xy_buf_char(&client->answered, '\0');
    sim_client_push(client, xy_buf_view(&out), 0);
    xy_buf_free(&out);
}

/* When a session is resumed after a crash, who asked may ask once more, and who answered sends once more what is not known
 * to be handled. Who pings itself does both: it has an answer more to send again each time. */
static unsigned answers_max(const struct sim_client *client, const struct xy_stanza *iq)
{
    unsigned lives = 1 + client->world->model->crossings_all;
    char name[32], full[64];
    snprintf(full, sizeof(full), "%.*s/r%u", XY_ARG(sim_account_name(client->account, name)), client->index);
    return xy_str_is(xy_jid_full(iq->from), full) ? lives * (lives + 1) / 2 : lives;
}

static void on_pong(struct sim_client *client, const struct xy_stanza *iq)
{
    uint32_t number;
    if (!xy_str_u32(xy_str_n(iq->id.data + 1, iq->id.len - 1), &number) || number >= client->pings_next)
        sim_violation(client->world->model, "client %u got an answer to what it never asked", client->index);
    else if (number >= client->pings_first &&
             (unsigned)++client->answered.data[number - client->pings_first] > answers_max(client, iq))
        sim_violation(client->world->model, "client %u got two answers to its ping %u", client->index,
                      number);
}

static void on_ping(struct sim_client *client, const struct xy_stanza *iq)
{
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<iq type='result' to='%.*s' id='%.*s'/>", XY_ARG(xy_jid_full(iq->from)),
                  XY_ARG(iq->id));
    sim_client_push(client, xy_buf_view(&out), 0);
    xy_buf_free(&out);
}

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    if (stanza->kind != XY_IQ)
        return false;
    if (stanza->type != XY_RESULT && stanza->type != XY_ERROR)
        on_ping(client, stanza);
    else if (stanza->id.len > 1 && stanza->id.data[0] == 'p')
        on_pong(client, stanza);
    else
        return false;
    return true;
}

static void session_new(struct sim_client *client)
{
    client->pings_first = client->pings_next;
    xy_buf_reset(&client->answered);
}

const struct sim_activity sim_pings = { .weight = 1, .act = ping, .hear = hear, .session_new = session_new };
