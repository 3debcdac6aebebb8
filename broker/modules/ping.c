/* XMPP Ping (XEP-0199): the server answers for itself and, towards an account's own sessions, for the account. */
#include "broker/modules/modules.h"

static void on_ping(struct shard *shard, struct request **request)
{
    request_reply(shard, request, NULL, 0);
}

static const char *const features[] = { NS_PING, NULL };
static const struct module_iq iq[] = {
    { XY_GET, "ping", NS_PING, MODULE_BOTH, on_ping, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_ping = {
    .name = "ping", .features = features, .account_features = features, .iq = iq
};
