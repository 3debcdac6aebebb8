/* The accounts and what they have. See book.h; called by quota.c and count.c. */
#include "broker/pubsub/quota/book.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/base/assert.h"
#include "core/base/table.h"

struct quota_book {
    pthread_mutex_t lock;
    struct xy_table *accounts;
    atomic_uint uncounted; /* shards that have not counted their nodes yet */
    unsigned references;
};

struct quota_book *book_new(unsigned shards, uint64_t hash_seed)
{
    struct quota_book *book = calloc(1, sizeof(*book));
    if (book == NULL)
        return NULL;
    book->accounts = xy_table_new(hash_seed);
    if (book->accounts == NULL || pthread_mutex_init(&book->lock, NULL) != 0) {
        xy_table_free(&book->accounts);
        free(book);
        return NULL;
    }
    atomic_init(&book->uncounted, shards);
    book->references = 1;
    return book;
}

struct quota_book *book_ref(struct quota_book *book)
{
    book->references++;
    return book;
}

void book_unref(struct quota_book **pointer)
{
    struct quota_book *book = *pointer;
    size_t position = 0;
    *pointer = NULL;
    if (book == NULL || --book->references > 0)
        return;
    for (void *account; (account = xy_table_next(book->accounts, &position, NULL)) != NULL;)
        free(account);
    xy_table_free(&book->accounts);
    pthread_mutex_destroy(&book->lock);
    free(book);
}

bool book_nodes_counted(struct quota_book *book)
{
    return atomic_load(&book->uncounted) == 0;
}

bool book_shard_counted(struct quota_book *book)
{
    unsigned before = atomic_fetch_sub(&book->uncounted, 1);
    xy_assert(before > 0);
    return before == 1;
}

/* --- with the lock held ---------------------------------------------------------------------------------------------- */

static struct quota_account *find_or_make(struct quota_book *book, struct xy_str bare)
{
    struct quota_account *account = xy_table_get(book->accounts, bare);
    if (account != NULL)
        return account;
    account = calloc(1, sizeof(*account) + bare.len);
    if (account == NULL)
        return NULL;
    memcpy(account->text, bare.data, bare.len);
    account->bare = xy_str_n(account->text, bare.len);
    if (xy_table_put(book->accounts, account->bare, account, NULL))
        return account;
    free(account);
    return NULL;
}

static void free_if_empty(struct quota_book *book, struct quota_account *account)
{
    if (account->nodes > 0 || account->subscriptions > 0)
        return;
    xy_assert(atomic_load(&account->items) == 0 && atomic_load(&account->bytes) == 0);
    void *removed = xy_table_remove(book->accounts, account->bare);
    xy_assert(removed == account);
    free(account);
}

static enum quota_verdict add_one(uint64_t *count, uint64_t max)
{
    if (*count >= max)
        return QUOTA_FULL;
    (*count)++;
    return QUOTA_TAKEN;
}

/* --- nodes and subscriptions ------------------------------------------------------------------------------------------ */

enum quota_verdict book_add_node(struct quota_book *book, struct xy_str bare, uint64_t max,
                                 struct quota_account **out)
{
    pthread_mutex_lock(&book->lock);
    struct quota_account *account = find_or_make(book, bare);
    enum quota_verdict verdict = account != NULL ? add_one(&account->nodes, max) : QUOTA_NO_MEMORY;
    if (account != NULL)
        free_if_empty(book, account);
    pthread_mutex_unlock(&book->lock);
    *out = verdict == QUOTA_TAKEN ? account : NULL;
    return verdict;
}

enum quota_verdict book_add_subscription(struct quota_book *book, struct xy_str bare, uint64_t max)
{
    pthread_mutex_lock(&book->lock);
    struct quota_account *account = find_or_make(book, bare);
    enum quota_verdict verdict = account != NULL ? add_one(&account->subscriptions, max) : QUOTA_NO_MEMORY;
    if (account != NULL)
        free_if_empty(book, account);
    pthread_mutex_unlock(&book->lock);
    return verdict;
}

void book_drop_node(struct quota_book *book, struct xy_str bare)
{
    pthread_mutex_lock(&book->lock);
    struct quota_account *account = xy_table_get(book->accounts, bare);
    xy_assert(account != NULL && account->nodes > 0);
    account->nodes--;
    free_if_empty(book, account);
    pthread_mutex_unlock(&book->lock);
}

void book_drop_subscription(struct quota_book *book, struct xy_str bare)
{
    pthread_mutex_lock(&book->lock);
    struct quota_account *account = xy_table_get(book->accounts, bare);
    xy_assert(account != NULL && account->subscriptions > 0);
    account->subscriptions--;
    free_if_empty(book, account);
    pthread_mutex_unlock(&book->lock);
}

struct quota_account *book_find(struct quota_book *book, struct xy_str bare)
{
    pthread_mutex_lock(&book->lock);
    struct quota_account *account = xy_table_get(book->accounts, bare);
    pthread_mutex_unlock(&book->lock);
    return account;
}

/* --- items, without a lock --------------------------------------------------------------------------------------------- */

/* Compare and exchange, so that one who asks for too much never stands in the way of one who does not. */
static bool take(atomic_uint_fast64_t *sum, uint64_t more, uint64_t max)
{
    uint_fast64_t is = atomic_load(sum);
    do {
        if (more > 0 && (is >= max || more > max - is))
            return false;
    } while (more > 0 && !atomic_compare_exchange_weak(sum, &is, is + more));
    return true;
}

bool account_take(struct quota_account *account, uint64_t items, uint64_t items_max, uint64_t bytes,
                  uint64_t bytes_max)
{
    if (!take(&account->items, items, items_max))
        return false;
    if (take(&account->bytes, bytes, bytes_max))
        return true;
    atomic_fetch_sub(&account->items, items);
    return false;
}

/* Differences may be negative: unsigned arithmetic wraps around and back. */
void account_change(struct quota_account *account, uint64_t items_before, uint64_t items_now,
                    uint64_t bytes_before, uint64_t bytes_now)
{
    if (items_now != items_before)
        atomic_fetch_add(&account->items, items_now - items_before);
    if (bytes_now != bytes_before)
        atomic_fetch_add(&account->bytes, bytes_now - bytes_before);
}
