/* The check of a stopped broker's store, in a process of its own: damaged pages may end whoever reads them, and then
 * somebody must be left to say so. */
#include "broker/maintenance.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/store/check.h"

static void print_line(void *ctx, const char *line)
{
    FILE *out = ctx;
    (void)fprintf(out, "%s\n", line);
    (void)fflush(out);
}

static int check(const struct config *config, const struct xy_env *env, FILE *out)
{
    struct store_options options = { .data_dir = config->data_dir.data,
                                     .shards = 1,
                                     .env = env,
                                     .log_bytes_max = config->store.log_max,
                                     .map_bytes = config->store.map_size };
    struct store_check result = { .say = print_line, .ctx = out };
    return store_check(&options, &result) ? EXIT_SUCCESS : EXIT_FAILURE;
}

int maintenance_check_store(const struct config *config, const struct xy_env *env, FILE *out)
{
    int status;
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        /* damage that kills the child must look like that, whoever else wants to handle these signals */
        (void)signal(SIGSEGV, SIG_DFL);
        (void)signal(SIGBUS, SIG_DFL);
        _exit(check(config, env, out));
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        (void)fprintf(out, "the check cannot be started: memory or processes are short\n");
        return EXIT_FAILURE;
    }
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    (void)fprintf(out, "damaged: reading the files ended the check (%s)\n", strsignal(WTERMSIG(status)));
    return EXIT_FAILURE;
}
