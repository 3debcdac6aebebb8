/* See session_rows.h. A row is covered by row 0 of its session, whose figures are newest in memory. Rows of a session
 * without a record are swept from the tables only: what is about to be written may belong to a session whose record came
 * to another shard's memory a moment after that was frozen. */
#include "broker/store/session_rows.h"

#include "broker/store/bigendian.h"
#include "broker/store/seal.h"
#include "xylem/store/v1/records.pb-c.h"

static bool find(const struct session_rows *rows, enum store_table table, struct xy_str key,
                 struct xy_str *value, bool *gone)
{
    for (size_t i = 0; i < rows->mems_count; i++) {
        enum memtable_hit hit = memtable_get(rows->mems[i], table, key, value);
        *gone = *gone || hit == MEMTABLE_GONE;
        if (hit == MEMTABLE_VALUE)
            return true;
    }
    if (*gone || !rows->reader->ops->get(rows->reader, table, key, value))
        return false;
    seal_open(rows->store, table, key, value);
    return true;
}

/* Of one whose time is over nothing is of use but its record. */
static bool is_over(struct xy_str value)
{
    Xylem__Store__V1__SessionPut *put =
        xylem__store__v1__session_put__unpack(NULL, value.len, (const uint8_t *)value.data);
    bool over = put && put->ended_us != 0;
    if (put)
        xylem__store__v1__session_put__free_unpacked(put, NULL);
    return over;
}

static void look(struct session_rows *rows, struct xy_str id)
{
    char key[STORE_SESSION_ID_BYTES + 8] = { 0 };
    struct xy_str value;
    struct store_session_in first;
    bool gone = false, gone_first = false;
    memcpy(rows->id, id.data, sizeof(rows->id));
    memcpy(key, id.data, sizeof(rows->id));
    rows->looked = true;
    rows->handled = rows->answered = 0;
    bool found = find(rows, STORE_SESSIONS, id, &value, &gone);
    bool over = found && is_over(value);
    rows->known = found && !over;
    rows->ended = over || (gone && !found);
    if (find(rows, STORE_SESSION_IN, xy_str_n(key, sizeof(key)), &value, &gone_first) &&
        store_session_in(xy_str_n(key, sizeof(key)), value, &first)) {
        rows->handled = first.handled;
        rows->answered = first.answered;
    }
}

/* Of a session that goes on. */
static bool covered(const struct session_rows *rows, struct xy_str key, struct xy_str value)
{
    struct store_session_in row;
    if (!store_session_in(key, value, &row) || row.number == 0)
        return false;
    return row.number <= rows->handled && (row.answer.len == 0 || row.number <= rows->answered);
}

static bool is_row(struct xy_str key)
{
    return key.len == STORE_SESSION_ID_BYTES + 8;
}

static bool looked_at(const struct session_rows *rows, struct xy_str key)
{
    return rows->looked && memcmp(rows->id, key.data, sizeof(rows->id)) == 0;
}

bool session_rows_needed(struct session_rows *rows, struct xy_str key, struct xy_str value)
{
    if (rows->reader == NULL || !is_row(key))
        return true;
    if (!looked_at(rows, key)) {
        if (rows->reader->ops->begin(rows->reader) != STORE_IO_OK)
            return true;
        look(rows, xy_str_n(key.data, STORE_SESSION_ID_BYTES));
        rows->reader->ops->end(rows->reader);
    }
    return !rows->ended && !covered(rows, key, value);
}

bool session_rows_sweep(struct session_rows *rows, struct xy_buf *from, size_t count_max,
                        void (*useless)(void *ctx, struct xy_str key), void *ctx)
{
    struct store_reader *reader = rows->reader;
    struct xy_str key, value;
    if (reader->ops->begin(reader) != STORE_IO_OK)
        return false;
    bool there = reader->ops->seek(reader, STORE_SESSION_IN, xy_buf_view(from), &key, &value);
    for (; there && count_max > 0; count_max--) {
        seal_open(rows->store, STORE_SESSION_IN, key, &value);
        if (is_row(key)) {
            if (!looked_at(rows, key))
                look(rows, xy_str_n(key.data, STORE_SESSION_ID_BYTES));
            if (!rows->known || covered(rows, key, value))
                useless(ctx, key);
        }
        there = reader->ops->next(reader, &key, &value);
    }
    xy_buf_reset(from);
    if (there)
        xy_buf_str(from, key);
    reader->ops->end(reader);
    return there;
}
