/* A libuv loop that drives one shard: what sockets bring is handled as it comes, and after each poll the shard takes
 * its turn. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/net/net_internal.h"
#include "core/base/assert.h"

static void on_spin(uv_idle_t *idle)
{
    (void)idle;
}

/* Timers run before the loop sleeps and the turn comes after it: a timer that is due by then must keep it awake. */
static void on_timer(uv_timer_t *timer)
{
    struct net *net = xy_container_of(timer, struct net, timer);
    uv_idle_start(&net->spin, on_spin);
}

static void on_wake(uv_poll_t *wake, int status, int events)
{
    const struct net *net = xy_container_of(wake, struct net, wake);
    uint64_t count;
    (void)status;
    (void)events;
    if (read(net->wake_fd, &count, sizeof(count)) < 0)
        return; /* somebody's wake-up was seen before */
}

/* Not uv_async_t: there who is woken spins until the one who wakes has left his system call, on fan-out to one a fifth of
 * all processor time. */
static bool wake_init(struct net *net)
{
    net->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return net->wake_fd >= 0 && uv_poll_init(&net->loop, &net->wake, net->wake_fd) == 0 &&
           uv_poll_start(&net->wake, UV_READABLE, on_wake) == 0;
}

/* Rounded up to whole milliseconds: waking before the time would only spin. */
static uint64_t timer_ms(uint64_t wait_us)
{
    return (wait_us + 999) / 1000;
}

static void on_turn(uv_check_t *check)
{
    struct net *net = xy_container_of(check, struct net, check);
    bool handshakes = conn_handshake_step(net);
    uint64_t wait_us = shard_turn(net->shard);
    if (atomic_load_explicit(&net->stopping, memory_order_acquire)) {
        uv_stop(&net->loop);
        return;
    }
    if (wait_us == 0 || handshakes)
        uv_idle_start(&net->spin, on_spin);
    else
        uv_idle_stop(&net->spin);
    if (wait_us == UINT64_MAX)
        uv_timer_stop(&net->timer);
    else if (wait_us > 0)
        uv_timer_start(&net->timer, on_timer, timer_ms(wait_us), 0);
}

bool net_init(struct shard *shard, struct xy_tls_config *tls)
{
    struct net *net = calloc(1, sizeof(*net));
    if (net == NULL)
        return false;
    net->shard = shard;
    net->tls = tls ? xy_tls_config_ref(tls) : NULL;
    net->read_buffer = malloc(NET_READ_BYTES);
    net->plain_buffer = malloc(NET_READ_BYTES);
    xy_list_init(&net->conns);
    xy_list_init(&net->handshakes);
    xy_list_init(&net->unfinished);
    xy_list_init(&net->queued);
    net->patience.fn = conn_on_patience;
    net->memory_fd = -1;
    shard->net = net;
    bool ok = net->read_buffer && net->plain_buffer && uv_loop_init(&net->loop) == 0 && wake_init(net);
    xy_assert(ok); /* at start: nothing can be served without it */
    uv_check_init(&net->loop, &net->check);
    uv_timer_init(&net->loop, &net->timer);
    uv_idle_init(&net->loop, &net->spin);
    uv_check_start(&net->check, on_turn);
    uv_timer_start(&net->timer, on_timer, 0, 0);
    return true;
}

static void on_walk(uv_handle_t *handle, void *ctx)
{
    (void)ctx;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void net_free(struct shard *shard)
{
    struct net *net = shard->net;
    if (net == NULL)
        return;
    net_listen_stop(shard);
    conn_destroy_all(net);
    uv_walk(&net->loop, on_walk, NULL);
    uv_run(&net->loop, UV_RUN_DEFAULT);
    int left = uv_loop_close(&net->loop);
    xy_assert(left == 0);
    close(net->wake_fd);
    shard_timer_cancel(shard, &net->patience);
    shard_timer_cancel(shard, &net->accept_pause);
    memory_watch_end(net);
    net_peers_free(net);
    xy_tls_config_unref(&net->tls);
    free(net->read_buffer);
    free(net->plain_buffer);
    free(net);
    shard->net = NULL;
}

void net_run(struct shard *shard)
{
    uv_run(&shard->net->loop, UV_RUN_DEFAULT);
}

/* While the broker is put together there may be mail for a shard without a loop: its first turn finds it. */
void net_wake(struct shard *shard)
{
    uint64_t one = 1;
    if (shard->net && write(shard->net->wake_fd, &one, sizeof(one)) < 0)
        return; /* full of wake-ups */
}

void net_stop(struct shard *shard)
{
    atomic_store_explicit(&shard->net->stopping, true, memory_order_release);
    net_wake(shard);
}

bool net_is_empty(const struct shard *shard)
{
    return xy_list_empty(&shard->net->conns);
}

void net_set_tls(struct shard *shard, struct xy_tls_config *tls)
{
    struct xy_tls_config *old = shard->net->tls;
    shard->net->tls = xy_tls_config_ref(tls);
    xy_tls_config_unref(&old);
}
