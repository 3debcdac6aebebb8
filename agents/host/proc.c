/* Reads the tables of /proc line by line and word by word. Called by state.c once per publishing interval. */
#include "agents/host/proc.h"

#define SECTOR_BYTES 512u /* in /proc/diskstats, whatever the disk's own size */

/* ---- lines and words ---- */

static bool line_next(struct xy_str *rest, struct xy_str *line)
{
    if (rest->len == 0)
        return false;
    const char *end = memchr(rest->data, '\n', rest->len);
    size_t len = end != NULL ? (size_t)(end - rest->data) : rest->len;
    *line = xy_str_n(rest->data, len);
    size_t used = end != NULL ? len + 1 : len;
    *rest = xy_str_n(rest->data + used, rest->len - used);
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static struct xy_str word_next(struct xy_str *line)
{
    size_t start = 0;
    while (start < line->len && is_space(line->data[start]))
        start++;
    size_t end = start;
    while (end < line->len && !is_space(line->data[end]))
        end++;
    struct xy_str word = xy_str_n(line->data + start, end - start);
    *line = xy_str_n(line->data + end, line->len - end);
    return word;
}

/* The next `count` words as numbers. */
static bool numbers_next(struct xy_str *line, uint64_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!xy_str_u64(word_next(line), &out[i]))
            return false;
    return true;
}

/* "12.34" in thousandths. */
static bool milli_read(struct xy_str word, uint64_t *out)
{
    uint64_t whole, fraction = 0, scale = 1000;
    const char *dot = word.len > 0 ? memchr(word.data, '.', word.len) : NULL;
    size_t whole_len = dot != NULL ? (size_t)(dot - word.data) : word.len;
    if (!xy_str_u64(xy_str_n(word.data, whole_len), &whole) || whole > UINT64_MAX / 2000)
        return false;
    for (size_t i = whole_len + 1; i < word.len && scale > 1; i++) {
        if (word.data[i] < '0' || word.data[i] > '9')
            return false;
        scale /= 10;
        fraction += (uint64_t)(word.data[i] - '0') * scale;
    }
    *out = whole * 1000 + fraction;
    return true;
}

/* ---- processors ---- */

static bool cpu_read(struct xy_str line, struct host_cpu *out)
{
    uint64_t ticks[8] = { 0 };
    if (!numbers_next(&line, ticks, 4)) /* the first four are as old as /proc; the rest came one by one */
        return false;
    for (size_t i = 4; i < 8 && xy_str_u64(word_next(&line), &ticks[i]); i++)
        continue;
    *out = (struct host_cpu){ .user = ticks[0],
                              .nice = ticks[1],
                              .system = ticks[2],
                              .idle = ticks[3],
                              .iowait = ticks[4],
                              .irq = ticks[5],
                              .softirq = ticks[6],
                              .steal = ticks[7] };
    return true;
}

bool host_parse_stat(struct xy_arena *arena, struct xy_str text, struct host_cpus *out)
{
    struct xy_str line;
    bool has_total = false;
    size_t lines = 0;
    for (struct xy_str rest = text; line_next(&rest, &line);)
        lines += xy_str_starts(line, XY_STR("cpu"));
    if (lines > HOST_CORES_MAX)
        lines = HOST_CORES_MAX;
    *out = (struct host_cpus){ .cores = xy_arena_zalloc(arena, (lines + 1) * sizeof *out->cores) };
    if (out->cores == NULL)
        return false;
    while (line_next(&text, &line)) {
        struct xy_str name = word_next(&line);
        struct host_cpu cpu;
        uint32_t number;
        if (!xy_str_starts(name, XY_STR("cpu")) || !cpu_read(line, &cpu))
            continue;
        if (name.len == 3) {
            out->total = cpu;
            has_total = true;
        } else if (out->core_count < lines && xy_str_u32(xy_str_n(name.data + 3, name.len - 3), &number)) {
            cpu.core = number;
            out->cores[out->core_count++] = cpu;
        }
    }
    return has_total;
}

static uint64_t grown(uint64_t before, uint64_t after)
{
    return after > before ? after - before : 0; /* iowait is known to go backwards */
}

struct host_cpu_usage host_cpu_usage(const struct host_cpu *before, const struct host_cpu *after)
{
    uint64_t user = grown(before->user, after->user) + grown(before->nice, after->nice);
    uint64_t system = grown(before->system, after->system) + grown(before->irq, after->irq) +
                      grown(before->softirq, after->softirq);
    uint64_t iowait = grown(before->iowait, after->iowait), steal = grown(before->steal, after->steal);
    uint64_t total = user + system + steal + iowait + grown(before->idle, after->idle);
    if (total == 0)
        return (struct host_cpu_usage){ 0 };
    return (struct host_cpu_usage){ .busy = (uint32_t)((user + system + steal) * 1000 / total),
                                    .user = (uint32_t)(user * 1000 / total),
                                    .system = (uint32_t)(system * 1000 / total),
                                    .iowait = (uint32_t)(iowait * 1000 / total),
                                    .steal = (uint32_t)(steal * 1000 / total) };
}

/* ---- memory, load, uptime ---- */

struct memory_line {
    const char *name;
    size_t offset;
};

static const struct memory_line memory_lines[] = {
    { "MemTotal:", offsetof(struct host_memory, total_bytes) },
    { "MemAvailable:", offsetof(struct host_memory, available_bytes) },
    { "MemFree:", offsetof(struct host_memory, free_bytes) },
    { "Buffers:", offsetof(struct host_memory, cached_bytes) }, /* added up */
    { "Cached:", offsetof(struct host_memory, cached_bytes) },
    { "SwapTotal:", offsetof(struct host_memory, swap_total_bytes) },
    { "SwapFree:", offsetof(struct host_memory, swap_free_bytes) },
};

bool host_parse_meminfo(struct xy_str text, struct host_memory *out)
{
    struct xy_str line;
    *out = (struct host_memory){ 0 };
    while (line_next(&text, &line)) {
        struct xy_str name = word_next(&line);
        uint64_t kib;
        for (size_t i = 0; i < sizeof memory_lines / sizeof memory_lines[0]; i++) {
            if (!xy_str_is(name, memory_lines[i].name) || !xy_str_u64(word_next(&line), &kib))
                continue;
            uint64_t *field = (uint64_t *)(void *)((char *)out + memory_lines[i].offset);
            *field += kib * 1024;
        }
    }
    return out->total_bytes > 0;
}

bool host_parse_loadavg(struct xy_str text, struct host_load *out)
{
    uint64_t load[3];
    for (size_t i = 0; i < 3; i++)
        if (!milli_read(word_next(&text), &load[i]) || load[i] > UINT32_MAX)
            return false;
    *out = (struct host_load){ (uint32_t)load[0], (uint32_t)load[1], (uint32_t)load[2] };
    return true;
}

bool host_parse_uptime(struct xy_str text, uint64_t *uptime_ms)
{
    return milli_read(word_next(&text), uptime_ms);
}

/* ---- disks ---- */

/* sda1 of sda, nvme0n1p2 of nvme0n1: the disk's name, a `p` if that ends in a digit, and a number. */
static bool is_partition_of(struct xy_str name, struct xy_str disk)
{
    if (name.len <= disk.len || !xy_str_starts(name, disk))
        return false;
    size_t i = disk.len;
    char last = disk.data[disk.len - 1];
    if (last >= '0' && last <= '9' && name.data[i++] != 'p')
        return false;
    uint64_t number;
    return xy_str_u64(xy_str_n(name.data + i, name.len - i), &number);
}

static bool is_real_disk(struct xy_str name, const struct host_disk *disks, size_t count)
{
    if (name.len == 0 || xy_str_starts(name, XY_STR("loop")) || xy_str_starts(name, XY_STR("ram")))
        return false;
    for (size_t i = 0; i < count; i++)
        if (is_partition_of(name, disks[i].name))
            return false;
    return true;
}

bool host_parse_diskstats(struct xy_arena *arena, struct xy_str text, struct host_disk **out, size_t *count)
{
    struct xy_str line;
    struct host_disk *disks = xy_arena_zalloc(arena, HOST_DISKS_MAX * sizeof *disks);
    *count = 0;
    if (disks == NULL)
        return false;
    while (line_next(&text, &line) && *count < HOST_DISKS_MAX) {
        uint64_t device[2],
            n[10]; /* reads, merged, sectors, ms, writes, merged, sectors, ms, in flight, busy ms */
        if (!numbers_next(&line, device, 2))
            continue;
        struct xy_str name = word_next(&line);
        if (!numbers_next(&line, n, 10) || n[0] + n[4] == 0 || !is_real_disk(name, disks, *count))
            continue;
        disks[(*count)++] = (struct host_disk){ .name = name,
                                                .read_ops = n[0],
                                                .read_bytes = n[2] * SECTOR_BYTES,
                                                .write_ops = n[4],
                                                .written_bytes = n[6] * SECTOR_BYTES,
                                                .busy_ms = n[9] };
    }
    *out = disks;
    return true;
}

/* ---- network ---- */

bool host_parse_net_dev(struct xy_arena *arena, struct xy_str text, struct host_interface **out,
                        size_t *count)
{
    struct xy_str line;
    struct host_interface *interfaces = xy_arena_zalloc(arena, HOST_INTERFACES_MAX * sizeof *interfaces);
    *count = 0;
    if (interfaces == NULL)
        return false;
    while (line_next(&text, &line) && *count < HOST_INTERFACES_MAX) {
        uint64_t
            n[16]; /* eight received, eight sent: bytes packets errs drop fifo frame compressed multicast */
        const char *colon = memchr(line.data, ':', line.len);
        if (colon == NULL)
            continue; /* the two lines of headings */
        struct xy_str name = xy_str_trim(xy_str_n(line.data, (size_t)(colon - line.data)));
        line = xy_str_n(colon + 1, line.len - (size_t)(colon + 1 - line.data));
        if (!numbers_next(&line, n, 16) || xy_str_is(name, "lo"))
            continue;
        interfaces[(*count)++] = (struct host_interface){ .name = name,
                                                          .received_bytes = n[0],
                                                          .received_packets = n[1],
                                                          .receive_errors = n[2],
                                                          .receive_drops = n[3],
                                                          .sent_bytes = n[8],
                                                          .sent_packets = n[9],
                                                          .send_errors = n[10],
                                                          .send_drops = n[11] };
    }
    *out = interfaces;
    return true;
}

/* ---- mounts ---- */

/* Not those of the network: asking a dead server for its size would block the agent for minutes. */
static const char *const local_types[] = { "ext2", "ext3", "ext4",  "xfs",      "btrfs", "zfs",     "f2fs",
                                           "jfs",  "vfat", "exfat", "bcachefs", "ntfs3", "overlay", NULL };

static bool is_local(struct xy_str type)
{
    for (size_t i = 0; local_types[i] != NULL; i++)
        if (xy_str_is(type, local_types[i]))
            return true;
    return false;
}

static bool is_octal(struct xy_str s, size_t at)
{
    if (s.len - at < 4)
        return false;
    for (size_t i = at + 1; i < at + 4; i++)
        if (s.data[i] < '0' || s.data[i] > '7')
            return false;
    return s.data[at] == '\\' && s.data[at + 1] <= '3';
}

/* Space, tab, newline and backslash come as \040 and the like. */
static struct xy_str unescape(struct xy_arena *arena, struct xy_str s)
{
    char *out = xy_arena_alloc(arena, s.len + 1);
    size_t len = 0;
    if (out == NULL)
        return XY_STR_NONE;
    for (size_t i = 0; i < s.len; i++) {
        if (is_octal(s, i)) {
            out[len++] =
                (char)((s.data[i + 1] - '0') << 6 | (s.data[i + 2] - '0') << 3 | (s.data[i + 3] - '0'));
            i += 3;
        } else {
            out[len++] = s.data[i];
        }
    }
    out[len] = '\0';
    return xy_str_n(out, len);
}

/* A device mounted twice (a bind mount) is counted once; overlays have no device of their own. */
static bool is_known(struct xy_str device, const struct host_mount *mounts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (xy_str_eq(mounts[i].device, device) && !xy_str_is(device, "overlay"))
            return true;
    return false;
}

bool host_parse_mounts(struct xy_arena *arena, struct xy_str text, struct host_mount **out, size_t *count)
{
    struct xy_str line;
    struct host_mount *mounts = xy_arena_zalloc(arena, HOST_MOUNTS_MAX * sizeof *mounts);
    *count = 0;
    if (mounts == NULL)
        return false;
    while (line_next(&text, &line) && *count < HOST_MOUNTS_MAX) {
        struct xy_str device = word_next(&line), point = word_next(&line), type = word_next(&line);
        if (!is_local(type) || is_known(device, mounts, *count))
            continue;
        struct xy_str path = unescape(arena, point);
        if (xy_str_present(path) && path.len > 0)
            mounts[(*count)++] = (struct host_mount){ .device = device, .mount_point = path, .type = type };
    }
    *out = mounts;
    return !xy_arena_failed(arena);
}
