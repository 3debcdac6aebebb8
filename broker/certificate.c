/* Loads certificate and key, after making and storing a self-signed pair where none is configured. */
#include "broker/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096

static bool file_write(const char *path, mode_t mode, struct xy_str text, struct xy_buf *error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    bool ok = fd >= 0 && write(fd, text.data, text.len) == (ssize_t)text.len && fsync(fd) == 0;
    if (!ok)
        xy_buf_printf(error, "cannot write %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool self_signed_make(const struct config *config, const struct xy_env *env, const char *chain_file,
                             const char *key_file, struct xy_buf *error)
{
    struct xy_buf chain = { 0 }, key = { 0 };
    struct xy_tls_error problem = { "" };
    const char *domains[XY_TLS_DOMAINS_MAX];
    size_t count = config->domains.count < XY_TLS_DOMAINS_MAX ? config->domains.count : XY_TLS_DOMAINS_MAX;
    for (size_t i = 0; i < count; i++)
        domains[i] = config->domains.items[i].data; /* NUL-terminated by the configuration's arena */
    bool ok = xy_tls_self_signed(config->tls.library, env, domains, count, &chain, &key, &problem);
    if (!ok)
        xy_buf_printf(error, "cannot make a certificate: %s", problem.text);
    /* the certificate last: with it the pair is complete */
    ok = ok && file_write(key_file, 0600, xy_buf_view(&key), error) &&
         file_write(chain_file, 0644, xy_buf_view(&chain), error);
    xy_buf_free(&chain);
    xy_buf_free(&key);
    return ok;
}

struct xy_tls_config *certificate_load(const struct config *config, const struct xy_env *env,
                                       struct xy_buf *error)
{
    static const char *const alpn[] = { "xmpp-client", NULL };
    char chain_file[PATH_BYTES], key_file[PATH_BYTES];
    struct xy_tls_error problem = { "" };
    bool configured = config->tls.certificate.len > 0;
    struct xy_str dir = config->data_dir;
    if (configured) {
        struct xy_str key = config->tls.key.len > 0 ? config->tls.key : config->tls.certificate;
        snprintf(chain_file, sizeof(chain_file), "%.*s", XY_ARG(config->tls.certificate));
        snprintf(key_file, sizeof(key_file), "%.*s", XY_ARG(key));
    } else {
        snprintf(chain_file, sizeof(chain_file), "%.*s/tls-certificate.pem", XY_ARG(dir));
        snprintf(key_file, sizeof(key_file), "%.*s/tls-key.pem", XY_ARG(dir));
        if (access(chain_file, F_OK) != 0 && !self_signed_make(config, env, chain_file, key_file, error))
            return NULL;
    }
    struct xy_tls_certificate certificate = { .chain_file = chain_file, .key_file = key_file };
    struct xy_tls_server_options options = {
        .library = config->tls.library, .certificates = &certificate, .certificate_count = 1, .alpn = alpn
    };
    if (config->tls.client_ca.len > 0)
        options.client_ca_file = config->tls.client_ca.data;
    struct xy_tls_config *tls = xy_tls_config_server(&options, &problem);
    if (tls == NULL)
        xy_buf_printf(error, "%s", problem.text);
    return tls;
}
