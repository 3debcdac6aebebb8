/* Chat messages: between pairs who are there, and to recipients who are away. With XEP-0198 a sender goes on as its messages
 * are acknowledged, without it as they arrive. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/load/load.h"

struct pair {
    struct client *sender, *recipient;
    char to[128];
};

static void on_delivery(struct client *client)
{
    client->load->figures.done++;
}

/* An <r/> after so many stanzas, and when only its answer can let the sender go on. */
static void ask_for_ack(struct client *sender, unsigned window)
{
    unsigned every = window / 2 < LOAD_ACK_EVERY ? window / 2 : LOAD_ACK_EVERY;
    if (sender->sent - sender->asked >= every ||
        (sender->sent > sender->asked && sender->sent - sender->covered >= window))
        client_request_ack(sender);
}

static bool may_send(const struct load *load, const struct pair *pair)
{
    uint64_t on_the_way = pair->sender->published - pair->recipient->delivered;
    if (!load->scenario->sm)
        return on_the_way < load->scenario->window;
    return pair->sender->sent - pair->sender->covered < load->scenario->window && on_the_way < LOAD_LAG_MAX;
}

static void step(struct load *load)
{
    struct pair *pairs = load->ctx;
    for (unsigned i = 0; i < load->scenario->sinks; i++) {
        struct pair *pair = &pairs[i];
        while (may_send(load, pair)) {
            client_message(pair->sender, xy_str(pair->to), ++pair->sender->published, load->now_us);
            if (load->scenario->sm)
                ask_for_ack(pair->sender, load->scenario->window);
        }
    }
}

static bool all_delivered(struct load *load)
{
    struct pair *pairs = load->ctx;
    for (unsigned i = 0; i < load->scenario->sinks; i++)
        if (pairs[i].recipient->delivered < pairs[i].sender->published)
            return false;
    return true;
}

void messages_run(struct load *load)
{
    unsigned count = load->scenario->sinks;
    struct pair *pairs = calloc(count, sizeof(*pairs));
    struct client **clients = clients_open(load, 0, 2 * count, true);
    if (pairs == NULL)
        load_fail("no memory");
    load->ctx = pairs;
    for (unsigned i = 0; i < count; i++) {
        pairs[i].sender = clients[i];
        pairs[i].recipient = clients[count + i];
        (void)snprintf(pairs[i].to, sizeof(pairs[i].to), "u%u@%s/load", count + i, load->domain);
    }
    load->on_delivery = on_delivery;
    loop_measure(load, step);
    if (!loop_until(load, LOAD_DRAIN_S, all_delivered))
        for (unsigned i = 0; i < count; i++)
            load->figures.lost += pairs[i].sender->published - pairs[i].recipient->delivered;
    free(pairs);
}

/* --- to recipients who are away ----------------------------------------------------------------------------------- */

struct away {
    struct client *sender;
    uint64_t before; /* stanzas that the sender had sent before */
    struct client **recipients;
};

static void store_step(struct load *load)
{
    struct away *away = load->ctx;
    struct client *sender = away->sender;
    while (sender->published < load->scenario->total &&
           sender->sent - sender->covered < load->scenario->window) {
        char to[128];
        unsigned recipients = load->scenario->sinks, who = (unsigned)(sender->published % recipients);
        (void)snprintf(to, sizeof(to), "u%u@%s", 1 + who, load->domain);
        client_message(sender, xy_str(to), sender->published / recipients + 1, load->now_us);
        sender->published++;
        ask_for_ack(sender, load->scenario->window);
    }
    if (sender->sent > sender->asked)
        client_request_ack(sender);
}

/* Asked right after the answers came: a turn later would be after a wait for more. */
static bool all_stored(struct load *load)
{
    const struct away *away = load->ctx;
    load->figures.done = away->sender->covered > away->before ? away->sender->covered - away->before : 0;
    return load->figures.done >= load->scenario->total;
}

static bool all_drained(struct load *load)
{
    return load->figures.done >= 2u * load->scenario->total;
}

/* They come and get everything, and once more nothing. */
static void drain(struct load *load, struct away *away)
{
    struct sums begin, end;
    unsigned count = load->scenario->sinks;
    away->recipients = clients_open(load, 1, count, false);
    load->on_delivery = on_delivery;
    figures_mark(load, &begin);
    for (unsigned i = 0; i < count; i++)
        client_raw(away->recipients[i], XY_STR("<presence/>"));
    if (!loop_until(load, LOAD_WAIT_S, all_drained))
        load->figures.lost += 2u * load->scenario->total - load->figures.done;
    figures_mark(load, &end);
    double drained = (double)(end.done - begin.done);
    xy_buf_printf(&load->figures.more, ",\"drained_per_s\":%.1f",
                  drained * 1e6 / (double)(end.time_us - begin.time_us));
    if (load->pid > 0 && drained > 0)
        xy_buf_printf(&load->figures.more, ",\"drain_server_cpu_s_per_million\":%.3f",
                      (double)(end.server_cpu_us - begin.server_cpu_us) / drained);
    clients_close(load, away->recipients, count);
    uint64_t drained_before = load->figures.done;
    away->recipients = clients_open(load, 1, count, true);
    loop_for(load, 1);
    load->figures.repeated += load->figures.done - drained_before;
}

void offline_run(struct load *load)
{
    struct away away = { 0 };
    unsigned count = load->scenario->sinks;
    load->ctx = &away;
    clients_close(load, clients_open(load, 1, count, true), count);
    away.sender = clients_open(load, 0, 1, true)[0];
    away.before = away.sender->sent;
    figures_mark(load, &load->figures.begin);
    load->on_turn = store_step;
    if (!loop_until(load, 2 * LOAD_WAIT_S, all_stored))
        load_fail("%llu of %u messages acknowledged after %u s", (unsigned long long)load->figures.done,
                  load->scenario->total, 2 * LOAD_WAIT_S);
    figures_mark(load, &load->figures.end);
    load->on_turn = NULL;
    load->figures.done = load->scenario->total;
    drain(load, &away);
}
