/* How many nodes an account has created (limits.nodes_per_account). Nodes of one account are spread over all shards, so
 * the owner of the account's address counts: every creation passes there on its way. While it does, other requests for
 * the node's name wait, so that order is kept. Called by create and by publish, which creates. */
#include "broker/config.h"
#include "broker/pubsub/call.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/base/limits.h"

#include <stdlib.h>

#define PAGE_MAX 256u

#define CREATION_WAITING_MAX 1024u

struct creation {
    struct request **waiting;
    size_t count, cap;
    struct xy_str name;
    char text[];
};

struct quota {
    uint64_t nodes;
    struct xy_str bare;
    char text[];
};

/* --- counting, on the shard that owns the account -------------------------------------------------------------------- */

static struct quota *quota_of(struct pubsub *pubsub, struct xy_str bare)
{
    struct quota *quota = xy_table_get(pubsub->quotas, bare);
    if (quota != NULL)
        return quota;
    quota = malloc(sizeof(*quota) + bare.len);
    if (quota == NULL)
        return NULL;
    quota->nodes = 0;
    memcpy(quota->text, bare.data, bare.len);
    quota->bare = xy_str_n(quota->text, bare.len);
    if (xy_table_put(pubsub->quotas, quota->bare, quota, NULL))
        return quota;
    free(quota);
    return NULL;
}

static void count_stored(struct pubsub *pubsub, const struct store_entry *entry)
{
    Xylem__Store__V1__NodePut *put =
        xylem__store__v1__node_put__unpack(NULL, entry->value.len, (const uint8_t *)entry->value.data);
    if (put == NULL)
        return;
    struct xy_str creator = xy_str(put->creator);
    if (creator.len > 0 && shard_owner(pubsub->shard, creator) == pubsub->shard->index) {
        struct quota *quota = quota_of(pubsub, creator);
        if (quota != NULL)
            quota->nodes++;
    }
    xylem__store__v1__node_put__free_unpacked(put, NULL);
}

/* Before the first creation: what was there at start. Everything later passes here and is counted as it comes. */
static bool quotas_ready(struct pubsub *pubsub)
{
    struct store_entry entries[PAGE_MAX];
    struct xy_buf from = { 0 };
    if (pubsub->quotas != NULL)
        return true;
    struct xy_arena *arena = xy_arena_pool_take(pubsub->shard->arenas);
    pubsub->quotas = xy_table_new(pubsub->hash_seed);
    if (arena == NULL || pubsub->quotas == NULL)
        return false;
    xy_buf_lit(&from, "");
    for (bool more = true; more && !xy_buf_failed(&from);) {
        size_t count = store_scan(pubsub->shard->store, STORE_NODES, XY_STR(""), xy_buf_view(&from), arena,
                                  entries, PAGE_MAX, &more);
        for (size_t i = 0; i < count; i++)
            count_stored(pubsub, &entries[i]);
        if (count == 0)
            break;
        xy_buf_reset(&from);
        xy_buf_str(&from, entries[count - 1].key);
        xy_buf_char(&from, '\0');
        xy_arena_reset(arena);
    }
    xy_buf_free(&from);
    xy_arena_pool_give(pubsub->shard->arenas, &arena);
    return true;
}

static void on_granted(struct shard *shard, void *payload);
static void on_refused(struct shard *shard, void *payload);

static void on_asked(struct shard *shard, void *payload)
{
    struct request *request = *(struct request **)payload;
    struct pubsub *pubsub = shard->pubsub;
    struct xy_str who = xy_jid_bare(request->stanza.from);
    struct xy_elem *action = xy_elem_first(xy_elem_first(request->stanza.elem));
    struct quota *quota = quotas_ready(pubsub) ? quota_of(pubsub, who) : NULL;
    bool granted = quota != NULL && quota->nodes < shard->config->limits.nodes_per_account;
    if (granted)
        quota->nodes++;
    unsigned owner = shard_owner(shard, xy_elem_attr(action, "node"));
    request_forward(shard, owner, granted ? on_granted : on_refused, &request);
}

#define QUOTA_JID_MAX (SHARD_MAIL_MAX - sizeof(size_t))
struct returned {
    size_t len;
    char bare[QUOTA_JID_MAX];
};

static void on_returned(struct shard *shard, void *payload)
{
    const struct returned *returned = payload;
    struct pubsub *pubsub = shard->pubsub;
    struct quota *quota =
        quotas_ready(pubsub) ? xy_table_get(pubsub->quotas, xy_str_n(returned->bare, returned->len)) : NULL;
    if (quota == NULL || quota->nodes == 0)
        return;
    quota->nodes--;
    if (quota->nodes > 0)
        return;
    xy_table_remove(pubsub->quotas, quota->bare);
    free(quota);
}

void quota_return(struct shard *shard, struct xy_str creator)
{
    struct returned returned;
    if (creator.len == 0 || creator.len > QUOTA_JID_MAX)
        return; /* a name that long keeps its place until the restart */
    returned.len = creator.len;
    memcpy(returned.bare, creator.data, creator.len);
    shard_mail(shard, shard_owner(shard, creator), on_returned, &returned,
               offsetof(struct returned, bare) + creator.len);
}

void quota_free(struct pubsub *pubsub)
{
    size_t position = 0;
    void *value;
    while (pubsub->quotas != NULL && (value = xy_table_next(pubsub->quotas, &position, NULL)) != NULL)
        free(value);
    xy_table_free(&pubsub->quotas);
    position = 0;
    while (pubsub->creations != NULL && (value = xy_table_next(pubsub->creations, &position, NULL)) != NULL) {
        struct creation *creation = value;
        for (size_t i = 0; i < creation->count; i++) {
            struct xy_arena *arena = creation->waiting[i]->stanza.arena;
            xy_arena_pool_give(pubsub->shard->arenas, &arena);
        }
        free(creation->waiting);
        free(creation);
    }
}

/* --- waiting, on the shard that owns the node ------------------------------------------------------------------------ */

void quota_ask(struct call *call)
{
    struct pubsub *pubsub = call->pubsub;
    struct creation *creation = calloc(1, sizeof(*creation) + call->name.len);
    if (creation != NULL) {
        memcpy(creation->text, call->name.data, call->name.len);
        creation->name = xy_str_n(creation->text, call->name.len);
    }
    if (creation == NULL || !xy_table_put(pubsub->creations, creation->name, creation, NULL)) {
        free(creation);
        call_no_room(call);
        return;
    }
    request_forward(call->shard, shard_owner(call->shard, call->who), on_asked, call->request);
}

bool quota_wait(struct call *call)
{
    struct creation *creation = xy_table_get(call->pubsub->creations, call->name);
    if (creation == NULL)
        return false;
    if (creation->count == creation->cap) {
        size_t cap = creation->cap ? creation->cap * 2 : 8;
        struct request **grown =
            cap <= CREATION_WAITING_MAX ? realloc(creation->waiting, cap * sizeof(*grown)) : NULL;
        if (grown == NULL) {
            call_no_room(call);
            return true;
        }
        creation->waiting = grown;
        creation->cap = cap;
    }
    creation->waiting[creation->count++] = *call->request;
    *call->request = NULL;
    return true;
}

void quota_settled(struct shard *shard, struct xy_str name)
{
    struct creation *creation = xy_table_remove(shard->pubsub->creations, name);
    if (creation == NULL)
        return;
    for (size_t i = 0; i < creation->count; i++)
        call_dispatch(shard, &creation->waiting[i], false); /* may wait again, behind another creation */
    free(creation->waiting);
    free(creation);
}

/* The name outlives the request: it is in the table's entry. */
static struct xy_str settled_name(struct shard *shard, const struct request *request)
{
    const struct xy_elem *action = xy_elem_first(xy_elem_first(request->stanza.elem));
    const struct creation *creation = xy_table_get(shard->pubsub->creations, xy_elem_attr(action, "node"));
    xy_assert(creation != NULL);
    return creation->name;
}

static void on_granted(struct shard *shard, void *payload)
{
    struct request *request = *(struct request **)payload;
    struct xy_str name = settled_name(shard, request), who = xy_jid_bare(request->stanza.from);
    char bare[XY_JID_MAX];
    xy_assert(who.len <= sizeof(bare));
    memcpy(bare, who.data, who.len);
    call_dispatch(shard, &request, true);
    if (xy_table_get(shard->pubsub->nodes, name) == NULL) /* something else was wrong with it */
        quota_return(shard, xy_str_n(bare, who.len));
    quota_settled(shard, name);
}

static void on_refused(struct shard *shard, void *payload)
{
    struct request *request = *(struct request **)payload;
    struct xy_str name = settled_name(shard, request);
    stat_add(shard, nodes_refused, 1);
    request_fail_with(shard, &request, XY_RESOURCE_CONSTRAINT,
                      "this account has created as many nodes as it may; delete one first");
    quota_settled(shard, name);
}
