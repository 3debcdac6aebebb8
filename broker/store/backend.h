/* The two places the store writes to, behind small tables of functions: the log (appends and head cuts) and the tables
 * (what the log's records came to). LMDB is the real twin, segment files another one of the log, memory the one that
 * survives only simulated crashes, faulty wraps another and fails on demand. The same tests run on all of them.
 *
 * Threads: a log belongs to the commit thread, tables to the checkpoint thread, each reader to whoever asked for it;
 * a log's read(), and reader(), room() and bytes() may be called from any thread. Opening, recovery and closing happen before and after the threads. */
#pragma once

#include "broker/store/store.h"

enum store_io {
    STORE_IO_OK,
    STORE_IO_FULL,  /* no room: nothing changed since the last commit */
    STORE_IO_FAILED /* the device or the file is broken */
};

/* A transaction opens with the first append or cut and ends with commit, or with abort, which the store calls on the same
 * thread after anything but STORE_IO_OK. */
struct store_log {
    const struct store_log_ops *ops;
};
typedef bool store_log_visit(void *ctx, uint64_t position, struct xy_str entry); /* false: stop */
struct store_log_ops {
    enum store_io (*append)(struct store_log *log, uint64_t position,
                            struct xy_str entry); /* positions grow */
    /* Removes up to count_max entries from the head, none above `upto`; *removed says how many, below count_max: that was
     * all there is to do now. A log of whole files keeps them until all of a file is cut, and read() may find them. */
    enum store_io (*cut)(struct store_log *log, uint64_t upto, unsigned count_max, unsigned *removed);
    void (*abort)(struct store_log *log);           /* nothing open: fine */
    enum store_io (*commit)(struct store_log *log); /* returns when everything is on stable storage */
    /* Every entry from position `from` on that is committed, in order. The bytes live for the call of `visit`. A failure
     * leaves no prose in error(), but what the opening found damaged is told there until something else fails. */
    enum store_io (*read)(struct store_log *log, uint64_t from, store_log_visit *visit, void *ctx);
    uint64_t (*bytes)(struct store_log *log);    /* kept in the log */
    uint64_t (*room)(struct store_log *log);     /* bytes that the medium can still take */
    const char *(*error)(struct store_log *log); /* prose for the last failure */
    void (*close)(struct store_log **log);       /* drops an open transaction */
};

/* Reads between begin and end see one state; keys and values live until end. What looks absent because the file could
 * not be read latches `failed`. */
struct store_reader {
    const struct store_reader_ops *ops;
    bool failed;
};
struct store_reader_ops {
    enum store_io (*begin)(struct store_reader *reader);
    bool (*get)(struct store_reader *reader, enum store_table table, struct xy_str key, struct xy_str *value);
    /* The first entry at or after `from`; next goes on in the table of the last seek. false: none left. */
    bool (*seek)(struct store_reader *reader, enum store_table table, struct xy_str from, struct xy_str *key,
                 struct xy_str *value);
    bool (*next)(struct store_reader *reader, struct xy_str *key, struct xy_str *value);
    void (*end)(struct store_reader *reader);
    void (*close)(struct store_reader **reader);
};

struct store_tables {
    const struct store_tables_ops *ops;
};
struct store_tables_ops {
    enum store_io (*put)(struct store_tables *tables, enum store_table table, struct xy_str key,
                         struct xy_str value);
    enum store_io (*del)(struct store_tables *tables, enum store_table table,
                         struct xy_str key); /* absent: ok */
    /* Deletes up to count_max entries of [from, to), empty `to` is open; *more: some are left. */
    enum store_io (*del_range)(struct store_tables *tables, enum store_table table, struct xy_str from,
                               struct xy_str to, unsigned count_max, bool *more);
    void (*abort)(struct store_tables *tables);
    enum store_io (*commit)(struct store_tables *tables);
    struct store_reader *(*reader)(struct store_tables *tables); /* NULL: memory is short */
    uint64_t (*bytes)(struct store_tables *tables);              /* in use */
    uint64_t (*room)(struct store_tables *tables);
    const char *(*error)(struct store_tables *tables);
    void (*close)(struct store_tables **tables);
};

struct store_backend_options {
    const char *data_dir;
    uint64_t map_bytes;
    uint64_t reserve_bytes;
    uint64_t log_bytes_max; /* decides how large a segment is */
    unsigned readers_max;
};

struct store_backend {
    const char *name;
    bool on_disk; /* data_dir is needed: made, locked */
    void *ctx;
    /* false: prose in *error, nothing is open. */
    bool (*open)(const struct store_backend *backend, const struct store_backend_options *options,
                 struct store_log **log, struct store_tables **tables, struct xy_buf *error);
};

extern const struct store_backend store_backend_lmdb;
extern const struct store_backend store_backend_segments; /* the log in segments, the tables in LMDB */
/* That one of the two whose files are in the directory; `wanted` if there is no store yet. */
const struct store_backend *store_backend_found(const char *data_dir, const struct store_backend *wanted);

/* Memory that outlives the store: what was committed is there at the next store_open, what was not is gone. */
struct store_memory;
struct store_memory *store_memory_new(void);
void store_memory_free(struct store_memory **memory);
const struct store_backend *store_memory_backend(struct store_memory *memory);

/* Wraps another backend. Operations are counted per kind, and the hook sees each before (and, for commits, after) it
 * happens: it may block, count, exit the process, or return what the operation shall return. */
enum store_fault {
    FAULT_LOG_APPEND,
    FAULT_LOG_CUT,
    FAULT_LOG_COMMIT,
    FAULT_LOG_COMMITTED,
    FAULT_TABLES_PUT,
    FAULT_TABLES_DEL,
    FAULT_TABLES_COMMIT,
    FAULT_TABLES_COMMITTED,
    FAULT_COUNT
};
struct store_faulty;
typedef enum store_io store_fault_hook(void *ctx, enum store_fault point,
                                       uint64_t count); /* count from 1, per point */
struct store_faulty *store_faulty_new(const struct store_backend *inner, store_fault_hook *hook, void *ctx);
void store_faulty_free(struct store_faulty **faulty);
const struct store_backend *store_faulty_backend(struct store_faulty *faulty);
/* What room() answers at most, for log and tables: a disk that fills up and empties again. Any thread. */
void store_faulty_set_room(struct store_faulty *faulty, uint64_t bytes);
