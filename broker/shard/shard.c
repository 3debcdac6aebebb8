/* The group of shards, the mail between them, what waits for a commit, and the turn of one shard.
 *
 * A shard's inbox is a stack of letter chains that any thread may push to and only the shard takes from; a chain is
 * pushed whole at the end of the sender's turn, so an inbox costs one atomic exchange per sender and turn. Emptied
 * blocks go back to their sender the same way. */
#include "broker/shard/shard.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "broker/shard/letters.h"
#include "broker/shard/shard_internal.h"
#include "broker/shard/spans.h"
#include "broker/shard/stats.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "core/base/table.h"

#define SHARD_ARENAS_KEPT 256
#define SHARD_HOOKS_MAX   8
#define SHARD_PASSES_MAX  16 /* rounds of mail to itself before the loop gets a look at its sockets */

struct hook {
    shard_fn *fn;
    void *ctx;
};

struct shard_mailroom {
    _Atomic(struct letters_block *) inbox;    /* first blocks of chains, newest first */
    _Atomic(struct letters_block *) returned; /* our blocks, emptied by others */
    struct letters *out;                      /* one per destination */
    struct letters waiting;                   /* for a commit, in order of asking */
    struct letters_spare spare;
    uint64_t released;           /* tickets up to here were committed at the last look */
    uint64_t asked_top, ran_top; /* highest ticket of a letter that was ever waiting; that left */
    unsigned late;               /* letters waiting behind one with a higher ticket */
    struct hook hooks[SHARD_HOOKS_MAX];
    unsigned hooks_count;
    bool again; /* a hook wants another turn at once */
};

struct shard_group {
    unsigned count;
    uint64_t hash_seed;
    struct store *store;
    struct spans *spans;
    void (*wake)(void *ctx, unsigned shard);
    void *ctx;
    struct shard *shards;
    struct shard_mailroom *mailrooms;
    struct shard_stats *stats;
    struct xy_str secret;
    char own_secret[32];
    atomic_bool memory_short;
};

static void shard_start(struct shard_group *group, unsigned index, const struct shard_group_options *options)
{
    struct shard *shard = &group->shards[index];
    struct shard_mailroom *room = &group->mailrooms[index];
    *shard = (struct shard){ .index = index,
                             .group = group,
                             .env = options->env,
                             .config = options->config,
                             .log = options->log,
                             .store = options->store ? store_shard(options->store, index) : NULL,
                             .arenas = xy_arena_pool_new(SHARD_ARENAS_KEPT),
                             .spans = spans_view(group->spans),
                             .stats = &group->stats[index],
                             .secret = group->secret,
                             .mailroom = room };
    room->out = calloc(options->count, sizeof(struct letters));
    xy_assert(shard->arenas != NULL && room->out != NULL);
}

struct shard_group *shard_group_new(const struct shard_group_options *options)
{
    xy_assert(options->count > 0 && options->wake != NULL && options->env != NULL);
    struct shard_group *group = calloc(1, sizeof(*group));
    xy_assert(group != NULL);
    group->count = options->count;
    group->hash_seed = options->hash_seed;
    group->store = options->store;
    group->spans = spans_new();
    group->wake = options->wake;
    group->ctx = options->ctx;
    group->secret = options->secret;
    if (!xy_str_present(group->secret)) {
        xy_random(options->env, group->own_secret, sizeof(group->own_secret));
        group->secret = xy_str_n(group->own_secret, sizeof(group->own_secret));
    }
    group->shards = calloc(options->count, sizeof(struct shard));
    group->mailrooms = calloc(options->count, sizeof(struct shard_mailroom));
    group->stats = calloc(options->count, sizeof(struct shard_stats));
    xy_assert(group->spans && group->shards && group->mailrooms && group->stats);
    for (unsigned i = 0; i < options->count; i++)
        shard_start(group, i, options);
    return group;
}

static void inbox_free(struct letters_block *newest)
{
    while (newest) {
        struct letters_block *next = newest->chain_next;
        letters_blocks_free(&newest);
        newest = next;
    }
}

static void shard_end(struct shard *shard)
{
    struct shard_mailroom *room = shard->mailroom;
    inbox_free(atomic_exchange(&room->inbox, NULL));
    struct letters_block *returned = atomic_exchange(&room->returned, NULL);
    letters_blocks_free(&returned);
    for (unsigned i = 0; i < shard->group->count; i++)
        letters_blocks_free(&room->out[i].first);
    free(room->out);
    letters_blocks_free(&room->waiting.first);
    letters_blocks_free(&room->spare.first);
    shard_timers_free(&shard->timers);
    xy_arena_pool_free(&shard->arenas);
}

void shard_group_free(struct shard_group **group_pointer)
{
    struct shard_group *group = *group_pointer;
    if (group == NULL)
        return;
    *group_pointer = NULL;
    for (unsigned i = 0; i < group->count; i++)
        shard_end(&group->shards[i]);
    free(group->shards);
    free(group->mailrooms);
    free(group->stats);
    spans_free(&group->spans);
    free(group);
}

unsigned shard_count(const struct shard *shard)
{
    return shard->group->count;
}

struct shard *shard_group_get(struct shard_group *group, unsigned index)
{
    xy_assert(index < group->count);
    return &group->shards[index];
}

struct spans *shard_group_spans(const struct shard_group *group)
{
    return group->spans;
}

struct store *shard_group_store(const struct shard_group *group)
{
    return group->store;
}

bool shard_memory_is_short(const struct shard *shard)
{
    return atomic_load_explicit(&shard->group->memory_short, memory_order_relaxed);
}

void shard_group_set_memory_short(struct shard_group *group, bool is_short)
{
    atomic_store_explicit(&group->memory_short, is_short, memory_order_relaxed);
}

unsigned shard_owner(const struct shard *shard, struct xy_str key)
{
    return (unsigned)(xy_hash(key, shard->group->hash_seed) % shard->group->count);
}

/* --- mail --------------------------------------------------------------------------------------------------------- */

void shard_mail(struct shard *from, unsigned to, shard_fn *fn, const void *payload, size_t size)
{
    struct shard_mailroom *room = from->mailroom;
    xy_assert(to < from->group->count);
    letters_add(&room->out[to], &room->spare, from->index, fn, 0, payload, size);
    stat_add(from, mail, 1);
}

/* Release: what the sender wrote happens before what the receiver reads after its acquire in inbox_run. */
static void chain_push(struct shard_group *group, unsigned to, struct letters letters)
{
    struct shard_mailroom *room = &group->mailrooms[to];
    struct letters_block *first = letters.first;
    struct letters_block *below = atomic_load_explicit(&room->inbox, memory_order_relaxed);
    first->chain_last = letters.last;
    do
        first->chain_next = below;
    while (!atomic_compare_exchange_weak_explicit(&room->inbox, &below, first, memory_order_acq_rel,
                                                  memory_order_relaxed));
    if (below == NULL)
        group->wake(group->ctx, to);
}

void shard_post(struct shard_group *group, unsigned to, shard_fn *fn, const void *payload, size_t size)
{
    struct letters letters = { 0 };
    letters_add(&letters, NULL, UINT_MAX, fn, 0, payload, size);
    chain_push(group, to, letters);
}

static void block_recycle(struct shard *shard, struct letters_block *block)
{
    struct shard_group *group = shard->group;
    if (block->from == UINT_MAX) {
        letters_blocks_free(&block);
        return;
    }
    struct shard_mailroom *home = &group->mailrooms[block->from];
    if (block->from == shard->index) {
        letters_recycle(&home->spare, block);
        return;
    }
    block->next = atomic_load_explicit(&home->returned, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&home->returned, &block->next, block, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

static void letters_run(struct shard *shard, struct letters *letters)
{
    struct letter letter;
    while (letters_peek(letters, &letter)) {
        letter.fn(shard, letter.payload);
        struct letters_block *empty = letters_take(letters);
        if (empty)
            block_recycle(shard, empty);
    }
}

static bool inbox_run(struct shard *shard)
{
    struct letters_block *newest =
        atomic_exchange_explicit(&shard->mailroom->inbox, NULL, memory_order_acquire);
    struct letters_block *oldest = NULL;
    while (newest) {
        struct letters_block *next = newest->chain_next;
        newest->chain_next = oldest;
        oldest = newest;
        newest = next;
    }
    bool any = oldest != NULL;
    while (oldest) {
        struct letters_block *next = oldest->chain_next;
        struct letters chain = { oldest, oldest->chain_last };
        letters_run(shard, &chain);
        oldest = next;
    }
    return any;
}

bool shard_waits(const struct shard *shard)
{
    return shard->mailroom->waiting.first != NULL;
}

bool shard_has_mail(const struct shard *shard)
{
    return atomic_load_explicit(&shard->mailroom->inbox, memory_order_acquire) != NULL ||
           shard->mailroom->out[shard->index].first != NULL;
}

static bool self_run(struct shard *shard)
{
    struct letters mine = shard->mailroom->out[shard->index];
    if (mine.first == NULL)
        return false;
    shard->mailroom->out[shard->index] = (struct letters){ 0 };
    letters_run(shard, &mine);
    return true;
}

static void outbox_send(struct shard *shard)
{
    struct shard_mailroom *room = shard->mailroom;
    for (unsigned i = 0; i < shard->group->count; i++) {
        if (i == shard->index || room->out[i].first == NULL)
            continue;
        chain_push(shard->group, i, room->out[i]);
        room->out[i] = (struct letters){ 0 };
    }
    struct letters_block *returned = atomic_exchange_explicit(&room->returned, NULL, memory_order_acquire);
    while (returned) {
        struct letters_block *next = returned->next;
        block_recycle(shard, returned);
        returned = next;
    }
}

/* --- durability --------------------------------------------------------------------------------------------------- */

void shard_when_committed(struct shard *shard, uint64_t ticket, shard_fn *fn, const void *payload,
                          size_t size)
{
    struct shard_mailroom *room = shard->mailroom;
    /* While a letter waits longer than it must, nothing of its object may overtake it. */
    if (ticket > room->released || (ticket != 0 && room->late > 0)) {
        if (ticket < room->asked_top)
            room->late++;
        else
            room->asked_top = ticket;
        letters_add(&room->waiting, &room->spare, shard->index, fn, ticket, payload, size);
        return;
    }
    _Alignas(16) char copy[SHARD_MAIL_MAX];
    xy_assert(size <= sizeof(copy));
    if (size)
        memcpy(copy, payload, size);
    fn(shard, copy);
}

/* Letters leave in the order they were asked for; one that asked for an older ticket than the one before it waits a
 * little longer than it must. */
static bool commits_run(struct shard *shard)
{
    struct shard_mailroom *room = shard->mailroom;
    if (shard->store == NULL)
        return false;
    uint64_t committed = store_committed(shard->store);
    struct letter letter;
    bool any = false;
    while (letters_peek(&room->waiting, &letter) && letter.ticket <= committed) {
        any = true;
        if (letter.ticket < room->ran_top)
            room->late--;
        else
            room->ran_top = letter.ticket;
        letter.fn(shard, letter.payload);
        struct letters_block *empty = letters_take(&room->waiting);
        if (empty)
            block_recycle(shard, empty);
    }
    if (committed > room->released)
        room->released = committed;
    return any;
}

/* --- the turn ----------------------------------------------------------------------------------------------------- */

void shard_at_turn_end(struct shard *shard, shard_fn *fn, void *ctx)
{
    struct shard_mailroom *room = shard->mailroom;
    xy_assert(room->hooks_count < SHARD_HOOKS_MAX);
    room->hooks[room->hooks_count++] = (struct hook){ fn, ctx };
}

void shard_again(struct shard *shard)
{
    shard->mailroom->again = true;
}

uint64_t shard_turn(struct shard *shard)
{
    struct shard_mailroom *room = shard->mailroom;
    stat_add(shard, turns, 1);
    bool more = true;
    for (unsigned pass = 0; more && pass < SHARD_PASSES_MAX; pass++) {
        more = inbox_run(shard);
        more |= self_run(shard);
        more |= shard_timers_run(shard, xy_now_us(shard->env));
        more |= commits_run(shard);
    }
    room->again = false;
    for (unsigned i = 0; i < room->hooks_count; i++)
        room->hooks[i].fn(shard, room->hooks[i].ctx);
    uint64_t lazy_us = shard->store ? store_flush(shard->store) : UINT64_MAX;
    outbox_send(shard);
    if (more || room->again || shard_has_mail(shard))
        return 0;
    uint64_t due_us = shard_timers_due(&shard->timers);
    uint64_t now_us = xy_now_us(shard->env);
    uint64_t wait_us = due_us == UINT64_MAX ? UINT64_MAX : due_us > now_us ? due_us - now_us : 0;
    return wait_us < lazy_us ? wait_us : lazy_us;
}
