/* The plain-descriptor driver as the libuv driver sees it: what to do when a turn is wanted, and when the client goes. */
#pragma once

#include <xylem/xylem.h>

struct xy_fd_hooks {
    void (*turn)(void *ctx);
    void (*freed)(void *ctx);
};

/* The descriptor, or -1. */
int xy_fd_hook(struct xylem_client *client, const struct xy_fd_hooks *hooks, void *ctx);
