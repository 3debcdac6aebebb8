/* Entity Time (XEP-0202) of the server, in UTC. */
#include "core/time.h"

#include "broker/modules/modules.h"

static void on_time(struct shard *shard, struct request **request)
{
    struct xy_arena *arena = (*request)->stanza.arena;
    struct xy_elem *time;
    struct xy_elem *result = module_result(*request, "time", NS_TIME, &time);
    char utc[XY_TIME_LEN];
    xy_time_format(xy_wall_us(shard->env), utc);
    xy_elem_add_text(arena, xy_elem_add(arena, time, "tzo", NS_TIME), XY_STR("+00:00"));
    xy_elem_add_text(arena, xy_elem_add(arena, time, "utc", NS_TIME), xy_arena_str(arena, xy_str(utc)));
    request_reply(shard, request, result, 0);
}

static const char *const features[] = { NS_TIME, NULL };
static const struct module_iq iq[] = {
    { XY_GET, "time", NS_TIME, MODULE_SERVER, on_time, false },
    { XY_TYPE_NONE, NULL, NULL, 0, NULL, false },
};
const struct module module_time = { .name = "time", .features = features, .iq = iq };
