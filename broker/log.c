/* The broker's log: formats an event and its fields into one line and writes it at once. See log.h. */
#include "broker/log.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/base/assert.h"
#include "core/base/table.h"

#define EVENTS_TRACKED 256u /* slots of the rate limit; events that share one share their allowance */

struct slot {
    uint64_t second; /* monotonic */
    uint32_t written;
    uint64_t suppressed; /* since the last written line */
};

struct log {
    const struct xy_env *env;
    int fd;
    atomic_int level, format;
    pthread_mutex_t lock; /* the slots */
    struct slot slots[EVENTS_TRACKED];
};

/* A line under construction: what does not fit is cut, with room kept for the end of the line. */
struct line {
    char data[LOG_LINE_MAX];
    size_t len;
    bool full;
};

struct log *log_new(const struct xy_env *env, int fd)
{
    struct log *log = calloc(1, sizeof *log);
    if (!log)
        return NULL;
    if (pthread_mutex_init(&log->lock, NULL) != 0) {
        free(log);
        return NULL;
    }
    log->env = env;
    log->fd = fd;
    log_configure(log, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    return log;
}

void log_free(struct log **log)
{
    if (!*log)
        return;
    pthread_mutex_destroy(&(*log)->lock);
    free(*log);
    *log = NULL;
}

void log_configure(struct log *log, enum log_level level, enum log_format format)
{
    if (!log)
        return;
    atomic_store(&log->level, (int)level);
    atomic_store(&log->format, (int)format);
}

bool log_enabled(const struct log *log, enum log_level level)
{
    return log && (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

/* false: this event has had its lines for this second. *suppressed: how many were left out before this line.
 */
static bool allowed(struct log *log, const char *event, uint64_t *suppressed)
{
    struct slot *slot = &log->slots[xy_hash(xy_str(event), 0) % EVENTS_TRACKED];
    uint64_t second = xy_now_us(log->env) / 1000000;
    pthread_mutex_lock(&log->lock);
    if (slot->second != second) {
        slot->second = second;
        slot->written = 0;
    }
    bool yes = slot->written < LOG_EVENTS_PER_SECOND;
    if (yes) {
        slot->written++;
        *suppressed = slot->suppressed;
        slot->suppressed = 0;
    } else {
        slot->suppressed++;
    }
    pthread_mutex_unlock(&log->lock);
    return yes;
}

static void put(struct line *line, const char *data, size_t len)
{
    /* "}" and the newline always fit; a value that does not fit is left out whole, so that quotes stay
     * balanced */
    if (line->full || line->len + len > sizeof line->data - 2) {
        line->full = true;
        return;
    }
    memcpy(line->data + line->len, data, len);
    line->len += len;
}

static bool is_plain(struct xy_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7F)
            return false;
    }
    return text.len > 0;
}

/* In quotes, with JSON escapes: a peer's text cannot begin a new line or forge a field. */
static size_t quote(char *out, size_t room, struct xy_str text)
{
    static const char digits[] = "0123456789abcdef";
    size_t len = 0;
    out[len++] = '"';
    for (size_t i = 0; i < text.len && len + 8 < room; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c == '"' || c == '\\') {
            out[len++] = '\\';
            out[len++] = (char)c;
        } else if (c < ' ' || c == 0x7F) {
            memcpy(out + len, "\\u00", 4);
            out[len + 4] = digits[c >> 4];
            out[len + 5] = digits[c & 15];
            len += 6;
        } else {
            out[len++] = (char)c;
        }
    }
    out[len++] = '"';
    return len;
}

/* At most LOG_VALUE_MAX bytes, cut between characters. Bytes that are no UTF-8 would make a JSON line
 * unreadable. */
static struct xy_str presentable(struct xy_str text)
{
    if (!text.data)
        return XY_STR("");
    if (text.len > LOG_VALUE_MAX) {
        text.len = LOG_VALUE_MAX;
        while (text.len > 0 && ((unsigned char)text.data[text.len] & 0xC0) == 0x80)
            text.len--;
    }
    return xy_str_utf8(text) ? text : XY_STR("(not UTF-8)");
}

static void put_field(struct line *line, const struct log_field *field, bool json)
{
    char item[64 + 6 * LOG_VALUE_MAX];
    int head = snprintf(item, 64, json ? ",\"%s\":" : " %s=", field->key);
    xy_assert(head > 0 && head < 64);
    size_t len = (size_t)head;
    if (field->is_number) {
        len += (size_t)snprintf(item + len, 32, "%llu", (unsigned long long)field->number);
    } else {
        struct xy_str text = presentable(field->text);
        if (!json && is_plain(text)) {
            memcpy(item + len, text.data, text.len);
            len += text.len;
        } else {
            len += quote(item + len, sizeof item - len, text);
        }
    }
    put(line, item, len);
}

static const char *const level_names[] = { "error", "warning", "info", "debug" };

static void put_head(struct log *log, struct line *line, enum log_level level, const char *event, bool json)
{
    char stamp[64], text[LOG_VALUE_MAX];
    uint64_t wall_us = xy_wall_us(log->env);
    time_t seconds = (time_t)(wall_us / 1000000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t len = strftime(stamp, sizeof stamp - 16, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(stamp + len, 16, ".%03uZ", (unsigned)(wall_us / 1000 % 1000));
    int written = snprintf(text, sizeof text,
                           json ? "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\"" : "%s %-7s %s", stamp,
                           level_names[level], event);
    xy_assert(written > 0 && (size_t)written < sizeof text); /* events are fixed phrases */
    put(line, text, (size_t)written);
}

void log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
    uint64_t suppressed = 0;
    if (!log_enabled(log, level) || !allowed(log, event, &suppressed))
        return;
    bool json = atomic_load_explicit(&log->format, memory_order_relaxed) == (int)LOG_FORMAT_JSON;
    struct line line = { .len = 0 };
    put_head(log, &line, level, event, json);
    for (const struct log_field *field = fields; field->key; field++)
        put_field(&line, field, json);
    if (suppressed > 0)
        put_field(&line, &LOG_NUM("suppressed", suppressed), json);
    line.full = false;
    if (json)
        line.data[line.len++] = '}';
    line.data[line.len++] = '\n';
    xy_assert(line.len <= sizeof line.data);
    /* A log that cannot be written is no reason to stop the broker. */
    ssize_t ignored = write(log->fd, line.data, line.len);
    (void)ignored;
}
