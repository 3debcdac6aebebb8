/* The table of addresses of one shard, and how sessions come to an address and leave it.
 *
 * An address is made when something touches an account and goes when nothing is left of it. Whatever travels and will
 * come back (commits, mail to itself) pins it. See address.h for who calls what. */
#include <stdlib.h>

#include "broker/router/address_internal.h"
#include "broker/router/kept.h"

/* --- table -------------------------------------------------------------------------------------------------------- */

static void address_free(struct address *address)
{
    xy_assert(address->pins == 0 && address->resources_count == 0 && xy_list_empty(&address->waiting));
    mailbox_free(address);
    watch_free(address);
    xy_bytes_unref(&address->bare_bytes);
    free(address->resources);
    free(address);
}

static bool address_empty(const struct address *address)
{
    return address->pins == 0 && address->resources_count == 0 && xy_list_empty(&address->waiting) &&
           !address->watches && mailbox_idle(address) && address->active_us == 0;
}

static void sweep(struct shard *shard, struct shard_timer *timer)
{
    struct addresses *addresses = xy_container_of(timer, struct addresses, sweep);
    size_t position = 0;
    struct address *address;
    while ((address = xy_table_next(addresses->table, &position, NULL)) != NULL) {
        if (address_empty(address) && !address->touched) {
            xy_table_remove(addresses->table, address->bare);
            address_free(address);
        } else {
            address->touched = false;
        }
    }
    if (xy_table_count(addresses->table) > 0)
        shard_timer_set(shard, timer, xy_now_us(shard->env) + ADDRESS_SWEEP_US);
}

bool addresses_init(struct shard *shard)
{
    struct addresses *addresses = calloc(1, sizeof(*addresses));
    if (!addresses)
        return false;
    shard->router->addresses = addresses;
    xy_random(shard->env, &addresses->seed, sizeof(addresses->seed));
    addresses->table = xy_table_new(addresses->seed);
    addresses->sweep.fn = sweep;
    xy_list_init(&addresses->expired);
    return addresses->table != NULL && dormants_init(shard);
}

/* At the end: nobody is left to be told anything. */
void resource_free(struct resource *resource)
{
    if (!resource)
        return;
    presence_forget(resource);
    free(resource);
}

static void address_abandon(struct address *address)
{
    for (size_t i = 0; i < address->resources_count; i++)
        resource_free(address->resources[i]);
    address->resources_count = 0;
    xy_list_each (link, &address->waiting) {
        xy_list_remove(link);
        free(xy_container_of(link, struct waiting_bind, link));
    }
    address->pins = 0;
    address_free(address);
}

void addresses_free(struct shard *shard)
{
    struct addresses *addresses = shard->router->addresses;
    if (!addresses)
        return;
    shard_timer_cancel(shard, &addresses->sweep);
    dormants_free(shard);
    expired_free(shard);
    size_t position = 0;
    struct address *address;
    while (addresses->table && (address = xy_table_next(addresses->table, &position, NULL)) != NULL) {
        xy_table_remove(addresses->table, address->bare);
        address_abandon(address);
    }
    xy_table_free(&addresses->table);
    free(addresses);
    shard->router->addresses = NULL;
}

struct address *address_find(struct shard *shard, struct xy_str bare)
{
    struct address *address = xy_table_get(shard->router->addresses->table, bare);
    if (address)
        address->touched = true;
    return address;
}

struct address *address_touch(struct shard *shard, struct xy_str bare)
{
    struct addresses *addresses = shard->router->addresses;
    xy_assert(shard_owner(shard, bare) == shard->index);
    struct address *address = address_find(shard, bare);
    if (address)
        return address->exists ? address : NULL;
    if (!accounts_exists(shard, bare))
        return NULL;
    address = calloc(1, sizeof(*address) + bare.len + 1);
    if (!address)
        return NULL;
    memcpy(address->text, bare.data, bare.len);
    address->bare = xy_str_n(address->text, bare.len);
    address->shard = shard;
    address->exists = address->touched = true;
    xy_list_init(&address->waiting);
    address->bare_bytes = xy_bytes_new(bare);
    if (!address->bare_bytes || !xy_table_put(addresses->table, address->bare, address, NULL)) {
        address_free(address);
        return NULL;
    }
    if (!mailbox_load(address)) {
        xy_table_remove(addresses->table, address->bare);
        address_free(address);
        return NULL;
    }
    if (!shard_timer_is_set(&addresses->sweep))
        shard_timer_set(shard, &addresses->sweep, xy_now_us(shard->env) + ADDRESS_SWEEP_US);
    return address;
}

void address_pin(struct address *address)
{
    address->pins++;
}

void address_unpin(struct address *address)
{
    xy_assert(address->pins > 0);
    address->pins--;
}

void address_depend(struct address *address, uint64_t ticket)
{
    if (ticket > address->ticket)
        address->ticket = ticket;
}

/* --- resources ---------------------------------------------------------------------------------------------------- */

struct resource *address_resource(const struct address *address, struct xy_str name)
{
    for (size_t i = 0; i < address->resources_count; i++)
        if (xy_str_eq(address->resources[i]->name, name))
            return address->resources[i];
    return NULL;
}

struct resource *address_resource_of(const struct address *address, struct session_ref session)
{
    for (size_t i = 0; i < address->resources_count; i++)
        if (session_ref_eq(address->resources[i]->session, session))
            return address->resources[i];
    return NULL;
}

struct resource *address_best(const struct address *address)
{
    struct resource *best = NULL;
    for (size_t i = 0; i < address->resources_count; i++) {
        struct resource *r = address->resources[i];
        if (!r->available || r->priority < 0)
            continue;
        if (!best || r->priority > best->priority ||
            (r->priority == best->priority && r->since > best->since))
            best = r;
    }
    return best;
}

static bool resources_reserve(struct address *address)
{
    if (address->resources_count < address->resources_cap)
        return true;
    size_t cap = address->resources_cap ? address->resources_cap * 2 : 2;
    struct resource **grown = realloc(address->resources, cap * sizeof(*grown));
    if (!grown)
        return false;
    address->resources = grown;
    address->resources_cap = cap;
    return true;
}

struct resource *resource_new(struct xy_str name)
{
    struct resource *resource = calloc(1, sizeof(*resource) + name.len + 1);
    if (!resource)
        return NULL;
    memcpy(resource->text, name.data, name.len);
    resource->name = xy_str_n(resource->text, name.len);
    xy_list_init(&resource->directed);
    return resource;
}

bool resource_list(struct address *address, struct resource *resource, struct session_ref session)
{
    if (!resource || !resources_reserve(address))
        return false;
    resource->session = session;
    address->resources[address->resources_count++] = resource;
    address->active_us = xy_wall_us(address->shard->env);
    return true;
}

static void resource_remove(struct address *address, struct resource *resource)
{
    size_t i = 0;
    while (address->resources[i] != resource)
        i++;
    address->resources[i] = address->resources[--address->resources_count];
    resource_free(resource);
}

/* --- binding ------------------------------------------------------------------------------------------------------ */

/* Travels from the session's shard to the owner. */
struct bind_job {
    struct session_ref session;
    struct xy_str bare, name;
    char text[];
};

static void refuse(struct shard *shard, struct session_ref session, enum xy_condition condition,
                   const char *text)
{
    struct xy_error error = xy_error_make(condition, text);
    session_bound(shard, session, (struct xy_jid){ 0 }, &error);
}

struct bound {
    struct session_ref session;
    struct xy_bytes *jid;
};

static void bound_run(struct shard *shard, void *payload)
{
    struct bound *bound = payload;
    session_bound(shard, bound->session, xy_jid_canonical(xy_bytes_view(bound->jid)), NULL);
    xy_bytes_unref(&bound->jid);
}

/* Who is told that it has the resource may rely on it that nobody goes on with what had it before, not after a crash
 * either. */
static void bind_now(struct address *address, struct session_ref session, struct xy_str name)
{
    struct shard *shard = address->shard;
    struct resource *resource = resource_new(name);
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct xy_str full = XY_STR_NONE;
    if (arena)
        full = xy_arena_printf(arena, "%.*s/%.*s", XY_ARG(address->bare), XY_ARG(name));
    struct bound bound = { session, full.data ? xy_bytes_new(full) : NULL };
    if (bound.jid && resource_list(address, resource, session)) {
        shard_when_committed(shard, address->ended, bound_run, &bound, sizeof(bound));
        carbons_bound(address, resource);
    } else {
        xy_bytes_unref(&bound.jid);
        resource_free(resource);
        refuse(shard, session, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
    }
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
}

/* One at a time waits for a resource: the newest. */
static void bind_wait(struct address *address, struct session_ref session, struct xy_str name)
{
    struct waiting_bind *waiting = calloc(1, sizeof(*waiting) + name.len + 1);
    if (!waiting) {
        refuse(address->shard, session, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return;
    }
    memcpy(waiting->text, name.data, name.len);
    waiting->name = xy_str_n(waiting->text, name.len);
    waiting->session = session;
    xy_list_each (link, &address->waiting) {
        struct waiting_bind *other = xy_container_of(link, struct waiting_bind, link);
        if (!xy_str_eq(other->name, name))
            continue;
        refuse(address->shard, other->session, XY_CONFLICT, "another session took this resource");
        xy_list_remove(link);
        free(other);
    }
    xy_list_append(&address->waiting, &waiting->link);
}

static void bind_at_owner(struct shard *shard, void *payload)
{
    struct bind_job *job = *(struct bind_job **)payload;
    struct address *address = address_touch(shard, job->bare);
    char id[XY_ID_LEN + 1];
    struct xy_str name = job->name;
    if (name.len == 0) {
        xy_random_id(shard->env, id);
        name = xy_str_n(id, XY_ID_LEN);
    }
    struct resource *old = address ? address_resource(address, name) : NULL;
    if (!address) {
        refuse(shard, job->session, XY_NOT_ALLOWED, "there is no such account");
    } else if (old) {
        /* The old session gives back what it holds before it goes; only then the new one comes. */
        bind_wait(address, job->session, name);
        stat_add(shard, sessions_replaced, 1);
        session_close(shard, old->session, XY_STREAM_CONFLICT, "another session took this resource");
    } else if (address->resources_count >= shard->config->limits.sessions_per_account) {
        refuse(shard, job->session, XY_RESOURCE_CONSTRAINT,
               "this account has as many sessions as it may have");
    } else {
        dormant_end_resource(address, name); /* whoever binds it anew does not go on with what was */
        bind_now(address, job->session, name);
    }
    free(job);
}

void address_bind(struct shard *shard, struct session_ref session, struct xy_str bare, struct xy_str resource)
{
    struct bind_job *job = calloc(1, sizeof(*job) + bare.len + resource.len + 1);
    if (!job) {
        refuse(shard, session, XY_RESOURCE_CONSTRAINT, "the broker is short of memory");
        return;
    }
    job->session = session;
    memcpy(job->text, bare.data, bare.len);
    if (resource.len)
        memcpy(job->text + bare.len, resource.data, resource.len);
    job->bare = xy_str_n(job->text, bare.len);
    job->name = xy_str_n(job->text + bare.len, resource.len);
    shard_mail(shard, shard_owner(shard, bare), bind_at_owner, &job, sizeof(struct bind_job *));
}

/* --- leaving, and what a session says about itself ---------------------------------------------------------------- */

static void bind_those_waiting(struct address *address, struct xy_str name)
{
    xy_list_each (link, &address->waiting) {
        struct waiting_bind *waiting = xy_container_of(link, struct waiting_bind, link);
        if (!xy_str_eq(waiting->name, name))
            continue;
        xy_list_remove(link);
        if (address->exists)
            bind_now(address, waiting->session, waiting->name);
        else
            refuse(address->shard, waiting->session, XY_NOT_ALLOWED, "there is no such account");
        free(waiting);
    }
}

static void waiting_gone(struct address *address, struct session_ref session)
{
    xy_list_each (link, &address->waiting) {
        struct waiting_bind *waiting = xy_container_of(link, struct waiting_bind, link);
        if (!session_ref_eq(waiting->session, session))
            continue;
        xy_list_remove(link);
        free(waiting);
    }
}

static void resource_unbind(struct address *address, struct resource *resource)
{
    struct xy_bytes *name = xy_bytes_new(resource->name);
    bool was_available = resource->available;
    if (resource->kept.recorded)
        address->ended = kept_remove(address->shard, resource->kept.id);
    presence_gone(address, resource);
    carbons_gone(address, resource);
    mailbox_session_gone(address, resource->session);
    address->active_us = xy_wall_us(address->shard->env);
    resource_remove(address, resource);
    if (was_available)
        watch_announce(address);
    if (name)
        bind_those_waiting(address, xy_bytes_view(name));
    xy_bytes_unref(&name);
    mailbox_pump(address);
}

/* Its record stays, and the rest is as if it were still there. */
static void suspend(struct shard *shard, struct address *address, struct resource *resource, bool on)
{
    bool was_available = resource->available;
    (void)shard;
    (void)on;
    dormant_add(address, resource);
    mailbox_session_gone(address, resource->session);
    carbons_gone(address, resource);
    resource_remove(address, resource);
    if (was_available)
        watch_announce(address); /* claims are for sessions that are there */
}

void address_suspend(struct shard *shard, struct session_ref session, struct xy_str bare)
{
    address_note(shard, suspend, session, bare, true);
}

struct session_note {
    struct session_ref session;
    address_note_fn *fn;
    bool on;
    struct mail_str bare;
};

static void note_at_owner(struct shard *shard, void *payload)
{
    struct session_note *note = payload;
    struct address *address = address_find(shard, mail_str_view(&note->bare));
    struct resource *resource = address ? address_resource_of(address, note->session) : NULL;
    if (resource)
        note->fn(shard, address, resource, note->on);
    mail_str_free(&note->bare);
}

static void note_mail(struct shard *shard, shard_fn *mailed, struct session_note *note, struct xy_str bare)
{
    if (mail_str_set(&note->bare, bare))
        shard_mail(shard, shard_owner(shard, bare), mailed, note, mail_str_size(note, &note->bare));
}

void address_note(struct shard *shard, address_note_fn *fn, struct session_ref session, struct xy_str bare,
                  bool on)
{
    struct session_note note = { .session = session, .fn = fn, .on = on };
    note_mail(shard, note_at_owner, &note, bare);
}

static void unbind_at_owner(struct shard *shard, void *payload)
{
    struct session_note *note = payload;
    struct address *address = address_find(shard, mail_str_view(&note->bare));
    if (address) {
        waiting_gone(address, note->session);
        struct resource *resource = address_resource_of(address, note->session);
        if (resource)
            resource_unbind(address, resource);
    }
    mail_str_free(&note->bare);
}

void address_unbind(struct shard *shard, struct session_ref session, struct xy_str bare)
{
    struct session_note note = { .session = session };
    note_mail(shard, unbind_at_owner, &note, bare);
}

static void set_sm(struct shard *shard, struct address *address, struct resource *resource, bool sm)
{
    (void)shard;
    if (resource->sm == sm)
        return;
    resource->sm = sm;
    if (resource->available)
        watch_announce(address);
}

void address_set_sm(struct shard *shard, struct session_ref session, struct xy_str bare, bool sm)
{
    address_note(shard, set_sm, session, bare, sm);
}

bool address_last_activity(struct shard *shard, struct xy_str bare, uint64_t *idle_us)
{
    const struct address *address = address_find(shard, bare);
    *idle_us = 0;
    if (!address)
        return false;
    for (size_t i = 0; i < address->resources_count; i++)
        if (address->resources[i]->available)
            return true;
    uint64_t now_us = xy_wall_us(shard->env);
    *idle_us = now_us > address->active_us ? now_us - address->active_us : 0;
    return address->active_us != 0;
}

/* --- accounts come and go ----------------------------------------------------------------------------------------- */

void address_account_changed(struct shard *shard, struct xy_str bare, bool exists)
{
    struct address *address = address_find(shard, bare);
    if (!exists && !accounts_is_reserved(shard, bare))
        dormant_end_account(shard, bare);
    if (!address)
        return;
    bool removed = address->exists && !exists && !accounts_is_reserved(shard, bare);
    address->exists = exists || accounts_is_reserved(shard, bare);
    if (!removed) {
        if (!address->mailbox.loaded)
            (void)mailbox_load(address);
        return;
    }
    for (size_t i = 0; i < address->resources_count; i++)
        session_close(shard, address->resources[i]->session, XY_STREAM_NOT_AUTHORIZED,
                      "the account was removed");
    mailbox_free(address);
}
