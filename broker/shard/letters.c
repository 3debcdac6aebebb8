/* Packing and unpacking letters. A letter is a header and its payload, both aligned, never split over two blocks. */
#include "broker/shard/letters.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/assert.h"

struct header {
    shard_fn *fn;
    uint64_t ticket;
    uint32_t size;
};

static size_t padded(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

static size_t letter_bytes(size_t size)
{
    return padded(sizeof(struct header)) + padded(size);
}

_Static_assert(LETTERS_BLOCK_BYTES >= 16 * SHARD_MAIL_MAX, "a block holds many letters");

/* A letter that cannot be queued would be a stanza lost in silence; without memory for a block the process ends. */
static struct letters_block *block_new(struct letters_spare *spare, unsigned from)
{
    struct letters_block *block = spare ? spare->first : NULL;
    if (block) {
        spare->first = block->next;
        spare->count--;
    } else {
        block = malloc(sizeof(*block) + LETTERS_BLOCK_BYTES);
        xy_assert(block != NULL);
    }
    *block = (struct letters_block){ .from = from };
    return block;
}

void letters_recycle(struct letters_spare *spare, struct letters_block *block)
{
    if (spare->count >= LETTERS_SPARE_MAX) {
        free(block);
        return;
    }
    block->next = spare->first;
    spare->first = block;
    spare->count++;
}

void letters_add(struct letters *letters, struct letters_spare *spare, unsigned from, shard_fn *fn,
                 uint64_t ticket, const void *payload, size_t size)
{
    xy_assert(fn != NULL && size <= SHARD_MAIL_MAX);
    struct letters_block *block = letters->last;
    if (block == NULL || block->used + letter_bytes(size) > LETTERS_BLOCK_BYTES) {
        block = block_new(spare, from);
        if (letters->last)
            letters->last->next = block;
        else
            letters->first = block;
        letters->last = block;
    }
    struct header *header = (struct header *)(void *)(block->data + block->used);
    *header = (struct header){ .fn = fn, .ticket = ticket, .size = (uint32_t)size };
    if (size)
        memcpy((char *)header + padded(sizeof(*header)), payload, size);
    block->used += (uint32_t)letter_bytes(size);
}

bool letters_peek(const struct letters *letters, struct letter *out)
{
    struct letters_block *block = letters->first;
    if (block == NULL)
        return false;
    xy_assert(block->taken < block->used);
    struct header *header = (struct header *)(void *)(block->data + block->taken);
    *out = (struct letter){ .fn = header->fn,
                            .ticket = header->ticket,
                            .size = header->size,
                            .payload = (char *)header + padded(sizeof(*header)) };
    return true;
}

struct letters_block *letters_take(struct letters *letters)
{
    struct letters_block *block = letters->first;
    xy_assert(block != NULL && block->taken < block->used);
    struct header *header = (struct header *)(void *)(block->data + block->taken);
    block->taken += (uint32_t)letter_bytes(header->size);
    if (block->taken < block->used)
        return NULL;
    letters->first = block->next;
    if (letters->first == NULL)
        letters->last = NULL;
    block->next = NULL;
    return block;
}

void letters_blocks_free(struct letters_block **blocks)
{
    while (*blocks) {
        struct letters_block *block = *blocks;
        *blocks = block->next;
        free(block);
    }
}
