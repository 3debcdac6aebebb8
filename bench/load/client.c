/* A connection: opened, logged in through core/stream, then bytes that scan.c looks at. */
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

#include "bench/load/scan.h"
#include "bench/load/socket.h"

enum { READ_BYTES = 64 * 1024, LOGINS_AT_ONCE = 64 };

static void make_dirty(struct client *client)
{
    if (client->is_dirty)
        return;
    client->is_dirty = true;
    client->dirty_next = client->load->dirty;
    client->load->dirty = client;
}

void client_raw(struct client *client, struct xy_str stanza)
{
    xy_buf_str(&client->out, stanza);
    client->sent += client->sm;
    make_dirty(client);
}

/* --- XEP-0198 ----------------------------------------------------------------------------------------------------- */

void client_acknowledge(struct client *client)
{
    if (!client->ready || !client->sm || client->h == client->h_told)
        return;
    client->h_told = client->h;
    xy_buf_printf(&client->out, "<a xmlns='urn:xmpp:sm:3' h='%u'/>", client->h);
    make_dirty(client);
}

void client_request_ack(struct client *client)
{
    client->asked = client->sent;
    xy_buf_lit(&client->out, "<r xmlns='urn:xmpp:sm:3'/>");
    make_dirty(client);
}

/* --- login -------------------------------------------------------------------------------------------------------- */

static void take_output(struct client *client)
{
    struct xy_str output = xy_stream_output(client->stream);
    xy_buf_str(&client->out, output);
    xy_stream_sent(client->stream, output.len);
    make_dirty(client);
}

/* Nothing can follow before we say something, so the stream is not needed any more. */
static void logged_in(struct client *client)
{
    xy_stream_free(&client->stream);
    client->ready = true;
    if (!client->available)
        return;
    client_raw(client, XY_STR("<presence/>"));
    client_ping(client);
}

static void login_go_on(struct client *client, const void *data, size_t len)
{
    struct xy_stream_event event;
    bool is_in = false;
    xy_stream_feed(client->stream, data, len);
    while (xy_stream_next(client->stream, &event)) {
        is_in |= event.kind == XY_STREAM_EVENT_READY;
        if (event.kind == XY_STREAM_EVENT_READY && client->sm && !event.sm)
            load_fail("the server does not enable XEP-0198");
        if (event.kind == XY_STREAM_EVENT_STANZA)
            load_fail("a stanza came to u%u before it was there", client->number);
        if (event.kind == XY_STREAM_EVENT_FAILED || event.kind == XY_STREAM_EVENT_CLOSED)
            load_fail("login of u%u: %.*s", client->number, XY_ARG(event.text));
    }
    take_output(client);
    if (is_in)
        logged_in(client);
}

static int connect_to(const char *host, uint16_t port)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
    struct addrinfo *found;
    char service[8];
    int one = 1;
    (void)snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        load_fail("%s is not an address", host);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        load_fail("cannot connect to %s port %u: %s", host, port, strerror(errno));
    freeaddrinfo(found);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Only the scenario that counts logins pays for SCRAM. */
static unsigned mechanisms(const struct load *load)
{
    return load->scenario->run == logins_run ? 0 : XY_SASL_PLAIN;
}

static struct client *client_open(struct load *load, unsigned number, bool available)
{
    struct client *client = calloc(1, sizeof(*client));
    char jid[256];
    (void)snprintf(jid, sizeof(jid), "u%u@%s/load", number, load->domain);
    client->load = load;
    client->number = number;
    client->sm = load->scenario->sm;
    client->available = available;
    client->fd = connect_to(load->host, load->port);
    client->stream = xy_stream_client_new(
        &load->stream, &(struct xy_stream_client_options){ .jid = xy_jid_canonical(xy_str(jid)),
                                                           .password = xy_str(load->password),
                                                           .mechanisms = mechanisms(load),
                                                           .plain_without_tls = true,
                                                           .tls = XY_STREAM_TLS_NONE,
                                                           .sm = client->sm });
    if (client->stream == NULL)
        load_fail("no memory");
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, client->fd, &event) != 0)
        load_fail("epoll_ctl: %s", strerror(errno));
    xy_stream_client_open(client->stream);
    take_output(client);
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

static bool all_gone(struct load *load)
{
    unsigned open = 0;
    for (unsigned i = 0; i < load->clients_count; i++)
        open += !load->clients[i]->ready && load->clients[i]->fd >= 0;
    return open == 0;
}

void clients_close(struct load *load, struct client **clients, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        client_acknowledge(clients[i]);
        xy_buf_lit(&clients[i]->out, "</stream:stream>");
        client_flush(clients[i]);
        clients[i]->ready = false;
    }
    if (!loop_until(load, LOAD_WAIT_S, all_gone))
        load_fail("the server does not close connections");
}

/* --- bytes -------------------------------------------------------------------------------------------------------- */

static void want_write(struct client *client, bool wanted)
{
    struct epoll_event event = { .events = EPOLLIN | (wanted ? EPOLLOUT : 0u), .data.ptr = client };
    if (client->wants_write == wanted)
        return;
    client->wants_write = wanted;
    (void)epoll_ctl(client->load->epoll, EPOLL_CTL_MOD, client->fd, &event);
}

void client_flush(struct client *client)
{
    while (client->out.len > 0 && client->fd >= 0) {
        ssize_t sent = send(client->fd, client->out.data, client->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            want_write(client, true);
            return;
        }
        if (sent < 0)
            load_fail("u%u cannot write: %s", client->number, strerror(errno));
        xy_buf_consume(&client->out, (size_t)sent);
    }
    want_write(client, false);
}

/* The server ended the connection: as it should after client_close. */
static void gone(struct client *client, ssize_t got)
{
    if (client->ready || client->stream != NULL)
        load_fail("the server closed the connection of u%u%s", client->number,
                  got < 0 ? " with an error" : "");
    (void)close(client->fd);
    client->fd = -1;
}

void client_event(struct client *client, uint32_t events)
{
    if (events & EPOLLOUT)
        client_flush(client);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    char *room = xy_buf_reserve(&client->in, READ_BYTES);
    if (room == NULL)
        load_fail("no memory");
    ssize_t got = recv(client->fd, room, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        gone(client, got);
    } else if (client->stream != NULL) {
        login_go_on(client, room, (size_t)got);
    } else {
        client->in.len += (size_t)got;
        client_scan(client);
    }
}
