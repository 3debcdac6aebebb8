/* xylemd: reads the configuration, serves until it is told to stop. Exit codes: 0 stopped on request, 1 runtime failure,
 * 2 configuration. */
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "broker/config.h"
#include "broker/log.h"
#include "broker/maintenance.h"
#include "broker/notify.h"
#include "broker/router/users.h"
#include "broker/server.h"
#include "broker/shard/env_system.h"

#define EXIT_CONFIG 2

static const char usage[] =
    "usage: xylemd [--config FILE] [--check-config | --check-store]\n"
    "       xylemd [--config FILE] --users add|import|list|passwd|remove ...\n"
    "\n"
    "  --config FILE    read the configuration from FILE, not /etc/xylem/xylemd.conf (see xylemd.conf(5))\n"
    "  --check-config   say what is wrong with it, and exit\n"
    "  --check-store    say whether the data of a stopped broker are sound, and exit\n"
    "  --users ...      change the accounts of a stopped broker (`xylem user --offline` calls this)\n"
    "  --version        print the version and the libraries for TLS\n";

enum mode { MODE_SERVE, MODE_CHECK, MODE_CHECK_STORE, MODE_USERS };

static void print_version(void)
{
    char release[XY_TLS_RELEASE_BYTES];
    const struct xy_tls_library *library;
    puts("xylemd " XYLEM_VERSION);
    for (size_t i = 0; (library = xy_tls_library_at(i)) != NULL; i++)
        printf("%s: %s, up to %s\n", xy_tls_library_name(library), xy_tls_library_release(library, release),
               xy_tls_newest(library));
}

static struct config *config_or_exit(const char *path)
{
    struct config *config = NULL;
    struct xy_buf errors = { 0 };
    if (!config_load(path, &config, &errors)) {
        fprintf(stderr, "%.*s", XY_ARG(xy_buf_view(&errors)));
        if (errors.len > 0 && errors.data[errors.len - 1] != '\n')
            fputc('\n', stderr);
        xy_buf_free(&errors);
        exit(EXIT_CONFIG);
    }
    xy_buf_free(&errors);
    return config;
}

/* Sessions are descriptors: take as many as the system allows. */
static void raise_descriptor_limit(struct log *log)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warning(log, "cannot raise the limit of open files");
}

static void reload(struct server *server, struct log *log, const char *path)
{
    struct config *config = NULL;
    struct xy_buf errors = { 0 };
    notify("RELOADING=1");
    if (config_load(path, &config, &errors) && server_reload(server, &config, &errors))
        log_info(log, "configuration reloaded");
    else
        log_error(log, "configuration not reloaded, the old one stays", LOG_STR("why", xy_buf_view(&errors)));
    config_free(&config);
    xy_buf_free(&errors);
    notify("READY=1");
}

/* Signals are taken by this thread alone: every other one is started with them blocked. */
static void signals_block(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int serve(const char *path, struct config *config)
{
    sigset_t signals;
    struct xy_buf error = { 0 };
    struct log *log = log_new(&env_system, STDERR_FILENO);
    log_configure(log, (enum log_level)config->log.level, (enum log_format)config->log.format);
    signals_block(&signals);
    raise_descriptor_limit(log);
    struct server *server = server_start(&config, log, &env_system, &error);
    if (server == NULL) {
        fprintf(stderr, "xylemd: %.*s\n", XY_ARG(xy_buf_view(&error)));
        xy_buf_free(&error);
        log_free(&log);
        return EXIT_FAILURE;
    }
    log_info(log, "ready");
    notify("READY=1");
    int signal_number = 0;
    while (sigwait(&signals, &signal_number) == 0 && signal_number == SIGHUP)
        reload(server, log, path);
    log_info(log, "stopping");
    notify("STOPPING=1");
    server_stop(&server);
    log_free(&log);
    xy_buf_free(&error);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' },
        { "check-config", no_argument, NULL, 'k' },
        { "check-store", no_argument, NULL, 's' },
        { "users", no_argument, NULL, 'u' },
        { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    const char *path = "/etc/xylem/xylemd.conf";
    enum mode mode = MODE_SERVE;
    int option;
    while (mode != MODE_USERS && (option = getopt_long(argc, argv, "+c:h", options, NULL)) != -1) {
        if (option == 'c') {
            path = optarg;
        } else if (option == 'k') {
            mode = MODE_CHECK;
        } else if (option == 's') {
            mode = MODE_CHECK_STORE;
        } else if (option == 'u') {
            mode = MODE_USERS;
        } else if (option == 'v') {
            print_version();
            return EXIT_SUCCESS;
        } else {
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? EXIT_SUCCESS : EXIT_CONFIG;
        }
    }
    if (mode != MODE_USERS && optind < argc) {
        fputs(usage, stderr);
        return EXIT_CONFIG;
    }
    struct config *config = config_or_exit(path);
    if (mode == MODE_SERVE)
        return serve(path, config);
    int code = EXIT_SUCCESS;
    if (mode == MODE_CHECK_STORE)
        code = maintenance_check_store(config, &env_system, stdout);
    else if (mode == MODE_USERS)
        code = users_command(config, &env_system, argc - optind, argv + optind, stdin, stdout, stderr);
    config_free(&config);
    return code;
}
