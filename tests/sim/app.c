/* The table of activities, and requests on their way: each is asked again in a new session until it was answered. */
#include "tests/sim/app.h"

#include <stdio.h>

#include "core/namespaces.h"

#define UNACKED_MAX 80u /* of the client's stanzas; then it waits */
#define PADDING_MAX 3000u

/* Who hears a stanza first is who comes first. */
static const struct sim_activity *const activities[] = {
    &sim_burials,     &sim_dead_letters,     &sim_acknowledging, &sim_carbons,   &sim_queue_working,
    &sim_subscribing, &sim_messages,         &sim_pings,         &sim_presence,  &sim_creations,
    &sim_publishing,  &sim_retracting,       &sim_purges,        &sim_deletions, &sim_unsubscribing,
    &sim_queue_setup, &sim_queue_publishing, &sim_looking,       &sim_replaying,
};
#define ACTIVITIES (sizeof(activities) / sizeof(*activities))

/* --- saying ------------------------------------------------------------------------------------------------------- */

void sim_app_padding(struct sim_client *client, struct xy_buf *out)
{
    struct sim_random *random = &client->world->random;
    uint32_t len = sim_once_in(random, client->world->mood.padding_in) ? sim_below(random, PADDING_MAX) : 0;
    while (len-- > 0)
        xy_buf_char(out, 'x');
}

void sim_app_say(struct sim_client *client, const struct sim_pending *pending)
{
    struct xy_buf out = { 0 };
    const struct sim_request *request = pending->request;
    xy_buf_printf(&out, "<iq type='%s' to='" SIM_SERVICE "' id='q%u'>", request->get ? "get" : "set",
                  pending->id);
    if (!request->bare)
        xy_buf_printf(&out, "<pubsub xmlns='%s'>", request->owner ? NS_PUBSUB_OWNER : NS_PUBSUB);
    request->write(client, pending, &out);
    if (!request->bare)
        xy_buf_lit(&out, "</pubsub>");
    xy_buf_lit(&out, "</iq>");
    sim_client_push(client, xy_buf_view(&out), 0);
    xy_buf_free(&out);
}

struct sim_pending *sim_app_pending(struct sim_client *client, const struct sim_request *request,
                                    unsigned node)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        struct sim_pending *p = &client->pending[i];
        if (p->used)
            continue;
        *p = (struct sim_pending){ .used = true,
                                   .request = request,
                                   .id = client->next_id++,
                                   .node = node,
                                   .asked_moment = client->world->model->moment,
                                   .asked_us = client->world->now_us };
        return p;
    }
    return NULL;
}

bool sim_app_is_asked(const struct sim_client *client, const struct sim_request *request, unsigned node)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        const struct sim_pending *p = &client->pending[i];
        if (p->used && p->request == request && p->node == node)
            return true;
    }
    return false;
}

void sim_app_ask_once(struct sim_client *client, const struct sim_request *request, unsigned node)
{
    struct sim_pending *p =
        sim_app_is_asked(client, request, node) ? NULL : sim_app_pending(client, request, node);
    if (p)
        sim_app_say(client, p);
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
    for (size_t i = 0; i < ACTIVITIES; i++)
        if (activities[i]->session_new)
            activities[i]->session_new(client);
    const struct sim_pending *p = NULL;
    while ((p = pending_after(client, p)) != NULL)
        sim_app_say(client, p);
}

static uint32_t weight(const struct sim_world *world, size_t i)
{
    return activities[i]->known == NULL || activities[i]->known(&world->mood) ? activities[i]->weight : 0;
}

static const struct sim_activity *choose(struct sim_world *world)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < ACTIVITIES; i++)
        sum += weight(world, i);
    uint32_t choice = sim_below(&world->random, sum);
    size_t i = 0;
    while (choice >= weight(world, i))
        choice -= weight(world, i++);
    return activities[i];
}

void sim_app_act(struct sim_client *client)
{
    struct sim_world *world = client->world;
    for (size_t i = 0; world->draining && i < ACTIVITIES; i++)
        if (activities[i]->drain)
            activities[i]->drain(client);
    if (!world->draining && (!client->sm || xy_sm_unacked(&client->counters) <= UNACKED_MAX))
        choose(world)->act(client);
}

bool sim_app_satisfied(const struct sim_client *client)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++)
        if (client->pending[i].used)
            return false;
    for (size_t i = 0; i < ACTIVITIES; i++)
        if (activities[i]->satisfied && !activities[i]->satisfied(client))
            return false;
    return client->again.len == 0;
}

/* --- hearing ------------------------------------------------------------------------------------------------------ */

bool sim_app_no_room(const struct sim_client *client, const struct xy_stanza *iq)
{
    return client->world->model->refusals && xy_error_read(iq).condition == XY_RESOURCE_CONSTRAINT;
}

static void on_answer(struct sim_client *client, const struct xy_stanza *iq)
{
    for (unsigned i = 0; i < SIM_PENDING_MAX; i++) {
        struct sim_pending *pending = &client->pending[i];
        char id[16];
        snprintf(id, sizeof(id), "q%u", pending->id);
        if (!pending->used || !xy_str_is(iq->id, id))
            continue;
        pending->used = false;
        pending->request->answered(client, pending, iq);
        return;
    }
}

void sim_app_stanza(struct sim_client *client, const struct xy_stanza *stanza)
{
    for (size_t i = 0; i < ACTIVITIES; i++)
        if (activities[i]->hear && activities[i]->hear(client, stanza))
            return;
    if (stanza->kind == XY_IQ)
        on_answer(client, stanza);
}
