/* Publishing and fan-out as an application has them: libxylem on both sides, many clients on one epoll set. The node is
 * made by a plain client, because the library does not configure nodes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <xylem/xylem.h>

#include "bench/load/load.h"

enum { EVENTS = 256, TIMERS_US = 20000 };

struct fan;

struct member { /* the publisher, then the subscribers */
    struct fan *fan;
    struct xylem_client *client;
    uint64_t delivered; /* newest number */
};

struct fan {
    struct load *load;
    char node[32];
    struct member *members;
    unsigned count, online, subscribed;
    int epoll;
    uint64_t published, answered, deliveries, timers_us;
    uint64_t sent_us[LOAD_WINDOW_MAX];
};

/* --- what the library says ---------------------------------------------------------------------------------------- */

static void on_state(struct xylem_client *client, enum xylem_state state, enum xylem_status why, void *ctx)
{
    struct member *member = ctx;
    if (state == XYLEM_STATE_ONLINE)
        member->fan->online++;
    else if (state == XYLEM_STATE_WAITING || (state == XYLEM_STATE_STOPPED && why != XYLEM_OK))
        load_fail("a client of libxylem: %s", xylem_client_error(client));
}

static void on_subscribed(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    struct member *member = ctx;
    (void)client;
    if (result->status != XYLEM_OK)
        load_fail("subscribe: %s", result->text);
    member->fan->subscribed++;
}

static void on_published(struct xylem_client *client, const struct xylem_result *result, void *ctx)
{
    struct fan *fan = ctx;
    (void)client;
    if (result->status != XYLEM_OK)
        load_fail("publish: %s", result->text);
    fan->answered++;
    spread_add(&fan->load->figures.answer, clock_us() - fan->sent_us[fan->answered % LOAD_WINDOW_MAX]);
    fan->load->figures.done += fan->count == 1;
}

static void on_message(struct xylem_sub *sub, struct xylem_msg *msg, void *ctx)
{
    struct member *member = ctx;
    struct figures *figures = &member->fan->load->figures;
    struct xylem_msg_view view;
    uint64_t number, sent_us;
    (void)sub;
    xylem_msg_view(msg, &view);
    if (view.event != XYLEM_EVENT_ITEM)
        return;
    if (!payload_get(xy_str_n(view.data, view.len), &number, &sent_us)) {
        figures->corrupt++;
    } else if (number <= member->delivered) {
        figures->repeated++;
    } else {
        figures->lost += number - member->delivered - 1;
        member->delivered = number;
        member->fan->deliveries++;
        figures->done++;
        spread_add(&figures->delivery, clock_us() - sent_us);
    }
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

static void publish(struct fan *fan)
{
    struct xy_buf payload = { 0 };
    unsigned sinks = fan->count - 1;
    while (fan->published - fan->answered < fan->load->scenario->window &&
           (sinks == 0 || fan->published < fan->deliveries / sinks + LOAD_LAG_MAX)) {
        uint64_t now_us = clock_us();
        fan->sent_us[++fan->published % LOAD_WINDOW_MAX] = now_us;
        xy_buf_reset(&payload);
        payload_put(&payload, fan->published, now_us);
        struct xylem_item item = { .node = fan->node, .data = payload.data, .len = payload.len };
        if (xylem_publish(fan->members[0].client, &item, on_published, fan) != XYLEM_OK)
            load_fail("xylem_publish: %s", xylem_client_error(fan->members[0].client));
    }
    xy_buf_free(&payload);
}

/* The publisher has its turn always; the others when something came, and now and then for what they do by time. */
static void turn(struct fan *fan)
{
    struct epoll_event events[EVENTS];
    (void)xylem_client_process(fan->members[0].client);
    int count = epoll_wait(fan->epoll, events, EVENTS, 1);
    if (count < 0 && errno != EINTR)
        load_fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        (void)xylem_client_process(events[i].data.ptr);
    if (clock_us() - fan->timers_us < TIMERS_US)
        return;
    fan->timers_us = clock_us();
    for (unsigned i = 1; i < fan->count; i++)
        (void)xylem_client_process(fan->members[i].client);
}

static bool all_online(const struct fan *fan)
{
    return fan->online == fan->count && fan->subscribed == fan->count - 1;
}

static bool all_there(const struct fan *fan)
{
    return fan->answered == fan->published &&
           fan->deliveries + fan->load->figures.lost >= fan->published * (fan->count - 1);
}

static bool turns_until(struct fan *fan, double seconds, bool (*done)(const struct fan *fan))
{
    uint64_t end_us = clock_us() + (uint64_t)(seconds * 1e6);
    while (!done(fan) && clock_us() < end_us)
        turn(fan);
    return done(fan);
}

static void publish_for(struct fan *fan, double seconds)
{
    uint64_t end_us = clock_us() + (uint64_t)(seconds * 1e6);
    while (clock_us() < end_us) {
        publish(fan);
        turn(fan);
    }
}

/* --- beginning ---------------------------------------------------------------------------------------------------- */

static void member_begin(struct fan *fan, unsigned number)
{
    struct member *member = &fan->members[number];
    struct load *load = fan->load;
    struct xylem_options options = XYLEM_OPTIONS;
    char jid[256], error[256];
    (void)snprintf(jid, sizeof(jid), "u%u@%s/sdk", number, load->domain);
    options.jid = jid;
    options.password = load->password;
    options.host = load->host;
    options.port = load->port;
    options.service = load->service;
    options.tls = XYLEM_TLS_NONE;
    options.plain_allowed = true;
    options.publish_window = load->scenario->window;
    options.on_state = on_state;
    options.ctx = member;
    member->fan = fan;
    if (xylem_client_new(&member->client, &options, error, sizeof(error)) != XYLEM_OK)
        load_fail("xylem_client_new: %s", error);
    struct xylem_sub_options sub = XYLEM_SUB_OPTIONS;
    sub.durable = load->scenario->sm;
    sub.on_message = on_message;
    sub.on_subscribed = on_subscribed;
    sub.ctx = member;
    if (number > 0 && xylem_subscribe(member->client, fan->node, &sub, NULL) != XYLEM_OK)
        load_fail("xylem_subscribe: %s", xylem_client_error(member->client));
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = member->client };
    if (xylem_client_start(member->client) != XYLEM_OK ||
        epoll_ctl(fan->epoll, EPOLL_CTL_ADD, xylem_client_fd(member->client), &event) != 0)
        load_fail("a client of libxylem does not start: %s", xylem_client_error(member->client));
}

static void count_lost(struct fan *fan)
{
    if (turns_until(fan, LOAD_DRAIN_S, all_there))
        return;
    for (unsigned i = 1; i < fan->count; i++)
        fan->load->figures.lost += fan->answered - fan->members[i].delivered;
}

void sdk_run(struct load *load)
{
    static struct fan fan;
    fan.load = load;
    fan.count = 1 + load->scenario->sinks;
    fan.members = calloc(fan.count, sizeof(struct member));
    fan.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (fan.members == NULL || fan.epoll < 0)
        load_fail("no memory");
    (void)snprintf(fan.node, sizeof(fan.node), "load-%ld", (long)getpid());
    struct client *owner = clients_open(load, 0, 1, false)[0];
    node_make(owner, fan.node);
    for (unsigned i = 0; i < fan.count; i++)
        member_begin(&fan, i);
    if (!turns_until(&fan, LOAD_WAIT_S, all_online))
        load_fail("%u of %u clients of libxylem ready after %u s", fan.online, fan.count, LOAD_WAIT_S);
    publish_for(&fan, load->warmup_s);
    figures_mark(load, &load->figures.begin);
    publish_for(&fan, load->seconds);
    figures_mark(load, &load->figures.end);
    count_lost(&fan);
    for (unsigned i = 0; i < fan.count; i++)
        xylem_client_free(fan.members[i].client);
    node_delete(owner, fan.node);
}
