/* Presence of an account's own sessions, and presence directed at it: RFC 6121 section 4 without rosters.
 *
 * An available session is known to the other available sessions of its account and to whom it sent directed presence;
 * all of them hear when it goes. Subscriptions are refused until there are rosters. Called by address_route.c. */
#include <stdlib.h>

#include "broker/router/address_internal.h"
#include "broker/router/kept.h"

/* --- telling ------------------------------------------------------------------------------------------------------ */

static void send_copy(struct shard *shard, const struct resource *to, struct xy_bytes *bytes)
{
    struct xy_bytes *copy = xy_bytes_ref(bytes);
    session_send_presence(shard, to->session, &copy);
}

static void broadcast(struct address *address, struct xy_bytes *bytes)
{
    for (size_t i = 0; i < address->resources_count; i++)
        if (address->resources[i]->available)
            send_copy(address->shard, address->resources[i], bytes);
}

/* --- directed presence -------------------------------------------------------------------------------------------- */

/* Travels from the addressee's shard to the owner of the sender. */
struct directed_job {
    struct session_ref session;
    bool available;
    struct xy_str from, to; /* the full JID of the sender; as addressed */
    char text[];
};

static void send_unavailable(struct shard *shard, struct xy_str from, struct xy_str to,
                             const struct xy_elem *like)
{
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return;
    struct xy_elem *presence =
        like ? xy_elem_copy(arena, like) : xy_stanza_new(arena, XY_PRESENCE, XY_UNAVAILABLE);
    xy_elem_set(arena, presence, "from", from);
    router_send(shard, xy_jid_canonical(to), presence, 0);
    xy_arena_pool_give(shard->arenas, &arena);
}

static struct directed *directed_find(struct resource *resource, struct xy_str to)
{
    xy_list_each (link, &resource->directed) {
        struct directed *directed = xy_container_of(link, struct directed, link);
        if (xy_str_eq(directed->to, to))
            return directed;
    }
    return NULL;
}

static void directed_drop(struct resource *resource, struct directed *directed)
{
    xy_list_remove(&directed->link);
    resource->directed_count--;
    free(directed);
}

bool presence_directed_add(struct resource *resource, struct xy_str to)
{
    struct directed *directed = calloc(1, sizeof(*directed) + to.len);
    if (!directed)
        return false;
    memcpy(directed->text, to.data, to.len);
    directed->to = xy_str_n(directed->text, to.len);
    xy_list_append(&resource->directed, &directed->link);
    resource->directed_count++;
    return true;
}

static void directed_add(struct address *address, struct resource *resource, const struct directed_job *job)
{
    if (directed_find(resource, job->to))
        return;
    if (resource->directed_count >=
        ADDRESS_DIRECTED_MAX) { /* the oldest hears now what it would hear at the end */
        struct directed *oldest = xy_container_of(resource->directed.next, struct directed, link);
        send_unavailable(address->shard, job->from, oldest->to, NULL);
        directed_drop(resource, oldest);
    }
    if (presence_directed_add(resource, job->to))
        (void)kept_put(address, resource, false);
}

static void directed_withdrawn(struct address *address, struct resource *resource, struct directed *directed)
{
    directed_drop(resource, directed);
    (void)kept_put(address, resource, false);
}

static void directed_at_sender(struct shard *shard, void *payload)
{
    struct directed_job *job = *(struct directed_job **)payload;
    struct address *address = address_find(shard, xy_jid_bare(xy_jid_canonical(job->from)));
    struct resource *resource = address ? address_resource_of(address, job->session) : NULL;
    struct directed *known = resource ? directed_find(resource, job->to) : NULL;
    if (resource && job->available)
        directed_add(address, resource, job);
    else if (known && !job->available)
        directed_withdrawn(address, resource, known);
    else if (!resource && job->available) /* it ended meanwhile */
        send_unavailable(shard, job->from, job->to, NULL);
    free(job);
}

static void directed_note(struct shard *shard, const struct request *request)
{
    const struct xy_stanza *stanza = &request->stanza;
    if (!session_ref_present(request->origin) || stanza->type == XY_ERROR ||
        xy_jid_same_bare(stanza->from, stanza->to))
        return;
    struct xy_str from = xy_jid_full(stanza->from), to = xy_jid_full(stanza->to);
    struct directed_job *job = calloc(1, sizeof(*job) + from.len + to.len);
    if (!job)
        return;
    job->session = request->origin;
    job->available = stanza->type == XY_TYPE_NONE;
    memcpy(job->text, from.data, from.len);
    memcpy(job->text + from.len, to.data, to.len);
    job->from = xy_str_n(job->text, from.len);
    job->to = xy_str_n(job->text + from.len, to.len);
    shard_mail(shard, shard_owner(shard, xy_jid_bare(stanza->from)), directed_at_sender, &job,
               sizeof(struct directed_job *));
}

/* 8.5.2.1.2, 8.5.3.1 */
static void directed_deliver(struct address *address, const struct request *request)
{
    const struct xy_stanza *stanza = &request->stanza;
    struct xy_bytes *bytes = xy_xml_bytes(stanza->elem, XY_STR(NS_CLIENT));
    if (!bytes)
        return;
    if (xy_jid_is_bare(stanza->to)) {
        broadcast(address, bytes);
    } else {
        struct resource *resource = address_resource(address, xy_jid_resource(stanza->to));
        if (resource)
            send_copy(address->shard, resource, bytes);
    }
    xy_bytes_unref(&bytes);
    directed_note(address->shard, request);
}

/* 4.3.2: only the account's own sessions may ask, as long as there are no rosters. */
static void probe(struct address *address, const struct request *request)
{
    const struct xy_stanza *stanza = &request->stanza;
    if (!xy_jid_same_bare(stanza->from, stanza->to))
        return;
    for (size_t i = 0; i < address->resources_count; i++) {
        struct resource *r = address->resources[i];
        bool meant = xy_jid_is_bare(stanza->to) || xy_str_eq(xy_jid_resource(stanza->to), r->name);
        if (meant && r->presence) {
            struct xy_bytes *copy = xy_bytes_ref(r->presence);
            session_send_presence(address->shard, request->origin, &copy);
        }
    }
}

/* --- own presence ------------------------------------------------------------------------------------------------- */

/* 4.7.2.3. false: not an integer from -128 to 127. */
static bool priority_read(const struct xy_stanza *presence, int8_t *out)
{
    struct xy_elem *e = xy_elem_child(presence->elem, "priority", NULL);
    *out = 0;
    if (!e)
        return true;
    struct xy_str text = xy_str_trim(xy_elem_text(e, presence->arena));
    bool negative = text.len > 0 && text.data[0] == '-';
    bool sign = negative || (text.len > 0 && text.data[0] == '+');
    uint32_t value;
    if (!xy_str_u32(xy_str_n(text.data + sign, text.len - sign), &value) || value > (negative ? 128u : 127u))
        return false;
    *out = (int8_t)(negative ? -(int)value : (int)value);
    return true;
}

static struct xy_bytes *own_bytes(struct xy_stanza *presence)
{
    xy_stanza_set_to(presence, xy_jid_to_bare(presence->from));
    return xy_xml_bytes(presence->elem, XY_STR(NS_CLIENT));
}

/* 4.2.2: the others' presence to the newcomer, its own to all, itself included. */
static void available(struct address *address, struct resource *resource, struct xy_stanza *presence,
                      int8_t priority)
{
    struct shard *shard = address->shard;
    struct xy_bytes *bytes = own_bytes(presence);
    if (!bytes)
        return;
    bool first = !resource->available;
    bool changed = first || resource->priority != priority;
    for (size_t i = 0; first && i < address->resources_count; i++)
        if (address->resources[i]->presence)
            send_copy(shard, resource, address->resources[i]->presence);
    xy_bytes_unref(&resource->presence);
    resource->presence = bytes;
    resource->priority = priority;
    resource->available = true;
    if (first)
        resource->since = ++shard->router->addresses->since;
    broadcast(address, bytes);
    watch_load(address);
    if (changed)
        watch_announce(address);
    if (priority >= 0)
        mailbox_session_available(address);
}

/* What it said before the restart holds, for those who came since. It knows itself what it said. */
void presence_restore(struct address *address, struct resource *resource)
{
    struct shard *shard = address->shard;
    if (!resource->presence)
        return;
    for (size_t i = 0; i < address->resources_count; i++) {
        const struct resource *other = address->resources[i];
        if (other == resource || !other->available)
            continue;
        send_copy(shard, resource, other->presence);
        send_copy(shard, other, resource->presence);
    }
    resource->available = true;
    resource->since = ++shard->router->addresses->since;
    watch_load(address);
    watch_announce(address);
    if (resource->priority >= 0)
        mailbox_session_available(address);
}

void presence_forget(struct resource *resource)
{
    xy_bytes_unref(&resource->presence);
    xy_list_each (link, &resource->directed)
        directed_drop(resource, xy_container_of(link, struct directed, link));
}

static void tell_gone(struct address *address, struct resource *resource, struct xy_stanza *said)
{
    struct shard *shard = address->shard;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return;
    struct xy_str from = xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(resource->name));
    struct xy_elem *presence = said ? said->elem : xy_stanza_new(arena, XY_PRESENCE, XY_UNAVAILABLE);
    struct xy_arena *home = said ? said->arena : arena;
    xy_elem_set(home, presence, "from", from);
    xy_elem_set(home, presence, "to", address->bare);
    struct xy_bytes *bytes =
        resource->available && from.data ? xy_xml_bytes(presence, XY_STR(NS_CLIENT)) : NULL;
    if (!said) /* the session is not there any more */
        resource->available = false;
    if (bytes)
        broadcast(address, bytes);
    xy_bytes_unref(&bytes);
    xy_list_each (link, &resource->directed)
        send_unavailable(shard, from, xy_container_of(link, struct directed, link)->to, presence);
    xy_arena_pool_give(shard->arenas, &arena);
}

void presence_gone(struct address *address, struct resource *resource)
{
    tell_gone(address, resource, NULL);
    presence_forget(resource);
    resource->available = false;
}

/* 4.5.2: to all it was available to, itself included. */
static void unavailable(struct address *address, struct resource *resource, struct xy_stanza *presence)
{
    bool was_available = resource->available;
    tell_gone(address, resource, presence);
    presence_forget(resource);
    resource->available = false;
    address->active_us = xy_wall_us(address->shard->env);
    if (was_available)
        watch_announce(address);
}

static void own(struct address *address, struct request **request)
{
    struct xy_stanza *presence = &(*request)->stanza;
    struct resource *resource = address_resource_of(address, (*request)->origin);
    int8_t priority;
    if (resource && presence->type == XY_TYPE_NONE) {
        if (!priority_read(presence, &priority)) {
            request_fail_with(address->shard, request, XY_BAD_REQUEST,
                              "priority is an integer from -128 to 127");
            return;
        }
        available(address, resource, presence, priority);
    } else if (resource && presence->type == XY_UNAVAILABLE) {
        unavailable(address, resource, presence);
    }
    /* After a restart it is what it said last: it counts as handled when that is on disk. */
    request_end(address->shard, request, resource ? kept_put(address, resource, true) : 0);
}

void presence_handle(struct address *address, struct request **request)
{
    const struct xy_stanza *stanza = &(*request)->stanza;
    if (!xy_jid_present(stanza->to)) {
        own(address, request);
        return;
    }
    switch (stanza->type) {
    case XY_TYPE_NONE:
    case XY_UNAVAILABLE:
    case XY_ERROR:
        directed_deliver(address, *request);
        break;
    case XY_PROBE:
        probe(address, *request);
        break;
    case XY_SUBSCRIBE:
        request_fail_with(address->shard, request, XY_FEATURE_NOT_IMPLEMENTED,
                          "this broker has no presence subscriptions yet");
        return;
    default: /* about subscriptions that do not exist */
        break;
    }
    request_end(address->shard, request, 0);
}
