/* The directory of sessions that a restart interrupted and nobody has resumed yet; see resumable.h. Made once, when the
 * shard starts, it only shrinks, and costs nothing when it is empty. */
#include <stdlib.h>

#include "broker/log.h"
#include "broker/router/kept.h"

#define DORMANT_PAGE    64u
#define DORMANT_NEXT_US 1000u /* between two pages of those that end */

struct dormant {
    uint8_t id[SESSION_ID_BYTES];
    uint64_t due_us;
    struct xy_str jid; /* full */
    char text[];
};

struct dormants {
    struct xy_table *by_id, *by_jid;
    struct shard_timer timer; /* of the first that is over */
};

static struct dormants *dormants_of(const struct shard *shard)
{
    return shard->router->addresses->dormants;
}

static struct xy_str id_of(const uint8_t id[SESSION_ID_BYTES])
{
    return xy_str_n((const char *)id, SESSION_ID_BYTES);
}

static struct xy_str bare_of(const struct dormant *dormant)
{
    return xy_jid_bare(xy_jid_canonical(dormant->jid));
}

/* --- coming and going ---------------------------------------------------------------------------------------------- */

static void timer_update(struct shard *shard)
{
    struct dormants *dormants = dormants_of(shard);
    uint64_t due_us = UINT64_MAX;
    size_t position = 0;
    for (const struct dormant *d; (d = xy_table_next(dormants->by_id, &position, NULL)) != NULL;)
        due_us = d->due_us < due_us ? d->due_us : due_us;
    if (due_us == UINT64_MAX)
        shard_timer_cancel(shard, &dormants->timer);
    else
        shard_timer_set(shard, &dormants->timer, due_us);
}

void dormant_drop(struct shard *shard, struct dormant **dormant_pointer)
{
    struct dormants *dormants = dormants_of(shard);
    struct dormant *dormant = *dormant_pointer;
    *dormant_pointer = NULL;
    xy_table_remove(dormants->by_id, id_of(dormant->id));
    if (xy_table_get(dormants->by_jid, dormant->jid) == dormant)
        xy_table_remove(dormants->by_jid, dormant->jid);
    free(dormant);
}

static uint64_t expire(struct address *address, const struct resource *resource)
{
    struct session_expiry expiry = { 0 };
    uint64_t ended = restore_expiry(address, resource, &expiry)
                         ? expired_put(address, resource, &expiry)
                         : kept_remove(address->shard, resource->kept.id);
    xy_buf_free(&expiry.answers);
    stat_add(address->shard, sessions_expired, 1);
    return ended;
}

/* Those who knew that it was available hear that it is not. */
static void end(struct shard *shard, struct dormant *dormant)
{
    bool expired = dormant->due_us <= xy_now_us(shard->env);
    struct address *address = address_touch(shard, bare_of(dormant));
    struct resource *resource = address ? kept_read(address, dormant->id) : NULL;
    uint64_t ended = resource && expired ? expire(address, resource) : kept_remove(shard, dormant->id);
    if (resource) {
        resource->available = resource->presence != NULL;
        presence_gone(address, resource);
        resource_free(resource);
    }
    if (address)
        address->ended = ended;
    dormant_drop(shard, &dormant);
}

static bool add(struct shard *shard, const uint8_t id[SESSION_ID_BYTES], struct xy_str jid, uint64_t due_us)
{
    struct dormants *dormants = dormants_of(shard);
    struct dormant *dormant = calloc(1, sizeof(*dormant) + jid.len), *old = NULL;
    if (!dormant)
        return false;
    memcpy(dormant->id, id, SESSION_ID_BYTES);
    memcpy(dormant->text, jid.data, jid.len);
    dormant->jid = xy_str_n(dormant->text, jid.len);
    dormant->due_us = due_us;
    if (!xy_table_put(dormants->by_id, id_of(dormant->id), dormant, NULL)) {
        free(dormant);
        return false;
    }
    if (!xy_table_put(dormants->by_jid, dormant->jid, dormant, (void **)&old)) {
        dormant_drop(shard, &dormant);
        return false;
    }
    if (old)
        dormant_drop(shard, &old);
    if (!shard_timer_is_set(&dormants->timer) || due_us < dormants->timer.due_us)
        shard_timer_set(shard, &dormants->timer, due_us);
    return true;
}

/* What is left of its time: all of it while the broker was down, unless it had lost its connection before. */
static uint64_t due_us(const struct shard *shard, uint64_t max_us, uint64_t detached_us)
{
    uint64_t wall_us = xy_wall_us(shard->env);
    uint64_t waited_us = detached_us != 0 && detached_us < wall_us ? wall_us - detached_us : 0;
    return xy_now_us(shard->env) + (waited_us < max_us ? max_us - waited_us : 0);
}

void dormant_add(struct address *address, const struct resource *resource)
{
    struct shard *shard = address->shard;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    if (!arena)
        return;
    struct xy_str jid = xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(resource->name));
    if (jid.data)
        (void)add(shard, resource->kept.id, jid,
                  due_us(shard, resource->kept.max_us, resource->kept.detached_us));
    xy_arena_pool_give(shard->arenas, &arena);
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

struct dormant *dormant_find(struct address *address, const uint8_t id[SESSION_ID_BYTES])
{
    struct dormant *dormant = xy_table_get(dormants_of(address->shard)->by_id, id_of(id));
    bool own = dormant && xy_str_eq(bare_of(dormant), address->bare) &&
               dormant->due_us > xy_now_us(address->shard->env);
    return own ? dormant : NULL;
}

static struct dormant *of_resource(const struct address *address, struct xy_str resource)
{
    struct dormants *dormants = dormants_of(address->shard);
    struct xy_arena *arena =
        xy_table_count(dormants->by_jid) > 0 ? xy_arena_pool_take(address->shard->arenas) : NULL;
    if (!arena)
        return NULL;
    struct xy_str jid = xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(resource));
    struct dormant *dormant = jid.data ? xy_table_get(dormants->by_jid, jid) : NULL;
    xy_arena_pool_give(address->shard->arenas, &arena);
    return dormant;
}

bool dormant_has(const struct address *address, struct xy_str resource)
{
    return of_resource(address, resource) != NULL;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

void dormant_end_resource(struct address *address, struct xy_str resource)
{
    struct dormant *dormant = of_resource(address, resource);
    if (dormant)
        end(address->shard, dormant);
}

void dormant_end_account(struct shard *shard, struct xy_str bare)
{
    size_t position = 0;
    for (struct dormant *d; (d = xy_table_next(dormants_of(shard)->by_id, &position, NULL)) != NULL;)
        if (xy_str_eq(bare_of(d), bare))
            end(shard, d);
}

static void on_timer(struct shard *shard, struct shard_timer *timer)
{
    struct dormants *dormants = xy_container_of(timer, struct dormants, timer);
    uint64_t now_us = xy_now_us(shard->env);
    size_t position = 0;
    unsigned ended = 0;
    for (struct dormant *d;
         ended < DORMANT_PAGE && (d = xy_table_next(dormants->by_id, &position, NULL)) != NULL;)
        if (d->due_us <= now_us) {
            end(shard, d);
            ended++;
        }
    if (ended == DORMANT_PAGE)
        shard_timer_set(shard, timer, now_us + DORMANT_NEXT_US);
    else
        timer_update(shard);
}

/* --- beginning and end of the shard -------------------------------------------------------------------------------- */

static void load_one(struct shard *shard, struct xy_str value)
{
    Xylem__Store__V1__SessionPut *put = kept_unpack(value);
    if (!put) {
        log_error(shard->log, "stored session unreadable");
        return;
    }
    struct xy_str jid = xy_str(put->jid);
    bool own = shard_owner(shard, xy_jid_bare(xy_jid_canonical(jid))) == shard->index;
    if (own && put->ended_us != 0)
        expired_load(shard, put);
    else if (own && !add(shard, put->id.data, jid, due_us(shard, put->max_us, put->detached_us)))
        log_error(shard->log, "session not kept: memory is short", LOG_STR("jid", jid));
    xylem__store__v1__session_put__free_unpacked(put, NULL);
}

static void load(struct shard *shard)
{
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_buf from = { 0 };
    struct store_entry entries[DORMANT_PAGE];
    bool more = arena != NULL;
    while (more && !xy_buf_failed(&from)) {
        xy_arena_reset(arena);
        size_t count = store_scan_tables(shard_group_store(shard->group), STORE_SESSIONS, XY_STR_NONE,
                                         xy_buf_view(&from), arena, entries, DORMANT_PAGE, &more);
        for (size_t i = 0; i < count; i++)
            load_one(shard, entries[i].value);
        if (count > 0) {
            xy_buf_reset(&from);
            xy_buf_str(&from, entries[count - 1].key);
            xy_buf_char(&from, '\0');
        }
    }
    xy_buf_free(&from);
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
}

bool dormants_init(struct shard *shard)
{
    struct addresses *addresses = shard->router->addresses;
    struct dormants *dormants = calloc(1, sizeof(*dormants));
    if (!dormants)
        return false;
    addresses->dormants = dormants;
    dormants->by_id = xy_table_new(addresses->seed);
    dormants->by_jid = xy_table_new(addresses->seed);
    dormants->timer.fn = on_timer;
    if (!dormants->by_id || !dormants->by_jid)
        return false;
    load(shard);
    return true;
}

void dormants_free(struct shard *shard)
{
    struct dormants *dormants = dormants_of(shard);
    if (!dormants)
        return;
    shard_timer_cancel(shard, &dormants->timer);
    size_t position = 0;
    for (struct dormant *d; dormants->by_id && (d = xy_table_next(dormants->by_id, &position, NULL)) != NULL;)
        dormant_drop(shard, &d);
    xy_table_free(&dormants->by_id);
    xy_table_free(&dormants->by_jid);
    free(dormants);
    shard->router->addresses->dormants = NULL;
}
