/* Items of a node in memory: an array by sequence with holes, a table by id, a list of what is retained. Called by
 * publish, retract, items, durable and load. */
#include "broker/pubsub/node/index.h"

#include <stddef.h>
#include <stdlib.h>

#include "core/base/assert.h"

#define SLOTS_MIN    16u
#define SLOTS_KEEP   4096u /* an empty index has no more */
#define MALLOC_BYTES 8u    /* of its own, with each entry */

bool index_init(struct item_index *index, uint64_t hash_seed)
{
    *index = (struct item_index){ 0 };
    xy_list_init(&index->retained);
    index->ids = xy_table_new(hash_seed);
    return index->ids != NULL;
}

static size_t size_of(unsigned class, size_t text_len)
{
    return class < ITEM_CLASSES ? ITEM_SIZE(class) : offsetof(struct item, text) + text_len;
}

static unsigned class_for(size_t text_len)
{
    size_t need = offsetof(struct item, text) + text_len;
    size_t class = need <= ITEM_SIZE(0) ? 0 : (need - ITEM_SIZE(0) + 15) / 16;
    return class < ITEM_CLASSES ? (unsigned)class : ITEM_CLASSES;
}

static struct item *take(struct item_index *index, size_t text_len)
{
    unsigned class = class_for(text_len);
    if (class < ITEM_CLASSES && index->spare[class] != NULL) {
        struct item *item = index->spare[class];
        index->spare[class] = (struct item *)(void *)item->retained_link.next;
        index->spares--;
        return item;
    }
    struct item *item = malloc(size_of(class, text_len));
    if (item == NULL)
        return NULL;
    item->class_ = (uint8_t) class;
    index->entries_bytes += size_of(class, text_len) + MALLOC_BYTES;
    return item;
}

static void give_back(struct item_index *index, struct item *item)
{
    unsigned class = item->class_;
    if (class < ITEM_CLASSES && index->spares < ITEM_SPARES_MAX) {
        item->retained_link.next = (struct xy_list *)(void *)index->spare[class];
        index->spare[class] = item;
        index->spares++;
        return;
    }
    index->entries_bytes -= size_of(class, (size_t)item->id_len + item->publisher_len + 2) + MALLOC_BYTES;
    free(item);
}

static void drop(struct item_index *index, struct item *item)
{
    if (index->released != NULL)
        index->released(index->ctx, item);
    xy_assert(item->event == NULL && item->body == NULL);
    give_back(index, item);
}

bool index_free_some(struct item_index *index, size_t max)
{
    for (; index->count > 0 && max > 0; index->head++, index->count--, max--)
        if (index->slots[index->head].item != NULL)
            drop(index, index->slots[index->head].item);
    if (index->count > 0)
        return false;
    for (unsigned class = 0; class < ITEM_CLASSES; class ++) {
        for (struct item *next; index->spare[class] != NULL; index->spare[class] = next) {
            next = (struct item *)(void *)index->spare[class]->retained_link.next;
            free(index->spare[class]);
        }
    }
    free(index->slots);
    xy_table_free(&index->ids);
    *index = (struct item_index){ 0 };
    return true;
}

void index_free(struct item_index *index)
{
    bool done = index_free_some(index, SIZE_MAX);
    xy_assert(done);
}

void index_move(struct item_index *to, struct item_index *from)
{
    *to = *from;
    xy_list_init(&to->retained);
    if (!xy_list_empty(&from->retained)) {
        xy_list_append(&from->retained, &to->retained);
        xy_list_remove(&from->retained);
    }
    *from = (struct item_index){ 0 };
}

void index_continue(struct item_index *fresh, const struct item_index *former)
{
    xy_assert(fresh->live == 0);
    fresh->added_bytes = former->added_bytes;
    fresh->newest_us = former->newest_us;
    fresh->time_disordered = former->time_disordered;
    fresh->released = former->released;
    fresh->changed = former->changed;
    fresh->ctx = former->ctx;
}

/* Room for one more slot: first by closing holes, which costs nothing on average because half of them must be holes. */
static bool make_room(struct item_index *index)
{
    if (index->head + index->count < index->cap)
        return true;
    if (index->live < index->cap / 2) {
        size_t to = 0;
        for (size_t i = index->head; i < index->head + index->count; i++)
            if (index->slots[i].item != NULL)
                index->slots[to++] = index->slots[i];
        xy_assert(to == index->live);
        index->head = 0;
        index->count = to;
        return true;
    }
    size_t cap = index->cap ? index->cap * 2 : SLOTS_MIN;
    struct item_slot *slots = realloc(index->slots, cap * sizeof(*slots));
    if (slots == NULL)
        return false;
    index->slots = slots;
    index->cap = cap;
    return true;
}

static void put_text(char *at, struct xy_str text)
{
    if (text.len > 0)
        memcpy(at, text.data, text.len);
    at[text.len] = '\0';
}

static void tell_changed(const struct item_index *index)
{
    if (index->changed != NULL)
        index->changed(index->ctx);
}

struct item *index_add(struct item_index *index, uint64_t seq, struct xy_str id, struct xy_str publisher,
                       uint32_t bytes, uint64_t time_us, bool retained, uint32_t pending)
{
    xy_assert(index->count == 0 || index->slots[index->head + index->count - 1].seq < seq);
    xy_assert(retained || pending > 0);
    xy_assert(id.len <= UINT16_MAX && publisher.len <= UINT16_MAX);
    if (!make_room(index))
        return NULL;
    struct item *item = take(index, id.len + publisher.len + 2);
    if (item == NULL)
        return NULL;
    item->id_len = (uint16_t)id.len;
    item->publisher_len = (uint16_t)publisher.len;
    put_text(item->text, id);
    put_text(item->text + id.len + 1, publisher);
    item->seq = seq;
    item->time_us = time_us;
    item->bytes = bytes;
    item->before_bytes = index->added_bytes;
    item->pending = pending;
    item->retained = retained;
    item->superseded = 0;
    item->damaged = false;
    item->event = NULL;
    item->body = NULL;
    xy_list_init(&item->retained_link);
    xy_list_init(&item->recent_link);
    if (retained) {
        xy_assert(xy_table_get(index->ids, id) == NULL);
        if (!xy_table_put(index->ids, item_id(item), item, NULL)) {
            give_back(index, item);
            return NULL;
        }
        xy_list_append(&index->retained, &item->retained_link);
        index->retained_count++;
        index->retained_bytes += bytes;
        tell_changed(index);
    }
    index->slots[index->head + index->count++] = (struct item_slot){ seq, item };
    index->live++;
    index->added_bytes += bytes;
    index->time_disordered |= time_us < index->newest_us;
    index->newest_us = time_us;
    return item;
}

/* Position of the first slot whose seq is above `seq`. Without holes it is where counting says. */
static size_t above(const struct item_index *index, uint64_t seq)
{
    size_t low = index->head, high = index->head + index->count;
    if (low == high || seq < index->slots[low].seq)
        return low;
    uint64_t guess = seq - index->slots[low].seq;
    if (guess < index->count && index->slots[low + guess].seq == seq)
        return low + (size_t)guess + 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (index->slots[middle].seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct item *index_find(const struct item_index *index, uint64_t seq)
{
    size_t at = above(index, seq);
    return at > index->head && index->slots[at - 1].seq == seq ? index->slots[at - 1].item : NULL;
}

struct item *index_find_id(const struct item_index *index, struct xy_str id)
{
    return xy_table_get(index->ids, id);
}

struct item *index_after(const struct item_index *index, uint64_t seq)
{
    for (size_t at = above(index, seq); at < index->head + index->count; at++)
        if (index->slots[at].item != NULL)
            return index->slots[at].item;
    return NULL;
}

struct item *index_owed(const struct item_index *index, uint64_t seq, uint64_t born)
{
    for (size_t at = above(index, seq); at < index->head + index->count; at++)
        if (index->slots[at].item != NULL && item_concerns(index->slots[at].item, born))
            return index->slots[at].item;
    return NULL;
}

struct item *index_since(const struct item_index *index, uint64_t time_us)
{
    size_t low = index->head, end = index->head + index->count, high = end;
    while (low < high && !index->time_disordered) {
        size_t middle = low + (high - low) / 2, at = middle;
        while (at < high && index->slots[at].item == NULL)
            at++;
        if (at == high || index->slots[at].item->time_us >= time_us)
            high = middle;
        else
            low = at + 1;
    }
    for (; low < end; low++)
        if (index->slots[low].item != NULL && index->slots[low].item->time_us >= time_us)
            return index->slots[low].item;
    return NULL;
}

struct item *index_oldest(const struct item_index *index)
{
    return xy_list_empty(&index->retained)
               ? NULL
               : xy_container_of(index->retained.next, struct item, retained_link);
}

struct item *index_newest(const struct item_index *index)
{
    return xy_list_empty(&index->retained)
               ? NULL
               : xy_container_of(index->retained.prev, struct item, retained_link);
}

struct item *index_next_retained(const struct item_index *index, const struct item *item)
{
    return item->retained_link.next == &index->retained
               ? NULL
               : xy_container_of(item->retained_link.next, struct item, retained_link);
}

size_t index_rank(const struct item_index *index, const struct item *item)
{
    size_t at = above(index, item->seq) - 1, rank = 0;
    xy_assert(item->retained && index->slots[at].item == item);
    if (index->retained_count == index->count)
        return at - index->head; /* no holes */
    for (size_t i = index->head; i < at; i++)
        rank += index->slots[i].item != NULL && index->slots[i].item->retained;
    return rank;
}

/* Out of the array. Holes at the front close at once, so a queue that is eaten from the front stays small. */
static void vacate(struct item_index *index, struct item *item)
{
    size_t at = above(index, item->seq) - 1;
    xy_assert(index->slots[at].item == item);
    index->slots[at].item = NULL;
    index->live--;
    while (index->count > 0 && index->slots[index->head].item == NULL) {
        index->head++;
        index->count--;
    }
    if (index->count == 0)
        index->head = 0;
    if (index->count == 0 && index->cap > SLOTS_KEEP) {
        free(index->slots);
        index->slots = NULL;
        index->cap = 0;
    }
    drop(index, item);
}

static void leave_retained(struct item_index *index, struct item *item)
{
    void *removed = xy_table_remove(index->ids, item_id(item));
    xy_assert(removed == item);
    xy_list_remove(&item->retained_link);
    index->retained_count--;
    index->retained_bytes -= item->bytes;
    item->retained = false;
    tell_changed(index);
}

bool index_unretain(struct item_index *index, struct item *item)
{
    xy_assert(item->retained);
    leave_retained(index, item);
    if (item->pending > 0)
        return false;
    vacate(index, item);
    return true;
}

void index_remove(struct item_index *index, struct item *item)
{
    if (item->retained)
        leave_retained(index, item);
    vacate(index, item);
}

void index_pass(struct item_index *index, uint64_t from, uint64_t to, uint64_t born,
                void (*freed)(void *ctx, uint64_t seq), void *ctx)
{
    for (size_t at = above(index, from); at < index->head + index->count && index->slots[at].seq <= to;
         at++) {
        struct item *item = index->slots[at].item;
        if (item == NULL || !item_concerns(item, born))
            continue;
        xy_assert(item->pending > 0);
        item->pending--;
        if (item->pending > 0 || item->retained)
            continue;
        freed(ctx, item->seq);
        vacate(index, item); /* may move the head to at + 1, never beyond */
        if (index->count == 0)
            return;
    }
}

uint64_t index_count(const struct item_index *index, uint64_t from, uint64_t to, uint64_t born)
{
    size_t at = above(index, from), end = above(index, to);
    if (end <= at)
        return 0;
    if (end - at > INDEX_COUNT_EXACT)
        return end - at;
    uint64_t count = 0;
    for (; at < end; at++)
        count += index->slots[at].item != NULL && item_concerns(index->slots[at].item, born);
    return count;
}

void index_owe(struct item_index *index, uint64_t from, uint64_t to, uint64_t born)
{
    for (size_t at = above(index, from); at < index->head + index->count && index->slots[at].seq <= to; at++)
        if (index->slots[at].item != NULL && item_concerns(index->slots[at].item, born))
            index->slots[at].item->pending++;
}
