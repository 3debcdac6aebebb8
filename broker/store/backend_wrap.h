/* What a backend does that stands around another one: everything is passed on, but what it replaces in its own tables of
 * functions. backend_faulty.c and the simulated disk of tests/sim are made of it. */
#pragma once

#include "broker/store/backend.h"
#include "core/base/list.h"

struct wrapped_log {
    struct store_log log;
    struct store_log *inner;
    void *ctx;
};
struct wrapped_tables {
    struct store_tables tables;
    struct store_tables *inner;
    void *ctx;
};

static inline struct wrapped_log *wrapped_log(struct store_log *base)
{
    return xy_container_of(base, struct wrapped_log, log);
}
static inline struct wrapped_tables *wrapped_tables(struct store_tables *base)
{
    return xy_container_of(base, struct wrapped_tables, tables);
}

/* Opens `inner` and puts the wrappers with these functions around what it opened. */
struct wrap {
    const struct store_backend *inner;
    const struct store_log_ops *log_ops;
    const struct store_tables_ops *tables_ops;
    void *ctx; /* of both wrappers */
};
bool wrap_open(const struct wrap *wrap, const struct store_backend_options *options, struct store_log **log,
               struct store_tables **tables, struct xy_buf *error);

/* The functions that pass on, for such tables. */
void wrap_log_abort(struct store_log *log);
enum store_io wrap_log_read(struct store_log *log, uint64_t from, store_log_visit *visit, void *ctx);
uint64_t wrap_log_bytes(struct store_log *log);
void wrap_log_close(struct store_log **log);
void wrap_tables_abort(struct store_tables *tables);
struct store_reader *wrap_tables_reader(struct store_tables *tables);
uint64_t wrap_tables_bytes(struct store_tables *tables);
uint64_t wrap_tables_room(struct store_tables *tables);
void wrap_tables_close(struct store_tables **tables);
