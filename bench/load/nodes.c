/* One publisher, one node, any number of subscribers, or several publishers with a node each and no subscribers: publishing with so many unanswered at most, or at fixed times. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/load/load.h"

enum { SOURCES_MAX = 10, FILL_S = 300 };

struct source {
    struct client *client;
    char node[48];
};

struct fan {
    struct source sources[SOURCES_MAX];
    unsigned sources_count;
    struct client **subscribers;
    uint64_t deliveries;
    uint64_t due_us; /* of the next publish, at a rate */
};

static void on_answer(struct client *client, uint64_t number)
{
    struct load *load = client->load;
    spread_add(&load->figures.answer, load->now_us - client->sent_us[number % LOAD_WINDOW_MAX]);
    load->figures.answered++;
    if (load->scenario->sinks == 0)
        load->figures.done++;
}

static void on_delivery(struct client *client)
{
    struct fan *fan = client->load->ctx;
    fan->deliveries++;
    client->load->figures.done++;
}

static void publish(struct source *source, uint64_t time_us)
{
    struct client *publisher = source->client;
    const struct load *load = publisher->load;
    uint64_t number = ++publisher->published;
    struct beside_name name;
    if (load->scenario->in_turn)
        beside_node(&name, number % load->beside.nodes);
    publisher->sent_us[number % LOAD_WINDOW_MAX] = time_us;
    load->protocol->publish(publisher, load->scenario->in_turn ? name.text : source->node, number, time_us);
    client_dirty(publisher);
}

static bool is_answered(const struct load *load)
{
    return load->protocol->answers_all || load->scenario->persist;
}

/* Where publishes are not answered the deliveries bound what is on its way. */
static bool may_publish(const struct load *load, const struct client *publisher)
{
    const struct fan *fan = load->ctx;
    unsigned sinks = load->scenario->sinks, window = load->scenario->window;
    if (load->scenario->total > 0 && publisher->published >= load->scenario->total / fan->sources_count)
        return false;
    if (is_answered(load) && publisher->published - publisher->answered >= window)
        return false;
    unsigned lag_max = is_answered(load) ? LOAD_LAG_MAX : window;
    return sinks == 0 || publisher->published < fan->deliveries / sinks + lag_max;
}

/* The time counts from when it should have gone, so that a server that stalls is not forgiven. */
static void step_at_rate(struct load *load)
{
    struct fan *fan = load->ctx;
    struct source *source = &fan->sources[0];
    while (may_publish(load, source->client) && fan->due_us <= load->now_us) {
        publish(source, fan->due_us);
        fan->due_us += 1000000u / load->scenario->rate;
    }
    load->wake_us = fan->due_us;
}

static void step(struct load *load)
{
    struct fan *fan = load->ctx;
    for (unsigned i = 0; i < fan->sources_count; i++)
        while (may_publish(load, fan->sources[i].client))
            publish(&fan->sources[i], load->now_us);
}

void node_make(struct client *owner, const char *node)
{
    owner->load->protocol->node_make(owner, node);
    clients_answered(owner->load);
}

void node_delete(struct client *owner, const char *node)
{
    owner->load->protocol->node_delete(owner, node);
    clients_answered(owner->load);
}

/* Those who stop come last, and take no part in what is counted. */
static void subscribe(struct load *load, struct fan *fan)
{
    unsigned sinks = load->scenario->sinks, all = sinks + load->stopped;
    fan->subscribers = clients_open(load, fan->sources_count, all, true);
    for (unsigned i = 0; i < all; i++)
        load->protocol->subscribe(fan->subscribers[i], fan->sources[0].node);
    clients_answered(load);
    for (unsigned i = sinks; i < all; i++)
        client_stop_reading(fan->subscribers[i]);
}

static bool all_answered(const struct fan *fan)
{
    for (unsigned i = 0; i < fan->sources_count; i++)
        if (fan->sources[i].client->answered < fan->sources[i].client->published)
            return false;
    return true;
}

static bool all_there(struct load *load)
{
    struct fan *fan = load->ctx;
    return (!is_answered(load) || all_answered(fan)) &&
           fan->deliveries + load->figures.lost >= fan->sources[0].client->published * load->scenario->sinks;
}

/* What the last ones still miss; what was missed before another came is counted already. */
static void count_lost(struct load *load, const struct fan *fan)
{
    const struct client *publisher = fan->sources[0].client;
    uint64_t owed = is_answered(load) ? publisher->answered : publisher->published;
    if (loop_until(load, LOAD_DRAIN_S, all_there))
        return;
    for (unsigned i = 0; i < load->scenario->sinks; i++)
        load->figures.lost +=
            owed > fan->subscribers[i]->delivered ? owed - fan->subscribers[i]->delivered : 0;
}

static void burst_step(struct load *load)
{
    struct fan *fan = load->ctx;
    struct client *publisher = fan->sources[0].client;
    while (publisher->published < load->burst && may_publish(load, publisher))
        publish(&fan->sources[0], load->now_us);
}

static bool burst_over(struct load *load)
{
    const struct fan *fan = load->ctx;
    return fan->sources[0].client->published >= load->burst && all_there(load);
}

/* So much that the buffers of who does not read are full. How long it took everybody else is not counted. */
static void burst(struct load *load)
{
    load->on_turn = burst_step;
    if (!loop_until(load, LOAD_WAIT_S, burst_over))
        load_fail("a burst of %u publishes did not arrive within %u s", load->burst, LOAD_WAIT_S);
    load->on_turn = NULL;
    load->figures.answer = load->figures.delivery = (struct spread){ 0 };
}

static void open_sources(struct load *load, struct fan *fan)
{
    fan->sources_count = load->scenario->sources > 0 ? load->scenario->sources : 1;
    struct client **clients = clients_open(load, 0, fan->sources_count, true);
    for (unsigned i = 0; i < fan->sources_count; i++) {
        struct source *source = &fan->sources[i];
        source->client = clients[i];
        (void)snprintf(source->node, sizeof(source->node), "load-%ld-%u", (long)getpid(), i);
        node_make(source->client, source->node);
    }
}

static bool filled(struct load *load)
{
    return load->figures.answered >= load->scenario->total;
}

/* So many items in all, as fast as it goes. They stay. */
static void fill(struct load *load)
{
    figures_mark(load, &load->figures.begin);
    load->on_turn = step;
    if (!loop_until(load, FILL_S, filled))
        load_fail("%u items were not stored within %u s", load->scenario->total, FILL_S);
    figures_mark(load, &load->figures.end);
}

void nodes_run(struct load *load)
{
    struct fan fan = { 0 };
    load->ctx = &fan;
    open_sources(load, &fan);
    subscribe(load, &fan);
    load->on_answer = on_answer;
    load->on_delivery = on_delivery;
    if (load->burst > 0)
        burst(load);
    fan.due_us = clock_us();
    if (load->scenario->total > 0) {
        fill(load);
        load->on_turn = NULL;
        load->on_answer = NULL;
        return;
    }
    loop_measure(load, load->scenario->rate > 0 ? step_at_rate : step);
    count_lost(load, &fan);
    load->on_answer = NULL;
    for (unsigned i = 0; i < fan.sources_count; i++)
        node_delete(fan.sources[i].client, fan.sources[i].node);
}
