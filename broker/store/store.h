/* The store: what the broker promised to keep.
 *
 * Shards append records (schemas/xylem/store/v1) and go on; the commit thread writes whatever gathered during the last
 * commit into the log with one fsync and tells the shards how far they are durable. A checkpoint thread moves what is
 * still alive into the tables and cuts the log. Reads see tables plus what was appended but not yet checkpointed.
 *
 * Order of effects, here and nowhere else: read batch -> validate -> append -> fsync -> acknowledge and deliver ->
 * flush sockets.
 *
 * Threads: a struct store_shard belongs to one shard's thread. store_open, store_close and the step functions belong to
 * the thread that opened the store. Log and tables sit behind the vtables of backend.h with LMDB, memory and faulty
 * twins.
 *
 * Invariant on who reads what: a key is read through the store_shard of the shard that appended it, because only that
 * shard's memory table holds it before the checkpoint. store_scan_tables reads the tables alone. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "core/base/arena.h"
#include "core/base/buf.h"
#include "core/base/env.h"

struct store;
struct store_shard;
struct store_backend; /* backend.h */

/* Keys: integers are big-endian, so byte order is numeric order; `node` is the node's number (8 bytes). Names (JIDs,
 * node names, publish ids) above 255 bytes, 160 for publish ids, are folded into their beginning and a digest, because
 * LMDB bounds keys; callers pass full names and take names from values, not from keys they get back. */
enum store_table {
    STORE_META,          /* the store's own: format version, complete-up-to, numbers given out */
    STORE_ACCOUNTS,      /* bare JID -> AccountPut */
    STORE_MAILBOX,       /* bare JID \0 seq -> MailboxAdd */
    STORE_MAILBOX_SEQ,   /* bare JID -> last seq given out (8 bytes); goes with the account */
    STORE_NODES,         /* node name -> NodePut */
    STORE_NODE_SEQ,      /* node -> last seq given out (8 bytes) */
    STORE_ITEMS,         /* node seq -> one byte, then ItemPut; the byte is 'r' retained, or 'o' only owed */
    STORE_SUBSCRIPTIONS, /* node number(4) -> SubscriptionPut */
    STORE_SUBS_BY_JID,   /* bare JID \0 node number(4) -> node name */
    STORE_CURSORS, /* node number(4) -> acknowledged seq (8 bytes), then perhaps a gap (STORE_GAP_BYTES): first (8)
                            and last (8) seq given up and its reason (1); absent: SubscriptionPut.start_seq */
    STORE_AFFILIATIONS, /* node bare JID -> affiliation */
    STORE_DEDUP, /* node publisher \0 publish-id -> store_dedup_value; PREFIX:N is kept under PREFIX, see below */
    STORE_SESSIONS,   /* session id(16) -> SessionPut */
    STORE_SESSION_IN, /* session id(16) number(8) -> store_session_in; number STORE_SESSION_OUT -> SessionOut */
    STORE_CLAIMS,     /* node number(4) seq -> store_claim: not settled, though the cursor has passed it */
    STORE_QUEUE,      /* node seq -> store_queue_value: an item of a queue that is not plainly ready */
    STORE_EXPIRY, /* second node -> node name: look at the node then; UINT64_MAX node -> that second (8 bytes) */
    STORE_TABLE_COUNT
};

const char *store_table_name(enum store_table table); /* also what LMDB knows it by */
/* Where an entry stands in its table: below, above or 0 as the key that a caller gives for it comes before, after or is one
 * that store_scan returned, or that a scan goes on from. */
int store_key_compare(enum store_table table, struct xy_str key, struct xy_str scanned);

/* Publish ids. An id of the form PREFIX:N (N decimal, no leading zeros, fits 64 bits) belongs to a stream that counts
 * up: only its newest number is kept, under PREFIX, for at least STORE_DEDUP_STREAM_KEEP_US. Any other id is kept whole,
 * with STORE_DEDUP_WHOLE as its number, for at least STORE_DEDUP_KEEP_US. Checkpoints forget older ones. */
#define STORE_GAP_BYTES            17u
#define STORE_DEDUP_WHOLE          UINT64_MAX
#define STORE_DEDUP_KEEP_US        (60ull * 60 * 1000000)
#define STORE_DEDUP_SEEN_MAX       32u /* bytes of bitmap */
#define STORE_DEDUP_STREAM_KEEP_US (30ull * 24 * 60 * 60 * 1000000)
struct store_dedup {
    struct xy_str prefix; /* of the id given, or the whole id */
    uint64_t number;
};
/* Item ids seen within a node's dedup_window are kept as whole ids of no publisher, with a time such that they are
 * forgotten when the window ends. */
struct store_dedup store_dedup_parse(struct xy_str publish_id);
/* What STORE_DEDUP holds: number(8) time_us(8), as the table's other integers, and the bitmap of numbers seen before it
 * as ItemPut.publish_seen had it. false: not such a value. */
bool store_dedup_value(struct xy_str value, uint64_t *number, uint64_t *time_us, struct xy_str *seen);

/* What STORE_QUEUE holds: attempts(4) flags(1) not_before_us(8); flags are 1: parked, 2: its TTL counts no more. false: not
 * such a value. */
bool store_queue_value(struct xy_str value, uint32_t *attempts, bool *parked, uint64_t *not_before_us);
bool store_queue_timeless(struct xy_str value);
/* What STORE_CLAIMS holds, attempts(4) not_before_us(8) parked(1): how often the item was sent, the wall time before which
 * it is not sent again, whether it waits for somebody to ask for it. false: not such a value. */
#define STORE_CLAIM_BYTES 13u
struct store_claim {
    uint32_t attempts;
    uint64_t not_before_us;
    bool parked;
};
bool store_claim_value(struct xy_str value, struct store_claim *out);

/* Sessions that may be resumed. STORE_SESSION_IN has, per session, one row numbered 0 (all stanzas up to `handled` are
 * handled, answers to those up to `answered` were acknowledged) and one per stanza handled beyond that. Rows that row 0
 * covers, and those of sessions that are gone, leave the table by themselves. Written by several shards, each key by one
 * in the life of a broker: read it with store_scan_tables, after a start. */
#define STORE_SESSION_ID_BYTES 16u
#define STORE_SESSION_OUT      UINT64_MAX
struct store_session_in {
    uint64_t number;
    uint64_t handled, answered; /* number 0 */
    uint32_t what;              /* others: digest of the stanza; its answer, empty: none */
    struct xy_str answer;
};
/* false: no such row (a SessionOut, or damaged). */
bool store_session_in(struct xy_str key, struct xy_str value, struct store_session_in *out);

/* One value per record message, for good: a number that was ever written is never given to another message. Numbers may
 * have holes; one that this program does not know is refused at replay. Applying (apply.c) is a table of these.
 * NodeRemove takes everything kept under the node's number with it, but not STORE_SUBS_BY_JID, which is ordered by JID:
 * append a SubscriptionRemove for each subscription first. */
enum store_record {
    RECORD_ACCOUNT_PUT = 1,
    RECORD_ACCOUNT_REMOVE,
    RECORD_MAILBOX_ADD,
    RECORD_MAILBOX_REMOVE,
    RECORD_NODE_PUT,
    RECORD_NODE_REMOVE,
    RECORD_NODE_PURGE,
    RECORD_ITEM_PUT,
    RECORD_ITEM_REMOVE,
    RECORD_ITEM_UNRETAIN,
    RECORD_SUBSCRIPTION_PUT,
    RECORD_SUBSCRIPTION_REMOVE,
    RECORD_CURSOR_MOVE,
    RECORD_AFFILIATION_PUT,
    RECORD_NODE_LOOK = 26,
    RECORD_ITEM_SEEN = 27,
    RECORD_SESSION_PUT = 15,
    RECORD_SESSION_REMOVE,
    RECORD_SESSION_IN,
    RECORD_SESSION_OUT,
    RECORD_CLAIM_STATE = 20,
    RECORD_QUEUE_STATE = 23,
    RECORD_COUNT = 28 /* above every number in use */
};

/* How the log is kept. A store that is opened with the other one changes over when its tables are complete. */
enum store_log_kind { STORE_LOG_LMDB, STORE_LOG_SEGMENTS };

struct store_options {
    const char *data_dir;
    const struct store_backend *backend; /* NULL: on disk, the log as `log` says */
    enum store_log_kind log;             /* store.log, where backend is NULL */
    unsigned shards;
    const struct xy_env *env;
    bool threads; /* false: the caller drives store_step_commit / store_step_checkpoint (simulation) */
    uint64_t log_bytes_max;      /* store.log_max */
    uint64_t checkpoint_bytes;   /* default 64 MiB */
    uint64_t checkpoint_records; /* default 200,000 */
    uint64_t map_bytes;          /* address space of each environment */
    uint64_t reserve_bytes;      /* free disk that is never used */
    /* Wake that shard: something was committed, or a checkpoint wants it to turn (store_flush does its part). Called on
     * the commit thread, the checkpoint thread, or within the step functions; it must not call the store. */
    void (*committed)(void *ctx, unsigned shard);
    /* A commit failed for good: nothing further will be acknowledged. Log and exit. Called once, on any thread. */
    void (*failed)(void *ctx, const char *why);
    /* The disk, or what store.log_max and store.map_size allow, is full and data was refused; or there is room again. On
     * the commit thread, so only with threads; may be NULL. */
    void (*full)(void *ctx, bool full);
    /* A row of the tables does not match its checksum. It stays; who wanted it is told that it cannot be read, or the
     * store fails next (seal.h). Any thread; it must not call the store. May be NULL. */
    void (*damaged)(void *ctx, enum store_table table, struct xy_str key);
    void *ctx;
};

/* Opens, locks (another instance: error says its pid), recovers: replays the log into the tables. On failure returns
 * NULL and writes prose into *error. */
struct store *store_open(const struct store_options *options, struct xy_buf *error);
void store_close(struct store **store); /* commits everything appended, makes a checkpoint, closes */
/* Drops the store as a power failure would: nothing is flushed, nothing committed. For simulation and tests. */
void store_crash(struct store **store);

/* It was opened from a backup just now: nodes have new epochs, sessions that could be resumed are forgotten. */
bool store_was_restored(const struct store *store);

/* It had its log in the other way just now. */
bool store_log_changed(const struct store *store);

struct store_shard *store_shard(struct store *store, unsigned shard);

/* --- writing; shard thread --------------------------------------------------------------------------------------- */

/* Is there room for `bytes` more of assured data? Ask before appending anything a user asked for; on false refuse with
 * resource-constraint. Records that free space or end claims need not ask. */
bool store_room(struct store_shard *shard, size_t bytes);

/* Packs the record into the open batch and applies it to this shard's memory table at once. Returns the ticket of the
 * batch: durable when store_committed() >= ticket. */
uint64_t store_append(struct store_shard *shard, enum store_record type, const ProtobufCMessage *record);
/* The same for records nobody waits for: they ride with the next batch, or go after 50 ms. */
uint64_t store_append_lazy(struct store_shard *shard, enum store_record type, const ProtobufCMessage *record);
/* As lazy, but they go within `us`. */
uint64_t store_append_within(struct store_shard *shard, enum store_record type,
                             const ProtobufCMessage *record, uint64_t us);

/* End of a loop turn: hand the open batch to the commit thread. Returns microseconds until it wants to be called again
 * for lazy records, or UINT64_MAX. */
uint64_t store_flush(struct store_shard *shard);

uint64_t store_ticket(const struct store_shard *shard);    /* of the last appended record; 0: none yet */
uint64_t store_committed(const struct store_shard *shard); /* newest durable ticket */
/* What is appended now becomes durable together with the records of `ticket`, or neither does. */
bool store_joins(const struct store_shard *shard, uint64_t ticket);

/* --- reading; shard thread --------------------------------------------------------------------------------------- */

/* The value lives in `arena`. false: absent. */
bool store_get(struct store_shard *shard, enum store_table table, struct xy_str key, struct xy_arena *arena,
               struct xy_str *value);

/* A bounded page of [from, prefix-end) in key order: at most `count_max` entries (and never more than 256 records or
 * 1 MiB). Returns the number of entries; go on from the successor of the last key (append a zero byte). `more` says
 * whether there is anything left. Keys and values live in `arena`. */
struct store_entry {
    struct xy_str key, value;
};
size_t store_scan(struct store_shard *shard, enum store_table table, struct xy_str prefix, struct xy_str from,
                  struct xy_arena *arena, struct store_entry *out, size_t count_max, bool *more);
/* Tables only, without the memory tables of any shard. */
size_t store_scan_tables(struct store *store, enum store_table table, struct xy_str prefix,
                         struct xy_str from, struct xy_arena *arena, struct store_entry *out,
                         size_t count_max, bool *more);

/* Numbers never reused, across restarts: node numbers come from here (a block is reserved durably at a time). */
uint64_t store_new_number(struct store_shard *shard);

/* --- figures ----------------------------------------------------------------------------------------------------- */
/* Median and 99th percentile of the last one to two minutes. */
struct store_spread {
    uint64_t p50, p99;
};
struct store_stats {
    uint64_t commits, records, bytes;       /* since the start; bytes of records */
    uint64_t commit_us_last, commit_us_max; /* fsync included */
    struct store_spread commit_us;          /* of one commit: time … */
    struct store_spread commit_records;     /* … records … */
    struct store_spread commit_bytes;       /* … and bytes of records */
    uint64_t queue_bytes, queue_bytes_max;  /* handed over and not yet committed: now, and at most */
    uint64_t log_bytes, tables_bytes;       /* of the files, in use */
    uint64_t room_bytes;                    /* of records that still fit; 0: new data is refused */
    uint64_t memory_bytes;                  /* of memory tables */
    uint64_t checkpoints, checkpoint_us_last, checkpoint_us_max;
    uint64_t unwritten_bytes; /* in the log, not yet in the tables */
    uint64_t damaged;         /* rows read that did not match their checksum */
    uint64_t refused;         /* times that store_room said no */
    uint64_t backups;         /* begun */
    uint64_t backup_running;  /* 0 or 1 */
};
void store_stats(struct store *store, struct store_stats *out); /* any thread */

/* --- driven by hand (options.threads == false) ------------------------------------------------------------------- */
bool store_step_commit(struct store *store);     /* true: something was committed */
bool store_step_checkpoint(struct store *store); /* one complete checkpoint */
