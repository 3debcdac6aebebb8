/* What address*.c, mailbox*.c, presence.c and watch.c share: an account as its owner sees it. Private to
 * broker/router; everything here belongs to the shard that owns the bare JID. */
#pragma once

#include "broker/config.h"
#include "broker/router/accounts.h"
#include "broker/router/address.h"
#include "broker/router/router_internal.h"
#include "broker/shard/mail_str.h"
#include "broker/shard/stats.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "core/base/list.h"
#include "core/namespaces.h"
#include "core/time.h"
#include "core/xml/writer.h"

#define ADDRESS_SWEEP_US                                                                                     \
    (30ull * 1000 * 1000)                  /* addresses nobody touched for so long and that are empty go */
#define ADDRESS_DIRECTED_MAX 256u          /* JIDs one session may send directed presence to */
#define MAILBOX_PAGE         64u           /* entries read from the store at a time */
#define MAILBOX_FLIGHT_MAX   256u          /* entries handed to sessions and not acknowledged */
#define MAILBOX_FLIGHT_BYTES (1u << 20)    /* their size; one entry is always allowed */
#define MAILBOX_HOLDERS_MAX  4u            /* sessions that get the same entry at once */
#define MAILBOX_RETRY_US     (500u * 1000) /* before an entry is offered again to a session that was full */
#define WATCH_PAGE           64u

/* A bound session. */
struct resource {
    struct session_ref session;
    struct xy_str name;
    bool available, sm;
    bool carbons;        /* wants copies (XEP-0280) */
    bool carbons_wanted; /* it did before the restart that it was restored from */
    int8_t priority;
    uint32_t since;            /* order of becoming available */
    struct xy_bytes *presence; /* its last available presence, addressed to the bare JID */
    struct xy_list directed;   /* struct directed: who else was told that it is available */
    unsigned directed_count;
    struct {
        bool resumable, recorded; /* may be resumed; and that is on disk (kept.c) */
        uint8_t id[SESSION_ID_BYTES];
        uint64_t max_us;
        uint64_t detached_us; /* wall time; 0: it has a connection */
    } kept;
    char text[];
};

struct directed {
    struct xy_list link;
    struct xy_str to;
    char text[];
};

/* Somebody who wants a resource that another session still holds: bound when that one is gone. */
struct waiting_bind {
    struct xy_list link;
    struct session_ref session;
    struct xy_str name;
    char text[];
};

/* A mailbox entry that sessions hold, or held and gave back (no holder). */
struct flight {
    uint64_t seq;
    uint32_t bytes;
    uint8_t holders_count;
    bool settled; /* acknowledged: leaves at the next compaction */
    struct session_ref holders[MAILBOX_HOLDERS_MAX];
};

struct mailbox {
    bool loaded, counting;
    bool returned;          /* some flight may have no holder */
    uint64_t last_seq;      /* newest number given out */
    uint64_t durable_seq;   /* newest committed */
    uint64_t cursor;        /* entries up to here are in flight or gone */
    uint64_t counted;       /* while counting: entries up to here are in count and bytes */
    uint64_t count, bytes;  /* of the entries that exist */
    struct flight *flights; /* by seq */
    size_t flights_count, flights_cap, flights_bytes;
    struct shard_timer retry;
};

struct address {
    struct shard *shard;
    struct xy_str bare;          /* NUL-terminated */
    struct xy_bytes *bare_bytes; /* the same, for sessions to hold on to */
    bool exists;                 /* false: removed a moment ago */
    bool touched;                /* since the last sweep */
    bool watches_loaded;
    unsigned pins;      /* mails and commits on their way back to this address */
    uint64_t ticket;    /* newest commit its output depends on */
    uint64_t ended;     /* the commit after which what was kept of its last session to end is gone */
    uint64_t active_us; /* wall time a session was last here; 0: not since the broker started */
    struct resource **resources;
    size_t resources_count, resources_cap;
    unsigned carbons_count; /* of resources that want copies */
    struct xy_list waiting; /* struct waiting_bind */
    struct mailbox mailbox;
    struct xy_table *watches; /* by node name: struct watch; NULL: none */
    char text[];
};

struct dormants;

struct addresses {
    struct dormants *dormants; /* sessions that a restart interrupted (dormant.c) */
    struct xy_list expired;    /* those whose time is over (expired.c) */
    unsigned expired_count;
    struct xy_table *table;
    struct shard_timer sweep;
    uint32_t since; /* last order of becoming available given out */
    uint64_t seed;
    address_watch_fn *watch_fn;
};

/* --- address.c ---------------------------------------------------------------------------------------------------- */
/* The address of an existing account, made when needed; NULL: no such account, or no memory. */
struct address *address_touch(struct shard *shard, struct xy_str bare);
struct address *address_find(struct shard *shard, struct xy_str bare); /* NULL: not in memory */
void address_pin(struct address *address);
void address_unpin(struct address *address);
struct resource *address_resource(const struct address *address, struct xy_str name);
struct resource *address_resource_of(const struct address *address, struct session_ref session);
/* One bound to nobody and in no list; NULL: no memory. */
struct resource *resource_new(struct xy_str name);
void resource_free(struct resource *resource); /* NULL ok */
bool resource_list(struct address *address, struct resource *resource, struct session_ref session);
/* Among the available resources of priority >= 0 the one of highest priority, then the most recent; NULL: none. */
struct resource *address_best(const struct address *address);
/* Something a session says of its resource, noted at the owner of `bare`; nothing happens when it is gone by then. */
typedef void address_note_fn(struct shard *shard, struct address *address, struct resource *resource,
                             bool on);
void address_note(struct shard *shard, address_note_fn *fn, struct session_ref session, struct xy_str bare,
                  bool on);
/* Its output waits for this commit too. */
void address_depend(struct address *address, uint64_t ticket);

/* --- address_route.c ---------------------------------------------------------------------------------------------- */
void address_refuse_unknown(struct shard *shard, struct request **request); /* there is no such account */

/* --- address_message.c -------------------------------------------------------------------------------------------- */
void message_handle(struct address *address, struct request **request);
bool message_is_assured(const struct xy_stanza *message); /* section 6 of the design: worth keeping */

/* --- carbons.c ----------------------------------------------------------------------------------------------------- */
/* The message goes out, or into the mailbox: copies for those who do not get it itself, and for the sender's others. */
void carbons_copy(const struct address *address, const struct request *request);
void carbons_bound(const struct address *address, const struct resource *resource);
void carbons_gone(struct address *address, struct resource *resource);

/* --- mailbox.c ---------------------------------------------------------------------------------------------------- */
bool mailbox_load(struct address *address);
void mailbox_free(struct address *address);
bool mailbox_idle(const struct address *address); /* nothing in memory that would be missed */
enum mailbox_verdict { MAILBOX_STORED, MAILBOX_QUOTA, MAILBOX_NO_ROOM, MAILBOX_NO_MEMORY };
/* Appends an entry, and makes the address depend on it. */
enum mailbox_verdict mailbox_add(struct address *address, const struct xy_bytes *stanza, uint64_t *seq);
/* The entry is on disk: hand it over, now if its turn has come. `resource`: of a full JID, or absent. */
void mailbox_added(struct address *address, struct xy_bytes *stanza, uint64_t seq, struct xy_str resource);
/* Something older has not been handed over although somebody is there to take it. */
bool mailbox_behind(const struct address *address);
void mailbox_pump(struct address *address);
void mailbox_session_gone(struct address *address, struct session_ref session);
void mailbox_session_available(struct address *address);

/* A session that was restored from before a restart had received these: they end. */
void mailbox_received_before(struct address *address, uint64_t first, uint64_t count);

/* --- mailbox_text.c: what is read and changed in a serialised message ------------------------------------------------ */
/* The resource in its `to`, unescaped into `buf`; absent: a bare JID. */
struct xy_str message_text_resource(struct xy_str stanza, struct xy_buf *buf);
/* With <delay/> as its last child; NULL: no memory. */
struct xy_bytes *message_text_delayed(struct xy_str stanza, struct xy_str from, uint64_t wall_us);

/* --- presence.c --------------------------------------------------------------------------------------------------- */
void presence_handle(struct address *address, struct request **request);
/* The session ends or becomes unavailable: tells everybody who knew. */
void presence_gone(struct address *address, struct resource *resource);
void presence_forget(struct resource *resource);
/* A session that was restored is what it was before the restart. */
void presence_restore(struct address *address, struct resource *resource);
bool presence_directed_add(struct resource *resource, struct xy_str to); /* false: no memory */

/* --- watch.c ------------------------------------------------------------------------------------------------------ */
void watch_announce(struct address *address); /* to all watchers */
void watch_load(struct address *address);     /* those of stored subscriptions, once */
void watch_free(struct address *address);

void address_account_changed(struct shard *shard, struct xy_str bare, bool exists);
