/* Configurations are shared by threads: several shake hands at once while one reloads. Meant for the tsan preset; under
 * the others it proves that nothing fails. */
#include "tests/unit/core/tls/pair.h"

#include <pthread.h>

#define THREADS    3
#define HANDSHAKES 8

struct shared {
    pthread_mutex_t lock;
    struct xy_tls_config *server, *client;
};

static struct xy_tls_config *current_server(struct shared *shared)
{
    pthread_mutex_lock(&shared->lock);
    struct xy_tls_config *config = xy_tls_config_ref(shared->server);
    pthread_mutex_unlock(&shared->lock);
    return config;
}

static void *shake_hands(void *arg)
{
    struct shared *shared = arg;
    uintptr_t done = 0;
    struct xy_buf ticket = { 0 };
    for (size_t i = 0; i < HANDSHAKES; i++) {
        struct pair pair;
        struct xy_tls_config *server = current_server(shared);
        pair_open(&pair, shared->client, server, "example.org");
        xy_tls_config_unref(&server);
        if (ticket.len > 0)
            xy_tls_session_restore(pair.client, xy_buf_view(&ticket));
        done += pair_handshake(&pair);
        xy_buf_reset(&ticket);
        xy_tls_session_save(pair.client, &ticket);
        pair_close(&pair);
    }
    xy_buf_free(&ticket);
    return (void *)done;
}

static void test_threads_share_a_configuration(void **state)
{
    (void)state;
    struct made made;
    made_now(&made, "example.org");
    struct shared shared = { .lock = PTHREAD_MUTEX_INITIALIZER,
                             .server = config_server(&made),
                             .client = config_client(&made) };
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, shake_hands, &shared), 0);
    for (size_t i = 0; i < 5; i++) {
        struct xy_tls_config *renewed = config_server(&made);
        pthread_mutex_lock(&shared.lock);
        struct xy_tls_config *old = shared.server;
        shared.server = renewed;
        pthread_mutex_unlock(&shared.lock);
        xy_tls_config_unref(&old);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *done;
        pthread_join(threads[i], &done);
        assert_int_equal((uintptr_t)done, HANDSHAKES);
    }
    xy_tls_config_unref(&shared.server);
    xy_tls_config_unref(&shared.client);
    made_free(&made);
}

int main(void)
{
    xy_tls_warm_up();
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads_share_a_configuration) };
    int failed = 0;
    while (libraries_next())
        failed += cmocka_run_group_tests_name(libraries_name(), tests, NULL, NULL);
    return failed;
}
