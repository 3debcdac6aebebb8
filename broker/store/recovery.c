/* What open does before anybody may write: checks the format, replays the log from where the tables are complete into
 * one memory table, writes that to the tables, and reserves numbers. Afterwards the tables are the whole truth and the
 * log may be cut, so the number of shards may differ from the last run.
 *
 * A log has no torn tails by the time it is read here (segment.h says how they are told): whatever does not parse is
 * damage, and damage is refused, naming the record. */
#include "broker/store/internal.h"

#include "broker/store/bigendian.h"
#include "broker/store/record.h"
#include "broker/store/seal.h"
#include "core/base/assert.h"

struct replay {
    struct store *store;
    struct xy_buf *error;
    struct memtable *mem;
    struct xy_arena *arena; /* of one unpacked record */
    struct apply_sink sink;
    uint64_t position; /* of the last entry applied */
    bool only_reading; /* everything stays in the memory table */
    bool failed, short_of_memory;
};

static void replay_fail(struct replay *replay, const char *why)
{
    if (!replay->failed)
        xy_buf_printf(replay->error, "cannot recover the store: %s", why);
    replay->failed = true;
}

/* Nothing is fresh here: a checkpoint that a crash cut short may have brought the key to the tables already. */
static void sink_put(void *ctx, enum store_table table, struct xy_str key, struct xy_str head,
                     struct xy_str body, bool fresh)
{
    struct replay *replay = ctx;
    (void)fresh;
    if (!memtable_put(replay->mem, table, key, head, body, false))
        replay->short_of_memory = true;
}

static void sink_del(void *ctx, enum store_table table, struct xy_str key)
{
    struct replay *replay = ctx;
    if (!memtable_del(replay->mem, table, key))
        replay->short_of_memory = true;
}

static void sink_del_range(void *ctx, enum store_table table, struct xy_str from, struct xy_str to)
{
    struct replay *replay = ctx;
    if (!memtable_del_range(replay->mem, table, from, to))
        replay->short_of_memory = true;
}

static void sink_head(void *ctx, enum store_table table, struct xy_str key, char head)
{
    struct replay *replay = ctx;
    struct store_reader *reader = replay->store->reader;
    struct xy_str value;
    if (memtable_set_head(replay->mem, table, key, head) ||
        memtable_get(replay->mem, table, key, &value) != MEMTABLE_MISS)
        return;
    if (reader->ops->begin(reader) != STORE_IO_OK) {
        replay_fail(replay, "cannot read the tables");
        return;
    }
    bool there = reader->ops->get(reader, table, key, &value);
    if (there)
        seal_open(replay->store, table, key, &value);
    if (there && value.len > 0 && value.data[0] != head && !seal_damaged(value))
        sink_put(replay, table, key, xy_str_n(&head, 1), xy_str_n(value.data + 1, value.len - 1), false);
    reader->ops->end(reader);
}

static void unreadable(struct replay *replay, uint64_t position, size_t offset, const char *why,
                       const char *advice)
{
    xy_buf_printf(
        replay->error,
        "refusing to open the store: the record at byte %zu of log entry %llu cannot be read (%s). %s",
        offset, (unsigned long long)position, why, advice);
    replay->failed = true;
}

static const char advice_damage[] = "Restore the data directory from a backup";
static const char advice_newer[] = "Start the newer program again, or restore a backup made by this one";

static void replay_entry(struct replay *replay, uint64_t position, struct xy_str entry)
{
    struct xy_str rest = entry;
    while (rest.len > 0 && !replay->failed) {
        struct record_view record;
        size_t offset = entry.len - rest.len;
        enum record_status status = record_parse(&rest, &record);
        if (status != RECORD_OK) {
            bool newer = status == RECORD_TYPE_UNKNOWN || status == RECORD_VERSION_UNKNOWN;
            unreadable(replay, position, offset, record_status_text(status),
                       newer ? advice_newer : advice_damage);
            return;
        }
        enum store_record type = (enum store_record)record.type;
        xy_arena_reset(replay->arena);
        ProtobufCMessage *message = record_unpack(apply_descriptor(type), record.payload, replay->arena);
        if (message == NULL) {
            unreadable(replay, position, offset, "its message is malformed", advice_damage);
            return;
        }
        apply_record(type, message, record.payload, &replay->sink);
    }
}

static bool write_out(struct replay *replay)
{
    const struct memtable *mems[] = { replay->mem };
    if (checkpoint_write(replay->store, mems, 1, replay->position) == STORE_IO_OK)
        return true;
    replay_fail(replay, replay->store->tables->ops->error(replay->store->tables));
    return false;
}

static bool visit(void *ctx, uint64_t position, struct xy_str entry)
{
    struct replay *replay = ctx;
    if (position != replay->position + 1) {
        xy_buf_printf(replay->error, "refusing to open the store: log entries %llu to %llu are missing",
                      (unsigned long long)replay->position + 1, (unsigned long long)position - 1);
        replay->failed = true;
        return false;
    }
    replay_entry(replay, position, entry);
    if (replay->short_of_memory)
        replay_fail(replay, "out of memory");
    if (replay->failed)
        return false;
    replay->position = position;
    if (replay->only_reading || memtable_bytes(replay->mem) < STORE_RECOVERY_BYTES)
        return true;
    if (!write_out(replay))
        return false;
    memtable_free(&replay->mem);
    replay->mem = memtable_new();
    if (replay->mem == NULL)
        replay_fail(replay, "out of memory");
    return !replay->failed;
}

/* --- the store's own figures ------------------------------------------------------------------------------------- */

bool recovery_meta(struct store *store, struct xy_str name, uint64_t *value)
{
    struct xy_str found;
    bool there = false;
    if (store->reader->ops->begin(store->reader) != STORE_IO_OK)
        return false;
    if (store->reader->ops->get(store->reader, STORE_META, name, &found) && found.len == 8) {
        *value = be64_get(found.data);
        there = true;
    }
    store->reader->ops->end(store->reader);
    return there;
}

static enum store_io meta_put(struct store *store, struct xy_str name, uint64_t value)
{
    char bytes[8];
    be64_put(bytes, value);
    return store->tables->ops->put(store->tables, STORE_META, name, xy_str_n(bytes, sizeof(bytes)));
}

/* What an older format lacks: tables, which the backend has made by now, and seals on rows, which are added before the
 * log is replayed. The log is read by the same records. */
static bool check_format(struct store *store, struct xy_buf *error)
{
    uint64_t format = STORE_FORMAT;
    (void)recovery_meta(store, META_FORMAT, &format);
    store->unsealed = format < STORE_FORMAT_SEALED;
    if (format <= STORE_FORMAT_SEGMENTS)
        return true;
    xy_buf_printf(
        error,
        "refusing to open the store: its format is version %llu, this program knows versions up to %u. %s",
        (unsigned long long)format, STORE_FORMAT_SEGMENTS, advice_newer);
    return false;
}

static bool finish(struct replay *replay)
{
    struct store *store = replay->store;
    uint64_t numbers = 1;
    (void)recovery_meta(store, META_NUMBERS, &numbers);
    atomic_store_explicit(&store->numbers, numbers, memory_order_relaxed);
    if (meta_put(store, META_FORMAT, store_format(store)) != STORE_IO_OK ||
        meta_put(store, META_NUMBERS, numbers + STORE_NUMBER_BLOCK) != STORE_IO_OK) {
        replay_fail(replay, store->tables->ops->error(store->tables));
        return false;
    }
    return write_out(replay);
}

/* From where the tables are complete to the log's end. */
static bool replay_log(struct replay *replay, struct store *store, struct xy_buf *error)
{
    replay->store = store;
    replay->error = error;
    replay->sink = (struct apply_sink){
        .ctx = replay, .put = sink_put, .del = sink_del, .del_range = sink_del_range, .head = sink_head
    };
    if (!check_format(store, error) ||
        (store->unsealed && !replay->only_reading && !seal_upgrade(store, error))) {
        replay->failed = true;
        return false;
    }
    replay->mem = memtable_new();
    replay->arena = xy_arena_new();
    if (replay->mem == NULL || replay->arena == NULL)
        replay_fail(replay, "out of memory");
    (void)recovery_meta(store, META_COMPLETE, &replay->position);
    if (!replay->failed &&
        store->log->ops->read(store->log, replay->position + 1, visit, replay) != STORE_IO_OK) {
        const char *why = store->log->ops->error(store->log);
        replay_fail(replay, why[0] != '\0' ? why : "the log cannot be read");
    }
    return !replay->failed;
}

static bool replay_end(struct replay *replay)
{
    if (replay->store->reader->failed)
        replay_fail(replay, "the tables cannot be read");
    memtable_free(&replay->mem);
    xy_arena_free(&replay->arena);
    return !replay->failed;
}

bool recovery_run(struct store *store, struct xy_buf *error)
{
    struct replay replay = { 0 };
    if (replay_log(&replay, store, error) && finish(&replay))
        store->position = store->cut_upto = replay.position;
    return replay_end(&replay);
}

bool recovery_read(struct store *store, struct memtable **mem, struct xy_buf *error)
{
    struct replay replay = { .only_reading = true };
    *mem = NULL;
    if (replay_log(&replay, store, error)) {
        store->position = replay.position;
        *mem = replay.mem;
        replay.mem = NULL;
    }
    if (!replay_end(&replay))
        memtable_free(mem);
    return *mem != NULL;
}
