/* What the activities of a simulated client share. An activity is one file app_*.c: something that clients do and hear,
 * with its rules; app.c holds the table of all. */
#pragma once

#include "tests/sim/client.h"

#define SIM_SERVICE "pubsub." SIM_DOMAIN

/* A kind of request to the service. */
struct sim_request {
    bool owner; /* in the namespace of node owners */
    bool bare;  /* not within <pubsub/> */
    bool get;   /* changes nothing */
    void (*write)(struct sim_client *client, const struct sim_pending *pending, struct xy_buf *out);
    void (*answered)(struct sim_client *client, const struct sim_pending *pending,
                     const struct xy_stanza *iq);
};

/* Every function may be absent but `act`. */
struct sim_activity {
    unsigned weight;                        /* how often, among all of them */
    bool (*known)(const struct sim_mood *); /* absent: in every world */
    void (*act)(struct sim_client *client);
    bool (*hear)(struct sim_client *client, const struct xy_stanza *stanza); /* true: it was this one's */
    void (*session_new)(struct sim_client *client); /* nothing that was under way is known to have come */
    void (*drain)(struct sim_client *client);       /* nothing new any more: finish */
    bool (*satisfied)(const struct sim_client *client);
};
extern const struct sim_activity sim_messages, sim_presence, sim_pings, sim_creations, sim_purges,
    sim_deletions, sim_publishing, sim_retracting, sim_subscribing, sim_unsubscribing, sim_queue_setup,
    sim_queue_publishing, sim_queue_working, sim_carbons, sim_acknowledging, sim_dead_letters, sim_looking,
    sim_replaying, sim_burials;

void sim_app_padding(struct sim_client *client, struct xy_buf *out);
/* NULL: too many wait already. To be said by sim_app_say once it is complete. */
struct sim_pending *sim_app_pending(struct sim_client *client, const struct sim_request *request,
                                    unsigned node);
void sim_app_say(struct sim_client *client, const struct sim_pending *pending);
bool sim_app_is_asked(const struct sim_client *client, const struct sim_request *request, unsigned node);
void sim_app_ask_once(struct sim_client *client, const struct sim_request *request, unsigned node);
void sim_app_write_jid(struct sim_client *client,
                       struct xy_buf *out); /* jid='…', under which it subscribes */
/* <delay/> and <delivery/> of an event. */
void sim_app_read_marks(const struct xy_stanza *stanza, struct sim_delivery *delivery);
/* An event with a dead letter of a node whose name begins so. false: it is another one. */
bool sim_app_read_letter(struct sim_client *client, const struct xy_stanza *stanza, char node,
                         struct sim_delivery *delivery, struct sim_letter *letter);
/* Limits per account and nodes that reject: for the model, once; in the broker's configuration (0: none); in a node's. */
void sim_app_limits(struct sim_world *world);
unsigned sim_app_account_items(const struct sim_world *world);
void sim_app_write_overflow(const struct sim_client *client, unsigned node, struct xy_buf *out);
/* How many bytes a subscription may be owed; 0: many. */
unsigned sim_app_owed_max(const struct sim_client *client, unsigned node);
/* A publish may be refused so. */
bool sim_app_bounded(const struct sim_client *client, unsigned node, const struct xy_stanza *iq);
/* What queues are bound by: for the model, once; and in the configuration of one. */
void sim_app_queue_bounds(struct sim_world *world);
void sim_app_write_bounds(const struct sim_client *client, unsigned node, struct xy_buf *out);
/* How often an item is sent to this client, which acknowledges one by one; 0: without end. */
unsigned sim_app_max_deliver(const struct sim_client *client);
/* After how many seconds items of a node expire; 0: never. */
unsigned sim_app_expire_s(const struct sim_world *world, unsigned node);
/* Does it acknowledge by receipts? */
bool sim_app_by_receipt(const struct sim_client *client);
/* The client got an item that it is to acknowledge by itself. */
void sim_app_has(struct sim_client *client, unsigned node, const struct xy_stanza *stanza);
/* What it said about an item in a message is counted in h: as good as an answer. */
void sim_app_counted(struct sim_client *client, size_t said);
bool sim_app_no_room(const struct sim_client *client, const struct xy_stanza *iq);
