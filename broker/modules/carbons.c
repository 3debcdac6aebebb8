/* Message carbons (XEP-0280): a session asks for copies of its account's messages. broker/router/carbons.c makes them. */
#include "broker/modules/modules.h"

static void on_enable(struct shard *shard, struct request **request)
{
    address_carbons(shard, request, true);
}

static void on_disable(struct shard *shard, struct request **request)
{
    address_carbons(shard, request, false);
}

static const char *const features[] = { NS_CARBONS, NULL };
static const struct module_iq iq[] = {
    { XY_SET, "enable", NS_CARBONS, MODULE_ACCOUNT, on_enable, false },
    { XY_SET, "disable", NS_CARBONS, MODULE_ACCOUNT, on_disable, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_carbons = {
    .name = "carbons", .features = features, .account_features = features, .iq = iq
};
