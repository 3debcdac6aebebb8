/* The one list of this tree: doubly linked, intrusive, circular. The head is a struct xy_list as well. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct xy_list {
    struct xy_list *prev, *next;
};

#define xy_container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define xy_list_each(position, head)                                                                         \
    for (struct xy_list *position = (head)->next, *position##_next = position->next; position != (head);     \
         position = position##_next, position##_next = position->next)

static inline void xy_list_init(struct xy_list *head)
{
    head->prev = head->next = head;
}

static inline bool xy_list_empty(const struct xy_list *head)
{
    return head->next == head;
}

static inline void xy_list_append(struct xy_list *head, struct xy_list *entry)
{
    entry->prev = head->prev;
    entry->next = head;
    head->prev->next = entry;
    head->prev = entry;
}

static inline void xy_list_prepend(struct xy_list *head, struct xy_list *entry)
{
    xy_list_append(head->next, entry);
}

/* Leaves the entry pointing at itself, so removing twice and xy_list_linked are safe. */
static inline void xy_list_remove(struct xy_list *entry)
{
    entry->prev->next = entry->next;
    entry->next->prev = entry->prev;
    entry->prev = entry->next = entry;
}

static inline bool xy_list_linked(const struct xy_list *entry)
{
    return entry->next != NULL && entry->next != entry;
}
