/* Last Activity (XEP-0012): how long the server has been up; how long an account has been offline, told to its own
 * sessions only (section 4: others need a presence subscription, which do not exist yet). */
#include "broker/modules/modules.h"

static void reply_seconds(struct shard *shard, struct request **request, uint64_t seconds)
{
    struct xy_elem *query;
    struct xy_elem *result = module_result(*request, "query", NS_LAST, &query);
    struct xy_arena *arena = (*request)->stanza.arena;
    xy_elem_set(arena, query, "seconds", xy_arena_printf(arena, "%llu", (unsigned long long)seconds));
    request_reply(shard, request, result, 0);
}

static void on_server(struct shard *shard, struct request **request)
{
    reply_seconds(shard, request, router_uptime_us(shard) / 1000000);
}

static void on_account(struct shard *shard, struct request **request)
{
    const struct xy_stanza *iq = &(*request)->stanza;
    struct xy_jid account = xy_jid_present(iq->to) ? iq->to : iq->from;
    uint64_t idle_us;
    if (address_last_activity(shard, xy_jid_bare(account), &idle_us))
        reply_seconds(shard, request, idle_us / 1000000);
    else
        request_fail_with(shard, request, XY_ITEM_NOT_FOUND,
                          "the account was not online since the broker started");
}

static const char *const features[] = { NS_LAST, NULL };
static const struct module_iq iq[] = {
    { XY_GET, "query", NS_LAST, MODULE_SERVER, on_server, false },
    { XY_GET, "query", NS_LAST, MODULE_ACCOUNT, on_account, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_last = {
    .name = "last", .features = features, .account_features = features, .iq = iq
};
