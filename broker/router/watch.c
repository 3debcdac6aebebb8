/* Watches: the owners of nodes learn which sessions of a subscriber's account are there.
 *
 * A watch is the name of a node; news goes to the shard that owns it. News is one block, shared by all watchers and
 * freed by the last. Watches live in memory; those of stored subscriptions are read when the account's first session
 * becomes available. Called by presence.c and address.c. */
#include <stdlib.h>

#include "broker/router/address_internal.h"

struct watch {
    struct xy_str node;
    char text[];
};

/* --- news --------------------------------------------------------------------------------------------------------- */

struct news {
    atomic_uint refs;
    struct address_routes routes;
    struct address_route route[];
};

struct news_mail {
    struct news *news;
    struct mail_str node;
};

static void news_unref(struct news *news)
{
    if (atomic_fetch_sub_explicit(&news->refs, 1, memory_order_acq_rel) == 1)
        free(news);
}

/* Most suitable first. */
static int by_suitability(const void *left, const void *right)
{
    const struct address_route *a = left, *b = right;
    if (a->priority != b->priority)
        return a->priority > b->priority ? -1 : 1;
    return a->since > b->since ? -1 : a->since < b->since;
}

/* One reference. The strings stand behind the routes. */
static struct news *news_new(const struct address *address, struct xy_str bare)
{
    size_t count = 0, text_bytes = bare.len;
    for (size_t i = 0; address && i < address->resources_count; i++) {
        count += address->resources[i]->available;
        text_bytes += address->resources[i]->name.len;
    }
    struct news *news = calloc(1, sizeof(*news) + count * sizeof(struct address_route) + text_bytes);
    if (!news)
        return NULL;
    char *text = (char *)&news->route[count];
    memcpy(text, bare.data, bare.len);
    news->routes = (struct address_routes){ xy_str_n(text, bare.len), news->route, count };
    text += bare.len;
    struct address_route *route = news->route;
    for (size_t i = 0; address && i < address->resources_count; i++) {
        const struct resource *r = address->resources[i];
        if (!r->available)
            continue;
        memcpy(text, r->name.data, r->name.len);
        *route++ =
            (struct address_route){ r->session, r->priority, r->sm, r->since, xy_str_n(text, r->name.len) };
        text += r->name.len;
    }
    qsort(news->route, count, sizeof(struct address_route), by_suitability);
    atomic_init(&news->refs, 1);
    return news;
}

static void on_news(struct shard *shard, void *payload)
{
    struct news_mail *mail = payload;
    address_watch_fn *fn = shard->router->addresses->watch_fn;
    if (fn)
        fn(shard, mail_str_view(&mail->node), &mail->news->routes);
    news_unref(mail->news);
    mail_str_free(&mail->node);
}

static void news_send(struct shard *shard, struct news *news, struct xy_str node)
{
    struct news_mail mail = { .news = news };
    if (!mail_str_set(&mail.node, node))
        return;
    atomic_fetch_add_explicit(&news->refs, 1, memory_order_relaxed);
    shard_mail(shard, shard_owner(shard, node), on_news, &mail, mail_str_size(&mail, &mail.node));
}

void watch_announce(struct address *address)
{
    struct news *news = address->watches ? news_new(address, address->bare) : NULL;
    size_t position = 0;
    struct watch *watch;
    while (news && (watch = xy_table_next(address->watches, &position, NULL)) != NULL)
        news_send(address->shard, news, watch->node);
    if (news)
        news_unref(news);
}

void address_set_watch_handler(struct shard *shard, address_watch_fn *fn)
{
    shard->router->addresses->watch_fn = fn;
}

/* --- who watches -------------------------------------------------------------------------------------------------- */

/* false: it did so before. */
static bool watch_add(struct address *address, struct xy_str node)
{
    if (!address->watches)
        address->watches = xy_table_new(address->shard->router->addresses->seed);
    if (!address->watches || xy_table_get(address->watches, node))
        return false;
    struct watch *watch = calloc(1, sizeof(*watch) + node.len);
    if (!watch)
        return false;
    memcpy(watch->text, node.data, node.len);
    watch->node = xy_str_n(watch->text, node.len);
    if (xy_table_put(address->watches, watch->node, watch, NULL))
        return true;
    free(watch);
    return false;
}

static void watch_remove(struct address *address, struct xy_str node)
{
    struct watch *watch = address->watches ? xy_table_remove(address->watches, node) : NULL;
    free(watch);
    if (address->watches && xy_table_count(address->watches) == 0)
        xy_table_free(&address->watches);
}

void watch_free(struct address *address)
{
    size_t position = 0;
    struct watch *watch;
    while (address->watches && (watch = xy_table_next(address->watches, &position, NULL)) != NULL) {
        xy_table_remove(address->watches, watch->node);
        free(watch);
    }
    xy_table_free(&address->watches);
}

/* Travels from the node's shard to the account's. */
struct watch_mail {
    bool on;
    uint32_t bare_len;
    struct mail_str names; /* the account's, then the node's */
};

static void watch_start(struct shard *shard, struct xy_str bare, struct xy_str node)
{
    struct address *address = address_touch(shard, bare);
    if (address)
        watch_add(address, node);
    struct news *news = news_new(address, bare);
    if (!news)
        return;
    news_send(shard, news, node);
    news_unref(news);
}

static void watch_at_owner(struct shard *shard, void *payload)
{
    struct watch_mail *mail = payload;
    struct xy_str names = mail_str_view(&mail->names);
    struct xy_str bare = xy_str_n(names.data, mail->bare_len);
    struct xy_str node = xy_str_n(names.data + mail->bare_len, names.len - mail->bare_len);
    struct address *address = mail->on ? NULL : address_find(shard, bare);
    if (mail->on)
        watch_start(shard, bare, node);
    else if (address)
        watch_remove(address, node);
    mail_str_free(&mail->names);
}

static void watch_mail(struct shard *shard, struct xy_str bare, struct xy_str node, bool on)
{
    struct watch_mail mail = { .on = on, .bare_len = (uint32_t)bare.len };
    if (mail_str_join(&mail.names, bare, node))
        shard_mail(shard, shard_owner(shard, bare), watch_at_owner, &mail, mail_str_size(&mail, &mail.names));
}

void address_watch(struct shard *shard, struct xy_str bare, struct xy_str node)
{
    watch_mail(shard, bare, node, true);
}

void address_unwatch(struct shard *shard, struct xy_str bare, struct xy_str node)
{
    watch_mail(shard, bare, node, false);
}

/* --- stored subscriptions ----------------------------------------------------------------------------------------- */

/* Walks STORE_SUBS_BY_JID of one account, a page per turn. Pins the address. */
struct watch_walk {
    struct address *address;
    struct xy_buf prefix, from;
};

static void walk_step(struct shard *shard, void *payload)
{
    struct watch_walk *walk = *(struct watch_walk **)payload;
    struct address *address = walk->address;
    struct xy_arena *arena = xy_arena_pool_take(shard->arenas);
    struct store_entry entries[WATCH_PAGE];
    bool more = false;
    struct news *news = arena ? news_new(address, address->bare) : NULL;
    if (news) {
        size_t count =
            store_scan_tables(shard_group_store(shard->group), STORE_SUBS_BY_JID, xy_buf_view(&walk->prefix),
                              xy_buf_view(&walk->from), arena, entries, WATCH_PAGE, &more);
        for (size_t i = 0; i < count; i++)
            if (watch_add(address, entries[i].value))
                news_send(shard, news, entries[i].value);
        if (count > 0) {
            xy_buf_reset(&walk->from);
            xy_buf_str(&walk->from, entries[count - 1].key);
            xy_buf_char(&walk->from, '\0');
        }
        news_unref(news);
    }
    if (arena)
        xy_arena_pool_give(shard->arenas, &arena);
    if (more && !xy_buf_failed(&walk->from)) {
        shard_mail(shard, shard->index, walk_step, &walk, sizeof(struct watch_walk *));
        return;
    }
    if (address->watches && xy_table_count(address->watches) == 0)
        xy_table_free(&address->watches);
    address_unpin(address);
    xy_buf_free(&walk->prefix);
    xy_buf_free(&walk->from);
    free(walk);
}

void watch_load(struct address *address)
{
    if (address->watches_loaded)
        return;
    struct watch_walk *walk = calloc(1, sizeof(*walk));
    if (!walk)
        return;
    address->watches_loaded = true;
    walk->address = address;
    xy_buf_str(&walk->prefix, address->bare);
    xy_buf_char(&walk->prefix, '\0');
    xy_buf_str(&walk->from, xy_buf_view(&walk->prefix));
    address_pin(address);
    shard_mail(address->shard, address->shard->index, walk_step, &walk, sizeof(struct watch_walk *));
}
