/* One publisher, one node, any number of subscribers: publishing with so many unanswered at most, or at fixed times. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/load/load.h"

struct fan {
    char node[32];
    struct client *publisher, **subscribers;
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

static void publish(struct fan *fan, uint64_t time_us)
{
    struct client *publisher = fan->publisher;
    const struct load *load = publisher->load;
    uint64_t number = ++publisher->published;
    struct beside_name name;
    if (load->scenario->in_turn)
        beside_node(&name, number % load->beside.nodes);
    publisher->sent_us[number % LOAD_WINDOW_MAX] = time_us;
    load->protocol->publish(publisher, load->scenario->in_turn ? name.text : fan->node, number, time_us);
    client_dirty(publisher);
}

static bool is_answered(const struct load *load)
{
    return load->protocol->answers_all || load->scenario->persist;
}

/* Where publishes are not answered the deliveries bound what is on its way. */
static bool may_publish(const struct load *load, const struct fan *fan)
{
    const struct client *publisher = fan->publisher;
    unsigned sinks = load->scenario->sinks, window = load->scenario->window;
    if (is_answered(load) && publisher->published - publisher->answered >= window)
        return false;
    unsigned lag_max = is_answered(load) ? LOAD_LAG_MAX : window;
    return sinks == 0 || publisher->published < fan->deliveries / sinks + lag_max;
}

static void step(struct load *load)
{
    struct fan *fan = load->ctx;
    unsigned rate = load->scenario->rate;
    while (may_publish(load, fan) && (rate == 0 || fan->due_us <= load->now_us)) {
        /* At a rate the time counts from when it should have gone, so that a server that stalls is not forgiven. */
        publish(fan, rate == 0 ? load->now_us : fan->due_us);
        fan->due_us += rate == 0 ? 0 : 1000000u / rate;
    }
    if (rate > 0)
        load->wake_us = fan->due_us;
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
    fan->subscribers = clients_open(load, 1, all, true);
    for (unsigned i = 0; i < all; i++)
        load->protocol->subscribe(fan->subscribers[i], fan->node);
    clients_answered(load);
    for (unsigned i = sinks; i < all; i++)
        client_stop_reading(fan->subscribers[i]);
}

static bool all_there(struct load *load)
{
    struct fan *fan = load->ctx;
    return (!is_answered(load) || fan->publisher->answered == fan->publisher->published) &&
           fan->deliveries + load->figures.lost >= fan->publisher->published * load->scenario->sinks;
}

/* What the last ones still miss; what was missed before another came is counted already. */
static void count_lost(struct load *load, const struct fan *fan)
{
    uint64_t owed = is_answered(load) ? fan->publisher->answered : fan->publisher->published;
    if (loop_until(load, LOAD_DRAIN_S, all_there))
        return;
    for (unsigned i = 0; i < load->scenario->sinks; i++)
        load->figures.lost +=
            owed > fan->subscribers[i]->delivered ? owed - fan->subscribers[i]->delivered : 0;
}

static void burst_step(struct load *load)
{
    struct fan *fan = load->ctx;
    while (fan->publisher->published < load->burst && may_publish(load, fan))
        publish(fan, load->now_us);
}

static bool burst_over(struct load *load)
{
    const struct fan *fan = load->ctx;
    return fan->publisher->published >= load->burst && all_there(load);
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

void nodes_run(struct load *load)
{
    struct fan fan = { 0 };
    (void)snprintf(fan.node, sizeof(fan.node), "load-%ld", (long)getpid());
    load->ctx = &fan;
    fan.publisher = clients_open(load, 0, 1, true)[0];
    node_make(fan.publisher, fan.node);
    subscribe(load, &fan);
    load->on_answer = on_answer;
    load->on_delivery = on_delivery;
    if (load->burst > 0)
        burst(load);
    fan.due_us = clock_us();
    loop_measure(load, step);
    count_lost(load, &fan);
    load->on_answer = NULL;
    node_delete(fan.publisher, fan.node);
}
