/* What the loop of the load generator calls of a client; for loop.c and client.c only. */
#pragma once

#include "bench/load/load.h"

void client_event(struct client *client, uint32_t events); /* of epoll */
void client_flush(struct client *client);
void client_acknowledge(struct client *client); /* <a/>, if anything came since the last */
