/* The connection and the session of a client: login, XEP-0198, loss and return. What it says and hears is in
 * app*.c. */
#include "tests/sim/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "tests/sim/app.h"
#include "tests/sim/broker.h"

#define LOGIN_US_MAX      (20u * 1000 * 1000)
#define RETRY_US_MAX      100000u
#define RETRY_LATE_US_MAX 3000000u
#define RECEIVE_BYTES     4096u

struct sim_client *sim_client_new(struct sim_world *world, unsigned index, unsigned account)
{
    struct sim_client *client = calloc(1, sizeof(*client));
    xy_assert(client != NULL);
    client->world = world;
    client->index = index;
    client->account = account;
    client->wants_sm = index % 5 != 4;
    client->publisher = index % 3 == 0;
    client->consumer = world->mood.queues && index % 5 > 1;
    client->subscriber = index != 0;
    client->durable = client->wants_sm && index != 2;
    client->bare = index == 5 || index == 7;
    client->one_by_one =
        client->durable && world->mood.acks && !client->bare && (index == 3 || index == 6 || index == 8);
    client->stream_options = (struct xy_stream_options){ .env = &world->env };
    client->chunks.spare_max = 4;
    xy_sm_queue_init(&client->queue, &client->chunks);
    world->model->account_of[index] = account;
    world->model->max_deliver[index] = sim_app_max_deliver(client);
    return client;
}

void sim_client_free(struct sim_client **client)
{
    xy_stream_free(&(*client)->stream);
    xy_sm_queue_drain(&(*client)->queue, NULL, NULL);
    xy_sm_pool_free(&(*client)->chunks);
    xy_buf_free(&(*client)->again);
    xy_buf_free(&(*client)->jobs);
    xy_buf_free(&(*client)->outs);
    xy_buf_free(&(*client)->said);
    xy_buf_free(&(*client)->answered);
    free(*client);
    *client = NULL;
}

/* --- the queue ---------------------------------------------------------------------------------------------------- */

void sim_client_push(struct sim_client *client, struct xy_str stanza, unsigned claim)
{
    struct xy_sm_entry entry = { .bytes = xy_bytes_new(stanza), .claim = claim };
    bool pushed = entry.bytes && xy_sm_push(&client->queue, entry);
    xy_assert(pushed);
}

static void on_told(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct sim_client *client = ctx;
    (void)sent;
    if (entry->claim >= SIM_CLAIM_SAID)
        sim_app_counted(client, entry->claim - SIM_CLAIM_SAID);
    else if (entry->claim > 0)
        sim_model_told(client->world->model, (unsigned)entry->claim - 1, client->left_moment);
}

static void told(struct sim_client *client, uint32_t h)
{
    uint64_t before = client->counters.out_acked;
    enum xy_sm_verdict verdict = xy_sm_queue_ack(&client->queue, &client->counters, h, on_told, client);
    if (verdict == XY_SM_ACK_NEW)
        return;
    sim_violation(client->world->model, "client %u was told h=%u, having sent %llu and been told %llu",
                  client->index, h, (unsigned long long)client->counters.out_sent,
                  (unsigned long long)before);
}

/* Whatever was not acknowledged is said again in the next session. */
static void on_forgotten(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct sim_client *client = ctx;
    (void)sent;
    if (entry->claim > 0 && entry->claim < SIM_CLAIM_SAID) {
        unsigned token = (unsigned)entry->claim - 1;
        xy_buf_add(&client->again, &token, sizeof(token));
    }
}

static void flush(struct sim_client *client)
{
    struct xy_sm_entry entry;
    if (client->stream == NULL)
        return;
    while (client->state == SIM_CLIENT_READY &&
           xy_sm_next_unsent(&client->queue, client->sm ? &client->counters : NULL, &entry)) {
        xy_stream_send_raw(client->stream, xy_bytes_view(entry.bytes));
        xy_bytes_unref(&entry.bytes);
    }
    struct xy_str out = xy_stream_output(client->stream);
    if (out.len == 0)
        return;
    sim_wire_send(client->wire, out);
    xy_stream_sent(client->stream, out.len);
}

/* --- connection --------------------------------------------------------------------------------------------------- */

static void disconnected(struct sim_client *client)
{
    struct sim_random *random = &client->world->random;
    sim_trace(client->world, "client %u is offline", client->index);
    if (client->wire)
        sim_wire_hang_up(client->wire);
    client->wire = NULL;
    xy_stream_free(&client->stream);
    client->state = SIM_CLIENT_OFF;
    client->asked = client->ack_owed = false;
    bool away = !client->world->draining && sim_once_in(random, 30);
    client->try_us = client->world->now_us +
                     (away ? (client->world->mood.sm_seconds + 2) * 1000000
                           : sim_below(random, sim_once_in(random, 5) ? RETRY_LATE_US_MAX : RETRY_US_MAX));
}

static void connect_by(struct sim_client *client, unsigned mechanisms)
{
    struct sim_world *world = client->world;
    client->asks_resume = world->draining || !sim_once_in(&world->random, 10);
    char name[32], full[64];
    struct xy_str bare = sim_account_name(client->account, name);
    snprintf(full, sizeof(full), "%s/r%u", name, client->index);
    struct xy_stream_client_options options = { .jid = xy_jid_canonical(xy_str(full)),
                                                .password = XY_STR(SIM_PASSWORD),
                                                .mechanisms = mechanisms,
                                                .plain_without_tls = true,
                                                .tls = XY_STREAM_TLS_NONE,
                                                .sm = client->wants_sm,
                                                .sm_resume = client->asks_resume };
    if (mechanisms == XY_SASL_EXTERNAL)
        options.authzid = bare;
    if (client->resume_id_len > 0) {
        options.previd = xy_str_n(client->resume_id, client->resume_id_len);
        options.previd_h = xy_sm_h(&client->counters);
    }
    client->stream = xy_stream_client_new(&client->stream_options, &options);
    xy_assert(client->stream != NULL);
    unsigned shard = sim_below(&world->random, world->broker->shards);
    client->wire =
        sim_wire_open(world, client->index, shard, mechanisms == XY_SASL_EXTERNAL ? LINK_LOCAL : LINK_C2S);
    client->state = SIM_CLIENT_LOGIN;
    client->login_us = world->now_us;
    client->crashes = world->crashes;
    client->restarts = world->restarts;
    sim_trace(world, "client %u connects to shard %u%s", client->index, shard,
              client->resume_id_len ? ", to resume" : "");
    xy_stream_client_open(client->stream);
    flush(client);
}

/* Deriving keys takes a hundred times longer than all else here, so most come in by the local socket. */
static void connect_somehow(struct sim_client *client)
{
    uint32_t how = sim_below(&client->world->random, 60);
    unsigned mechanisms = how == 0 ? XY_SASL_SCRAM_SHA_256 : how < 4 ? XY_SASL_PLAIN : XY_SASL_EXTERNAL;
    connect_by(client, mechanisms);
}

static void go_offline(struct sim_client *client)
{
    struct sim_random *random = &client->world->random;
    switch (sim_below(random, 4)) {
    case 0: /* for good: the session ends, and what it did not acknowledge goes back */
        xy_stream_close(client->stream);
        flush(client);
        client->resume_id_len = 0;
        break;
    case 1: /* forgets that it could resume */
        client->resume_id_len = 0;
        break;
    default:
        break;
    }
    disconnected(client);
}

/* --- what the stream says ----------------------------------------------------------------------------------------- */

/* An orderly stop forgets nothing, but where the disk had no room for answers: then h stays before them. */
static bool crossed(const struct sim_client *client)
{
    return client->crashes != client->ready_crashes ||
           (client->world->mood.disk_fills && client->restarts != client->ready_restarts);
}

static void on_kept(struct xy_sm_entry *entry, bool sent, void *ctx)
{
    struct sim_client *client = ctx;
    size_t at = 0;
    unsigned token;
    while (sent && sim_token_find(client->world->model, xy_bytes_view(entry->bytes), &at, &token))
        sim_model_sent_again(client->world->model, token);
}

static void on_resumed(struct sim_client *client, const struct xy_stream_event *event)
{
    client->world->resumed++;
    if (crossed(client))
        sim_model_crossed(client->world->model, client->index, client->session);
    client->sm = true;
    told(client, event->h);
    xy_sm_queue_each(&client->queue, on_kept, client);
    xy_sm_queue_rewind(&client->queue, &client->counters);
}

static void on_bound(struct sim_client *client, const struct xy_stream_event *event)
{
    struct sim_model *model = client->world->model;
    client->world->rebound++;
    if (event->h_known) /* its time was over, and it is remembered how far it got */
        told(client, event->h);
    xy_sm_queue_drain(&client->queue, on_forgotten, client);
    xy_sm_queue_init(&client->queue, &client->chunks);
    client->sm = event->sm;
    xy_sm_init(&client->counters);
    xy_sm_queue_keep(&client->queue, client->sm);
    client->resume_id_len = 0;
    if (client->sm && event->resume && event->sm_id.len < sizeof(client->resume_id)) {
        client->resume_id_len = event->sm_id.len;
        memcpy(client->resume_id, event->sm_id.data, event->sm_id.len);
    }
    if (client->wants_sm && client->asks_resume && !client->resume_id_len)
        sim_violation(model, "client %u did not get a session that can be resumed", client->index);
    xy_assert(model->sessions < SIM_SESSIONS_MAX);
    client->session = model->sessions++;
    client->serial = 0;
    client->bound_moment = model->moment;
    sim_app_session_new(client);
}

static void on_ready(struct sim_client *client, const struct xy_stream_event *event)
{
    client->state = SIM_CLIENT_READY;
    client->asked = client->ack_owed = false;
    sim_trace(client->world, "client %u is ready%s", client->index, event->resumed ? ", resumed" : "");
    if (event->resumed)
        on_resumed(client, event);
    else
        on_bound(client, event);
    client->ready_crashes = client->crashes;
    client->ready_restarts = client->restarts;
}

static void on_stanza(struct sim_client *client, struct xy_stream_event *event)
{
    sim_app_stanza(client, &event->stanza);
    xy_arena_free(&event->stanza.arena);
    if (!client->sm)
        return;
    xy_sm_in_done(&client->counters, xy_sm_in_begin(&client->counters));
    client->received_since_ack++;
}

static void on_failed(struct sim_client *client, const struct xy_stream_event *event)
{
    bool known = event->failure == XY_STREAM_FAILED_BY_PEER &&
                 (event->error == XY_STREAM_CONFLICT || event->error == XY_STREAM_SYSTEM_SHUTDOWN ||
                  event->error == XY_STREAM_CONNECTION_TIMEOUT);
    if (!known)
        sim_violation(client->world->model, "the stream of client %u failed: %s: %.*s", client->index,
                      xy_stream_error_name(event->error), XY_ARG(event->text));
    if (event->error == XY_STREAM_CONFLICT)
        client->resume_id_len = 0;
}

static void ack(struct sim_client *client)
{
    xy_stream_send_ack(client->stream, xy_sm_h(&client->counters));
    client->ack_owed = false;
    client->received_since_ack = 0;
}

static void pump(struct sim_client *client)
{
    struct xy_stream_event event;
    while (client->stream && xy_stream_next(client->stream, &event)) {
        switch (event.kind) {
        case XY_STREAM_EVENT_READY:
            on_ready(client, &event);
            break;
        case XY_STREAM_EVENT_STANZA:
            on_stanza(client, &event);
            break;
        case XY_STREAM_EVENT_SM_REQUEST:
            client->ack_owed = true;
            if (sim_once_in(&client->world->random, 2))
                ack(client);
            break;
        case XY_STREAM_EVENT_SM_ACK:
            client->asked = false;
            told(client, event.h);
            break;
        case XY_STREAM_EVENT_FAILED:
            on_failed(client, &event);
            break;
        default:
            break;
        }
    }
}

bool sim_client_receive(struct sim_client *client)
{
    struct sim_world *world = client->world;
    char bytes[RECEIVE_BYTES];
    if (client->wire == NULL || client->busy_us > world->now_us)
        return false;
    size_t max = sim_once_in(&world->random, 5) ? 1 + sim_below(&world->random, 60) : sizeof(bytes);
    size_t len = sim_wire_receive(client->wire, bytes, max, &client->left_moment);
    if (len > 0) {
        sim_trace(world, "client %u receives %zu bytes", client->index, len);
        xy_stream_feed(client->stream, bytes, len);
        pump(client);
        flush(client);
        return true;
    }
    if (!sim_wire_ended(client->wire))
        return false;
    disconnected(client);
    return true;
}

/* --- of its own will ---------------------------------------------------------------------------------------------- */

static void act_ready(struct sim_client *client)
{
    struct sim_world *world = client->world;
    struct sim_random *random = &world->random;
    bool owes_ack = client->sm && (client->ack_owed || client->received_since_ack > 0);
    bool draining = world->draining;
    if (owes_ack && (draining || sim_once_in(random, 3)))
        ack(client);
    if (client->sm && !client->asked && xy_sm_unacked(&client->counters) > 0 &&
        (draining || sim_once_in(random, 4))) {
        xy_stream_send_request(client->stream);
        client->asked = true;
    }
    sim_app_act(client);
    flush(client);
    if (draining)
        return;
    if (sim_once_in(random, 100))
        client->busy_us = world->now_us + sim_below(random, world->mood.busy_us_max);
    if (sim_once_in(random, world->mood.offline_in))
        go_offline(client);
}

void sim_client_act(struct sim_client *client)
{
    struct sim_world *world = client->world;
    if (world->draining)
        client->busy_us = 0;
    if (client->state == SIM_CLIENT_READY) {
        act_ready(client);
    } else if (client->state == SIM_CLIENT_LOGIN) {
        if (world->now_us - client->login_us > LOGIN_US_MAX)
            sim_violation(world->model, "client %u could not log in within %u s", client->index,
                          LOGIN_US_MAX / 1000000);
    } else if (world->broker && (client->try_us <= world->now_us || world->draining)) {
        connect_somehow(client);
    }
}

bool sim_client_satisfied(const struct sim_client *client)
{
    return client->state == SIM_CLIENT_READY && xy_sm_queue_empty(&client->queue) &&
           client->received_since_ack == 0 && sim_app_satisfied(client);
}

uint64_t sim_client_due(const struct sim_client *client)
{
    if (client->state == SIM_CLIENT_OFF)
        return client->try_us;
    return client->busy_us > client->world->now_us ? client->busy_us : UINT64_MAX;
}
