/* Reads the secret, or makes it: written under another name and renamed, so that a crash leaves all of it or nothing. */
#include "broker/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096

static bool secret_read(const char *path, unsigned char out[SECRET_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && read(fd, out, SECRET_BYTES) == (ssize_t)SECRET_BYTES;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool secret_write(const char *path, const char *draft, const unsigned char secret[SECRET_BYTES])
{
    int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, secret, SECRET_BYTES) == (ssize_t)SECRET_BYTES && fsync(fd) == 0;
    if (fd >= 0)
        ok = close(fd) == 0 && ok;
    return ok && rename(draft, path) == 0;
}

bool secret_load(const char *data_dir, const struct xy_env *env, unsigned char out[SECRET_BYTES],
                 struct xy_buf *error)
{
    char path[PATH_BYTES], draft[PATH_BYTES];
    int len = snprintf(path, sizeof(path), "%s/secret", data_dir);
    int draft_len = snprintf(draft, sizeof(draft), "%s/secret.new", data_dir);
    if (len < 0 || draft_len < 0 || (size_t)draft_len >= sizeof(draft)) {
        xy_buf_printf(error, "the path of data_dir is too long");
        return false;
    }
    if (secret_read(path, out))
        return true;
    xy_random(env, out, SECRET_BYTES);
    if (secret_write(path, draft, out))
        return true;
    xy_buf_printf(error, "cannot write %s: %s", path, strerror(errno));
    return false;
}
