/* A disk that can lose its power: a FUSE file system with one file, `disk`, for a loop device to stand on. What is
 * written is volatile until the loop device flushes; at a power cut the volatile writes are dropped, or a random part
 * of them survives, block by block or torn within a block. Driven by tests/crash/disk.py through the file `control`.
 *
 * usage: powerfs MOUNTPOINT IMAGE MEGABYTES       (IMAGE: what is on the platters; created, sparse)
 *
 * Written to `control`, one command per write:
 *   cut AFTER drop|tear SEED    power goes after AFTER more writes and flushes; from then on both fail
 *   on                          power is back: the disk holds what survived
 *   lie | honest                flushes are acknowledged and not done | are done again
 * Read from it: `power` (0 or 1), counts of writes and flushes, bytes unflushed, blocks kept, torn and lost at cuts. */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_BYTES  4096u
#define SECTOR_BYTES 512u

/* A write since the last flush. Their order matters: a later one may survive while an earlier one does not. */
struct unflushed {
    off_t offset;
    size_t len;
    unsigned char *data;
};

struct disk {
    int image; /* what is durable */
    off_t size;
    unsigned char *cached; /* what reads see: durable and volatile together */
    struct unflushed *writes;
    size_t count;
    size_t capacity;
    bool power;
    bool lying;
    bool cut_planned;
    bool cut_tears;
    uint64_t cut_after;
    uint64_t chance; /* state of the generator of the cut */
    uint64_t writes_total;
    uint64_t flushes_total;
    uint64_t unflushed_bytes;
    uint64_t blocks_kept;
    uint64_t blocks_torn;
    uint64_t blocks_lost;
};

static struct disk disk = { .image = -1, .power = true };

static uint64_t chance_next(void)
{
    uint64_t z = disk.chance += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int image_write(const unsigned char *data, size_t len, off_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(disk.image, data, len, offset);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        offset += n;
        len -= (size_t)n;
    }
    return 0;
}

static void writes_forget(void)
{
    for (size_t i = 0; i < disk.count; i++)
        free(disk.writes[i].data);
    disk.count = 0;
    disk.unflushed_bytes = 0;
}

/* One block of a volatile write at the moment of the cut: lost, kept, or some of its sectors kept. */
static int block_survive(const unsigned char *data, size_t len, off_t offset)
{
    uint64_t fate = disk.cut_tears ? chance_next() % 100 : 0;
    if (fate < 40) {
        disk.blocks_lost++;
        return 0;
    }
    if (fate < 75) {
        disk.blocks_kept++;
        return image_write(data, len, offset);
    }
    disk.blocks_torn++;
    for (size_t at = 0; at < len; at += SECTOR_BYTES) {
        size_t part = len - at < SECTOR_BYTES ? len - at : SECTOR_BYTES;
        int rc = chance_next() & 1 ? image_write(data + at, part, offset + (off_t)at) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int power_cut(void)
{
    disk.power = false;
    disk.cut_planned = false;
    for (size_t i = 0; i < disk.count; i++) {
        const struct unflushed *w = &disk.writes[i];
        for (size_t at = 0; at < w->len; at += BLOCK_BYTES) {
            size_t part = w->len - at < BLOCK_BYTES ? w->len - at : BLOCK_BYTES;
            int rc = block_survive(w->data + at, part, w->offset + (off_t)at);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* The disk shows what is durable, and nothing else, where it was written to since. */
static int power_on(void)
{
    for (size_t i = 0; i < disk.count; i++) {
        const struct unflushed *w = &disk.writes[i];
        if (pread(disk.image, disk.cached + w->offset, w->len, w->offset) != (ssize_t)w->len)
            return -EIO;
    }
    writes_forget();
    disk.power = true;
    return 0;
}

/* Called before each write and flush: false once there is no power. */
static bool power_spend(void)
{
    if (disk.cut_planned && disk.cut_after-- == 0)
        power_cut();
    return disk.power;
}

static int disk_write(const char *data, size_t len, off_t offset)
{
    if (offset + (off_t)len > disk.size)
        return -ENOSPC;
    if (!power_spend())
        return -EIO;
    if (disk.count == disk.capacity) {
        size_t capacity = disk.capacity == 0 ? 256 : disk.capacity * 2;
        struct unflushed *more = realloc(disk.writes, capacity * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        disk.writes = more;
        disk.capacity = capacity;
    }
    unsigned char *copy = malloc(len);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, data, len);
    memcpy(disk.cached + offset, data, len);
    disk.writes[disk.count++] = (struct unflushed){ .offset = offset, .len = len, .data = copy };
    disk.unflushed_bytes += len;
    disk.writes_total++;
    return (int)len;
}

static int disk_flush(void)
{
    if (!power_spend())
        return -EIO;
    disk.flushes_total++;
    if (disk.lying)
        return 0;
    for (size_t i = 0; i < disk.count; i++) {
        int rc = image_write(disk.writes[i].data, disk.writes[i].len, disk.writes[i].offset);
        if (rc < 0)
            return rc;
    }
    writes_forget();
    return 0;
}

static int control_write(const char *data, size_t len)
{
    char line[64];
    char how[8];
    uint64_t after, seed;
    if (len >= sizeof line)
        return -EINVAL;
    memcpy(line, data, len);
    line[len] = '\0';
    int rc = 0;
    if (sscanf(line, "cut %" SCNu64 " %7s %" SCNu64, &after, how, &seed) == 3) {
        disk.cut_planned = true;
        disk.cut_after = after;
        disk.cut_tears = strcmp(how, "tear") == 0;
        disk.chance = seed;
        if (after == 0)
            rc = power_cut();
    } else if (strncmp(line, "on", 2) == 0) {
        rc = disk.power ? -EINVAL : power_on();
    } else if (strncmp(line, "lie", 3) == 0) {
        disk.lying = true;
    } else if (strncmp(line, "honest", 6) == 0) {
        disk.lying = false;
    } else {
        rc = -EINVAL;
    }
    return rc < 0 ? rc : (int)len;
}

static int control_read(char *out, size_t size)
{
    char text[512];
    int len = snprintf(text, sizeof text,
                       "power %d\nwrites %" PRIu64 "\nflushes %" PRIu64 "\nunflushed_bytes %" PRIu64
                       "\nblocks_kept %" PRIu64 "\nblocks_torn %" PRIu64 "\nblocks_lost %" PRIu64 "\n",
                       disk.power, disk.writes_total, disk.flushes_total, disk.unflushed_bytes,
                       disk.blocks_kept, disk.blocks_torn, disk.blocks_lost);
    size_t n = (size_t)len < size ? (size_t)len : size;
    memcpy(out, text, n);
    return (int)n;
}

static bool is_control(const char *path)
{
    return strcmp(path, "/control") == 0;
}

static bool is_disk(const char *path)
{
    return strcmp(path, "/disk") == 0;
}

static int fs_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    (void)fi;
    memset(st, 0, sizeof *st);
    if (strcmp(path, "/") == 0) {
        st->st_mode = S_IFDIR | 0700;
        st->st_nlink = 2;
        return 0;
    }
    if (!is_disk(path) && !is_control(path))
        return -ENOENT;
    st->st_mode = S_IFREG | 0600;
    st->st_nlink = 1;
    st->st_size = is_disk(path) ? disk.size : 0;
    return 0;
}

static int fs_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    (void)path, (void)offset, (void)fi, (void)flags;
    fill(buf, "disk", NULL, 0, 0);
    fill(buf, "control", NULL, 0, 0);
    return 0;
}

/* Nothing may be kept in the page cache: the loop device reads what the disk holds. */
static int fs_open(const char *path, struct fuse_file_info *fi)
{
    fi->direct_io = 1;
    return is_disk(path) || is_control(path) ? 0 : -ENOENT;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    (void)size, (void)fi;
    return is_control(path) ? 0 : -EPERM;
}

static int fs_read(const char *path, char *out, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    if (is_control(path))
        return offset == 0 ? control_read(out, size) : 0;
    if (offset >= disk.size)
        return 0;
    size_t left = (size_t)(disk.size - offset);
    size_t n = size < left ? size : left;
    memcpy(out, disk.cached + offset, n);
    return (int)n;
}

static int fs_write(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *fi)
{
    (void)fi;
    return is_control(path) ? control_write(data, size) : disk_write(data, size, offset);
}

static int fs_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
    (void)datasync, (void)fi;
    return is_disk(path) ? disk_flush() : 0;
}

static const struct fuse_operations operations = {
    .getattr = fs_getattr,
    .readdir = fs_readdir,
    .open = fs_open,
    .truncate = fs_truncate,
    .read = fs_read,
    .write = fs_write,
    .fsync = fs_fsync,
};

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: powerfs MOUNTPOINT IMAGE MEGABYTES\n");
        return 2;
    }
    disk.size = (off_t)strtoul(argv[3], NULL, 10) << 20;
    disk.image = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (disk.image < 0 || ftruncate(disk.image, disk.size) != 0) {
        perror(argv[2]);
        return 1;
    }
    disk.cached = mmap(NULL, (size_t)disk.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, disk.image, 0);
    if (disk.cached == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    char *arguments[] = { argv[0], "-f", "-s", "-o", "fsname=powerfs", argv[1], NULL };
    return fuse_main(6, arguments, &operations, NULL);
}
