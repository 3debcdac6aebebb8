/* Questions about all nodes: my subscriptions, my affiliations, my queues, which nodes there are. The request travels from shard to
 * shard and gathers its answer on the way; on each shard it waits until what it saw is on disk, and it yields between
 * pages of the store so that no loop is held up. XEP-0060 5.2, 5.6, 5.7; called through the table of pubsub.c. */
#include "broker/pubsub/call.h"

#include "broker/store/record.h"
#include "core/base/assert.h"

#define PAGE_MAX         128u
#define NODES_MAX        10000u /* in one answer */
#define SUBSCRIPTION_KEY 12u

enum tour_kind { TOUR_SUBSCRIPTIONS, TOUR_AFFILIATIONS, TOUR_NODES, TOUR_QUEUES };

/* Lives in the request's arena and goes with it. */
struct tour {
    struct request *request;
    struct xy_elem *result, *list;
    struct xy_str who;
    struct xy_str from; /* first key of the next page on this shard */
    enum tour_kind kind;
    unsigned first, next; /* shards, counted from `first` */
    uint64_t found, found_max;
    struct xy_str last_name;
    bool rsm;
    bool admin; /* all queues are his to look after */
};

static const struct {
    enum store_table table;
} kinds[] = {
    [TOUR_SUBSCRIPTIONS] = { STORE_SUBS_BY_JID },
    [TOUR_AFFILIATIONS] = { STORE_NODES },
    [TOUR_NODES] = { STORE_NODES },
    [TOUR_QUEUES] = { STORE_NODES },
};

static void on_page(struct shard *shard, void *payload);

/* --- one row: nodes need not be in memory for it ------------------------------------------------------------------------- */

/* The key ends with the numbers of node and subscription. */
static void visit_subscription(struct tour *tour, struct shard *shard, struct xy_arena *arena,
                               struct xy_str key, struct xy_str name)
{
    struct xy_arena *out = tour->request->stanza.arena;
    struct xy_str value;
    if (key.len < SUBSCRIPTION_KEY ||
        !store_get(shard->store, STORE_SUBSCRIPTIONS,
                   xy_str_n(key.data + key.len - SUBSCRIPTION_KEY, SUBSCRIPTION_KEY), arena, &value))
        return;
    const Xylem__Store__V1__SubscriptionPut *put =
        (const void *)record_unpack(&xylem__store__v1__subscription_put__descriptor, value, arena);
    if (put == NULL)
        return;
    struct xy_elem *elem = xy_elem_add(out, tour->list, "subscription", NS_PUBSUB);
    xy_elem_set(out, elem, "node", xy_arena_str(out, name));
    xy_elem_set(out, elem, "jid", xy_arena_str(out, xy_str(put->jid)));
    xy_elem_set(out, elem, "subid", xy_arena_str(out, xy_str(put->subid)));
    xy_elem_set(out, elem, "subscription", XY_STR("subscribed"));
    tour->found++;
}

/* How the asker is affiliated to the node of that number. false: not. */
static bool affiliation_in(const struct tour *tour, struct shard *shard, struct xy_arena *arena,
                           uint64_t number, struct xy_str *out)
{
    struct xy_buf key = { 0 };
    for (size_t i = 0; i < 8; i++)
        xy_buf_char(&key, (char)(unsigned char)(number >> (8 * (7 - i))));
    xy_buf_str(&key, tour->who);
    bool found =
        !xy_buf_failed(&key) && store_get(shard->store, STORE_AFFILIATIONS, xy_buf_view(&key), arena, out);
    xy_buf_free(&key);
    return found;
}

static void visit_affiliation(struct tour *tour, struct shard *shard, struct xy_arena *arena, uint64_t number,
                              struct xy_str name)
{
    struct xy_arena *out = tour->request->stanza.arena;
    struct xy_str value;
    if (!affiliation_in(tour, shard, arena, number, &value))
        return;
    struct xy_elem *elem = xy_elem_add(out, tour->list, "affiliation", NS_PUBSUB);
    xy_elem_set(out, elem, "node", xy_arena_str(out, name));
    xy_elem_set(out, elem, "affiliation", xy_arena_str(out, value));
    tour->found++;
}

static void visit_queue(struct tour *tour, struct shard *shard, struct xy_arena *arena, uint64_t number,
                        struct xy_str name)
{
    struct xy_arena *out = tour->request->stanza.arena;
    struct xy_str value;
    if (!tour->admin && !(affiliation_in(tour, shard, arena, number, &value) &&
                          xy_str_is(value, affiliation_name(AFFILIATION_OWNER))))
        return;
    tour->last_name = xy_arena_str(out, name);
    xy_elem_set(out, xy_elem_add(out, tour->list, "queue", NS_XYLEM_DELIVERY), "node", tour->last_name);
    tour->found++;
}

static void visit_node(struct tour *tour, struct pubsub *pubsub, struct xy_str name)
{
    struct xy_arena *arena = tour->request->stanza.arena;
    struct xy_elem *elem = xy_elem_add(arena, tour->list, "item", NS_DISCO_ITEMS);
    tour->last_name = xy_arena_str(arena, name);
    xy_elem_set(arena, elem, "jid", pubsub->service);
    xy_elem_set(arena, elem, "node", tour->last_name);
    tour->found++;
}

static bool is_queue(const Xylem__Store__V1__NodePut *put)
{
    for (size_t i = 0; i < put->n_config; i++)
        if (xy_str_is(xy_str(put->config[i]->name), "{" NS_XYLEM_NODE "}queue"))
            return put->config[i]->n_value > 0 && xy_str_is(xy_str(put->config[i]->value[0]), "1");
    return false;
}

/* The node's name is in the value: keys of long names are folded. *number is known where the row is the node's own.
 * Absent: it is none that was asked for. */
static struct xy_str name_in(const struct tour *tour, struct xy_arena *arena, const struct store_entry *entry,
                             uint64_t *number)
{
    *number = 0;
    if (tour->kind == TOUR_SUBSCRIPTIONS)
        return entry->value;
    const Xylem__Store__V1__NodePut *put =
        (const void *)record_unpack(&xylem__store__v1__node_put__descriptor, entry->value, arena);
    if (put == NULL || (tour->kind == TOUR_QUEUES && !is_queue(put)))
        return XY_STR_NONE;
    *number = put->node;
    return xy_str(put->name);
}

static void visit(struct tour *tour, struct shard *shard, struct xy_arena *arena,
                  const struct store_entry *entry)
{
    uint64_t number;
    struct xy_str name = name_in(tour, arena, entry, &number);
    if (name.len == 0 || shard_owner(shard, name) != shard->index)
        return;
    switch (tour->kind) {
    case TOUR_SUBSCRIPTIONS:
        visit_subscription(tour, shard, arena, entry->key, name);
        break;
    case TOUR_AFFILIATIONS:
        visit_affiliation(tour, shard, arena, number, name);
        break;
    case TOUR_NODES:
        visit_node(tour, shard->pubsub, name);
        break;
    case TOUR_QUEUES:
        visit_queue(tour, shard, arena, number, name);
        break;
    }
}

/* --- the way --------------------------------------------------------------------------------------------------------------- */

static void finish(struct shard *shard, struct tour *tour)
{
    struct xy_arena *arena = tour->request->stanza.arena;
    struct request *request = tour->request;
    if (tour->rsm) {
        struct xy_elem *set = xy_elem_add(arena, tour->list, "set", NS_RSM);
        if (tour->last_name.len > 0)
            xy_elem_add_text(arena, xy_elem_add(arena, set, "last", NS_RSM), tour->last_name);
    }
    if (xy_arena_failed(arena))
        request_fail_with(shard, &request, XY_RESOURCE_CONSTRAINT, "the answer is too large");
    else
        request_reply(shard, &request, tour->result, 0);
}

static void on_shard_done(struct shard *shard, void *payload)
{
    struct tour *tour = *(struct tour **)payload;
    unsigned shards = shard_count(shard);
    tour->next++;
    tour->from = tour->kind == TOUR_SUBSCRIPTIONS ? tour->from : XY_STR("");
    if (tour->next == shards || tour->found >= tour->found_max) {
        tour->rsm = tour->rsm || tour->next < shards;
        finish(shard, tour);
        return;
    }
    shard_mail(shard, (tour->first + tour->next) % shards, on_page, &tour, sizeof(tour));
}

/* STORE_SUBS_BY_JID: what belongs to this account. */
static struct xy_str prefix_of(const struct tour *tour)
{
    if (tour->kind != TOUR_SUBSCRIPTIONS)
        return XY_STR("");
    return xy_arena_printf(tour->request->stanza.arena, "%.*s%c", XY_ARG(tour->who), '\0');
}

static void on_page(struct shard *shard, void *payload)
{
    struct tour *tour = *(struct tour **)payload;
    struct store_entry entries[PAGE_MAX];
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_str prefix = prefix_of(tour);
    bool more = false;
    size_t count = 0;
    if (arena != NULL && prefix.data != NULL)
        count = store_scan(shard->store, kinds[tour->kind].table, prefix,
                           tour->from.len > 0 ? tour->from : prefix, arena, entries, PAGE_MAX, &more);
    for (size_t i = 0; i < count && tour->found < tour->found_max; i++)
        visit(tour, shard, arena, &entries[i]);
    if (more && count > 0 && tour->found < tour->found_max) {
        struct xy_str last = entries[count - 1].key;
        char *next = xy_arena_alloc(tour->request->stanza.arena, last.len + 1);
        if (next != NULL) {
            memcpy(next, last.data, last.len);
            next[last.len] = '\0';
            tour->from = xy_str_n(next, last.len + 1);
        }
        more = next != NULL;
    }
    if (arena != NULL)
        xy_arena_pool_give(shard->arenas, &arena);
    if (more && count > 0 && tour->found < tour->found_max) {
        shard_mail(shard, shard->index, on_page, &tour, sizeof(tour));
        return;
    }
    tour->from = XY_STR_NONE;
    shard_when_committed(shard, store_ticket(shard->store), on_shard_done, &tour, sizeof(tour));
}

/* --- setting out ------------------------------------------------------------------------------------------------------------- */

static struct tour *make(struct call *call, enum tour_kind kind, const char *container, const char *list,
                         const char *ns)
{
    struct tour *tour = xy_arena_zalloc(call->arena, sizeof(*tour));
    if (tour == NULL) {
        call_no_room(call);
        return NULL;
    }
    tour->kind = kind;
    tour->request = *call->request;
    tour->who = call->who;
    tour->found_max = NODES_MAX;
    tour->first = 0;
    tour->result = xy_stanza_result(call->arena, &(*call->request)->stanza);
    tour->list = tour->result;
    if (container != NULL)
        tour->list = xy_elem_add(call->arena, tour->result, container, ns);
    tour->list = xy_elem_add(call->arena, tour->list, list, ns);
    return tour;
}

static void set_out(struct call *call, struct tour *tour)
{
    *call->request = NULL;
    shard_mail(call->shard, tour->first, on_page, &tour, sizeof(tour));
}

void tour_subscriptions(struct call *call)
{
    struct tour *tour = make(call, TOUR_SUBSCRIPTIONS, "pubsub", "subscriptions", NS_PUBSUB);
    if (tour != NULL)
        set_out(call, tour);
}

void tour_affiliations(struct call *call)
{
    struct tour *tour = make(call, TOUR_AFFILIATIONS, "pubsub", "affiliations", NS_PUBSUB);
    if (tour != NULL)
        set_out(call, tour);
}

/* Pages go by shard, then by name: <after/> names a node, and with it the shard to go on with (XEP-0059). */
static void set_out_by_pages(struct call *call, struct tour *tour)
{
    const struct xy_elem *set = xy_elem_child(call->action, "set", NS_RSM);
    if (set == NULL) {
        set_out(call, tour);
        return;
    }
    uint64_t max = NODES_MAX;
    struct xy_str max_text = xy_elem_child_text(set, "max", call->arena);
    const struct xy_elem *after = xy_elem_child(set, "after", NS_RSM);
    if (xy_elem_child(set, "before", NS_RSM) != NULL) {
        call_fail(call, XY_FEATURE_NOT_IMPLEMENTED, NULL, "nodes are listed forward only: use <after/>");
        return;
    }
    if (xy_str_present(max_text) && !xy_str_u64(xy_str_trim(max_text), &max)) {
        call_fail(call, XY_BAD_REQUEST, NULL, "<max/> is a number");
        return;
    }
    tour->rsm = true;
    tour->found_max = max < NODES_MAX ? max : NODES_MAX;
    struct xy_str name = after != NULL ? xy_elem_text(after, call->arena) : XY_STR_NONE;
    if (name.len > 0) {
        unsigned owner = shard_owner(call->shard, name);
        tour->next = owner; /* first stays 0: the order of shards is the same for every page */
        tour->from = xy_arena_printf(call->arena, "%.*s%c", XY_ARG(name), '\0');
        *call->request = NULL;
        shard_mail(call->shard, owner, on_page, &tour, sizeof(tour));
        return;
    }
    set_out(call, tour);
}

void tour_nodes(struct call *call)
{
    struct tour *tour = make(call, TOUR_NODES, NULL, "query", NS_DISCO_ITEMS);
    if (tour != NULL)
        set_out_by_pages(call, tour);
}

void tour_queues(struct call *call)
{
    struct tour *tour = make(call, TOUR_QUEUES, NULL, "queues", NS_XYLEM_DELIVERY);
    if (tour == NULL)
        return;
    tour->admin = router_is_admin(call->shard, (*call->request)->stanza.from);
    set_out_by_pages(call, tour);
}
