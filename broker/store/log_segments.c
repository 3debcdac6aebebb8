/* The log as files of a fixed size, written one after the other: a commit is one write into a place that is there already
 * and one flush, where LMDB's takes two. segment.h says what is in a file.
 *
 *   log-POSITION.seg   a segment, named by its first entry; it has that name only once its first commit is on disk
 *
 * What is needed next is made ahead, and what was cut taken away, by spares.c, so that neither is in the way of a commit.
 * A segment is continued only by the process that began it: the first commit after an open begins a new one, and what
 * a crash left at the end of the last one stays there, unread. That is all there is to a torn tail; recovery has
 * brought everything before it to the tables by then.
 *
 * Called through the vtable of backend.h; threads as said there. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/backend_disk.h"
#include "broker/store/disk.h"
#include "broker/store/limits.h"
#include "broker/store/segment.h"
#include "broker/store/spares.h"
#include "core/base/assert.h"
#include "core/base/list.h"

enum { ERROR_BYTES = 256 };

struct segment {
    struct xy_list link;
    uint64_t id, first, last; /* last < first: none of it can be read */
    uint64_t end;             /* of what is committed */
    uint64_t bytes;           /* of the file */
    bool damaged;             /* there is more behind `end`, and it cannot be read … */
    uint64_t damaged_upto;    /* … before what comes after this position */
};

struct segment_log {
    struct store_log log;
    char data_dir[DISK_PATH_BYTES];
    int directory;
    uint64_t reserve_bytes, segment_bytes;

    /* commit thread */
    struct xy_buf frame; /* the entries since the last commit */
    uint64_t frame_first, frame_last;
    uint64_t cut_upto; /* of this transaction */
    int fd;            /* of the current segment */
    bool broken;       /* a write or a flush failed: what is on disk is not known */
    char error[ERROR_BYTES];

    struct spares *spares;
    pthread_mutex_t lock; /* of everything below */
    struct xy_list segments;
    struct segment *current; /* the last one, if this process began it */
    uint64_t cut_done;
    uint64_t bytes;
    /* Where the last reader stopped, and in which segment: it comes back for what follows. */
    uint64_t left_position, left_first, left_at;
};

static struct segment_log *log_of(struct store_log *base)
{
    return xy_container_of(base, struct segment_log, log);
}

static void segment_name(char out[SEGMENT_NAME_BYTES], uint64_t first)
{
    (void)snprintf(out, SEGMENT_NAME_BYTES, "log-%020llu.seg", (unsigned long long)first);
}

static const char *reason(int code)
{
    const char *text = strerrordesc_np(code);
    return text != NULL ? text : "unknown error";
}

static enum store_io log_failed(struct segment_log *log, const char *what, int code)
{
    (void)snprintf(log->error, sizeof(log->error), "%s: %s", what, reason(code));
    return code == ENOSPC || code == EDQUOT ? STORE_IO_FULL : STORE_IO_FAILED;
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

static enum store_io log_append(struct store_log *base, uint64_t position, struct xy_str entry)
{
    struct segment_log *log = log_of(base);
    xy_assert(log->frame.len == 0 || position > log->frame_last);
    if (log->frame.len == 0)
        log->frame_first = position;
    log->frame_last = position;
    frame_entry(&log->frame, position, entry);
    return xy_buf_failed(&log->frame) ? log_failed(log, "cannot append to the log", ENOMEM) : STORE_IO_OK;
}

/* Whole segments go, at the commit. */
static enum store_io log_cut(struct store_log *base, uint64_t upto, unsigned count_max, unsigned *removed)
{
    struct segment_log *log = log_of(base);
    (void)count_max;
    *removed = 0;
    if (upto > log->cut_upto)
        log->cut_upto = upto;
    return STORE_IO_OK;
}

static void log_abort(struct store_log *base)
{
    struct segment_log *log = log_of(base);
    xy_buf_free(&log->frame);
    log->cut_upto = 0;
}

static bool begin_file(struct segment_log *log, int fd, const char *name, const struct segment *segment)
{
    char header[SEGMENT_HEADER_BYTES], own[SEGMENT_NAME_BYTES];
    segment_header(header, segment->id, segment->first);
    segment_name(own, segment->first);
    return segment_write(fd, header, sizeof(header), 0) &&
           segment_write(fd, log->frame.data, log->frame.len, SEGMENT_HEADER_BYTES) && fdatasync(fd) == 0 &&
           renameat(log->directory, name, log->directory, own) == 0 && fsync(log->directory) == 0;
}

static bool frame_ready(struct segment_log *log, uint64_t id)
{
    frame_seal(&log->frame, id, log->frame_first, log->frame_last);
    return !xy_buf_failed(&log->frame);
}

/* The frame becomes the first of a new segment. */
static enum store_io begin_segment(struct segment_log *log)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    char name[SEGMENT_NAME_BYTES];
    if (segment == NULL || getrandom(&segment->id, sizeof(segment->id), 0) != sizeof(segment->id) ||
        !frame_ready(log, segment->id)) {
        free(segment);
        return log_failed(log, "cannot begin a segment of the log", ENOMEM);
    }
    segment->first = log->frame_first;
    segment->last = log->frame_last;
    segment->end = segment->bytes = SEGMENT_HEADER_BYTES + log->frame.len;
    int fd = spares_take(log->spares, name, &segment->bytes);
    if (fd < 0 || !begin_file(log, fd, name, segment)) {
        enum store_io io = log_failed(log, "cannot begin a segment of the log", errno);
        log->broken = fd >= 0;
        if (fd >= 0)
            (void)close(fd);
        free(segment);
        return io;
    }
    if (log->fd >= 0)
        (void)close(log->fd);
    log->fd = fd;
    pthread_mutex_lock(&log->lock);
    xy_list_append(&log->segments, &segment->link);
    log->current = segment;
    log->bytes += segment->end;
    pthread_mutex_unlock(&log->lock);
    spares_named(log->spares, name);
    return STORE_IO_OK;
}

static enum store_io continue_segment(struct segment_log *log)
{
    struct segment *segment = log->current;
    if (!frame_ready(log, segment->id))
        return log_failed(log, "cannot append to the log", ENOMEM);
    if (!segment_write(log->fd, log->frame.data, log->frame.len, segment->end) || fdatasync(log->fd) != 0) {
        log->broken = true;
        return log_failed(log, "cannot write the log", errno);
    }
    pthread_mutex_lock(&log->lock);
    segment->end += log->frame.len;
    segment->last = log->frame_last;
    log->bytes += log->frame.len;
    pthread_mutex_unlock(&log->lock);
    return STORE_IO_OK;
}

static void retire(struct segment_log *log)
{
    char name[SEGMENT_NAME_BYTES];
    pthread_mutex_lock(&log->lock);
    log->cut_done = log->cut_upto;
    xy_list_each (link, &log->segments) {
        struct segment *segment = xy_container_of(link, struct segment, link);
        if (segment == log->current || segment->last > log->cut_upto)
            break;
        xy_list_remove(link);
        log->bytes -= segment->end;
        segment_name(name, segment->first);
        spares_retire(log->spares, name, segment->bytes);
        free(segment);
    }
    pthread_mutex_unlock(&log->lock);
}

static enum store_io log_commit(struct store_log *base)
{
    struct segment_log *log = log_of(base);
    enum store_io io = STORE_IO_OK;
    if (log->broken)
        return STORE_IO_FAILED;
    if (log->frame.len > 0)
        io = log->current != NULL && log->current->end + log->frame.len + 8 <= log->current->bytes
                 ? continue_segment(log)
                 : begin_segment(log);
    if (io != STORE_IO_OK)
        return io;
    if (log->frame.cap > STORE_BATCH_KEEP_BYTES)
        xy_buf_free(&log->frame);
    xy_buf_reset(&log->frame);
    if (log->cut_upto > log->cut_done)
        retire(log);
    log->cut_upto = 0;
    return STORE_IO_OK;
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

struct reading {
    struct segment_log *log;
    struct segment segment; /* a copy: its end is that of a moment ago */
    struct frame_walk walk;
    uint64_t from;
    store_log_visit *visit;
    void *ctx;
    bool enough; /* the visitor has */
};

/* What is damaged matters to who wants it, or may: what the next segment begins with is not in it. */
static bool has(const struct segment_log *log, const struct segment *segment, uint64_t from)
{
    if (segment->last >= from && segment->last >= segment->first)
        return true;
    if (!segment->damaged || segment->damaged_upto < from)
        return false;
    return segment->link.next == &log->segments ||
           xy_container_of(segment->link.next, struct segment, link)->first > from;
}

/* The first segment with something at or after `from`. false: there is none. The file is open when this returns: its name
 * is good as long as it is in the list. */
static bool reading_open(struct reading *reading)
{
    struct segment_log *log = reading->log;
    char name[SEGMENT_NAME_BYTES];
    bool found = false;
    pthread_mutex_lock(&log->lock);
    xy_list_each (link, &log->segments) {
        struct segment *segment = xy_container_of(link, struct segment, link);
        if (!has(log, segment, reading->from))
            continue;
        reading->segment = *segment;
        found = true;
        break;
    }
    if (found) {
        bool again = log->left_first == reading->segment.first && log->left_position == reading->from;
        segment_name(name, reading->segment.first);
        reading->walk.fd = openat(log->directory, name, O_RDONLY | O_CLOEXEC);
        reading->walk.failed = reading->walk.fd < 0;
        reading->walk.id = reading->segment.id;
        reading->walk.at = again ? log->left_at : SEGMENT_HEADER_BYTES;
        reading->walk.end = reading->segment.end;
        reading->walk.window_at = 0;
        xy_buf_reset(&reading->walk.window);
    }
    pthread_mutex_unlock(&log->lock);
    return found;
}

static void visit_frame(struct reading *reading, struct xy_str entries)
{
    uint64_t position;
    struct xy_str entry;
    while (!reading->enough && frame_take(&entries, &position, &entry)) {
        if (position < reading->from)
            continue;
        reading->enough = !reading->visit(reading->ctx, position, entry);
        reading->from = position + 1;
    }
}

/* For a reader that comes back for the next page. */
static void note_place(struct reading *reading, uint64_t frame_at)
{
    struct segment_log *log = reading->log;
    pthread_mutex_lock(&log->lock);
    log->left_first = reading->segment.first;
    log->left_position = reading->from;
    log->left_at = frame_at;
    pthread_mutex_unlock(&log->lock);
}

static bool read_segment(struct reading *reading)
{
    struct frame_walk *walk = &reading->walk;
    struct frame frame;
    frame_skip(walk, reading->from);
    while (!reading->enough && walk->at < walk->end) {
        uint64_t frame_at = walk->at;
        if (walk->failed || !frame_next(walk, &frame))
            break;
        visit_frame(reading, frame.entries);
        if (reading->enough)
            note_place(reading, frame_at);
    }
    if (walk->fd >= 0)
        (void)close(walk->fd);
    walk->fd = -1;
    return reading->enough || (!walk->failed && walk->at == walk->end && !reading->segment.damaged);
}

static enum store_io log_read(struct store_log *base, uint64_t from, store_log_visit *visit, void *ctx)
{
    struct segment_log *log = log_of(base);
    struct reading reading = { .log = log, .from = from, .visit = visit, .ctx = ctx };
    bool ok = true;
    spares_hold(log->spares);
    while (ok && !reading.enough && reading_open(&reading))
        ok = read_segment(&reading);
    spares_release(log->spares);
    xy_buf_free(&reading.walk.window);
    return ok ? STORE_IO_OK : STORE_IO_FAILED;
}

/* --- figures ----------------------------------------------------------------------------------------------------- */

/* The current segment stays when all of it is cut, but then nothing is kept in it. */
static uint64_t log_bytes(struct store_log *base)
{
    struct segment_log *log = log_of(base);
    pthread_mutex_lock(&log->lock);
    bool empty = log->current != NULL && log->current->last <= log->cut_done;
    uint64_t bytes = empty ? 0 : log->bytes;
    pthread_mutex_unlock(&log->lock);
    return bytes;
}

/* What the segments at hand still take and how many more the disk has room for. Half a segment of that, at most
 * STORE_HOLD_BYTES, is for what is under way and for records that nobody asks room for. */
static uint64_t log_room(struct store_log *base)
{
    struct segment_log *log = log_of(base);
    uint64_t segments = disk_room(log->data_dir, log->reserve_bytes) / log->segment_bytes;
    uint64_t hold = log->segment_bytes / 2 < STORE_HOLD_BYTES ? log->segment_bytes / 2 : STORE_HOLD_BYTES;
    uint64_t room = segments * log->segment_bytes + spares_want(log->spares);
    pthread_mutex_lock(&log->lock);
    if (log->current != NULL)
        room += log->current->bytes - log->current->end;
    pthread_mutex_unlock(&log->lock);
    return room > hold ? room - hold : 0;
}

static const char *log_error(struct store_log *base)
{
    return log_of(base)->error;
}

/* --- opening and closing ----------------------------------------------------------------------------------------- */

static void free_segments(struct xy_list *list)
{
    xy_list_each (link, list) {
        xy_list_remove(link);
        free(xy_container_of(link, struct segment, link));
    }
}

/* What was allocated ahead is given back: a segment is not continued by whoever opens the log next. */
static void give_back(struct segment_log *log)
{
    if (log->fd >= 0 && !log->broken && ftruncate(log->fd, (off_t)log->current->end) != 0)
        log->broken = true; /* it stays large */
    if (log->fd >= 0)
        (void)close(log->fd);
}

static void log_close(struct store_log **base)
{
    struct segment_log *log = log_of(*base);
    give_back(log);
    spares_free(&log->spares);
    if (log->directory >= 0)
        (void)close(log->directory);
    free_segments(&log->segments);
    xy_buf_free(&log->frame);
    pthread_mutex_destroy(&log->lock);
    free(log);
    *base = NULL;
}

static const struct store_log_ops log_ops = {
    .append = log_append,
    .abort = log_abort,
    .cut = log_cut,
    .commit = log_commit,
    .read = log_read,
    .bytes = log_bytes,
    .room = log_room,
    .error = log_error,
    .close = log_close,
};

/* Of a segment's name; false: it is none. */
static bool first_of(const char *name, uint64_t *first)
{
    struct xy_str rest = xy_str(name);
    char own[SEGMENT_NAME_BYTES];
    if (rest.len < 8 || strncmp(name, "log-", 4) != 0 || !xy_str_u64(xy_str_n(name + 4, rest.len - 8), first))
        return false;
    segment_name(own, *first);
    return *first > 0 && strcmp(name, own) == 0;
}

bool segments_own(const char *name)
{
    uint64_t first;
    return spares_own(name) || first_of(name, &first);
}

static void note_damage(struct segment_log *log, struct segment *segment, uint64_t upto)
{
    segment->damaged = true;
    segment->damaged_upto = upto;
    if (log->error[0] == '\0')
        (void)snprintf(log->error, sizeof(log->error),
                       "log-%020llu.seg is damaged at byte %llu. Restore the data directory from a backup",
                       (unsigned long long)segment->first, (unsigned long long)segment->end);
}

/* From frame to frame to the end. One that cannot be read is a commit that a crash tore, and the end, unless another one
 * follows it, or there is none before it: then it is damage. */
static bool measure(struct segment_log *log, struct segment *segment, int fd)
{
    struct frame_walk walk = { fd, segment->id, SEGMENT_HEADER_BYTES, segment->bytes, false, { 0 }, 0 };
    struct frame frame;
    uint64_t upto;
    while (frame_next(&walk, &frame))
        segment->last = frame.last;
    segment->end = walk.at;
    if (frame_follows(&walk, &upto))
        note_damage(log, segment, upto);
    else if (walk.at == SEGMENT_HEADER_BYTES && !walk.failed)
        note_damage(log, segment, UINT64_MAX);
    xy_buf_free(&walk.window);
    return !walk.failed;
}

static bool load_file(struct segment_log *log, struct segment *segment, const char *name, int fd,
                      struct xy_buf *error)
{
    struct stat info;
    uint64_t first = 0;
    enum segment_status status =
        fstat(fd, &info) == 0 ? segment_open(fd, &segment->id, &first) : SEGMENT_UNREADABLE;
    if (status == SEGMENT_NEWER) {
        xy_buf_printf(error,
                      "%s/%s has a format that this program does not know. Start the newer program again, "
                      "or restore a backup made by this one",
                      log->data_dir, name);
        return false;
    }
    segment->bytes = status != SEGMENT_UNREADABLE ? (uint64_t)info.st_size : 0;
    segment->last = segment->first - 1;
    if (status == SEGMENT_OK && first == segment->first && measure(log, segment, fd))
        return true;
    if (status == SEGMENT_DAMAGED || (status == SEGMENT_OK && first != segment->first)) {
        segment->end = 0;
        note_damage(log, segment, UINT64_MAX);
        return true;
    }
    xy_buf_printf(error, "cannot read %s/%s: %s", log->data_dir, name, reason(errno));
    return false;
}

static void insert(struct xy_list *segments, struct segment *segment)
{
    struct xy_list *before = segments->prev;
    while (before != segments && xy_container_of(before, struct segment, link)->first > segment->first)
        before = before->prev;
    xy_list_prepend(before, &segment->link);
}

static bool load_segment(struct segment_log *log, const char *name, uint64_t first, struct xy_buf *error)
{
    struct segment *segment = calloc(1, sizeof(*segment));
    int fd = openat(log->directory, name, O_RDONLY | O_CLOEXEC);
    bool ok = segment != NULL && fd >= 0;
    if (!ok)
        xy_buf_printf(error, "cannot read %s/%s: %s", log->data_dir, name, reason(errno));
    if (segment != NULL)
        segment->first = first;
    ok = ok && load_file(log, segment, name, fd, error);
    if (fd >= 0)
        (void)close(fd);
    if (ok) {
        insert(&log->segments, segment);
        log->bytes += segment->end;
    } else {
        free(segment);
    }
    return ok;
}

static bool load(struct segment_log *log, struct xy_buf *error)
{
    struct dirent *entry;
    uint64_t first;
    DIR *directory = opendir(log->data_dir);
    bool ok = directory != NULL;
    if (!ok)
        xy_buf_printf(error, "cannot read %s: %s", log->data_dir, reason(errno));
    while (ok && (entry = readdir(directory)) != NULL)
        if (first_of(entry->d_name, &first))
            ok = load_segment(log, entry->d_name, first, error);
    if (directory != NULL)
        (void)closedir(directory);
    return ok;
}

static uint64_t segment_bytes(const struct store_backend_options *options)
{
    uint64_t bytes = options->log_bytes_max / STORE_SEGMENTS;
    if (bytes < STORE_SEGMENT_BYTES_MIN)
        bytes = STORE_SEGMENT_BYTES_MIN;
    return bytes < STORE_SEGMENT_BYTES_MAX ? bytes : STORE_SEGMENT_BYTES_MAX;
}

bool segments_open(const struct store_backend_options *options, struct store_log **out, struct xy_buf *error)
{
    struct segment_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        xy_buf_lit(error, "out of memory");
        return false;
    }
    *out = &log->log;
    log->log.ops = &log_ops;
    (void)snprintf(log->data_dir, sizeof(log->data_dir), "%s", options->data_dir);
    log->reserve_bytes = options->reserve_bytes;
    log->segment_bytes = segment_bytes(options) / SEGMENT_HEADER_BYTES * SEGMENT_HEADER_BYTES;
    log->fd = log->directory = -1;
    xy_list_init(&log->segments);
    pthread_mutex_init(&log->lock, NULL);
    log->directory = open(log->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = log->directory >= 0;
    if (!ok)
        xy_buf_printf(error, "cannot open %s: %s", log->data_dir, reason(errno));
    ok = ok && load(log, error);
    if (ok && (log->spares = spares_new(log->directory, log->segment_bytes)) == NULL) {
        xy_buf_lit(error, "out of memory, or the log's thread cannot be started");
        ok = false;
    }
    if (!ok)
        log_close(out);
    return ok;
}
