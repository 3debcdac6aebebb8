/* The state of this machine as a message (schemas/xylem/v1/host.proto), read from /proc. The agent xylem-host calls it
 * once per interval and publishes the result; usage is measured between two calls. */
#pragma once

#include "core/base/arena.h"
#include "core/base/env.h"
#include "xylem/v1/host.pb-c.h"

struct host_reader;

/* `proc_dir`: "/proc", or a directory of samples. Borrowed, like env. NULL: out of memory. */
struct host_reader *host_reader_new(const struct xy_env *env, const char *proc_dir);
void host_reader_free(struct host_reader **reader);

/* Fills *out; what it points at lives in the arena, and is packed as usual but never freed by protobuf-c. What this
 * machine does not tell is left out. false: not even the processor times can be read, or memory is short. */
bool host_reader_read(struct host_reader *reader, struct xy_arena *arena, Xylem__V1__HostState *out);
