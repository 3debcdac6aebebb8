/* What the files of this folder share: the store, its shards and their batches. Nobody outside includes it.
 *
 * Who touches what:
 *   shard's thread       everything of struct store_shard that is not marked otherwise
 *   commit thread        log, position, cutting
 *   checkpoint thread    tables; the frozen memory tables, reading only, between FREEZE_MARKED and FREEZE_WRITTEN
 *   store->lock          the queue of batches, spare batches, conditions, what the two threads tell each other
 * Atomics that publish other memory (committed, freeze) are stored with release and loaded with acquire; figures are
 * relaxed. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "broker/store/apply.h"
#include "broker/store/backend.h"
#include "broker/store/backup.h"
#include "broker/store/histogram.h"
#include "broker/store/limits.h"
#include "broker/store/memtable.h"
#include "broker/store/store.h"

/* A freeze goes round: the checkpoint asks, the shard hands its active table over with a batch as marker, the commit
 * thread has committed the marker, the checkpoint has written the table; the shard drops it (or freezes anew). */
enum freeze_state { FREEZE_NONE, FREEZE_ASKED, FREEZE_HANDED, FREEZE_MARKED, FREEZE_WRITTEN };

/* The records of one turn of one shard, on their way to the log. */
struct store_batch {
    struct store_batch *next;
    struct store_shard *shard;
    struct xy_buf records;
    struct xy_buf ends; /* uint32_t each: where in `records` a full log entry ends */
    uint64_t record_count;
    uint64_t ticket;
    uint64_t position; /* of the log after this batch */
    bool marker;       /* the shard froze its memory table right after this batch */
};

struct store_shard {
    struct store *store;
    unsigned index;
    struct store_batch *open;
    size_t entry_start; /* in the open batch */
    uint64_t ticket_open, ticket_last;
    uint64_t
        lazy_due_us; /* when the open batch goes although nobody waits for it; 0: it holds nothing of the kind */
    bool urgent;     /* somebody waits for the open batch */
    struct memtable *active, *frozen;
    struct apply_sink sink;
    struct store_reader *reader;
    struct store_batch *spare; /* store->lock */
    struct memtable *dropped;  /* store->lock: for the checkpoint thread to free, it may be large */
    _Atomic uint64_t committed;
    _Atomic int freeze; /* enum freeze_state */
    uint64_t marked_at; /* position of the marker; valid from FREEZE_MARKED on */
    _Atomic uint64_t memory_bytes;
};

/* The backup that runs, or the last one. */
struct backup {
    pthread_mutex_t lock; /* of everything here but `thread` and `begun` */
    pthread_cond_t wake;  /* it shall stop */
    pthread_t thread;     /* of who starts backups and closes the store */
    bool begun;           /* there is a thread to join */
    bool stop;
    uint64_t rate;
    struct store_backup status;
};

struct store {
    struct store_options options;
    char *data_dir;          /* NULL: not on disk */
    bool restored;           /* it was opened from a copy */
    bool log_changed;        /* from the other kind */
    bool unsealed;           /* its tables are of a format before 2, and not upgraded yet */
    bool only_looking;       /* for a check: damage is told and nothing fails */
    struct xy_buf seal_room; /* of who writes the tables */
    int lock_fd;
    struct store_log *log;
    struct store_tables *tables;
    struct store_shard *shards;
    struct store_reader *reader; /* of store_scan_tables */
    pthread_mutex_t reader_lock;

    pthread_mutex_t lock;
    pthread_cond_t commit_wake, checkpoint_wake;
    struct store_batch *queue, **queue_tail; /* lock */
    bool stop_commit, stop_checkpoint;       /* lock */
    uint64_t cut_upto;                       /* lock: the log may be cut up to here */
    uint64_t held_from;                      /* lock: entries above it are for the backup; UINT64_MAX: none */
    bool hold_broken;                        /* lock: the log was too large to wait for the backup */
    uint64_t since_records, since_bytes;     /* lock: committed since the last freeze */
    pthread_t commit_thread, checkpoint_thread;
    bool threads_started;

    uint64_t position, cut_done;       /* commit thread */
    bool *woken;                       /* commit thread: shards to tell after this commit */
    uint64_t wait_us;                  /* commit thread: how long it waited for work of late, about */
    uint64_t room_looked_us;           /* commit thread */
    bool full_told;                    /* commit thread */
    struct xy_buf sweep_from;          /* checkpoint thread: where the sweep of publish ids goes on */
    struct xy_buf sweep_sessions_from; /* and that of rows of sessions */

    _Atomic uint64_t position_committed;
    struct backup backup;

    _Atomic uint64_t numbers;
    _Atomic bool failed;
    _Atomic uint64_t room; /* bytes of records that still fit */
    _Atomic bool refused_lately;
    _Atomic uint64_t unwritten_bytes; /* committed, not yet in the tables */
    _Atomic uint64_t queue_bytes;
    _Atomic uint64_t commits, records, bytes, commit_us_last, commit_us_max, queue_bytes_max;
    _Atomic uint64_t checkpoints, checkpoint_us_last, checkpoint_us_max, refused, damaged;
    struct histogram commit_us, commit_records, commit_bytes;
};

/* store.c: what store_open consists of. Prepared: the files are open and locked, nothing is read, no shard is there. */
struct store *store_prepare(const struct store_options *options, struct xy_buf *error);
bool store_make_shards(struct store *store, struct xy_buf *error);
void store_release(struct store **store); /* NULL ok; threads are gone */
/* What options.log asks for. */
static inline const struct store_backend *store_wanted_backend(const struct store *store)
{
    return store->options.log == STORE_LOG_SEGMENTS ? &store_backend_segments : &store_backend_lmdb;
}
/* Before there are segments, the tables say so: who does not know them must not take the log for empty. */
static inline uint64_t store_format(const struct store *store)
{
    bool segments =
        store->options.log == STORE_LOG_SEGMENTS || store->options.backend == &store_backend_segments;
    return segments ? STORE_FORMAT_SEGMENTS : STORE_FORMAT;
}
/* The first failure is final. Nothing is acknowledged after it. */
void store_fail(struct store *store, const char *what, const char *why);
static inline bool store_failed(struct store *store)
{
    return atomic_load_explicit(&store->failed, memory_order_acquire);
}
/* A figure's highest value; one thread writes it. */
static inline void store_highest(_Atomic uint64_t *highest, uint64_t value)
{
    if (value > atomic_load_explicit(highest, memory_order_relaxed))
        atomic_store_explicit(highest, value, memory_order_relaxed);
}
static inline void store_wake(struct store *store, unsigned shard)
{
    if (store->options.committed != NULL)
        store->options.committed(store->options.ctx, shard);
}

/* shard.c */
bool shard_init(struct store_shard *shard, struct store *store, unsigned index);
void shard_free(struct store_shard *shard);
void shard_hand_over(struct store_shard *shard, bool marker); /* whatever is in the open batch */
void shard_freeze(struct store_shard *shard);

/* commit.c */
void *commit_main(void *store);
bool commit_round(
    struct store *store); /* everything queued, and a slice of the cut; false: there was nothing */
void batch_free(struct store_batch **batch);

/* checkpoint.c */
void *checkpoint_main(void *store);
/* Writes memory tables to the tables and states that they are complete up to that position. */
enum store_io checkpoint_write(struct store *store, const struct memtable *const *mems, size_t count,
                               uint64_t complete_upto);
bool checkpoint_by_hand(struct store *store);
bool checkpoint_final(struct store *store); /* threads are gone, everything is committed */

/* recovery.c: META's names and what open does with what it finds */
#define META_FORMAT   XY_STR("format")
#define META_COMPLETE XY_STR("complete")
#define META_NUMBERS  XY_STR("numbers")
bool recovery_run(struct store *store, struct xy_buf *error);
/* Only reads: the format is checked, and what the tables lack of the log goes to *mem, the caller's, NULL on failure. */
bool recovery_read(struct store *store, struct memtable **mem, struct xy_buf *error);
bool recovery_meta(struct store *store, struct xy_str name,
                   uint64_t *value); /* of STORE_META; false: not there */

/* read.c: a value that is not in the active memory table; it lives until the reader's end, which the caller calls when
 * *reading is set. */
/* store_scan_tables with what is in the tables as it is, seals and all: for a copy. */
size_t read_raw(struct store *store, enum store_table table, struct xy_str from, struct xy_arena *arena,
                struct store_entry *out, size_t count_max, bool *more);
bool read_older(struct store_shard *shard, enum store_table table, struct xy_str key, struct xy_str *value,
                bool *reading);

/* backup.c */
void backup_init(struct store *store);
void backup_stop(struct store *store); /* and wait for its end */
void backup_stats(struct store *store, struct store_stats *out);

/* restore.c: if the directory is a copy, what has to change in it before anybody may use it. */
#define RESTORED_FILE "restored"
bool restore_run(struct store *store, struct xy_buf *error);

/* space.c */
void space_refresh(struct store *store);
void space_committed(struct store *store, uint64_t bytes); /* after each commit */

/* datadir.c: makes and locks the directory; -1 and prose on failure. */
int datadir_lock(const char *data_dir, struct xy_buf *error);
void datadir_unlock(int *fd);
