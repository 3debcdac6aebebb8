/* What the files of broker/pubsub share: the shard's nodes, their subscribers and subscriptions. Private to this folder.
 *
 * A node belongs to the shard that owns its name; nothing here is touched by another thread. Nodes are loaded from the
 * store when first asked for. A subscriber is a bare JID with at least one subscription; it is watched (address.h), so
 * its available sessions are known here and a publish looks nothing up:
 *
 *     pubsub -> node -> subscriber (bare JID, sessions) -> subscription (JID, options, claim)
 *                    -> item_index (index.h)
 *                    -> routes per shard (routes.c), rebuilt at the next publish after a change
 */
#pragma once

#include "broker/delivery/delivery.h"
#include "broker/pubsub/claim/backlog.h"
#include "broker/pubsub/claim/claim.h"
#include "broker/pubsub/config.h"
#include "broker/pubsub/node/dedup.h"
#include "broker/pubsub/node/index.h"
#include "broker/pubsub/pubsub.h"
#include "broker/router/address.h"
#include "broker/router/request.h"
#include "broker/store/store.h"

#define NODE_NAME_MAX     1023u /* bytes */
#define ITEM_ID_MAX       1023u
#define PUBLISH_ID_MAX    1023u
#define PUBLISH_ITEMS_MAX 256u /* items of one publish */
#define SUBID_LEN         16u
#define RECENT_BYTES_MAX  (16u << 20) /* event bodies kept in memory per shard */
#define PAGE_ITEMS_MAX    64u         /* of a durable subscription catching up */
#define PAGE_BYTES_MAX    (1u << 20)

struct node;
struct quota;
struct quota_account;
struct subscription;

/* What an account may do at a node (XEP-0060 4.1). */
enum affiliation {
    AFFILIATION_NONE,
    AFFILIATION_OUTCAST,
    AFFILIATION_MEMBER,
    AFFILIATION_PUBLISH_ONLY,
    AFFILIATION_PUBLISHER,
    AFFILIATION_OWNER,
};

struct affiliated {
    enum affiliation affiliation;
    struct xy_str jid; /* NUL-terminated */
    char text[];
};

/* An available session of a subscriber, most suitable first. */
struct reached {
    struct session_ref session;
    int8_t priority;
    bool sm;
    struct xy_str resource; /* owned */
};

struct subscriber {
    struct node *node;
    struct subscription *subscriptions;
    uint32_t subscriptions_count;
    struct reached *reached;
    size_t reached_count;
    bool heard;         /* the address owner has answered the watch */
    struct xy_str bare; /* NUL-terminated */
    char text[];
};

struct subscription {
    struct subscriber *subscriber;
    struct subscription *next; /* of the same subscriber */
    struct subscription *moved_next;
    struct request *asked;  /* the request that made it, answered when its sessions are known; NULL: done */
    struct xy_elem *answer; /* to it, in its arena */
    uint32_t number;
    uint32_t era; /* counts up when it is owed anew what may have been received already (struct claim_key) */
    uint64_t ticket;  /* of the record that makes it active */
    bool active;      /* its record is committed: it gets events */
    bool last_wanted; /* the last published item is to be sent once sessions are known */
    bool removed;     /* memory is held by a pending commit only */
    struct subscription_options options;
    struct claim claim;
    struct queue_worker *worker; /* a consumer of a queue (queue.h); NULL: none */
    struct backlog_place backlog;
    uint64_t start_seq;
    uint64_t
        born; /* next number of the node when it began to be owed items (index.h); 0: not known, all concern it */
    char subid[SUBID_LEN + 1];
    struct xy_str jid; /* NUL-terminated, bare or full */
    char text[];
};

/* What accounts are charged with for a node (quota/quota.h). */
struct node_charge {
    unsigned counted; /* kinds */
    bool reserved;    /* for the publish that is being done: what changes is settled at its end */
    struct quota_account *account; /* the creator, if it is charged for items; else NULL */
    uint64_t items, bytes;         /* so many */
};

struct node {
    struct pubsub *pubsub;
    uint64_t number;
    uint64_t epoch;
    uint64_t created_us;
    uint64_t ticket;        /* of the newest record about this node */
    uint64_t firm_ticket;   /* of the newest that is no publish with durability=async */
    uint64_t claims_ticket; /* of the newest lazy one about its claims */
    uint64_t next_seq;
    uint64_t delivered_seq; /* committed, and handed to live routes */
    uint32_t waiting;       /* events that wait for their commit */
    bool born_here;         /* created by this process: the store knows no more than we do */
    bool gone;              /* deleted: only pending commits still point here */
    struct xy_str name;     /* NUL-terminated, as all strings here */
    struct xy_str creator;
    struct node_config config;
    struct xy_table *affiliations; /* bare JID -> struct affiliated */
    struct xy_table *subscribers;  /* bare JID -> struct subscriber */
    struct xy_table *numbers;      /* subscription.number (its bytes) -> struct subscription */
    uint32_t next_number;
    uint32_t subscriptions_count;
    uint32_t durable_count;
    struct xy_list open; /* claims that want what is published next */
    struct item_index items;
    struct node_charge charge;
    struct backlog backlog;
    struct shard_timer expiry; /* of the oldest item */
    uint64_t look_s;     /* wall time under which the store knows that the node has to be looked at; 0: not */
    struct queue *queue; /* queue.h; NULL: it is none */
    uint64_t ids_until_us;  /* publish-ids that only `dedup` knows are remembered until then */
    struct dedup *dedup;    /* NULL until a publish-id was seen */
    struct routes **routes; /* per shard; NULL: none there */
    uint64_t routes_stale;  /* bit per shard */
    struct xy_list dirty_link;
    struct xy_list used_link; /* of all listed nodes, the least recently used first */
    uint64_t used_us;
    uint64_t counted_bytes;     /* of memory, when last looked at */
    uint32_t present_count;     /* subscribers with sessions that are there */
    struct subscription *moved; /* cursors to record */
    struct xy_buf freed;        /* seqs (uint64_t) that nobody needs any more, to record */
    unsigned char key[8];       /* number, big-endian */
    char text[];
};

struct pubsub {
    struct shard *shard;
    struct xy_table *nodes;        /* by name */
    struct xy_table *by_number;    /* by node.key */
    struct xy_str service;         /* the service's JID */
    struct xy_str service_escaped; /* for an attribute */
    struct xy_arena *names;        /* holds both */
    uint64_t hash_seed;
    uint64_t deleted_ticket; /* of the newest deletion of a node here */
    struct quota *quota;     /* quota/quota.h */
    struct xy_list dirty;    /* nodes with cursors or freed items to record */
    bool flush_queued;
    bool quiescing;        /* nothing is sent for an acknowledgement any more */
    struct move *moves;    /* under way (queue_move.c) */
    uint32_t dead_flight;  /* dead letters on their way from here */
    struct xy_list recent; /* items with an event, oldest first */
    size_t recent_bytes;
    struct xy_buf scratch;  /* serialising one item or event */
    struct xy_arena *arena; /* for reading the store and building records; reset by each user */
    struct xy_xml_parser *parser;
    struct route *gathered; /* while routes are rebuilt */
    size_t gathered_cap;
    struct xy_list queues;    /* struct queue, of nodes in memory */
    struct xy_list used;      /* listed nodes, the least recently used first */
    struct xy_list loads;     /* large nodes that are being read, resident.c */
    struct xy_table *loading; /* the same by name */
    struct shard_timer load_timer;
    struct xy_list remains; /* remains.h */
    struct shard_timer remains_timer;
    struct xy_table *sent; /* sent.c */
    bool trim_queued;
    struct shard_timer sweep; /* nodes that have to be looked at, expiry.c */
    struct xy_buf sweep_from; /* key of the next row; empty: the first */
    struct pubsub_stats stats;
};

/* --- node.c: in memory --------------------------------------------------------------------------------------------- */
struct node *node_get(struct pubsub *pubsub,
                      struct xy_str name); /* loads; NULL: there is none, or not yet (resident.h) */
struct node *node_by_number(struct pubsub *pubsub, uint64_t number);
/* Not known to anybody yet. NULL: memory is short. */
struct node *node_make(struct pubsub *pubsub, struct xy_str name, uint64_t number, struct xy_str creator);
bool node_list(struct node *node); /* under its name and number; false: memory is short */
/* Both. */
struct node *node_new(struct pubsub *pubsub, struct xy_str name, uint64_t number, struct xy_str creator);
void node_unlist(struct node *node); /* no longer found; stays until node_free */
void node_free(struct node **node);
enum affiliation node_affiliation(const struct node *node, struct xy_str bare);
bool node_set_affiliation(struct node *node, struct xy_str bare, enum affiliation affiliation);
const char *affiliation_name(enum affiliation affiliation);
bool affiliation_parse(struct xy_str text, enum affiliation *out);
size_t node_owners(const struct node *node);
/* Number 0: the next one. NULL: memory is short. Takes over `options`. Not yet active. */
struct subscription *node_add_subscription(struct node *node, struct xy_jid jid, uint32_t number,
                                           struct subscription_options *options);
void node_drop_subscription(struct node *node,
                            struct subscription *subscription); /* from all tables; freed */
struct subscriber *node_subscriber(const struct node *node, struct xy_str bare);
struct subscription *node_subscription(const struct node *node, uint32_t number);
/* All of them, from *position = 0 to NULL. The one just returned may be dropped. */
struct subscription *node_next_subscription(const struct node *node, size_t *position);
void subscription_answer(struct subscription *subscription);        /* what waited in `asked`, if anything */
bool subscription_durable(const struct subscription *subscription); /* owes items in order, with a cursor */
bool subscription_claims(const struct subscription *subscription);  /* durable, or a consumer of a queue */
bool subscription_reaches(const struct subscription *subscription, const struct reached *reached);
bool node_may_read(const struct node *node, enum affiliation affiliation);
bool node_is_memory(const struct node *node); /* its items are in memory only */
bool node_retains(const struct node *node);   /* <items/> may return something */
/* index_add, counted. */
struct item *node_add_item(struct node *node, uint64_t seq, struct xy_str id, struct xy_str publisher,
                           uint32_t bytes, uint64_t time_us, bool retained, uint32_t pending);
void node_item_released(struct pubsub *pubsub, struct item *item); /* about to be freed */
/* The node has no items any more and nobody is owed any; numbers go on. The records are the caller's. false: memory is
 * short, nothing changed. */
bool node_forget_items(struct node *node);
void node_remember_event(struct node *node, struct item *item,
                         struct event *event); /* takes a reference of its own */
/* What <items/> returns of an item of a node whose items are in memory only. false: memory is short. */
bool node_keep_body(struct node *node, struct item *item, struct xy_str body);

/* --- load.c: from the store ---------------------------------------------------------------------------------------- */
/* The stored <item/> of an entry, in `arena`, which was reset before. An entry whose record is not there or is no item of
 * that number is damaged: nothing will bring it back. */
enum item_read { ITEM_READ, ITEM_READ_DAMAGED, ITEM_READ_NO_MEMORY };
enum item_read node_read_item(struct node *node, uint64_t seq, struct xy_arena *arena, struct xy_str *item);
/* false: nothing stored */
bool node_read_dedup(struct node *node, struct xy_str publisher, struct xy_str prefix, uint64_t *newest,
                     uint64_t *time_us, struct xy_str *seen);

/* --- record.c: to the store; every function notes the ticket in the node -------------------------------------------- */
void record_node(struct node *node);
void record_node_remove(struct node *node);
void record_purge(struct node *node, uint64_t seq);
void record_affiliation(struct node *node, struct xy_str bare, enum affiliation affiliation);
void record_subscription(struct node *node, const struct subscription *subscription);
void record_subscription_remove(struct node *node, const struct subscription *subscription);
void record_cursor(struct node *node, const struct subscription *subscription);
void record_items_removed(struct node *node, uint64_t *seqs, size_t count);
/* Records of a publish: those of an async node wait for company. */
void record_publish(struct node *node, enum store_record type, const ProtobufCMessage *record);
struct evicted;
void record_evicted(struct node *node, struct evicted *evicted);
/* Lazily: */
void record_items_expired(struct node *node, struct evicted *evicted);
/* Lazily, once for all nodes that have something: */
void record_item_freed(void *node, uint64_t seq);
void record_cursor_moved(struct node *node, struct subscription *subscription);
/* Lazily: its ticket is noted apart, in claims_ticket. */
void record_claim_state(struct node *node, const Xylem__Store__V1__ClaimState *record, bool lazy);

/* --- routes.c ------------------------------------------------------------------------------------------------------ */
void routes_changed(struct node *node, const struct session_ref *session);
void routes_changed_for(struct node *node, const struct subscriber *subscriber);
/* To every live route. Takes the event. */
void routes_deliver(struct node *node, struct event **event, uint64_t seq);
/* The same once the node's newest record is on disk, and after what waits already. Takes the event. */
void routes_deliver_after(struct node *node, struct event **event, uint64_t seq);
void routes_watch(struct subscriber *subscriber);
void routes_on_watch(struct shard *shard, struct xy_str node, const struct address_routes *routes);
void routes_send_last(struct node *node, const struct reached *reached);

/* --- event.c: what subscribers see --------------------------------------------------------------------------------- */
/* `item` is the serialised <item/>, not in pubsub->scratch. */
struct event *event_for_item(struct node *node, uint64_t seq, struct xy_str item);
struct event *event_for_id(struct node *node, uint64_t seq, struct xy_str id, struct xy_str publisher);
struct event *event_for_retract(struct node *node, struct xy_str id);
struct event *event_for_unlock(struct node *node, struct xy_str id);          /* XEP-0254 2.4 */
struct event *event_for_elem(struct node *node, const struct xy_elem *child); /* <event>child</event> */
/* An event of an entry, for redelivery or as last item: shared if recent, else read. `delay`: stamp it. *out is NULL
 * unless it was read. */
enum item_read event_of_entry(struct node *node, struct item *item, bool delay, struct event **out);
/* Tells one subscription that it will not get what is numbered first to last; it counts as item `last`. */
struct event *event_for_gap(struct node *node, struct xy_str subid, uint64_t first, uint64_t last,
                            const char *reason);
