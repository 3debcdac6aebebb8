/* The writing side of one shard: packing records into the open batch, applying them to memory at once, handing the
 * batch over at the end of the turn. Everything here runs on the shard's thread and takes the store's lock once per
 * turn; in the steady state nothing is allocated per record. */
#include "broker/store/internal.h"

#include <stdlib.h>

#include "broker/store/record.h"
#include "broker/store/seal.h"
#include "core/base/assert.h"

/* --- applying to memory ------------------------------------------------------------------------------------------ */

static void out_of_memory(struct store_shard *shard)
{
    store_fail(shard->store, "cannot remember a record", "out of memory");
}

static void sink_put(void *ctx, enum store_table table, struct xy_str key, struct xy_str head,
                     struct xy_str body, bool fresh)
{
    struct store_shard *shard = ctx;
    if (!memtable_put(shard->active, table, key, head, body, fresh))
        out_of_memory(shard);
}

static void sink_del(void *ctx, enum store_table table, struct xy_str key)
{
    struct store_shard *shard = ctx;
    if (!memtable_del(shard->active, table, key))
        out_of_memory(shard);
}

static void sink_del_range(void *ctx, enum store_table table, struct xy_str from, struct xy_str to)
{
    struct store_shard *shard = ctx;
    if (!memtable_del_range(shard->active, table, from, to))
        out_of_memory(shard);
}

static void sink_head(void *ctx, enum store_table table, struct xy_str key, char head)
{
    struct store_shard *shard = ctx;
    struct xy_str value;
    bool reading = false;
    if (memtable_set_head(shard->active, table, key, head))
        return;
    if (memtable_get(shard->active, table, key, &value) == MEMTABLE_MISS &&
        read_older(shard, table, key, &value, &reading) && value.len > 0 && value.data[0] != head &&
        !seal_damaged(value))
        sink_put(shard, table, key, xy_str_n(&head, 1), xy_str_n(value.data + 1, value.len - 1), false);
    if (reading)
        shard->reader->ops->end(shard->reader);
}

/* --- batches ----------------------------------------------------------------------------------------------------- */

static struct store_batch *batch_new(struct store_shard *shard)
{
    struct store_batch *batch = calloc(1, sizeof(*batch));
    if (batch != NULL)
        batch->shard = shard;
    return batch;
}

void batch_free(struct store_batch **batch)
{
    if (*batch == NULL)
        return;
    xy_buf_free(&(*batch)->records);
    xy_buf_free(&(*batch)->ends);
    free(*batch);
    *batch = NULL;
}

bool shard_init(struct store_shard *shard, struct store *store, unsigned index)
{
    shard->store = store;
    shard->index = index;
    shard->ticket_open = 1;
    shard->sink = (struct apply_sink){
        .ctx = shard, .put = sink_put, .del = sink_del, .del_range = sink_del_range, .head = sink_head
    };
    shard->open = batch_new(shard);
    shard->active = memtable_new();
    shard->reader = store->tables->ops->reader(store->tables);
    return shard->open != NULL && shard->active != NULL && shard->reader != NULL;
}

void shard_free(struct store_shard *shard)
{
    batch_free(&shard->open);
    while (shard->spare != NULL) {
        struct store_batch *batch = shard->spare;
        shard->spare = batch->next;
        batch_free(&batch);
    }
    memtable_free(&shard->active);
    memtable_free(&shard->frozen);
    memtable_free(&shard->dropped);
    if (shard->reader != NULL)
        shard->reader->ops->close(&shard->reader);
}

static void entry_end(struct store_shard *shard, size_t end)
{
    uint32_t offset = (uint32_t)end;
    xy_buf_add(&shard->open->ends, &offset, sizeof(offset));
    shard->entry_start = end;
}

static uint64_t append(struct store_shard *shard, enum store_record type, const ProtobufCMessage *message)
{
    struct store_batch *batch = shard->open;
    struct xy_str packed;
    xy_assert(message->descriptor == apply_descriptor(type));
    if (store_failed(shard->store) || batch == NULL)
        return shard->ticket_open;
    size_t start = batch->records.len;
    if (!record_pack(&batch->records, type, message, &packed)) {
        store_fail(shard->store, "cannot pack a record", "out of memory");
        return shard->ticket_open;
    }
    if (start > shard->entry_start && batch->records.len - shard->entry_start > STORE_ENTRY_BYTES)
        entry_end(shard, start);
    batch->record_count++;
    apply_record(type, message, packed, &shard->sink);
    shard->ticket_last = shard->ticket_open;
    return shard->ticket_open;
}

uint64_t store_append(struct store_shard *shard, enum store_record type, const ProtobufCMessage *record)
{
    shard->urgent = true;
    return append(shard, type, record);
}

uint64_t store_append_within(struct store_shard *shard, enum store_record type,
                             const ProtobufCMessage *record, uint64_t us)
{
    uint64_t due_us = xy_now_us(shard->store->options.env) + us;
    if (shard->lazy_due_us == 0 || due_us < shard->lazy_due_us)
        shard->lazy_due_us = due_us > 0 ? due_us : 1;
    uint64_t ticket = append(shard, type, record);
    if (shard->open != NULL && shard->open->records.len >= STORE_LAZY_BYTES)
        shard->urgent = true;
    return ticket;
}

uint64_t store_append_lazy(struct store_shard *shard, enum store_record type, const ProtobufCMessage *record)
{
    return store_append_within(shard, type, record, STORE_LAZY_US);
}

void shard_hand_over(struct store_shard *shard, bool marker)
{
    struct store *store = shard->store;
    struct store_batch *batch = shard->open;
    if (batch == NULL)
        return;
    if (batch->records.len > shard->entry_start)
        entry_end(shard, batch->records.len);
    if (xy_buf_failed(&batch->ends))
        store_fail(store, "cannot hand over a batch", "out of memory");
    batch->ticket = shard->ticket_open;
    batch->marker = marker;
    batch->next = NULL;
    atomic_fetch_add_explicit(&store->queue_bytes, batch->records.len, memory_order_relaxed);

    pthread_mutex_lock(&store->lock);
    bool was_empty = store->queue == NULL;
    *store->queue_tail = batch;
    store->queue_tail = &batch->next;
    shard->open = shard->spare;
    if (shard->open != NULL)
        shard->spare = shard->open->next;
    pthread_mutex_unlock(&store->lock);
    if (was_empty)
        pthread_cond_signal(&store->commit_wake); /* without the lock, which it would wait for at once */

    if (shard->open == NULL && (shard->open = batch_new(shard)) == NULL)
        store_fail(store, "cannot begin a batch", "out of memory");
    shard->ticket_open++;
    shard->entry_start = 0;
    shard->lazy_due_us = 0;
    shard->urgent = false;
}

/* --- freezing ---------------------------------------------------------------------------------------------------- */

static void drop_frozen(struct store_shard *shard)
{
    struct store *store = shard->store;
    pthread_mutex_lock(&store->lock);
    xy_assert(shard->dropped == NULL || shard->frozen == NULL);
    if (shard->frozen != NULL)
        shard->dropped = shard->frozen;
    shard->frozen = NULL;
    pthread_cond_signal(&store->checkpoint_wake);
    pthread_mutex_unlock(&store->lock);
}

void shard_freeze(struct store_shard *shard)
{
    struct memtable *next = memtable_new();
    if (next == NULL)
        return; /* asked again at the next flush */
    drop_frozen(shard);
    shard->frozen = shard->active;
    shard->active = next;
    /* Released before the batch goes: the commit thread answers it with FREEZE_MARKED. */
    atomic_store_explicit(&shard->freeze, FREEZE_HANDED, memory_order_release);
    shard_hand_over(shard, true);
}

static void freeze_step(struct store_shard *shard)
{
    int state = atomic_load_explicit(&shard->freeze, memory_order_acquire);
    if (state == FREEZE_ASKED) {
        shard_freeze(shard);
    } else if (state == FREEZE_WRITTEN) {
        drop_frozen(shard);
        /* The next checkpoint may have asked meanwhile; then that stands. */
        atomic_compare_exchange_strong_explicit(&shard->freeze, &state, FREEZE_NONE, memory_order_acq_rel,
                                                memory_order_relaxed);
    }
}

uint64_t store_flush(struct store_shard *shard)
{
    struct store *store = shard->store;
    uint64_t again_us = UINT64_MAX;
    if (store_failed(store))
        return again_us;
    if (shard->urgent) {
        shard_hand_over(shard, false);
    } else if (shard->lazy_due_us != 0) {
        uint64_t now_us = xy_now_us(store->options.env);
        if (now_us >= shard->lazy_due_us)
            shard_hand_over(shard, false);
        else
            again_us = shard->lazy_due_us - now_us;
    }
    freeze_step(shard);
    if (shard->lazy_due_us == 0)
        again_us = UINT64_MAX; /* the freeze took them along */
    size_t memory =
        memtable_bytes(shard->active) + (shard->frozen != NULL ? memtable_bytes(shard->frozen) : 0);
    atomic_store_explicit(&shard->memory_bytes, memory, memory_order_relaxed);
    return again_us;
}

uint64_t store_ticket(const struct store_shard *shard)
{
    return shard->ticket_last;
}

uint64_t store_committed(const struct store_shard *shard)
{
    return atomic_load_explicit(&shard->committed, memory_order_acquire);
}

bool store_joins(const struct store_shard *shard, uint64_t ticket)
{
    return ticket == shard->ticket_open && shard->ticket_last == shard->ticket_open;
}
