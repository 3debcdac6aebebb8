/* The command urn:xylem:admin:stats: every figure of the broker as a form of results, one field per metric.
 *
 * Counters are summed over the shards; what a shard keeps to itself (pubsub) is asked for by mail. `xylem admin stats`
 * reads this. */
#include <stdlib.h>

#include "broker/admin/admin_internal.h"
#include "broker/pubsub/pubsub.h"
#include "broker/shard/stats.h"
#include "broker/store/store.h"
#include "core/base/assert.h"

/* Lives on the asking shard until all have answered. */
struct stats_gather {
    struct request *request;
    unsigned waiting;
    struct pubsub_stats pubsub;
};

struct stats_mail {
    struct stats_gather *gather;
    unsigned home;
    struct pubsub_stats pubsub;
};

static void add(struct xy_arena *arena, struct xy_elem *form, const char *name, uint64_t value)
{
    xy_form_add(arena, form, xy_str(name), "text-single", NULL,
                xy_arena_printf(arena, "%llu", (unsigned long long)value));
}

static uint64_t read_counter(const atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void add_shards(struct xy_arena *arena, struct xy_elem *form, struct shard *shard)
{
#define X(name) uint64_t name = 0;
    SHARD_STATS(X)
#undef X
    for (unsigned i = 0; i < shard_count(shard); i++) {
        const struct shard_stats *stats = shard_group_get(shard->group, i)->stats;
#define X(name) name += read_counter(&stats->name);
        SHARD_STATS(X)
#undef X
    }
#define X(name) add(arena, form, #name, name);
    SHARD_STATS(X)
#undef X
}

static void add_store(struct xy_arena *arena, struct xy_elem *form, struct shard *shard)
{
    struct store *store = shard_group_store(shard->group);
    struct store_stats s = { 0 };
    if (store)
        store_stats(store, &s);
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        { "store_commits", s.commits },
        { "store_records", s.records },
        { "store_bytes", s.bytes },
        { "store_commit_us_last", s.commit_us_last },
        { "store_commit_us_max", s.commit_us_max },
        { "store_commit_us_p50", s.commit_us.p50 },
        { "store_commit_us_p99", s.commit_us.p99 },
        { "store_commit_records_p50", s.commit_records.p50 },
        { "store_commit_records_p99", s.commit_records.p99 },
        { "store_commit_bytes_p50", s.commit_bytes.p50 },
        { "store_commit_bytes_p99", s.commit_bytes.p99 },
        { "store_queue_bytes", s.queue_bytes },
        { "store_queue_bytes_max", s.queue_bytes_max },
        { "store_log_bytes", s.log_bytes },
        { "store_tables_bytes", s.tables_bytes },
        { "store_room_bytes", s.room_bytes },
        { "store_memory_bytes", s.memory_bytes },
        { "store_unwritten_bytes", s.unwritten_bytes },
        { "store_checkpoints", s.checkpoints },
        { "store_checkpoint_us_last", s.checkpoint_us_last },
        { "store_checkpoint_us_max", s.checkpoint_us_max },
        { "store_refused", s.refused },
        { "store_damaged", s.damaged },
        { "store_backups", s.backups },
        { "store_backup_running", s.backup_running },
    };
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        add(arena, form, figures[i].name, figures[i].value);
}

static void add_pubsub(struct xy_arena *arena, struct xy_elem *form, const struct pubsub_stats *p)
{
    add(arena, form, "pubsub_nodes", p->nodes);
    add(arena, form, "pubsub_subscriptions", p->subscriptions);
    add(arena, form, "pubsub_items", p->items);
    add(arena, form, "pubsub_delivered_live", p->delivered_live);
    add(arena, form, "pubsub_redelivered", p->redelivered);
    add(arena, form, "pubsub_memory_bytes", p->memory_bytes);
    add(arena, form, "pubsub_node_bytes", p->node_bytes);
    add(arena, form, "pubsub_damaged", p->damaged);
    add(arena, form, "pubsub_counting", p->counting);
    add(arena, form, "pubsub_queues", p->queues);
    add(arena, form, "pubsub_queue_depth", p->queue_depth);
    add(arena, form, "pubsub_queue_in_flight", p->queue_in_flight);
    add(arena, form, "pubsub_queue_delayed", p->queue_delayed);
    add(arena, form, "pubsub_queue_blocked", p->queue_blocked);
    add(arena, form, "pubsub_queue_parked", p->queue_parked);
    add(arena, form, "pubsub_queue_oldest_age", p->queue_oldest_age);
}

static void stats_answer(struct shard *shard, struct stats_gather *gather)
{
    struct xy_arena *arena = gather->request->stanza.arena;
    struct xy_elem *form = xy_form_new(arena, "result", NS_XYLEM_ADMIN);
    xy_form_add(arena, form, XY_STR("version"), "text-single", NULL, XY_STR(XYLEM_VERSION));
    xy_form_add(arena, form, XY_STR("tls_library"), "text-single", NULL,
                xy_str(xy_tls_library_name(shard->config->tls.library)));
    add(arena, form, "uptime_seconds", router_uptime_us(shard) / 1000000);
    add(arena, form, "shards", shard_count(shard));
    add_shards(arena, form, shard);
    add_store(arena, form, shard);
    add_pubsub(arena, form, &gather->pubsub);
    struct request *request = gather->request;
    free(gather);
    command_complete(shard, &request, form, NULL);
}

static void stats_home(struct shard *shard, void *payload)
{
    struct stats_mail *mail = payload;
    struct pubsub_stats *sum = &mail->gather->pubsub;
    sum->nodes += mail->pubsub.nodes;
    sum->subscriptions += mail->pubsub.subscriptions;
    sum->items += mail->pubsub.items;
    sum->delivered_live += mail->pubsub.delivered_live;
    sum->redelivered += mail->pubsub.redelivered;
    sum->memory_bytes += mail->pubsub.memory_bytes;
    sum->node_bytes += mail->pubsub.node_bytes;
    sum->damaged += mail->pubsub.damaged;
    sum->counting += mail->pubsub.counting;
    sum->queues += mail->pubsub.queues;
    sum->queue_depth += mail->pubsub.queue_depth;
    sum->queue_in_flight += mail->pubsub.queue_in_flight;
    sum->queue_delayed += mail->pubsub.queue_delayed;
    sum->queue_blocked += mail->pubsub.queue_blocked;
    sum->queue_parked += mail->pubsub.queue_parked;
    if (mail->pubsub.queue_oldest_age > sum->queue_oldest_age)
        sum->queue_oldest_age = mail->pubsub.queue_oldest_age;
    if (--mail->gather->waiting == 0)
        stats_answer(shard, mail->gather);
}

static void stats_read(struct shard *shard, void *payload)
{
    struct stats_mail *mail = payload;
    if (shard->pubsub)
        pubsub_stats(shard, &mail->pubsub);
    shard_mail(shard, mail->home, stats_home, mail, sizeof(*mail));
}

static void run_stats(struct shard *shard, struct request **request, const struct xy_form *form)
{
    (void)form;
    struct stats_gather *gather = calloc(1, sizeof(*gather));
    if (!gather) {
        command_refuse(shard, request, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return;
    }
    gather->request = *request;
    *request = NULL;
    unsigned count = shard_count(shard);
    xy_assert(count > 0);
    gather->waiting = count;
    for (unsigned i = 0; i < count; i++) {
        struct stats_mail mail = { .gather = gather, .home = shard->index };
        shard_mail(shard, i, stats_read, &mail, sizeof(mail));
    }
}

const struct command admin_stats_commands[] = {
    { "urn:xylem:admin:stats", "Figures of the broker", NULL, run_stats },
    { NULL, NULL, NULL, NULL },
};
