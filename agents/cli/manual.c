/* The lines that say what became of an item; see manual.h and xylem(1). */
#include "agents/cli/manual.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents/cli/cli.h"

#define LINE_MAX_BYTES 4096u

uint64_t manual_take(struct manual *m, struct xylem_msg *msg)
{
    if (m->count == m->cap) {
        size_t cap = m->cap ? m->cap * 2 : 64;
        struct manual_item *grown = realloc(m->items, cap * sizeof *grown);
        if (!grown)
            return 0;
        m->items = grown;
        m->cap = cap;
    }
    m->items[m->count++] = (struct manual_item){ .ref = ++m->last_ref, .msg = msg };
    return m->last_ref;
}

static struct manual_item *find(struct manual *m, uint64_t ref)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->items[i].ref == ref)
            return &m->items[i];
    return NULL;
}

static void drop(struct manual *m, struct manual_item *item, bool final)
{
    m->settled += final ? 1 : 0;
    m->count--;
    memmove(item, item + 1, (size_t)(m->items + m->count - item) * sizeof *item);
}

static const struct {
    const char *word;
    enum xylem_verdict verdict;
} words[] = {
    { "ack", XYLEM_ACK }, { "nack", XYLEM_NACK }, { "term", XYLEM_TERM }, { "working", XYLEM_WORKING }
};

/* The next word of the line. */
static struct xy_str word_of(struct xy_str *line)
{
    *line = xy_str_trim(*line);
    size_t len = 0;
    while (len < line->len && line->data[len] != ' ' && line->data[len] != '\t')
        len++;
    struct xy_str word = xy_str_n(line->data, len);
    *line = xy_str_n(line->data + len, line->len - len);
    return word;
}

static void take_line(struct manual *m, struct xy_str line)
{
    struct xy_str rest = line, word = word_of(&rest), name = word_of(&rest), delay = word_of(&rest);
    uint64_t ref = 0;
    uint32_t delay_s = 0;
    size_t which = 0, count = sizeof words / sizeof words[0];
    while (which < count && !xy_str_is(word, words[which].word))
        which++;
    bool delayed = delay.len > 0;
    if (word.len == 0)
        return;
    if (which == count || !xy_str_u64(name, &ref) || xy_str_trim(rest).len > 0 ||
        (delayed && (words[which].verdict != XYLEM_NACK || !xy_str_u32(delay, &delay_s)))) {
        cli_error("'%.*s' is none of: ack REF, nack REF [SECONDS], term REF, working REF", XY_ARG(line));
        return;
    }
    struct manual_item *item = find(m, ref);
    if (!item) {
        cli_error("'%.*s': no item has the ref %.*s, or it has its verdict already", XY_ARG(line),
                  XY_ARG(name));
        return;
    }
    if (xylem_settle(&item->msg, words[which].verdict, delay_s, NULL, NULL) == XYLEM_OK && !item->msg)
        drop(m, item, words[which].verdict != XYLEM_NACK);
}

static void take_lines(struct manual *m)
{
    char *end;
    while (m->line.len > 0 && (end = memchr(m->line.data, '\n', m->line.len))) {
        size_t len = (size_t)(end - m->line.data);
        take_line(m, xy_str_n(m->line.data, len));
        xy_buf_consume(&m->line, len + 1);
    }
    if (m->line.len <= LINE_MAX_BYTES)
        return;
    cli_error("a line of more than %u bytes is no verdict", LINE_MAX_BYTES);
    xy_buf_reset(&m->line);
}

void manual_read(struct manual *m, int fd)
{
    char chunk[4096];
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        xy_buf_char(&m->line, '\n'); /* the last line may lack its end */
        m->ended = true;
    } else {
        xy_buf_add(&m->line, chunk, (size_t)n);
    }
    take_lines(m);
}

void manual_free(struct manual *m)
{
    free(m->items);
    xy_buf_free(&m->line);
    *m = (struct manual){ 0 };
}
