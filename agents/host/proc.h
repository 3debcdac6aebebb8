/* Parsers of the texts in /proc (proc(5)): pure functions from text to numbers, tested on samples of real machines.
 *
 * They skip what they do not know (newer kernels add fields and lines) and say false when what they need is not there.
 * Arrays live in the arena; strings point into the text. state.c calls them. */
#pragma once

#include "core/base/arena.h"

#define HOST_CORES_MAX      1024u
#define HOST_DISKS_MAX      256u
#define HOST_INTERFACES_MAX 256u
#define HOST_MOUNTS_MAX     256u

/* In ticks since boot. `guest` times are part of user and nice already. */
struct host_cpu {
    uint32_t core;
    uint64_t user, nice, system, idle, iowait, irq, softirq, steal;
};

struct host_cpus {
    struct host_cpu total;
    struct host_cpu *cores;
    size_t core_count;
};

/* In permille of the ticks between two readings. */
struct host_cpu_usage {
    uint32_t busy, user, system, iowait, steal;
};

struct host_memory {
    uint64_t total_bytes, available_bytes, free_bytes, cached_bytes, swap_total_bytes, swap_free_bytes;
};

struct host_load {
    uint32_t one_minute_milli, five_minutes_milli, fifteen_minutes_milli;
};

struct host_disk {
    struct xy_str name;
    uint64_t read_bytes, read_ops, written_bytes, write_ops, busy_ms;
};

struct host_interface {
    struct xy_str name;
    uint64_t received_bytes, received_packets, receive_errors, receive_drops;
    uint64_t sent_bytes, sent_packets, send_errors, send_drops;
};

struct host_mount {
    struct xy_str device, mount_point, type; /* mount_point with its escapes undone, ended by NUL */
};

bool host_parse_stat(struct xy_arena *arena, struct xy_str text, struct host_cpus *out);
bool host_parse_meminfo(struct xy_str text, struct host_memory *out);
bool host_parse_loadavg(struct xy_str text, struct host_load *out);
bool host_parse_uptime(struct xy_str text, uint64_t *uptime_ms);

/* Whole disks that were ever used; no partitions, loop or memory devices. */
bool host_parse_diskstats(struct xy_arena *arena, struct xy_str text, struct host_disk **out, size_t *count);
/* All but the loopback interface. */
bool host_parse_net_dev(struct xy_arena *arena, struct xy_str text, struct host_interface **out,
                        size_t *count);
/* File systems that keep data on this machine, each device once. */
bool host_parse_mounts(struct xy_arena *arena, struct xy_str text, struct host_mount **out, size_t *count);

/* What a core did between two readings; a clock that went backwards counts as nothing done. */
struct host_cpu_usage host_cpu_usage(const struct host_cpu *before, const struct host_cpu *after);
