/* Spare files of the segment log and the thread that makes them, of nothing or of retired ones; see spares.h. */
#include "broker/store/spares.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/store/segment.h"
#include "core/base/list.h"

#define LARGE  "log-new.seg"
#define PREFIX "log-spare-"

enum { FILE_MODE = 0600, ZEROS_BYTES = 256 << 10, FIRST_BYTES = 1 << 20 };

/* What is in a place, other than the descriptor of a spare: one that was taken has its name still. */
enum { NONE = -1, TAKEN = -2 };

struct retired {
    struct xy_list link;
    uint64_t bytes;
    char name[SEGMENT_NAME_BYTES];
};

struct spares {
    int directory;
    uint64_t bytes;
    pthread_t thread;
    bool begun;           /* the thread's: it has made one */
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t wake;  /* there is work for the thread, or it is done */
    int places[SPARES_MAX];
    uint64_t bytes_of[SPARES_MAX];
    unsigned ready;
    struct xy_list retired;
    unsigned holds;
    bool wanted, stop;
    int error; /* why there is none; 0: one is being made */
};

static void spare_name(char out[SEGMENT_NAME_BYTES], unsigned place)
{
    (void)snprintf(out, SEGMENT_NAME_BYTES, PREFIX "%u.seg", place);
}

bool spares_own(const char *name)
{
    return strncmp(name, PREFIX, strlen(PREFIX)) == 0 || strcmp(name, LARGE) == 0;
}

/* --- files ------------------------------------------------------------------------------------------------------- */

/* Takes the space first, so that a full disk is known at once; a file system that cannot does it by the writing. */
static bool fill_with_zeros(int fd, uint64_t bytes)
{
    static const char zeros[ZEROS_BYTES];
    if (fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP)
        return false;
    for (uint64_t at = 0; at < bytes; at += sizeof(zeros))
        if (!segment_write(fd, zeros, bytes - at < sizeof(zeros) ? (size_t)(bytes - at) : sizeof(zeros), at))
            return false;
    return fsync(fd) == 0;
}

static int make_file(struct spares *spares, const char *name)
{
    return openat(spares->directory, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, FILE_MODE);
}

/* --- the thread -------------------------------------------------------------------------------------------------- */

/* Only the thread fills places, so this one stays free. */
static unsigned free_place(struct spares *spares)
{
    unsigned place = 0;
    pthread_mutex_lock(&spares->lock);
    while (place < SPARES_MAX - 1 && spares->places[place] != NONE)
        place++;
    pthread_mutex_unlock(&spares->lock);
    return place;
}

static void keep(struct spares *spares, unsigned place, int fd, uint64_t bytes, int code)
{
    pthread_mutex_lock(&spares->lock);
    spares->places[place] = fd >= 0 ? fd : NONE;
    spares->bytes_of[place] = bytes;
    spares->ready += fd >= 0;
    spares->error = fd < 0 ? code : 0;
    pthread_cond_broadcast(&spares->wake);
    pthread_mutex_unlock(&spares->lock);
}

static void make_one(struct spares *spares)
{
    char name[SEGMENT_NAME_BYTES];
    unsigned place = free_place(spares);
    uint64_t bytes = spares->begun || spares->bytes < FIRST_BYTES ? spares->bytes : FIRST_BYTES;
    spare_name(name, place);
    int fd = make_file(spares, name);
    bool made = fd >= 0 && fill_with_zeros(fd, bytes);
    int code = errno;
    if (!made && fd >= 0) {
        (void)close(fd);
        (void)unlinkat(spares->directory, name, 0);
    }
    spares->begun |= made;
    keep(spares, place, made ? fd : NONE, bytes, code);
}

static void take_away(struct spares *spares, const char *name, bool reuse)
{
    char spare[SEGMENT_NAME_BYTES];
    unsigned place = free_place(spares);
    spare_name(spare, place);
    bool renamed = reuse && renameat(spares->directory, name, spares->directory, spare) == 0;
    if (!renamed)
        (void)unlinkat(spares->directory, name, 0);
    bool synced = fsync(spares->directory) == 0;
    if (renamed && synced) {
        int fd = openat(spares->directory, spare, O_RDWR | O_CLOEXEC);
        keep(spares, place, fd, spares->bytes, errno);
    }
}

/* One thing that there is to do, without the lock; false: there is none. One place is left for what is taken. */
static bool do_next(struct spares *spares)
{
    if (!xy_list_empty(&spares->retired)) {
        struct retired *retired = xy_container_of(spares->retired.next, struct retired, link);
        bool reuse = spares->ready < SPARES_MAX - 1 && spares->holds == 0 && retired->bytes == spares->bytes;
        xy_list_remove(&retired->link);
        pthread_mutex_unlock(&spares->lock);
        take_away(spares, retired->name, reuse);
        free(retired);
    } else if (spares->wanted && spares->ready == 0 && spares->error == 0) {
        pthread_mutex_unlock(&spares->lock);
        make_one(spares);
    } else {
        return false;
    }
    pthread_mutex_lock(&spares->lock);
    return true;
}

static void *spares_main(void *ctx)
{
    struct spares *spares = ctx;
    pthread_mutex_lock(&spares->lock);
    while (!spares->stop)
        if (!do_next(spares))
            pthread_cond_wait(&spares->wake, &spares->lock);
    pthread_mutex_unlock(&spares->lock);
    return NULL;
}

/* --- whoever uses them ------------------------------------------------------------------------------------------- */

/* What a crash left. */
static void remove_leftovers(struct spares *spares)
{
    char name[SEGMENT_NAME_BYTES];
    for (unsigned place = 0; place < SPARES_MAX; place++) {
        spare_name(name, place);
        (void)unlinkat(spares->directory, name, 0);
    }
    (void)unlinkat(spares->directory, LARGE, 0);
}

/* The lock is held. Whoever wants the first one clears the place before anybody makes anything. */
static void want(struct spares *spares)
{
    if (!spares->wanted)
        remove_leftovers(spares);
    spares->wanted = true;
    if (spares->ready > 0)
        return;
    spares->error = 0;
    pthread_cond_broadcast(&spares->wake);
}

uint64_t spares_want(struct spares *spares)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&spares->lock);
    want(spares);
    for (unsigned place = 0; place < SPARES_MAX; place++)
        bytes += spares->places[place] >= 0 ? spares->bytes_of[place] : 0;
    pthread_mutex_unlock(&spares->lock);
    return bytes;
}

/* The lock is held, and there is one. */
static int take(struct spares *spares, char name[SEGMENT_NAME_BYTES], uint64_t *bytes)
{
    unsigned place = 0;
    while (spares->places[place] < 0)
        place++;
    int fd = spares->places[place];
    if (*bytes > spares->bytes_of[place])
        return NONE;
    *bytes = spares->bytes_of[place];
    spares->places[place] = TAKEN;
    spares->ready--;
    spare_name(name, place);
    pthread_cond_broadcast(&spares->wake); /* for the next one */
    return fd;
}

int spares_take(struct spares *spares, char name[SEGMENT_NAME_BYTES], uint64_t *bytes)
{
    int fd = NONE;
    pthread_mutex_lock(&spares->lock);
    want(spares);
    while (spares->ready == 0 && spares->error == 0)
        pthread_cond_wait(&spares->wake, &spares->lock);
    int code = spares->ready == 0 ? spares->error : 0;
    if (code == 0)
        fd = take(spares, name, bytes);
    pthread_mutex_unlock(&spares->lock);
    errno = code;
    if (fd >= 0 || code != 0)
        return fd;
    (void)snprintf(name, SEGMENT_NAME_BYTES, "%s", LARGE);
    return make_file(spares, name);
}

void spares_named(struct spares *spares, const char *name)
{
    char own[SEGMENT_NAME_BYTES];
    pthread_mutex_lock(&spares->lock);
    for (unsigned place = 0; place < SPARES_MAX; place++) {
        spare_name(own, place);
        if (strcmp(name, own) == 0)
            spares->places[place] = NONE;
    }
    pthread_mutex_unlock(&spares->lock);
}

void spares_retire(struct spares *spares, const char *name, uint64_t bytes)
{
    struct retired *retired = calloc(1, sizeof(*retired));
    if (retired == NULL)
        return; /* it stays until the log is opened again */
    retired->bytes = bytes;
    (void)snprintf(retired->name, sizeof(retired->name), "%s", name);
    pthread_mutex_lock(&spares->lock);
    xy_list_append(&spares->retired, &retired->link);
    pthread_cond_broadcast(&spares->wake);
    pthread_mutex_unlock(&spares->lock);
}

void spares_hold(struct spares *spares)
{
    pthread_mutex_lock(&spares->lock);
    spares->holds++;
    pthread_mutex_unlock(&spares->lock);
}

void spares_release(struct spares *spares)
{
    pthread_mutex_lock(&spares->lock);
    spares->holds--;
    pthread_mutex_unlock(&spares->lock);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct spares *spares_new(int directory, uint64_t bytes)
{
    struct spares *spares = calloc(1, sizeof(*spares));
    if (spares == NULL)
        return NULL;
    spares->directory = directory;
    spares->bytes = bytes;
    for (unsigned place = 0; place < SPARES_MAX; place++)
        spares->places[place] = NONE;
    xy_list_init(&spares->retired);
    pthread_mutex_init(&spares->lock, NULL);
    pthread_cond_init(&spares->wake, NULL);
    if (pthread_create(&spares->thread, NULL, spares_main, spares) == 0)
        return spares;
    pthread_cond_destroy(&spares->wake);
    pthread_mutex_destroy(&spares->lock);
    free(spares);
    return NULL;
}

static void close_all(struct spares *spares)
{
    char name[SEGMENT_NAME_BYTES];
    for (unsigned place = 0; place < SPARES_MAX; place++) {
        spare_name(name, place);
        if (spares->places[place] >= 0 && close(spares->places[place]) == 0)
            (void)unlinkat(spares->directory, name, 0);
    }
}

void spares_free(struct spares **pointer)
{
    struct spares *spares = *pointer;
    if (spares == NULL)
        return;
    pthread_mutex_lock(&spares->lock);
    spares->stop = true;
    pthread_cond_broadcast(&spares->wake);
    pthread_mutex_unlock(&spares->lock);
    pthread_join(spares->thread, NULL);
    close_all(spares);
    xy_list_each (link, &spares->retired) {
        xy_list_remove(link);
        free(xy_container_of(link, struct retired, link));
    }
    pthread_cond_destroy(&spares->wake);
    pthread_mutex_destroy(&spares->lock);
    free(spares);
    *pointer = NULL;
}
