/* Start, reload and stop. Order matters here and only here: store before shards, rooms from the bottom up, listeners
 * last; the other way round at the end. */
#include "broker/server.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/certificate.h"
#include "broker/log.h"
#include "broker/net/net.h"
#include "broker/pubsub/pubsub.h"
#include "broker/router/router.h"
#include "broker/secret.h"
#include "broker/session/session.h"
#include "broker/shard/env_system.h"
#include "broker/shard/workers.h"
#include "broker/store/store.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"

#define SERVER_QUIET_POLL_US (2u * 1000)
#define SERVER_QUIET_TRIES_MAX                                                                               \
    1500u /* times the poll: what cannot be handled by then is not acknowledged either */
#define SERVER_CLOSE_POLL_US      1000u
#define SERVER_CLOSE_ROUNDS       5000u /* times the poll, at most */
#define SERVER_FAREWELL_TRIES_MAX 250u
#define SERVER_RETIRED_MAX        1000u
#define LOG_KEY_BYTES             64u
#define SERVER_STORE_RESERVE      (64u << 20)

struct server {
    struct config *config;
    struct config *retired[SERVER_RETIRED_MAX]; /* replaced by reloads; shards may still point into them */
    unsigned retired_count;
    struct log *log;
    const struct xy_env *env;
    struct store *store;
    struct shard_group *group;
    struct workers *workers;
    struct xy_tls_config *tls;
    pthread_t *threads;
    unsigned shards, running;
    unsigned char secret[SECRET_BYTES];
    sem_t reached; /* shards that finished the step asked for */
};

/* --- the store calls ---------------------------------------------------------------------------------------------- */

static void on_committed(void *ctx, unsigned shard)
{
    struct server *server = ctx;
    if (server->group)
        net_wake(shard_group_get(server->group, shard));
}

/* Nothing may be acknowledged any more, so nothing may run any more. */
static void on_store_failed(void *ctx, const char *why)
{
    struct server *server = ctx;
    log_error(server->log, "the store failed: stopping without acknowledging anything further",
              LOG_Z("why", why));
    _exit(1);
}

static void on_store_full(void *ctx, bool full)
{
    struct server *server = ctx;
    if (full)
        log_warning(server->log, "the store is full (disk, store.log_max or store.map_size): new data is "
                                 "refused until there is room");
    else
        log_info(server->log, "the store has room again");
}

/* The row stays where it is, for whoever can make sense of it. */
static void on_store_damaged(void *ctx, enum store_table table, struct xy_str key)
{
    struct server *server = ctx;
    char name[LOG_KEY_BYTES * 2];
    size_t len = key.len < LOG_KEY_BYTES ? key.len : LOG_KEY_BYTES;
    xy_hex_encode(name, key.data, len);
    log_error(server->log,
              "a stored row does not match its checksum: the disk or memory damaged it; see "
              "xylemd --check-store, and restore a backup",
              LOG_Z("table", store_table_name(table)), LOG_STR("row", xy_str_n(name, 2 * len)));
}

static void on_mail(void *ctx, unsigned shard)
{
    struct server *server = ctx;
    net_wake(shard_group_get(server->group, shard));
}

/* --- start -------------------------------------------------------------------------------------------------------- */

static bool store_start(struct server *server, struct xy_buf *error)
{
    const struct config *config = server->config;
    struct store_options options = {
        .data_dir = config->data_dir.data,
        .shards = server->shards,
        .env = server->env,
        .threads = true,
        .log = (enum store_log_kind)config->store.log,
        .log_bytes_max = config->store.log_max,
        .checkpoint_bytes = config->store.checkpoint_bytes,
        .checkpoint_records = config->store.checkpoint_records,
        .map_bytes = config->store.map_size,
        .reserve_bytes = SERVER_STORE_RESERVE,
        .committed = on_committed,
        .failed = on_store_failed,
        .full = on_store_full,
        .damaged = on_store_damaged,
        .ctx = server,
    };
    server->store = store_open(&options, error);
    if (server->store != NULL && store_was_restored(server->store))
        log_warning(server->log,
                    "the data were restored from a backup: every node begins a new epoch, sessions of "
                    "before cannot be resumed");
    if (server->store != NULL && store_log_changed(server->store))
        log_info(server->log,
                 "the store's log was kept in another way before: it is kept as store.log says now");
    return server->store != NULL;
}

static bool shards_start(struct server *server)
{
    struct shard_group_options options = { .count = server->shards,
                                           .env = server->env,
                                           .config = server->config,
                                           .log = server->log,
                                           .store = server->store,
                                           .secret = xy_str_n((const char *)server->secret, SECRET_BYTES),
                                           .wake = on_mail,
                                           .ctx = server };
    xy_random(server->env, &options.hash_seed, sizeof(options.hash_seed));
    struct shard_group *group = server->group = shard_group_new(&options);
    server->workers = workers_new(group, env_system_cores());
    bool ok = server->workers != NULL;
    for (unsigned i = 0; ok && i < server->shards; i++) {
        struct shard *shard = shard_group_get(group, i);
        shard->workers = server->workers;
        ok = net_init(shard, server->tls) && sessions_init(shard) && router_init(shard) && pubsub_init(shard);
    }
    return ok;
}

static bool listen_all(struct server *server, struct xy_buf *error)
{
    const struct config *config = server->config;
    struct shard *shard = shard_group_get(server->group, 0);
    for (size_t i = 0; i < config->listen.c2s.count; i++) {
        if (!net_listen_tcp(shard, config->listen.c2s.items[i], LINK_C2S, error))
            return false;
    }
    for (size_t i = 0; i < config->listen.c2s_tls.count; i++) {
        if (!net_listen_tcp(shard, config->listen.c2s_tls.items[i], LINK_C2S_TLS, error))
            return false;
    }
    return config->listen.local.len == 0 || net_listen_local(shard, config->listen.local, error);
}

static void *shard_thread(void *shard)
{
    net_run(shard);
    return NULL;
}

static bool threads_start(struct server *server)
{
    net_listen_start(shard_group_get(server->group, 0));
    server->threads = calloc(server->shards, sizeof(pthread_t));
    if (server->threads == NULL)
        return false;
    for (unsigned i = 0; i < server->shards; i++) {
        if (pthread_create(&server->threads[i], NULL, shard_thread, shard_group_get(server->group, i)) != 0)
            return false;
        server->running++;
    }
    return true;
}

static void server_free(struct server *server);

/* Which library is behind TLS, and how new. */
static void tls_tell(const struct server *server)
{
    char release[XY_TLS_RELEASE_BYTES];
    const struct xy_tls_library *library = xy_tls_config_library(server->tls);
    log_info(server->log, "TLS", LOG_Z("library", xy_tls_library_name(library)),
             LOG_Z("release", xy_tls_library_release(library, release)),
             LOG_Z("newest", xy_tls_newest(library)));
}

struct server *server_start(struct config **config, struct log *log, const struct xy_env *env,
                            struct xy_buf *error)
{
    struct server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        xy_buf_printf(error, "memory is short");
        return NULL;
    }
    server->config = *config;
    *config = NULL;
    server->log = log;
    server->env = env;
    server->shards = (unsigned)server->config->shards;
    sem_init(&server->reached, 0, 0);
    xy_tls_warm_up();
    bool ok = store_start(server, error);
    ok = ok && secret_load(server->config->data_dir.data, env, server->secret, error);
    if (ok)
        server->tls = certificate_load(server->config, env, error);
    ok = ok && server->tls != NULL;
    if (ok)
        tls_tell(server);
    if (ok && !shards_start(server)) {
        xy_buf_printf(error,
                      "cannot start the shards: memory or threads are short, or a domain or administrator in "
                      "the configuration is not a valid address");
        ok = false;
    }
    ok = ok && listen_all(server, error);
    if (ok && !threads_start(server)) {
        xy_buf_printf(error, "cannot start threads");
        ok = false;
    }
    if (ok)
        return server;
    server_stop(&server);
    return NULL;
}

/* --- reload ------------------------------------------------------------------------------------------------------- */

struct reload_mail {
    const struct config *config;
    struct xy_tls_config *tls; /* a reference of this mail's own */
};

static void on_reload(struct shard *shard, void *payload)
{
    struct reload_mail *mail = payload;
    shard->config = mail->config;
    net_set_tls(shard, mail->tls);
    router_reload(shard);
    sessions_reload(shard);
    pubsub_reload(shard);
    xy_tls_config_unref(&mail->tls);
}

static void warn_fixed(struct server *server, const struct config *config)
{
    const struct config *old = server->config;
    bool same = config->shards == old->shards && xy_str_eq(config->data_dir, old->data_dir) &&
                config->domains.count == old->domains.count &&
                xy_str_eq(config->domains.items[0], old->domains.items[0]);
    if (!same)
        log_warning(server->log, "domains, data_dir, shards and listen change only at a restart");
}

bool server_reload(struct server *server, struct config **config, struct xy_buf *error)
{
    struct xy_tls_config *tls = certificate_load(*config, server->env, error);
    if (tls == NULL || server->retired_count == SERVER_RETIRED_MAX) {
        if (tls != NULL)
            xy_buf_printf(error, "reloaded %u times: the next change needs a restart", SERVER_RETIRED_MAX);
        xy_tls_config_unref(&tls);
        return false;
    }
    warn_fixed(server, *config);
    log_configure(server->log, (enum log_level)(*config)->log.level, (enum log_format)(*config)->log.format);
    server->retired[server->retired_count++] = server->config;
    server->config = *config;
    *config = NULL;
    for (unsigned i = 0; i < server->shards; i++) {
        struct reload_mail mail = { server->config, xy_tls_config_ref(tls) };
        shard_post(server->group, i, on_reload, &mail, sizeof(mail));
    }
    bool changed = xy_tls_config_library(tls) != xy_tls_config_library(server->tls);
    xy_tls_config_unref(&server->tls);
    server->tls = tls;
    if (changed)
        tls_tell(server);
    return true;
}

/* --- stop --------------------------------------------------------------------------------------------------------- */

struct quiet {
    struct shard_timer timer;
    struct server *server;
    unsigned tries;
};

/* Until everything that was read is handled and on disk. */
static void on_quiet_poll(struct shard *shard, struct shard_timer *timer)
{
    struct quiet *quiet = xy_container_of(timer, struct quiet, timer);
    bool durable = store_committed(shard->store) >= store_ticket(shard->store);
    if ((sessions_quiet(shard) && durable) || ++quiet->tries >= SERVER_QUIET_TRIES_MAX) {
        sem_post(&quiet->server->reached);
        free(quiet);
        return;
    }
    shard_timer_set(shard, timer, xy_now_us(shard->env) + SERVER_QUIET_POLL_US);
}

static void poll_until(struct shard *shard, struct server *server,
                       void (*reached)(struct shard *shard, struct shard_timer *timer))
{
    struct quiet *quiet = calloc(1, sizeof(*quiet));
    xy_assert(quiet != NULL);
    quiet->server = server;
    quiet->timer.fn = reached;
    shard_timer_set(shard, &quiet->timer, xy_now_us(shard->env));
}

static void on_quiesce(struct shard *shard, void *payload)
{
    if (shard->index == 0)
        net_listen_stop(shard);
    pubsub_quiesce(shard);
    sessions_quiesce(shard);
    poll_until(shard, *(struct server **)payload, on_quiet_poll);
}

/* Until the last bytes are sent and the peers have closed too, which most do at once. */
static void on_farewell_poll(struct shard *shard, struct shard_timer *timer)
{
    struct quiet *quiet = xy_container_of(timer, struct quiet, timer);
    if (net_is_empty(shard) || ++quiet->tries >= SERVER_FAREWELL_TRIES_MAX) {
        sem_post(&quiet->server->reached);
        free(quiet);
        return;
    }
    shard_timer_set(shard, timer, xy_now_us(shard->env) + SERVER_QUIET_POLL_US);
}

static void on_shutdown(struct shard *shard, void *payload)
{
    sessions_shutdown(shard);
    poll_until(shard, *(struct server **)payload, on_farewell_poll);
}

static void ask_all(struct server *server, shard_fn *fn)
{
    for (unsigned i = 0; i < server->running; i++)
        shard_post(server->group, i, fn, &server, sizeof(server));
    for (unsigned i = 0; i < server->running; i++)
        while (sem_wait(&server->reached) != 0)
            ;
}

static void threads_stop(struct server *server)
{
    if (server->running == server->shards) {
        ask_all(server, on_quiesce);
        ask_all(server, on_shutdown);
    }
    workers_free(&server->workers);
    for (unsigned i = 0; i < server->running; i++)
        net_stop(shard_group_get(server->group, i));
    for (unsigned i = 0; i < server->running; i++)
        pthread_join(server->threads[i], NULL);
}

/* Somebody has mail, from whichever shard took its turn last, or waits for a commit. */
static bool shards_busy(struct server *server)
{
    bool busy = false;
    for (unsigned i = 0; i < server->shards; i++) {
        const struct shard *shard = shard_group_get(server->group, i);
        busy |= shard_has_mail(shard) || store_committed(shard->store) < store_ticket(shard->store);
    }
    return busy;
}

/* What the rooms say to each other while they close (claims released, messages returned) is still heard: turns are taken
 * until no mail is left and everything is on disk. */
static void shards_close(struct server *server)
{
    for (unsigned i = 0; i < server->shards; i++)
        sessions_end_all(shard_group_get(server->group, i));
    /* Twice: the first quiet look may be the one that saw the last commit, whose followers then still run. */
    for (unsigned round = 0, quiet = 0; quiet < 2 && round < SERVER_CLOSE_ROUNDS; round++) {
        for (unsigned i = 0; i < server->shards; i++)
            shard_turn(shard_group_get(server->group, i));
        quiet = shards_busy(server) ? 0 : quiet + 1;
        if (quiet == 0)
            usleep(SERVER_CLOSE_POLL_US);
    }
}

static void server_free(struct server *server)
{
    for (unsigned i = 0; server->group && i < server->shards; i++) {
        struct shard *shard = shard_group_get(server->group, i);
        pubsub_free(shard);
        router_free(shard);
        sessions_free(shard);
    }
    workers_free(&server->workers);
    store_close(&server->store);
    for (unsigned i = 0; server->group && i < server->shards; i++) /* the store woke their loops until now */
        net_free(shard_group_get(server->group, i));
    shard_group_free(&server->group);
    xy_tls_config_unref(&server->tls);
    while (server->retired_count > 0)
        config_free(&server->retired[--server->retired_count]);
    config_free(&server->config);
    sem_destroy(&server->reached);
    free(server->threads);
    free(server);
}

void server_stop(struct server **server_pointer)
{
    struct server *server = *server_pointer;
    *server_pointer = NULL;
    if (server == NULL)
        return;
    if (server->running > 0) {
        threads_stop(server);
        shards_close(server);
    }
    server_free(server);
}
