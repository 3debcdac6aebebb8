/* The broker's log: one line per event on a descriptor (stderr), as text or JSON, with named fields.
 *
 * Events are fixed phrases ("session opened"), everything variable is a field; so lines can be searched,
 * counted and rate-limited by event: of one event at most LOG_EVENTS_PER_SECOND lines are written in a
 * second, and the next one says how many were left out. Passwords, keys and stanza bodies are never passed to
 * it. Thread-safe; a line is one write(2). A NULL log is allowed everywhere and writes nothing, which suits
 * tests. */
#pragma once

#include "core/base/env.h"
#include "core/base/str.h"

#define LOG_EVENTS_PER_SECOND 50u
#define LOG_LINE_MAX          2048u /* bytes, newline included; longer lines are cut */
#define LOG_VALUE_MAX         512u  /* bytes of one field's value */

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log;

struct log_field {
    const char *key; /* NULL ends a list */
    struct xy_str text;
    uint64_t number;
    bool is_number;
};

#define LOG_STR(name, value) ((struct log_field){ .key = (name), .text = (value) })
#define LOG_Z(name, value)   ((struct log_field){ .key = (name), .text = xy_str(value) })
#define LOG_NUM(name, value)                                                                                 \
    ((struct log_field){ .key = (name), .number = (uint64_t)(value), .is_number = true })
#define LOG_END ((struct log_field){ .key = NULL })

/* `env` gives the time and outlives the log; `fd` is borrowed. NULL when memory is short. */
struct log *log_new(const struct xy_env *env, int fd);
void log_free(struct log **log); /* NULL ok; nulls the pointer */
void log_configure(struct log *log, enum log_level level,
                   enum log_format format); /* at any time, any thread */
bool log_enabled(const struct log *log, enum log_level level);

/* `fields` ends with LOG_END. Usually called by the macros below: log_info(log, "session opened",
 * LOG_STR("jid", jid)); */
void log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields);

#define LOG_HEAD(head, ...) head
#define LOG_TAIL(head, ...) ((const struct log_field[]){ __VA_ARGS__ })
#define log_at(log, level, ...)                                                                              \
    log_write((log), (level), LOG_HEAD(__VA_ARGS__, 0), LOG_TAIL(__VA_ARGS__, LOG_END))
#define log_error(log, ...)   log_at(log, LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(log, ...) log_at(log, LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(log, ...)    log_at(log, LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(log, ...)   log_at(log, LOG_LEVEL_DEBUG, __VA_ARGS__)
