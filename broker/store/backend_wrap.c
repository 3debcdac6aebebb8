/* Passing on to the backend within; see backend_wrap.h. */
#include "broker/store/backend_wrap.h"

#include <stdlib.h>

#include "core/base/buf.h"

bool wrap_open(const struct wrap *wrap, const struct store_backend_options *options,
               struct store_log **log_out, struct store_tables **tables_out, struct xy_buf *error)
{
    struct wrapped_log *log = calloc(1, sizeof(*log));
    struct wrapped_tables *tables = calloc(1, sizeof(*tables));
    bool memory = log != NULL && tables != NULL;
    if (!memory)
        xy_buf_lit(error, "out of memory");
    if (!memory || !wrap->inner->open(wrap->inner, options, &log->inner, &tables->inner, error)) {
        free(log);
        free(tables);
        return false;
    }
    log->log.ops = wrap->log_ops;
    tables->tables.ops = wrap->tables_ops;
    log->ctx = tables->ctx = wrap->ctx;
    *log_out = &log->log;
    *tables_out = &tables->tables;
    return true;
}

/* --- log --------------------------------------------------------------------------------------------------------- */

void wrap_log_abort(struct store_log *base)
{
    struct store_log *inner = wrapped_log(base)->inner;
    inner->ops->abort(inner);
}

enum store_io wrap_log_read(struct store_log *base, uint64_t from, store_log_visit *visit, void *ctx)
{
    struct store_log *inner = wrapped_log(base)->inner;
    return inner->ops->read(inner, from, visit, ctx);
}

uint64_t wrap_log_bytes(struct store_log *base)
{
    struct store_log *inner = wrapped_log(base)->inner;
    return inner->ops->bytes(inner);
}

void wrap_log_close(struct store_log **base)
{
    struct wrapped_log *log = wrapped_log(*base);
    log->inner->ops->close(&log->inner);
    free(log);
    *base = NULL;
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

void wrap_tables_abort(struct store_tables *base)
{
    struct store_tables *inner = wrapped_tables(base)->inner;
    inner->ops->abort(inner);
}

struct store_reader *wrap_tables_reader(struct store_tables *base)
{
    struct store_tables *inner = wrapped_tables(base)->inner;
    return inner->ops->reader(inner);
}

uint64_t wrap_tables_bytes(struct store_tables *base)
{
    struct store_tables *inner = wrapped_tables(base)->inner;
    return inner->ops->bytes(inner);
}

uint64_t wrap_tables_room(struct store_tables *base)
{
    struct store_tables *inner = wrapped_tables(base)->inner;
    return inner->ops->room(inner);
}

void wrap_tables_close(struct store_tables **base)
{
    struct wrapped_tables *tables = wrapped_tables(*base);
    tables->inner->ops->close(&tables->inner);
    free(tables);
    *base = NULL;
}
