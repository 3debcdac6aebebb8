/* Message carbons (XEP-0280): some clients want copies of what others of their account send and get. A copy is of a
 * message of that account, comes from the account itself, and not before the commit of what it copies. */
#include "core/namespaces.h"
#include "tests/sim/app.h"

static void session_new(struct sim_client *client)
{
    if (client->index % 4 == 1 || client->index % 5 == 3)
        sim_client_push(client, XY_STR("<iq type='set' id='c'><enable xmlns='" NS_CARBONS "'/></iq>"), 0);
}

static void on_copy(struct sim_client *client, const struct xy_stanza *stanza, const struct xy_elem *copy)
{
    struct sim_model *model = client->world->model;
    const struct xy_elem *forwarded = xy_elem_child(copy, "forwarded", NS_FORWARD);
    const struct xy_elem *message = forwarded ? xy_elem_child(forwarded, "message", NS_CLIENT) : NULL;
    char name[32];
    size_t at = 0;
    unsigned number;
    bool sent = xy_str_is(copy->name, "sent");
    if (!xy_str_eq(xy_jid_full(stanza->from), sim_account_name(client->account, name)))
        sim_violation(model, "client %u got a copy that is not from its account", client->index);
    if (message == NULL ||
        !sim_token_find(model, xy_elem_child_text(message, "body", stanza->arena), &at, &number)) {
        sim_violation(model, "client %u got a copy of nothing", client->index);
        return;
    }
    const struct sim_token *token = &model->tokens[number];
    unsigned account = sent ? model->account_of[token->from] : token->to;
    model->copies++;
    if (token->kind != SIM_MESSAGE || account != client->account || (sent && token->from == client->index))
        sim_violation(model, "client %u got a copy of message %u, which is not its account's, or its own",
                      client->index, number);
    if (token->assured)
        sim_model_must_be_durable(model, number, client->left_moment, "copied");
}

static bool hear(struct sim_client *client, const struct xy_stanza *stanza)
{
    const struct xy_elem *copy = xy_elem_child(stanza->elem, "received", NS_CARBONS);
    if (copy == NULL)
        copy = xy_elem_child(stanza->elem, "sent", NS_CARBONS);
    if (stanza->kind != XY_MESSAGE || copy == NULL)
        return false;
    on_copy(client, stanza, copy);
    return true;
}

static void nothing(struct sim_client *client)
{
    (void)client;
}

const struct sim_activity sim_carbons = { .act = nothing, .hear = hear, .session_new = session_new };
