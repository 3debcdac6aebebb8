/* Checks and copies the options of a client; see config.h. */
#include "sdk/src/config.h"

#include <stdio.h>
#include <string.h>

#include "core/base/assert.h"

/* The oldest struct that was ever released: shorter ones are a mistake of the caller. */
#define OPTIONS_SIZE_MIN (2 * sizeof(void *))

static enum xylem_status fail(char *error, size_t size, enum xylem_status status, const char *text)
{
    if (error && size)
        snprintf(error, size, "%s", text);
    return status;
}

static void copy_string(struct xy_arena *arena, const char **field)
{
    if (*field)
        *field = xy_arena_str(arena, xy_str(*field)).data;
}

static void default_u32(uint32_t *field, uint32_t value)
{
    if (*field == 0)
        *field = value;
}

static void fill_defaults(struct xylem_options *o)
{
    default_u32(&o->queue_items_max, XY_QUEUE_ITEMS_DEFAULT);
    default_u32(&o->publish_window, XY_PUBLISH_WINDOW_DEFAULT);
    default_u32(&o->max_inflight, XY_INFLIGHT_DEFAULT);
    default_u32(&o->connect_timeout_ms, XY_CONNECT_TIMEOUT_DEFAULT);
    default_u32(&o->reply_timeout_ms, XY_REPLY_TIMEOUT_DEFAULT);
    default_u32(&o->keepalive_ms, XY_KEEPALIVE_DEFAULT);
    default_u32(&o->ping_timeout_ms, XY_PING_TIMEOUT_DEFAULT);
    default_u32(&o->backoff_min_ms, XY_BACKOFF_MIN_DEFAULT);
    default_u32(&o->backoff_max_ms, XY_BACKOFF_MAX_DEFAULT);
    if (o->queue_bytes_max == 0)
        o->queue_bytes_max = XY_QUEUE_BYTES_DEFAULT;
    if (o->spool_bytes_max == 0)
        o->spool_bytes_max = XY_SPOOL_BYTES_DEFAULT;
    if (o->publish_window > XY_PUBLISH_WINDOW_MAX)
        o->publish_window = XY_PUBLISH_WINDOW_MAX;
    if (o->max_inflight > XY_INFLIGHT_MAX)
        o->max_inflight = XY_INFLIGHT_MAX;
    if (o->socket_path)
        o->tls = XYLEM_TLS_NONE;
    if (o->port == 0)
        o->port = o->tls == XYLEM_TLS_DIRECT ? XY_PORT_DIRECT_TLS : XY_PORT_STARTTLS;
}

static void copy_options(struct xy_config *config, const struct xylem_options *options)
{
    size_t size = options->size < sizeof config->o ? options->size : sizeof config->o;
    memcpy(&config->o, options, size);
    const char **strings[] = {
        &config->o.jid,         &config->o.resource,    &config->o.password,  &config->o.as,
        &config->o.host,        &config->o.socket_path, &config->o.ca_file,   &config->o.certificate_file,
        &config->o.key_file,    &config->o.service,     &config->o.state_dir, &config->o.spool_dir,
        &config->o.tls_library,
    };
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++)
        copy_string(config->arena, strings[i]);
    fill_defaults(&config->o);
}

static enum xylem_status read_address(struct xy_config *config, const struct xy_env *env, char *error,
                                      size_t size)
{
    const struct xylem_options *o = &config->o;
    const char *address = o->jid ? o->jid : o->as;
    if (!address && !o->socket_path)
        return fail(error, size, XYLEM_INVALID, "no JID given: set options.jid to user@domain");
    if (address && !xy_jid_parse(config->arena, xy_str(address), &config->jid))
        return fail(error, size, XYLEM_INVALID, "the JID is malformed: it must look like user@domain");
    if (address && !o->socket_path && config->jid.local_len == 0 && !o->certificate_file)
        return fail(error, size, XYLEM_INVALID, "the JID has no user: it must look like user@domain");
    struct xy_str resource = xy_str(o->resource);
    if (xy_str_present(resource)) {
        if (!xy_jid_prep_resource(config->arena, resource, &config->resource))
            return fail(error, size, XYLEM_INVALID, "the resource is not allowed in a JID");
    } else if (xy_jid_present(config->jid) && !xy_jid_is_bare(config->jid)) {
        config->resource = xy_jid_resource(config->jid);
    } else {
        /* Chosen here and not by the server, so that it is the same after a reconnect. */
        char id[XY_ID_LEN + 1];
        xy_random_id(env, id);
        config->resource = xy_arena_printf(config->arena, "xylem-%.12s", id);
    }
    return XYLEM_OK;
}

/* NULL stays NULL, the default. */
static bool find_tls_library(const char *name, const struct xy_tls_library **out, char *error, size_t size)
{
    char text[160] = "", *end = text + sizeof text;
    *out = name ? xy_tls_library(xy_str(name)) : NULL;
    if (*out || !name)
        return true;
    const struct xy_tls_library *library;
    char *at = text + snprintf(text, sizeof text,
                               "there is no TLS library \"%.40s\" in this libxylem: take one of", name);
    for (size_t i = 0; (library = xy_tls_library_at(i)) != NULL; i++)
        at += snprintf(at, (size_t)(end - at), "%s %s", i > 0 ? "," : "", xy_tls_library_name(library));
    fail(error, size, XYLEM_INVALID, text);
    return false;
}

static enum xylem_status make_tls(struct xy_config *config, char *error, size_t size)
{
    const struct xylem_options *o = &config->o;
    const struct xy_tls_library *library;
    if (!find_tls_library(o->tls_library, &library, error, size))
        return XYLEM_INVALID;
    if (o->tls == XYLEM_TLS_NONE)
        return XYLEM_OK;
    if (!o->certificate_file != !o->key_file)
        return fail(error, size, XYLEM_INVALID, "certificate_file and key_file must be given together");
    struct xy_tls_certificate own = { .chain_file = o->certificate_file, .key_file = o->key_file };
    struct xy_tls_client_options options = {
        .library = library,
        .trust = o->insecure ? XY_TLS_TRUST_INSECURE : XY_TLS_TRUST_CA,
        .ca_file = o->insecure ? NULL : o->ca_file,
        .certificate = o->certificate_file ? &own : NULL,
    };
    struct xy_tls_error why = { "" };
    config->tls = xy_tls_config_client(&options, &why);
    return config->tls ? XYLEM_OK : fail(error, size, XYLEM_INVALID, why.text);
}

enum xylem_status xy_config_init(struct xy_config *config, const struct xylem_options *options,
                                 const struct xy_env *env, char *error, size_t error_size)
{
    *config = (struct xy_config){ 0 };
    if (options->size < OPTIONS_SIZE_MIN)
        return fail(error, error_size, XYLEM_INVALID, "options.size is not set: start with XYLEM_OPTIONS");
    config->arena = xy_arena_new();
    if (!config->arena)
        return fail(error, error_size, XYLEM_NO_MEMORY, "out of memory");
    copy_options(config, options);
    enum xylem_status status = read_address(config, env, error, error_size);
    if (status == XYLEM_OK)
        status = make_tls(config, error, error_size);
    if (status == XYLEM_OK && xy_arena_failed(config->arena))
        status = fail(error, error_size, XYLEM_NO_MEMORY, "out of memory");
    if (status != XYLEM_OK)
        xy_config_free(config);
    return status;
}

static void wipe(const char *secret)
{
    /* The arena's copy is ours to overwrite; volatile so that it is not optimised away. */
    for (volatile char *p = (volatile char *)(uintptr_t)secret; p && *p; p++)
        *p = 0;
}

void xy_config_free(struct xy_config *config)
{
    if (config->arena)
        wipe(config->o.password);
    xy_tls_config_unref(&config->tls);
    xy_arena_free(&config->arena);
    *config = (struct xy_config){ 0 };
}
