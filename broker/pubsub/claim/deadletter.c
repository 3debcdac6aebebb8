/* Moving an item to the node of dead letters: an ordinary publish request in the name of the responsible account, made
 * here, carried to the owner of that node and answered to us instead of a client. Called by acked.c and queues.
 *
 *     home                               owner of the other node
 *     read the item, add headers
 *     mail ---------------------------->  no such node: create it first
 *                                         publish, deduplicated by epoch, seq and subid
 *       <------------------------- mail   once that is on disk
 *     done: the item ends here */
#include "broker/pubsub/claim/deadletter.h"

#include "broker/log.h"
#include "broker/pubsub/call.h"
#include "broker/pubsub/node/resident.h"
#include "broker/shard/stats.h"
#include "core/base/assert.h"
#include "core/dataform.h"
#include "core/time.h"

#define HEADER_PREFIX XY_STR("Xylem-Dead-")

/* A letter on its way; also what a request of ours carries to whoever is told of its end. */
struct way {
    uint64_t node, seq;
    union {
        void (*done)(struct node *node, uint32_t subscription, uint64_t seq, bool moved);
        void (*moving)(struct shard *shard, uint64_t node, uint64_t seq, bool moved); /* alive */
    };
    struct request *publish; /* until it is dispatched */
    uint32_t subscription;
    uint32_t home; /* shard */
    bool moved, alive;
};
_Static_assert(sizeof(struct way) <= sizeof(((struct request_told *)NULL)->ctx), "it fits what is carried");

static const char *const reason_names[] = {
    [DEAD_MAX_DELIVER] = "max-deliver",
    [DEAD_TERM] = "term",
    [DEAD_EXPIRED] = "expired",
    [DEAD_OVERFLOW] = "overflow",
};

/* --- what is published ------------------------------------------------------------------------------------------------- */

static void add_header(struct xy_arena *arena, struct xy_elem *headers, const char *name, struct xy_str value)
{
    struct xy_elem *header = xy_elem_add(arena, headers, "header", NS_SHIM);
    xy_elem_set(arena, header, "name", xy_arena_printf(arena, "Xylem-Dead-%s", name));
    xy_elem_add_text(arena, header, value);
}

static void add_number(struct xy_arena *arena, struct xy_elem *headers, const char *name, uint64_t value)
{
    add_header(arena, headers, name, xy_arena_printf(arena, "%llu", (unsigned long long)value));
}

/* Those of the item stay, but for what an earlier death said. */
static struct xy_elem *headers_of(struct xy_arena *arena, struct xy_elem *item)
{
    struct xy_elem *headers = xy_elem_child(item, "headers", NS_SHIM);
    if (headers == NULL)
        return xy_elem_add(arena, item, "headers", NS_SHIM);
    for (struct xy_elem *e = xy_elem_first(headers), *next; e != NULL; e = next) {
        next = xy_elem_next(e);
        if (xy_str_starts(xy_elem_attr(e, "name"), HEADER_PREFIX))
            xy_elem_remove(e);
    }
    return headers;
}

static void describe(struct xy_arena *arena, struct xy_elem *element, const struct node *node,
                     const struct item *item, const struct dead_letter *letter, struct xy_str epoch)
{
    char stamp[XY_TIME_LEN];
    struct xy_elem *headers = headers_of(arena, element);
    xy_time_format(xy_wall_us(node->pubsub->shard->env), stamp);
    add_header(arena, headers, "Reason", xy_str(reason_names[letter->reason]));
    add_header(arena, headers, "Node", xy_arena_str(arena, node->name));
    add_header(arena, headers, "Epoch", epoch);
    add_number(arena, headers, "Seq", item->seq);
    add_header(arena, headers, "Id", xy_arena_str(arena, item_id(item)));
    add_header(arena, headers, "Publisher", xy_arena_str(arena, item_publisher(item)));
    add_number(arena, headers, "Attempts", letter->attempts);
    if (letter->subid.len > 0)
        add_header(arena, headers, "Subid", xy_arena_str(arena, letter->subid));
    add_header(arena, headers, "Time", xy_arena_str(arena, xy_str(stamp)));
}

/* A request to the service from `account`, with `action` inside <pubsub/>; the arena is the request's. */
static struct request *request_of(const struct pubsub *pubsub, struct xy_arena *arena, struct xy_jid account,
                                  struct xy_elem *pubsub_elem, size_t bytes)
{
    struct xy_stanza stanza;
    struct xy_elem *iq = xy_stanza_new(arena, XY_IQ, XY_SET);
    if (iq == NULL || xy_arena_failed(arena))
        return NULL;
    xy_elem_set(arena, iq, "id", XY_STR("dead-letter"));
    xy_elem_set(arena, iq, "to", xy_arena_str(arena, pubsub->service));
    xy_elem_append(iq, pubsub_elem);
    if (xy_arena_failed(arena) || xy_stanza_read(arena, iq, &stanza) != XY_STANZA_OK)
        return NULL;
    stanza.bytes = bytes;
    xy_stanza_set_from(&stanza, account);
    struct request *request = request_new(stanza, SESSION_NONE, (struct session_inbound){ 0 });
    return request != NULL && !xy_arena_failed(arena) ? request : NULL;
}

/* Its id is made of what it is, so that the same letter sent again, even after its publish-id was forgotten, is one. */
static struct request *publish_request(struct node *node, const struct item *item,
                                       const struct dead_letter *letter, struct xy_arena *arena)
{
    struct pubsub *pubsub = node->pubsub;
    struct xy_str stored;
    xy_arena_reset(pubsub->arena);
    if (node_read_item(node, item->seq, pubsub->arena, &stored) != ITEM_READ)
        return NULL;
    struct xy_elem *element = item_parse(pubsub, arena, stored);
    if (element == NULL)
        return NULL;
    struct xy_str epoch = xy_arena_printf(arena, "%016llx", (unsigned long long)node->epoch);
    struct xy_str id = xy_arena_printf(arena, "%s-%.*s-%llu-%.*s", letter->moved != NULL ? "move" : "dead",
                                       XY_ARG(epoch), (unsigned long long)item->seq, XY_ARG(letter->subid));
    xy_elem_set(arena, element, "publisher", XY_STR_NONE);
    if (letter->moved == NULL) {
        xy_elem_set(arena, element, "id", id);
        describe(arena, element, node, item, letter, epoch);
    }
    struct xy_elem *container = xy_elem_new(arena, XY_STR("pubsub"), XY_STR(NS_PUBSUB));
    struct xy_elem *publish = xy_elem_add(arena, container, "publish", NS_PUBSUB);
    xy_elem_set(arena, publish, "node", xy_arena_str(arena, letter->to));
    xy_elem_set_ns(arena, publish, "publish-id", NS_XYLEM_DELIVERY, id);
    if (publish == NULL)
        return NULL;
    xy_elem_append(publish, element);
    struct request *request = request_of(pubsub, arena, letter->account, container, stored.len + 1024);
    if (request != NULL)
        request->granted = letter->granted;
    return request;
}

/* A node for dead letters keeps them all, for its owner. */
static struct request *create_request(const struct pubsub *pubsub, struct xy_arena *arena,
                                      const struct request *publish)
{
    const struct xy_elem *action = xy_elem_first(xy_elem_first(publish->stanza.elem));
    struct xy_elem *container = xy_elem_new(arena, XY_STR("pubsub"), XY_STR(NS_PUBSUB));
    struct xy_elem *create = xy_elem_add(arena, container, "create", NS_PUBSUB);
    struct xy_elem *configure = xy_elem_add(arena, container, "configure", NS_PUBSUB);
    struct xy_elem *form = xy_form_new(arena, "submit", NS_PUBSUB_NODE_CONFIG);
    (void)xy_form_add(arena, form, XY_STR("pubsub#max_items"), NULL, NULL, XY_STR("max"));
    (void)xy_form_add(arena, form, XY_STR("pubsub#access_model"), NULL, NULL, XY_STR("whitelist"));
    xy_elem_set(arena, create, "node", xy_arena_str(arena, xy_elem_attr(action, "node")));
    if (xy_arena_failed(arena))
        return NULL;
    xy_elem_append(configure, form);
    return request_of(pubsub, arena, publish->stanza.from, container, 1024);
}

/* --- home again -------------------------------------------------------------------------------------------------------- */

static void on_home(struct shard *shard, void *payload)
{
    const struct way *way = payload;
    struct pubsub *pubsub = shard->pubsub;
    if (pubsub == NULL)
        return;
    xy_assert(pubsub->dead_flight > 0);
    pubsub->dead_flight--;
    if (way->alive) {
        way->moving(shard, way->node, way->seq, way->moved);
        return;
    }
    if (way->moved)
        stat_add(shard, dead_letters, 1);
    else
        stat_add(shard, dead_letters_refused, 1);
    struct node *node = node_by_number(pubsub, way->node);
    if (node != NULL)
        way->done(node, way->subscription, way->seq, way->moved);
}

static void go_home(struct shard *shard, struct way way, bool moved)
{
    way.publish = NULL;
    way.moved = moved;
    shard_mail(shard, way.home, on_home, &way, sizeof(way));
}

/* --- at the other node ------------------------------------------------------------------------------------------------- */

static void set_told(struct request *request, const struct way *way,
                     void (*fn)(struct shard *shard, const uint64_t *ctx, enum xy_condition condition))
{
    request->told.fn = fn;
    memcpy(request->told.ctx, way, sizeof(*way));
}

static void on_published(struct shard *shard, const uint64_t *ctx, enum xy_condition condition)
{
    struct way way;
    memcpy(&way, ctx, sizeof(way));
    if (condition != XY_NO_ERROR)
        log_warning(shard->log, "dead letter refused", LOG_STR("why", xy_str(xy_condition_name(condition))),
                    LOG_NUM("node", way.node), LOG_NUM("seq", way.seq));
    go_home(shard, way, condition == XY_NO_ERROR);
}

static void publish(struct shard *shard, struct way way)
{
    struct request *request = way.publish;
    way.publish = NULL;
    set_told(request, &way, on_published);
    call_dispatch(shard, &request);
}

/* Somebody else may have been faster: then it is there, and publishing says whether we may. */
static void on_created(struct shard *shard, const uint64_t *ctx, enum xy_condition condition)
{
    struct way way;
    memcpy(&way, ctx, sizeof(way));
    if (condition == XY_NO_ERROR || condition == XY_CONFLICT) {
        publish(shard, way);
        return;
    }
    struct xy_arena *arena = way.publish->stanza.arena;
    xy_arena_pool_give(shard->arenas, &arena);
    on_published(shard, ctx, condition);
}

/* By the letter in front of this one, which is published when the node is on disk: this one must not overtake it. */
static bool just_made(const struct shard *shard, const struct node *node)
{
    return node->born_here && node->next_seq == 1 && store_committed(shard->store) < node->ticket;
}

static void on_arrived(struct shard *shard, void *payload)
{
    struct way way = *(const struct way *)payload;
    const struct xy_elem *action = xy_elem_first(xy_elem_first(way.publish->stanza.elem));
    struct node *node;
    enum resident there = resident_find(shard->pubsub, xy_elem_attr(action, "node"), &node);
    bool waits = there == RESIDENT_HERE && !way.alive && just_made(shard, node);
    if ((there == RESIDENT_HERE && !waits) || (way.alive && there == RESIDENT_LOADING)) {
        publish(shard, way);
        return;
    }
    if (way.alive) {
        struct xy_arena *given = way.publish->stanza.arena;
        xy_arena_pool_give(shard->arenas, &given);
        go_home(shard, way, false);
        return;
    }
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct request *create = arena != NULL ? create_request(shard->pubsub, arena, way.publish) : NULL;
    if (create != NULL) {
        set_told(create, &way, on_created);
        call_dispatch(shard, &create);
        return;
    }
    if (arena != NULL)
        xy_arena_pool_give(shard->arenas, &arena);
    arena = way.publish->stanza.arena;
    xy_arena_pool_give(shard->arenas, &arena);
    go_home(shard, way, false);
}

bool deadletter_send(struct node *node, struct item *item, const struct dead_letter *letter)
{
    struct pubsub *pubsub = node->pubsub;
    struct shard *shard = pubsub->shard;
    struct xy_arena *arena = pubsub->dead_flight < DEAD_FLIGHT_MAX ? xy_arena_pool_take(shard->arenas) : NULL;
    if (arena == NULL)
        return false;
    struct way way = { .node = node->number,
                       .seq = item->seq,
                       .publish = publish_request(node, item, letter, arena),
                       .subscription = letter->subscription,
                       .home = shard->index };
    if (way.publish == NULL) {
        xy_arena_pool_give(shard->arenas, &arena);
        return false;
    }
    way.alive = letter->moved != NULL;
    if (way.alive)
        way.moving = letter->moved;
    else
        way.done = letter->done;
    pubsub->dead_flight++;
    shard_mail(shard, shard_owner(shard, letter->to), on_arrived, &way, sizeof(way));
    return true;
}
