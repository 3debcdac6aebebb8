/* Elements as they come after the login; for client.c only. */
#pragma once

#include "bench/load/load.h"

/* Takes all whole elements out of client->in. */
void client_scan(struct client *client);
