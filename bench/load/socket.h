/* What the loop of the load generator calls of a client, and what a client calls of TLS; for the files that move bytes. */
#pragma once

#include "bench/load/load.h"

void client_event(struct client *client, uint32_t events); /* of epoll */
void client_flush(struct client *client);
void client_acknowledge(struct client *client); /* <a/>, if anything came since the last */

/* tls.c: client->in and ->out are in clear; from tls_begin on these are between them and the socket. */
void tls_begin(struct client *client);
void tls_received(struct client *client, const void *data, size_t len);
struct xy_str tls_output(struct client *client); /* what is to be sent; valid until the next call */
