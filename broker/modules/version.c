/* Software Version (XEP-0092) of the server. The operating system stays unsaid. */
#include "broker/modules/modules.h"

static void on_version(struct shard *shard, struct request **request)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_elem *query;
    struct xy_elem *result = module_result(*request, "query", NS_VERSION, &query);
    xy_elem_add_text(arena, xy_elem_add(arena, query, "name", NS_VERSION), XY_STR("Xylem"));
    xy_elem_add_text(arena, xy_elem_add(arena, query, "version", NS_VERSION), XY_STR(XYLEM_VERSION));
    request_reply(shard, request, result, 0);
}

static const char *const features[] = { NS_VERSION, NULL };
static const struct module_iq iq[] = {
    { XY_GET, "query", NS_VERSION, MODULE_SERVER, on_version, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_version = { .name = "version", .features = features, .iq = iq };
