/* The application of a client: messages, nodes, items; what it says, and what it hears. */
#include <inttypes.h>
#include <stdio.h>

#include "core/base/assert.h"
#include "core/base/table.h"
#include "core/namespaces.h"
#include "tests/sim/client.h"

#define SERVICE     "pubsub." SIM_DOMAIN
#define UNACKED_MAX 80u /* of the client's stanzas; then it waits */
#define PADDING_MAX 3000u

/* --- saying ------------------------------------------------------------------------------------------------------- */

static void padding(struct sim_client *client, struct xy_buf *out)
{
    struct sim_random *random = &client->world->random;
    uint32_t len = sim_once_in(random, client->world->mood.padding_in) ? sim_below(random, PADDING_MAX) : 0;
    while (len-- > 0)
        xy_buf_char(out, 'x');
}

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
    padding(client, &out);
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

/* --- requests ----------------------------------------------------------------------------------------------------- */

static void write_jid(struct sim_client *client, struct xy_buf *out)
{
    char name[32];
    xy_buf_lit(out, " jid='");
    xy_buf_str(out, sim_account_name(client->account, name));
    if (!client->bare)
        xy_buf_printf(out, "/r%u", client->index);
    xy_buf_char(out, '\'');
}

static void write_create(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    (void)client;
    xy_buf_printf(out,
                  "<create node='n%u'/><configure><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_NODE_CONFIG "</value></field>"
                  "<field var='pubsub#publish_model'><value>open</value></field>"
                  "<field var='pubsub#max_items'><value>%u</value></field></x></configure>",
                  pending->node, 1 + 3 * pending->node);
}

static void write_subscribe(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<subscribe node='n%u'", pending->node);
    write_jid(client, out);
    xy_buf_printf(out,
                  "/><options><x xmlns='" NS_DATA_FORM "' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB_SUBSCRIBE_OPTIONS "</value></field>"
                  "<field var='{urn:xylem:delivery:0}mode'><value>%s</value></field></x></options>",
                  client->durable ? "at-least-once" : "at-most-once");
}

static void write_unsubscribe(struct sim_client *client, const struct sim_pending *pending,
                              struct xy_buf *out)
{
    const char *subid = client->subid[pending->node];
    xy_buf_printf(out, "<unsubscribe node='n%u' subid='%s'", pending->node, subid);
    write_jid(client, out);
    xy_buf_lit(out, "/>");
    sim_model_unsubscribed(client->world->model, pending->node, xy_str(subid));
}

static void write_publish(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out,
                  "<publish node='n%u' xmlns:d='" NS_XYLEM_DELIVERY "' d:publish-id='c%u:%u'>"
                  "<item id='i%u'><entry xmlns='urn:example'>",
                  pending->node, client->index, pending->number, pending->token);
    sim_token_write(out, pending->token);
    padding(client, out);
    xy_buf_lit(out, "</entry></item></publish>");
    sim_model_sent(client->world->model, pending->token);
}

static void write_retract(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out)
{
    xy_buf_printf(out, "<retract node='n%u'><item id='i%u'/></retract>", pending->node, pending->token);
    sim_model_retracted(client->world->model, pending->token);
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

static void say_request(struct sim_client *client, const struct sim_pending *pending)
{
    typedef void write_fn(struct sim_client * client, const struct sim_pending *pending, struct xy_buf *out);
    static write_fn *const writers[] = {
        [SIM_ASK_PUBLISH] = write_publish,     [SIM_ASK_CREATE] = write_create,
        [SIM_ASK_SUBSCRIBE] = write_subscribe, [SIM_ASK_UNSUBSCRIBE] = write_unsubscribe,
        [SIM_ASK_RETRACT] = write_retract,     [SIM_ASK_PURGE] = write_purge,
        [SIM_ASK_DELETE] = write_delete,
    };
    struct xy_buf out = { 0 };
    bool owner = pending->ask == SIM_ASK_PURGE || pending->ask == SIM_ASK_DELETE;
    xy_buf_printf(&out, "<iq type='set' to='" SERVICE "' id='q%u'><pubsub xmlns='%s'>", pending->id,
                  owner ? NS_PUBSUB_OWNER : NS_PUBSUB);
    writers[pending->ask](client, pending, &out);
    xy_buf_lit(&out, "</pubsub></iq>");
    sim_client_push(client, xy_buf_view(&out), 0);
    xy_buf_free(&out);
}

static struct sim_pending *pending_new(struct sim_client *client, enum sim_ask ask, unsigned node)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        struct sim_pending *p = &client->pending[i];
        if (p->used)
            continue;
        *p = (struct sim_pending){ .used = true,
                                   .ask = ask,
                                   .id = client->next_id++,
                                   .node = node,
                                   .asked_moment = client->world->model->moment };
        return p;
    }
    return NULL;
}

static bool is_asked(const struct sim_client *client, enum sim_ask ask, unsigned node)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        const struct sim_pending *p = &client->pending[i];
        if (p->used && p->ask == ask && p->node == node)
            return true;
    }
    return false;
}

static void ask_once(struct sim_client *client, enum sim_ask ask, unsigned node)
{
    struct sim_pending *p = is_asked(client, ask, node) ? NULL : pending_new(client, ask, node);
    if (p)
        say_request(client, p);
}

static void publish(struct sim_client *client)
{
    struct sim_world *world = client->world;
    unsigned node = sim_below(&world->random, SIM_NODES_MAX);
    if (!client->created[node])
        return;
    struct sim_pending *p = pending_new(client, SIM_ASK_PUBLISH, node);
    if (p == NULL)
        return;
    p->token = sim_token_new(world->model, SIM_ITEM, client->index, node, true);
    p->number = ++client->publish_number;
    say_request(client, p);
}

/* One that this client published, if the choice falls on such a one. */
static void retract(struct sim_client *client)
{
    struct sim_world *world = client->world;
    size_t count = world->model->tokens_count;
    unsigned number = count ? sim_below(&world->random, (uint32_t)count) : 0;
    if (count == 0 || world->model->tokens[number].kind != SIM_ITEM || !world->model->tokens[number].told ||
        world->model->tokens[number].from != client->index)
        return;
    struct sim_pending *p = pending_new(client, SIM_ASK_RETRACT, world->model->tokens[number].to);
    if (p == NULL)
        return;
    p->token = number;
    say_request(client, p);
}

static void unsubscribe(struct sim_client *client)
{
    unsigned node = sim_below(&client->world->random, SIM_NODES_MAX);
    if (client->subscribed[node] && client->subid[node][0] && !is_asked(client, SIM_ASK_SUBSCRIBE, node))
        ask_once(client, SIM_ASK_UNSUBSCRIBE, node);
}

static void clear(struct sim_client *client, enum sim_ask ask)
{
    unsigned node = sim_below(&client->world->random, SIM_NODES_MAX);
    if (client->created[node])
        ask_once(client, ask, node);
}

static void ping(struct sim_client *client)
{
    struct sim_world *world = client->world;
    unsigned to = sim_below(&world->random, world->options.clients);
    char name[32];
    struct xy_buf out = { 0 };
    sim_account_name(world->model->account_of[to], name);
    xy_buf_printf(&out, "<iq type='get' to='%s/r%u' id='p%u'><ping xmlns='" NS_PING "'>", name, to,
                  client->pings_next++);
    padding(client, &out);
    xy_buf_lit(&out, "</ping></iq>");
    xy_buf_char(&client->answered, '\0');
    sim_client_push(client, xy_buf_view(&out), 0);
    xy_buf_free(&out);
}

static void get_ready(struct sim_client *client)
{
    for (unsigned node = 0; node < SIM_NODES_MAX; node++) {
        if (client->publisher && !client->created[node])
            ask_once(client, SIM_ASK_CREATE, node);
        if (client->subscriber && !client->subscribed[node])
            ask_once(client, SIM_ASK_SUBSCRIBE, node);
    }
}

/* --- of its own will ---------------------------------------------------------------------------------------------- */

/* In the order in which they were asked first: numbers in publish-ids count up. */
static const struct sim_pending *pending_after(const struct sim_client *client,
                                               const struct sim_pending *last)
{
    const struct sim_pending *next = NULL;
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        const struct sim_pending *p = &client->pending[i];
        if (p->used && (last == NULL || p->id > last->id) && (next == NULL || p->id < next->id))
            next = p;
    }
    return next;
}

void sim_app_session_new(struct sim_client *client)
{
    struct xy_buf again = client->again;
    client->again = (struct xy_buf){ 0 };
    client->pings_first = client->pings_next;
    xy_buf_reset(&client->answered);
    say_presence(client);
    for (size_t at = 0; at < again.len; at += sizeof(unsigned)) {
        unsigned token;
        memcpy(&token, again.data + at, sizeof(token));
        say_message(client, token, "chat", client->world->model->tokens[token].to, -1);
    }
    xy_buf_free(&again);
    const struct sim_pending *p = NULL;
    while ((p = pending_after(client, p)) != NULL)
        say_request(client, p);
}

void sim_app_act(struct sim_client *client)
{
    struct sim_world *world = client->world;
    struct sim_random *random = &world->random;
    if (world->draining && client->unwell)
        say_presence(client);
    if (world->draining || (client->sm && xy_sm_unacked(&client->counters) > UNACKED_MAX))
        return;
    uint32_t what = sim_below(random, 20);
    if (world->options.pubsub && sim_once_in(random, 4))
        get_ready(client);
    if (what == 0)
        say_presence(client);
    else if (what == 1 && world->mood.retracts)
        unsubscribe(client);
    else if (what == 2 && world->mood.retracts && client->publisher && sim_once_in(random, 5))
        clear(client, SIM_ASK_PURGE);
    else if (what == 4 && world->mood.deletes && client->publisher && sim_once_in(random, 10))
        clear(client, SIM_ASK_DELETE);
    else if (what == 3)
        ping(client);
    else if (what < 10)
        send_message(client);
    else if (world->options.pubsub && client->publisher && world->mood.retracts && what == 19)
        retract(client);
    else if (world->options.pubsub && client->publisher)
        publish(client);
}

bool sim_app_satisfied(const struct sim_client *client)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++)
        if (client->pending[i].used)
            return false;
    return client->again.len == 0;
}

/* --- hearing ------------------------------------------------------------------------------------------------------ */

static void read_marks(const struct xy_stanza *stanza, struct sim_delivery *delivery)
{
    const struct xy_elem *d = xy_elem_child(stanza->elem, "delivery", NS_XYLEM_DELIVERY);
    uint64_t attempt = 1;
    delivery->marked = xy_elem_child(stanza->elem, "delay", NS_DELAY) != NULL;
    if (d == NULL)
        return;
    delivery->claimed = true;
    delivery->subid = xy_elem_attr(d, "subid");
    xy_str_u64(xy_elem_attr(d, "seq"), &delivery->seq);
    xy_str_u64(xy_elem_attr(d, "attempt"), &attempt);
    struct xy_str epoch = xy_elem_attr(d, "epoch");
    delivery->epoch = xy_hash(epoch, 0) | 1;
    delivery->marked |= attempt > 1;
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

static void on_event(struct sim_client *client, const struct xy_stanza *stanza, const struct xy_elem *event,
                     struct sim_delivery *delivery)
{
    const struct xy_elem *items = xy_elem_child(event, "items", NULL);
    const struct xy_elem *gone = xy_elem_child(event, "delete", NULL);
    struct xy_str name = gone ? xy_elem_attr(gone, "node") : XY_STR_NONE;
    if (name.len == 2 && name.data[1] - '0' < (int)SIM_NODES_MAX)
        client->subscribed[name.data[1] - '0'] = false;
    for (const struct xy_elem *item = items ? xy_elem_first(items) : NULL; item; item = xy_elem_next(item)) {
        const struct xy_elem *entry = xy_elem_first(item);
        size_t at = 0;
        if (entry &&
            sim_token_find(client->world->model, xy_elem_text(entry, stanza->arena), &at, &delivery->token))
            sim_model_delivered(client->world->model, delivery);
    }
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

static void on_message(struct sim_client *client, const struct xy_stanza *stanza)
{
    struct sim_delivery delivery = { .client = client->index, .left_moment = client->left_moment };
    const struct xy_elem *event = xy_elem_child(stanza->elem, "event", NS_PUBSUB_EVENT);
    if (stanza->type == XY_ERROR) {
        on_refused(client, stanza);
        return;
    }
    read_marks(stanza, &delivery);
    if (event)
        on_event(client, stanza, event, &delivery);
    else
        on_body(client, xy_elem_child_text(stanza->elem, "body", stanza->arena), &delivery);
}

static bool no_room(const struct sim_client *client, const struct xy_stanza *iq)
{
    return client->world->model->refusals && xy_error_read(iq).condition == XY_RESOURCE_CONSTRAINT;
}

static void on_created(struct sim_client *client, const struct sim_pending *pending,
                       const struct xy_stanza *iq)
{
    bool there = iq->type == XY_RESULT || xy_error_read(iq).condition == XY_CONFLICT;
    client->created[pending->node] = there;
    if (!there && !no_room(client, iq))
        sim_violation(client->world->model, "client %u could not create node %u", client->index,
                      pending->node);
}

static void on_subscribed(struct sim_client *client, const struct sim_pending *pending,
                          const struct xy_stanza *iq)
{
    if (iq->type == XY_ERROR) { /* the node is not there yet; asked again later */
        if (xy_error_read(iq).condition != XY_ITEM_NOT_FOUND && !no_room(client, iq))
            sim_violation(client->world->model, "client %u could not subscribe to node %u", client->index,
                          pending->node);
        return;
    }
    const struct xy_elem *pubsub = xy_elem_child(iq->elem, "pubsub", NS_PUBSUB);
    const struct xy_elem *subscription = pubsub ? xy_elem_child(pubsub, "subscription", NULL) : NULL;
    struct xy_str subid = subscription ? xy_elem_attr(subscription, "subid") : XY_STR_NONE;
    client->subscribed[pending->node] = true;
    snprintf(client->subid[pending->node], sizeof(client->subid[0]), "%.*s", XY_ARG(subid));
    if (client->durable && subscription)
        sim_model_subscribed(client->world->model, client->index, pending->node, client->bare, subid,
                             pending->asked_moment);
}

static void on_published(struct sim_client *client, const struct sim_pending *pending,
                         const struct xy_stanza *iq)
{
    if (iq->type == XY_RESULT)
        sim_model_told(client->world->model, pending->token, client->left_moment);
    else if (no_room(client, iq))
        sim_model_refused(client->world->model, pending->token);
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
    if (iq->type == XY_ERROR && xy_error_read(iq).condition != XY_ITEM_NOT_FOUND &&
        client->world->model->deleted[pending->node] == 0)
        sim_violation(client->world->model, "client %u could not retract item %u", client->index,
                      pending->token);
}

/* Asked a second time, it may be over already. */
static void on_unsubscribed(struct sim_client *client, const struct sim_pending *pending,
                            const struct xy_stanza *iq)
{
    enum xy_condition condition = iq->type == XY_ERROR ? xy_error_read(iq).condition : XY_ITEM_NOT_FOUND;
    if (condition != XY_ITEM_NOT_FOUND && condition != XY_UNEXPECTED_REQUEST &&
        condition != XY_NOT_ACCEPTABLE && client->world->model->deleted[pending->node] == 0)
        sim_violation(client->world->model, "client %u could not unsubscribe from node %u", client->index,
                      pending->node);
    client->subscribed[pending->node] = false;
    client->subid[pending->node][0] = '\0';
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

static void on_pong(struct sim_client *client, const struct xy_stanza *iq)
{
    uint32_t number;
    if (!xy_str_u32(xy_str_n(iq->id.data + 1, iq->id.len - 1), &number) || number >= client->pings_next)
        sim_violation(client->world->model, "client %u got an answer to what it never asked", client->index);
    else if (number >= client->pings_first && ++client->answered.data[number - client->pings_first] > 1)
        sim_violation(client->world->model, "client %u got two answers to its ping %u", client->index,
                      number);
}

static void on_answer(struct sim_client *client, const struct xy_stanza *iq)
{
    typedef void answer_fn(struct sim_client * client, const struct sim_pending *pending,
                           const struct xy_stanza *iq);
    static answer_fn *const answers[] = {
        [SIM_ASK_PUBLISH] = on_published,    [SIM_ASK_CREATE] = on_created,
        [SIM_ASK_SUBSCRIBE] = on_subscribed, [SIM_ASK_UNSUBSCRIBE] = on_unsubscribed,
        [SIM_ASK_RETRACT] = on_retracted,    [SIM_ASK_PURGE] = on_purged,
        [SIM_ASK_DELETE] = on_deleted,
    };
    if (iq->id.len > 1 && iq->id.data[0] == 'p') {
        on_pong(client, iq);
        return;
    }
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        struct sim_pending *pending = &client->pending[i];
        char id[16];
        snprintf(id, sizeof(id), "q%u", pending->id);
        if (!pending->used || !xy_str_is(iq->id, id))
            continue;
        pending->used = false;
        answers[pending->ask](client, pending, iq);
        return;
    }
}

static void on_ping(struct sim_client *client, const struct xy_stanza *iq)
{
    struct xy_buf out = { 0 };
    xy_buf_printf(&out, "<iq type='result' to='%.*s' id='%.*s'/>", XY_ARG(xy_jid_full(iq->from)),
                  XY_ARG(iq->id));
    sim_client_push(client, xy_buf_view(&out), 0);
    xy_buf_free(&out);
}

void sim_app_stanza(struct sim_client *client, const struct xy_stanza *stanza)
{
    if (stanza->kind == XY_MESSAGE)
        on_message(client, stanza);
    else if (stanza->kind == XY_IQ && (stanza->type == XY_RESULT || stanza->type == XY_ERROR))
        on_answer(client, stanza);
    else if (stanza->kind == XY_IQ)
        on_ping(client, stanza);
}
