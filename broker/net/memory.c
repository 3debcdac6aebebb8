/* Watches limits.memory: once a second shard 0 looks at how much memory of its own the process has, and tells all shards
 * when it is too much.
 *
 * The kernel's figure without mapped files is cheap, but what was freed may stay with the allocator; so only when it is
 * above the limit the allocator is asked what is really in use. */
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/net/net_internal.h"
#include "broker/shard/spans.h"
#include "broker/shard/stats.h"

/* Resident memory that is not a file's. 0: not known. */
static uint64_t memory_resident(int fd)
{
    char text[128];
    unsigned long long pages[3]; /* size, resident, shared */
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    char *at = text;
    for (size_t i = 0; i < 3; i++) {
        char *end;
        pages[i] = strtoull(at, &end, 10);
        if (end == at)
            return 0;
        at = end;
    }
    return pages[1] < pages[2] ? 0 : (pages[1] - pages[2]) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t memory_in_use(const struct shard_group *group)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd + spans_bytes(shard_group_spans(group));
#else
    (void)group;
    return UINT64_MAX;
#endif
}

static void on_look(struct shard *shard, struct shard_timer *timer)
{
    struct net *net = shard->net;
    uint64_t limit = shard->config->limits.memory;
    bool was = shard_memory_is_short(shard);
    bool is = memory_resident(net->memory_fd) > limit && memory_in_use(shard->group) > limit - limit / 8;
    shard_timer_set(shard, timer, xy_now_us(shard->env) + NET_MEMORY_LOOK_US);
    if (is)
        stat_add(shard, memory_full, 1);
    if (is == was)
        return;
    shard_group_set_memory_short(shard->group, is);
    if (is)
        log_warning(shard->log,
                    "memory is short: no new connections, at-most-once events are dropped, "
                    "publishes and messages that would have to be kept are refused",
                    LOG_NUM("limit", limit));
    else
        log_info(shard->log, "memory suffices again");
}

void memory_watch(struct net *net)
{
    struct shard *shard = net->shard;
    net->memory_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    net->memory_look.fn = on_look;
    if (net->memory_fd >= 0)
        shard_timer_set(shard, &net->memory_look, xy_now_us(shard->env));
}

void memory_watch_end(struct net *net)
{
    shard_timer_cancel(net->shard, &net->memory_look);
    if (net->memory_fd >= 0)
        close(net->memory_fd);
    net->memory_fd = -1;
}
