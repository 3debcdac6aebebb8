/* Ad-hoc commands (XEP-0050) of the pubsub service: what owners of nodes, and administrators, do about queues and
 * subscriptions, for clients that know data forms and nothing of this project. Private to broker/pubsub. */
#pragma once

#include "broker/router/request.h"

/* An IQ with <command/>. true: the request now asks for what the command stands for, and goes on its way as any other; its
 * answer will be the command's. false: it was answered. */
bool command_translate(struct shard *shard, struct request **request);
/* Service discovery about the list of commands, or one of them. false: it is about something else; nothing was done. */
bool command_disco(struct shard *shard, struct request **request);
