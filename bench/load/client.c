/* A connection: opened, written and read; what the bytes mean is its protocol's. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/load/socket.h"

enum { READ_BYTES = 64 * 1024, LOGINS_AT_ONCE = 64 };

void client_dirty(struct client *client)
{
    if (client->is_dirty)
        return;
    client->is_dirty = true;
    client->dirty_next = client->load->dirty;
    client->load->dirty = client;
}

/* --- what a protocol found out ------------------------------------------------------------------------------------ */

void client_answered(struct client *client, uint64_t number)
{
    client->answered++;
    if (client->load->on_answer != NULL)
        client->load->on_answer(client, number);
}

/* Everything a client gets comes from one source, in order. */
void client_delivered(struct client *client, struct xy_str payload)
{
    struct load *load = client->load;
    uint64_t number, sent_us;
    if (!payload_get(payload, &number, &sent_us)) {
        load->figures.corrupt++;
    } else if (number <= client->delivered) {
        load->figures.repeated++;
    } else {
        load->figures.lost += number - client->delivered - 1;
        client->delivered = number;
        spread_add(&load->figures.delivery, load->now_us - sent_us);
        if (load->on_delivery != NULL)
            load->on_delivery(client);
    }
}

/* --- login -------------------------------------------------------------------------------------------------------- */

/* An address has less than 65536 ports, and a server may bound its connections: each round has one of its own. */
static void leave_from(int fd, unsigned round)
{
    struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + round) };
    if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) != 0)
        load_fail("cannot bind to loopback address %u: %s", round, strerror(errno));
}

static int connect_to(const char *host, uint16_t port, unsigned round)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    struct addrinfo *found;
    char service[8];
    int one = 1;
    (void)snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        load_fail("%s is not an address", host);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && round > 0 && strncmp(host, "127.", 4) == 0)
        leave_from(fd, round);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        load_fail("cannot connect to %s port %u: %s", host, port, strerror(errno));
    freeaddrinfo(found);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static struct client *client_open(struct load *load, unsigned number, bool available)
{
    struct client *client = calloc(1, sizeof(*client));
    if (client == NULL)
        load_fail("no memory");
    client->load = load;
    client->number = number;
    client->sm = load->scenario->sm;
    client->available = available;
    client->fd = connect_to(load->host, load->port, load->round);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, client->fd, &event) != 0)
        load_fail("epoll_ctl: %s", strerror(errno));
    load->protocol->open(client);
    client_dirty(client);
    return client;
}

static unsigned count_ready(struct client *const *clients, unsigned count)
{
    unsigned ready = 0;
    for (unsigned i = 0; i < count; i++)
        ready += clients[i]->ready;
    return ready;
}

/* Until not more than so many of them are on the way. */
static void await_logins(struct load *load, struct client *const *clients, unsigned count, unsigned at_most)
{
    uint64_t end_us = clock_us() + LOAD_WAIT_S * UINT64_C(1000000);
    while (count - count_ready(clients, count) > at_most) {
        if (clock_us() >= end_us)
            load_fail("%u of %u logins after %u s", count_ready(clients, count), count, LOAD_WAIT_S);
        loop_turn(load, end_us);
    }
}

struct client **clients_open(struct load *load, unsigned first, unsigned count, bool available)
{
    struct client **all = realloc(load->clients, (load->clients_count + count) * sizeof(struct client *));
    if (all == NULL)
        load_fail("no memory");
    struct client **clients = all + load->clients_count;
    load->clients = all;
    for (unsigned i = 0; i < count; i++) {
        clients[i] = client_open(load, first + i, available);
        load->clients_count++;
        if (i >= LOGINS_AT_ONCE)
            await_logins(load, clients, i + 1, LOGINS_AT_ONCE);
    }
    await_logins(load, clients, count, 0);
    clients_answered(load);
    return clients;
}

static void watch(struct client *client)
{
    struct epoll_event event = { .data.ptr = client };
    event.events = (client->stopped ? 0u : EPOLLIN) | (client->wants_write ? EPOLLOUT : 0u);
    (void)epoll_ctl(client->load->epoll, EPOLL_CTL_MOD, client->fd, &event);
}

/* The server ended the connection: as it should after client_close. */
static void gone(struct client *client, ssize_t got)
{
    if (!client->closing)
        load_fail("the server closed the connection of u%u%s", client->number,
                  got < 0 ? " with an error" : "");
    (void)close(client->fd);
    client->fd = -1;
    xy_tls_free(&client->tls);
}

/* The kernel takes as little as it can, so that the server notices soon. */
void client_stop_reading(struct client *client)
{
    int least = 1;
    (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
    client->stopped = true;
    watch(client);
}

static bool all_gone(struct load *load)
{
    unsigned open = 0;
    for (unsigned i = 0; i < load->clients_count; i++)
        open += load->clients[i]->closing && load->clients[i]->fd >= 0;
    return open == 0;
}

void clients_close(struct load *load, struct client **clients, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        clients[i]->closing = true;
        if (clients[i]->stopped) {
            gone(clients[i], 0); /* reading all that waits for it would take long */
        } else {
            load->protocol->close(clients[i]);
            client_flush(clients[i]);
        }
        clients[i]->ready = false;
    }
    if (!loop_until(load, LOAD_WAIT_S, all_gone))
        load_fail("the server does not close connections");
}

static bool none_waits(struct load *load)
{
    return load->waiting == 0;
}

void clients_answered(struct load *load)
{
    if (!loop_until(load, LOAD_WAIT_S, none_waits))
        load_fail("%u requests without an answer after %u s", load->waiting, LOAD_WAIT_S);
}

/* --- bytes -------------------------------------------------------------------------------------------------------- */

static void want_write(struct client *client, bool wanted)
{
    if (client->wants_write == wanted)
        return;
    client->wants_write = wanted;
    watch(client);
}

static struct xy_str output(struct client *client)
{
    return client->tls != NULL ? tls_output(client) : xy_buf_view(&client->out);
}

void client_flush(struct client *client)
{
    struct xy_str left;
    while (client->fd >= 0 && (left = output(client)).len > 0) {
        ssize_t sent = send(client->fd, left.data, left.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            want_write(client, true);
            return;
        }
        if (sent < 0)
            load_fail("u%u cannot write: %s", client->number, strerror(errno));
        if (client->tls != NULL)
            xy_tls_output_consumed(client->tls, (size_t)sent);
        else
            xy_buf_consume(&client->out, (size_t)sent);
    }
    want_write(client, false);
}

/* Into client->in, in clear. Returns what recv does. */
static ssize_t receive(struct client *client)
{
    static char sealed[READ_BYTES];
    char *room = client->tls != NULL ? sealed : xy_buf_reserve(&client->in, READ_BYTES);
    if (room == NULL)
        load_fail("no memory");
    ssize_t got = recv(client->fd, room, READ_BYTES, MSG_DONTWAIT);
    if (got > 0 && client->tls != NULL)
        tls_received(client, sealed, (size_t)got);
    else if (got > 0)
        client->in.len += (size_t)got;
    return got;
}

void client_event(struct client *client, uint32_t events)
{
    if (events & EPOLLOUT)
        client_flush(client);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t got = receive(client);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        gone(client, got);
    else
        client->load->protocol->take(client);
}
