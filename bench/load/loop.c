/* Waiting for sockets and for moments, to the microsecond; one thread. */
#include "bench/load/load.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "bench/load/socket.h"

enum { EVENTS = 256, IDLE_ACK_US = 100000 };

void load_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "load: ");
    (void)vfprintf(stderr, format, arguments);
    (void)fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

uint64_t clock_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static bool acknowledges(const struct load *load)
{
    return load->scenario->sm || load->scenario->explicitly;
}

/* Everybody acknowledges what came within a tenth of a second, whether asked or not. */
static void acknowledge_idle(struct load *load)
{
    if (!acknowledges(load) || load->now_us - load->acks_us < IDLE_ACK_US)
        return;
    load->acks_us = load->now_us;
    for (unsigned i = 0; i < load->clients_count; i++)
        client_acknowledge(load->clients[i]);
}

static void flush(struct load *load)
{
    while (load->dirty != NULL) {
        struct client *client = load->dirty;
        load->dirty = client->dirty_next;
        client->is_dirty = false;
        client_flush(client);
    }
}

void loop_turn(struct load *load, uint64_t until_us)
{
    struct epoll_event events[EVENTS];
    load->now_us = clock_us();
    load->wake_us = until_us;
    if (load->on_turn != NULL)
        load->on_turn(load);
    acknowledge_idle(load);
    flush(load);
    load->now_us = clock_us();
    uint64_t wake_us = load->wake_us < until_us ? load->wake_us : until_us;
    uint64_t wait_us = wake_us > load->now_us ? wake_us - load->now_us : 0;
    if (acknowledges(load) && wait_us > IDLE_ACK_US)
        wait_us = IDLE_ACK_US;
    struct timespec wait = { (time_t)(wait_us / 1000000), (long)(wait_us % 1000000) * 1000 };
    int count = epoll_pwait2(load->epoll, events, EVENTS, &wait, NULL);
    if (count < 0 && errno != EINTR)
        load_fail("epoll_pwait2: %s", strerror(errno));
    load->now_us = clock_us();
    for (int i = 0; i < count; i++)
        client_event(events[i].data.ptr, events[i].events);
    flush(load);
}

bool loop_until(struct load *load, double seconds, bool (*done)(struct load *load))
{
    uint64_t end_us = clock_us() + (uint64_t)(seconds * 1e6);
    while (!done(load)) {
        if (clock_us() >= end_us)
            return false;
        loop_turn(load, end_us);
    }
    return true;
}

void loop_for(struct load *load, double seconds)
{
    uint64_t end_us = clock_us() + (uint64_t)(seconds * 1e6);
    while (clock_us() < end_us)
        loop_turn(load, end_us);
}

void loop_measure(struct load *load, void (*step)(struct load *load))
{
    load->on_turn = step;
    loop_for(load, load->warmup_s);
    figures_mark(load, &load->figures.begin);
    loop_for(load, load->seconds);
    figures_mark(load, &load->figures.end);
    load->on_turn = NULL;
}
