/* Gathers the texts of /proc and the sizes of file systems into one protobuf message. Keeps only the last processor times
 * between two readings. */
#include "agents/host/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "agents/host/proc.h"
#include "core/base/buf.h"

#define PROC_TEXT_MAX (1u << 20)
#define PROC_PATH_MAX 512u
#define READ_BYTES    8192u

struct host_reader {
    const struct xy_env *env;
    const char *proc_dir;
    uint64_t last_us;      /* 0: nothing was read yet */
    struct host_cpu total; /* as of last_us */
    struct host_cpu cores[HOST_CORES_MAX];
    size_t core_count;
};

struct host_reader *host_reader_new(const struct xy_env *env, const char *proc_dir)
{
    struct host_reader *reader = calloc(1, sizeof *reader);
    if (reader != NULL) {
        reader->env = env;
        reader->proc_dir = proc_dir;
    }
    return reader;
}

void host_reader_free(struct host_reader **reader)
{
    free(*reader);
    *reader = NULL;
}

/* A whole file into the arena; absent if it cannot be read. Files in /proc have no size, so they are read to the end. */
static struct xy_str text_read(const struct host_reader *reader, struct xy_arena *arena, const char *name)
{
    char path[PROC_PATH_MAX];
    struct xy_buf buf = { 0 };
    struct xy_str text = XY_STR_NONE;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", reader->proc_dir, name) >= sizeof path)
        return text;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return text;
    size_t n = 1;
    while (n > 0 && buf.len < PROC_TEXT_MAX) {
        char *room = xy_buf_reserve(&buf, READ_BYTES);
        n = room != NULL ? fread(room, 1, READ_BYTES, file) : 0;
        buf.len += n;
    }
    if (!ferror(file) && !xy_buf_failed(&buf) && buf.len > 0)
        text = xy_arena_str(arena, xy_buf_view(&buf));
    fclose(file);
    xy_buf_free(&buf);
    return text;
}

/* For protobuf: ended by NUL, UTF-8, and never NULL. */
static char *string_for(struct xy_arena *arena, struct xy_str s)
{
    static char none[] = "";
    struct xy_str copy = xy_str_utf8(s) ? xy_arena_str(arena, s) : XY_STR_NONE;
    return copy.data != NULL ? (char *)(uintptr_t)copy.data : none;
}

/* An array of `count` messages of `size` bytes and the array of pointers that protobuf-c wants. */
static void *messages_new(struct xy_arena *arena, size_t count, size_t size, void ***pointers)
{
    char *messages = xy_arena_zalloc(arena, count * size + 1);
    *pointers = xy_arena_alloc(arena, count * sizeof **pointers + 1);
    if (messages == NULL || *pointers == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++)
        (*pointers)[i] = messages + i * size;
    return messages;
}

/* ---- processors ---- */

static void usage_fill(Xylem__V1__CpuUsage *out, const struct host_cpu *before, const struct host_cpu *after)
{
    struct host_cpu_usage usage = host_cpu_usage(before, after);
    xylem__v1__cpu_usage__init(out);
    out->core = after->core;
    out->busy = usage.busy;
    out->user = usage.user;
    out->system = usage.system;
    out->iowait = usage.iowait;
    out->steal = usage.steal;
}

/* The same core's last times; a core that came online meanwhile began at zero. */
static struct host_cpu core_before(const struct host_reader *reader, uint32_t core)
{
    for (size_t i = 0; i < reader->core_count; i++)
        if (reader->cores[i].core == core)
            return reader->cores[i];
    return (struct host_cpu){ .core = core };
}

static bool cpus_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    struct host_cpus cpus;
    void **pointers;
    struct xy_str text = text_read(reader, arena, "stat");
    if (!host_parse_stat(arena, text, &cpus))
        return false;
    Xylem__V1__CpuUsage *usages = messages_new(arena, cpus.core_count, sizeof *usages, &pointers);
    out->cpu = xy_arena_alloc(arena, sizeof *out->cpu);
    if (usages == NULL || out->cpu == NULL)
        return false;
    usage_fill(out->cpu, &reader->total, &cpus.total);
    for (size_t i = 0; i < cpus.core_count; i++) {
        struct host_cpu before = core_before(reader, cpus.cores[i].core);
        usage_fill(&usages[i], &before, &cpus.cores[i]);
    }
    out->cores = (Xylem__V1__CpuUsage **)pointers;
    out->n_cores = cpus.core_count;

    uint64_t now_us = xy_now_us(reader->env);
    out->interval_ms = reader->last_us != 0 ? (uint32_t)((now_us - reader->last_us) / 1000) : 0;
    reader->last_us = now_us;
    reader->total = cpus.total;
    reader->core_count = cpus.core_count;
    memcpy(reader->cores, cpus.cores, cpus.core_count * sizeof *cpus.cores);
    return true;
}

/* ---- what is one number or a few ---- */

static void names_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    out->hostname = string_for(arena, xy_str_trim(text_read(reader, arena, "sys/kernel/hostname")));
    out->boot_id = string_for(arena, xy_str_trim(text_read(reader, arena, "sys/kernel/random/boot_id")));
}

static void load_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    struct host_load load;
    Xylem__V1__LoadAverage *message = xy_arena_alloc(arena, sizeof *message);
    if (message == NULL || !host_parse_loadavg(text_read(reader, arena, "loadavg"), &load))
        return;
    xylem__v1__load_average__init(message);
    message->one_minute_milli = load.one_minute_milli;
    message->five_minutes_milli = load.five_minutes_milli;
    message->fifteen_minutes_milli = load.fifteen_minutes_milli;
    out->load = message;
}

static void memory_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    struct host_memory memory;
    Xylem__V1__Memory *message = xy_arena_alloc(arena, sizeof *message);
    if (message == NULL || !host_parse_meminfo(text_read(reader, arena, "meminfo"), &memory))
        return;
    xylem__v1__memory__init(message);
    message->total_bytes = memory.total_bytes;
    message->available_bytes = memory.available_bytes;
    message->free_bytes = memory.free_bytes;
    message->cached_bytes = memory.cached_bytes;
    message->swap_total_bytes = memory.swap_total_bytes;
    message->swap_free_bytes = memory.swap_free_bytes;
    out->memory = message;
}

/* ---- lists ---- */

static void disks_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    struct host_disk *disks;
    size_t count;
    void **pointers;
    if (!host_parse_diskstats(arena, text_read(reader, arena, "diskstats"), &disks, &count))
        return;
    Xylem__V1__Disk *messages = messages_new(arena, count, sizeof *messages, &pointers);
    for (size_t i = 0; messages != NULL && i < count; i++) {
        xylem__v1__disk__init(&messages[i]);
        messages[i].name = string_for(arena, disks[i].name);
        messages[i].read_bytes = disks[i].read_bytes;
        messages[i].read_ops = disks[i].read_ops;
        messages[i].written_bytes = disks[i].written_bytes;
        messages[i].write_ops = disks[i].write_ops;
        messages[i].busy_ms = disks[i].busy_ms;
    }
    out->disks = (Xylem__V1__Disk **)pointers;
    out->n_disks = messages != NULL ? count : 0;
}

static void interfaces_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    struct host_interface *interfaces;
    size_t count;
    void **pointers;
    if (!host_parse_net_dev(arena, text_read(reader, arena, "net/dev"), &interfaces, &count))
        return;
    Xylem__V1__NetworkInterface *messages = messages_new(arena, count, sizeof *messages, &pointers);
    for (size_t i = 0; messages != NULL && i < count; i++) {
        xylem__v1__network_interface__init(&messages[i]);
        messages[i].name = string_for(arena, interfaces[i].name);
        messages[i].received_bytes = interfaces[i].received_bytes;
        messages[i].received_packets = interfaces[i].received_packets;
        messages[i].receive_errors = interfaces[i].receive_errors;
        messages[i].receive_drops = interfaces[i].receive_drops;
        messages[i].sent_bytes = interfaces[i].sent_bytes;
        messages[i].sent_packets = interfaces[i].sent_packets;
        messages[i].send_errors = interfaces[i].send_errors;
        messages[i].send_drops = interfaces[i].send_drops;
    }
    out->interfaces = (Xylem__V1__NetworkInterface **)pointers;
    out->n_interfaces = messages != NULL ? count : 0;
}

static bool file_system_fill(struct xy_arena *arena, const struct host_mount *mount,
                             Xylem__V1__FileSystem *out)
{
    struct statvfs status;
    if (!xy_str_utf8(mount->mount_point) || statvfs(mount->mount_point.data, &status) != 0 ||
        status.f_blocks == 0)
        return false;
    xylem__v1__file_system__init(out);
    out->mount_point = string_for(arena, mount->mount_point);
    out->type = string_for(arena, mount->type);
    out->total_bytes = status.f_blocks * status.f_frsize;
    out->used_bytes = (status.f_blocks - status.f_bfree) * status.f_frsize;
    out->available_bytes = status.f_bavail * status.f_frsize;
    return true;
}

static void file_systems_fill(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    struct host_mount *mounts;
    size_t count;
    void **pointers;
    if (!host_parse_mounts(arena, text_read(reader, arena, "self/mounts"), &mounts, &count))
        return;
    Xylem__V1__FileSystem *messages = messages_new(arena, count, sizeof *messages, &pointers);
    for (size_t i = 0; messages != NULL && i < count; i++)
        if (file_system_fill(arena, &mounts[i], &messages[out->n_file_systems]))
            out->n_file_systems++;
    out->file_systems = (Xylem__V1__FileSystem **)pointers;
}

bool host_reader_read(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out)
{
    xylem__v1__host_state__init(out);
    out->time_us = xy_wall_us(reader->env);
    if (!cpus_fill(reader, arena, out))
        return false;
    names_fill(reader, arena, out);
    host_parse_uptime(text_read(reader, arena, "uptime"), &out->uptime_ms);
    load_fill(reader, arena, out);
    memory_fill(reader, arena, out);
    disks_fill(reader, arena, out);
    interfaces_fill(reader, arena, out);
    file_systems_fill(reader, arena, out);
    return !xy_arena_failed(arena);
}
