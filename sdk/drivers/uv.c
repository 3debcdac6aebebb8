/* The libuv driver: a loop watches the one descriptor of the plain driver and its timeout. Everything else is fd.c. */
#include <stdlib.h>
#include <xylem/uv.h>

#include "sdk/drivers/fd.h"

struct uv_driver {
    struct xylem_client *client; /* NULL: freed, handles are closing */
    uv_poll_t poll;
    uv_timer_t timer;
    unsigned open; /* handles not closed yet */
    bool in_turn;
};

static void on_closed(uv_handle_t *handle)
{
    struct uv_driver *d = handle->data;
    if (--d->open == 0)
        free(d);
}

static void close_handles(struct uv_driver *d)
{
    uv_close((uv_handle_t *)&d->poll, on_closed);
    uv_close((uv_handle_t *)&d->timer, on_closed);
}

static void on_timer(uv_timer_t *timer);

/* A stopped client does not keep the loop alive, a running one does. */
static void schedule(struct uv_driver *d)
{
    int timeout_ms = xylem_client_timeout_ms(d->client);
    if (timeout_ms >= 0)
        uv_timer_start(&d->timer, on_timer, (uint64_t)timeout_ms, 0);
    else
        uv_timer_stop(&d->timer);
    if (xylem_client_state(d->client) == XYLEM_STATE_STOPPED && timeout_ms < 0)
        uv_unref((uv_handle_t *)&d->poll);
    else
        uv_ref((uv_handle_t *)&d->poll);
}

static void turn(struct uv_driver *d)
{
    d->in_turn = true;
    xylem_client_process(d->client);
    d->in_turn = false;
    if (d->client)
        schedule(d);
    else
        close_handles(d); /* a callback freed the client */
}

static void on_timer(uv_timer_t *timer)
{
    turn(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    turn(poll->data);
}

static void hook_turn(void *ctx)
{
    struct uv_driver *d = ctx;
    if (!d->in_turn)
        schedule(d);
}

static void hook_freed(void *ctx)
{
    struct uv_driver *d = ctx;
    d->client = NULL;
    uv_poll_stop(&d->poll);
    uv_timer_stop(&d->timer);
    if (!d->in_turn)
        close_handles(d);
}

static const struct xy_fd_hooks hooks = { .turn = hook_turn, .freed = hook_freed };

enum xylem_status xylem_uv_attach(struct xylem_client *c, uv_loop_t *loop)
{
    struct uv_driver *d = calloc(1, sizeof *d);
    if (!d)
        return XYLEM_NO_MEMORY;
    int fd = xy_fd_hook(c, &hooks, d);
    if (fd < 0) {
        free(d);
        return XYLEM_WRONG_STATE; /* attached already, or no descriptor */
    }
    d->client = c;
    d->open = 2;
    uv_timer_init(loop, &d->timer);
    d->timer.data = d;
    uv_unref((uv_handle_t *)&d->timer);
    int failed = uv_poll_init(loop, &d->poll, fd);
    d->poll.data = d;
    if (!failed)
        failed = uv_poll_start(&d->poll, UV_READABLE, on_poll);
    if (failed) {
        d->open = 1; /* the client keeps pointing at d, which stays without a loop */
        return XYLEM_NO_MEMORY;
    }
    schedule(d);
    return XYLEM_OK;
}
