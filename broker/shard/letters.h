/* A queue of letters: small payloads with the function to run on them, packed into blocks.
 *
 * Mail between shards and work that waits for a commit are both such queues. Blocks are recycled, so a letter costs a
 * copy and no allocation. */
#pragma once

#include "broker/shard/shard.h"

#define LETTERS_BLOCK_BYTES (32u << 10)

struct letters_block {
    struct letters_block *next;
    struct letters_block *chain_next,
        *chain_last; /* of a first block in somebody's inbox: the chain below, own end */
    unsigned from;   /* shard whose spare list gets it back; UINT_MAX: freed instead */
    uint32_t used;
    uint32_t taken; /* bytes already read */
    _Alignas(16) char data[];
};

struct letters {
    struct letters_block *first, *last;
};

/* Emptied blocks for reuse. */
struct letters_spare {
    struct letters_block *first;
    unsigned count;
};
#define LETTERS_SPARE_MAX 64

struct letter {
    shard_fn *fn;
    uint64_t ticket;
    uint32_t size;
    void *payload;
};

/* `spare`: where to take blocks from before allocating; NULL: always allocate. */
void letters_add(struct letters *letters, struct letters_spare *spare, unsigned from, shard_fn *fn,
                 uint64_t ticket, const void *payload, size_t size);

/* The oldest letter, without taking it; false: none. Its payload stays valid until it is taken and its block emptied. */
bool letters_peek(const struct letters *letters, struct letter *out);

/* Takes the letter that was peeked at. Returns a block that became empty, for the caller to recycle after the letter's
 * payload is no longer needed; NULL: none. */
struct letters_block *letters_take(struct letters *letters);

void letters_recycle(struct letters_spare *spare, struct letters_block *block);
void letters_blocks_free(struct letters_block **blocks);
