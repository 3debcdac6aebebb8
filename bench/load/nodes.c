/* One publisher, one node, any number of subscribers: publishing with so many unanswered at most, or at fixed times. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/load/load.h"
#include "core/namespaces.h"

#define FIELD(name, value) "<field var='pubsub#" name "'><value>" value "</value></field>"

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
    uint64_t number = ++publisher->published;
    publisher->sent_us[number % LOAD_WINDOW_MAX] = time_us;
    client_publish(publisher, fan->node, number, time_us);
}

static bool may_publish(const struct load *load, const struct fan *fan)
{
    const struct client *publisher = fan->publisher;
    unsigned sinks = load->scenario->sinks;
    return publisher->published - publisher->answered < load->scenario->window &&
           (sinks == 0 || publisher->published < fan->deliveries / sinks + LOAD_LAG_MAX);
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
    client_ask(owner,
               "<pubsub xmlns='" NS_PUBSUB "'><create node='%s'/><configure>"
               "<x xmlns='" NS_DATA_FORM
               "' type='submit'><field var='FORM_TYPE' type='hidden'><value>" NS_PUBSUB
               "#node_config</value></field>%s" FIELD("send_last_published_item",
                                                      "never") "</x></configure></pubsub>",
               node,
               owner->load->scenario->persist ? FIELD("persist_items", "1") FIELD("max_items", "10")
                                                    FIELD("notify_retract", "0")
                                              : FIELD("persist_items", "0"));
    clients_answered(owner->load);
}

void node_delete(struct client *owner, const char *node)
{
    client_ask(owner, "<pubsub xmlns='" NS_PUBSUB_OWNER "'><delete node='%s'/></pubsub>", node);
    clients_answered(owner->load);
}

static void subscribe(struct load *load, struct fan *fan)
{
    static const char at_least_once[] =
        "<options><x xmlns='" NS_DATA_FORM
        "' type='submit'><field var='FORM_TYPE' type='hidden'><value>" NS_PUBSUB
        "#subscribe_options</value></field><field var='{urn:xylem:delivery:0}mode'>"
        "<value>at-least-once</value></field></x></options>";
    for (unsigned i = 0; i < load->scenario->sinks; i++)
        client_ask(fan->subscribers[i],
                   "<pubsub xmlns='" NS_PUBSUB "'><subscribe node='%s' jid='u%u@%s'/>%s</pubsub>", fan->node,
                   fan->subscribers[i]->number, load->domain,
                   load->scenario->sm && load->at_least_once ? at_least_once : "");
    clients_answered(load);
}

static bool all_there(struct load *load)
{
    struct fan *fan = load->ctx;
    return fan->publisher->answered == fan->publisher->published &&
           fan->deliveries + load->figures.lost >= fan->publisher->published * load->scenario->sinks;
}

/* What the last ones still miss; what was missed before another came is counted already. */
static void count_lost(struct load *load, const struct fan *fan)
{
    if (loop_until(load, LOAD_DRAIN_S, all_there))
        return;
    for (unsigned i = 0; i < load->scenario->sinks; i++)
        load->figures.lost += fan->publisher->answered > fan->subscribers[i]->delivered
                                  ? fan->publisher->answered - fan->subscribers[i]->delivered
                                  : 0;
}

void nodes_run(struct load *load)
{
    struct fan fan = { 0 };
    unsigned sinks = load->scenario->sinks;
    (void)snprintf(fan.node, sizeof(fan.node), "load-%ld", (long)getpid());
    load->ctx = &fan;
    fan.publisher = clients_open(load, 0, 1, true)[0];
    node_make(fan.publisher, fan.node);
    fan.subscribers = clients_open(load, 1, sinks, true);
    subscribe(load, &fan);
    load->on_answer = on_answer;
    load->on_delivery = on_delivery;
    fan.due_us = clock_us();
    loop_measure(load, step);
    count_lost(load, &fan);
    load->on_answer = NULL;
    node_delete(fan.publisher, fan.node);
}
