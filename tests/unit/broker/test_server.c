/* The whole broker of one process: it starts, reloads and stops, says why it cannot, and makes what it needs: certificate,
 * and word to whoever supervises it. */
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/certificate.h"
#include "broker/notify.h"
#include "broker/server.h"
#include "broker/shard/env_system.h"

static char folder[] = "/tmp/xylem-server-XXXXXX";
static struct log *logger;

static struct config *config(const char *more)
{
    struct config *made = NULL;
    struct xy_buf errors = { 0 };
    char text[1024];
    (void)snprintf(text, sizeof(text), "domain = \"example.org\"; data_dir = \"%s\"; shards = 2; %s", folder,
                   more);
    if (!config_parse("test", xy_str(text), &made, &errors))
        fail_msg("%.*s", XY_ARG(xy_buf_view(&errors)));
    return made;
}

static const char *path(const char *name)
{
    static char text[256];
    (void)snprintf(text, sizeof(text), "%s/%s", folder, name);
    return text;
}

static const char *listening(void)
{
    static char text[256];
    (void)snprintf(text, sizeof(text),
                   "listen { c2s = [\"127.0.0.1:0\"]; c2s_tls = [\"127.0.0.1:0\"]; local = \"%s/x.sock\"; }",
                   folder);
    return text;
}

static int local_connect(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval patience = { .tv_sec = 10 };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/x.sock", folder);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* Reads until the text comes, or the end. */
static bool reads(int fd, const char *what)
{
    char text[8192];
    size_t len = 0;
    while (len < sizeof(text) - 1) {
        ssize_t n = recv(fd, text + len, sizeof(text) - 1 - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        text[len] = '\0';
        if (strstr(text, what))
            return true;
    }
    return false;
}

#define HEADER                                                                                               \
    "<stream:stream version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

/* Started, spoken to, reloaded, stopped; and again, with what it kept. */
static void test_life(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct xy_buf error = { 0 };
        struct config *first = config(listening()), *second = config(listening());
        struct server *server = server_start(&first, logger, &env_system, &error);
        if (!server)
            fail_msg("%.*s", XY_ARG(xy_buf_view(&error)));
        assert_null(first); /* taken */
        int fd = local_connect();
        assert_int_equal(send(fd, HEADER, strlen(HEADER), 0), (ssize_t)strlen(HEADER));
        assert_true(reads(fd, "</stream:features>"));
        assert_true(server_reload(server, &second, &error));
        assert_null(second);
        server_stop(&server);
        assert_null(server);
        assert_true(reads(fd, "<system-shutdown"));
        close(fd);
        assert_int_not_equal(access(path("x.sock"), F_OK), 0);
        xy_buf_free(&error);
    }
}

static void assert_cannot_start(const char *more, const char *why)
{
    struct xy_buf error = { 0 };
    struct config *made = config(more);
    assert_null(server_start(&made, logger, &env_system, &error));
    assert_null(made);
    xy_buf_char(&error, '\0');
    if (!strstr(error.data, why))
        fail_msg("\"%s\" is not in \"%s\"", why, error.data);
    xy_buf_free(&error);
}

static void test_cannot_start(void **state)
{
    (void)state;
    assert_cannot_start("listen { c2s = [\"192.0.2.9:0\"]; c2s_tls = []; local = \"\"; }",
                        "does not have that address");
    assert_cannot_start("listen { c2s = []; c2s_tls = []; local = \"\"; } tls { certificate = \"/no/c.pem\"; "
                        "key = \"/no/k.pem\"; }",
                        "/no/c.pem");
}

/* The old one stays in place. */
static void test_bad_reload(void **state)
{
    (void)state;
    struct xy_buf error = { 0 };
    struct config *first = config(listening());
    struct config *bad = config("tls { certificate = \"/no/c.pem\"; key = \"/no/k.pem\"; }");
    struct server *server = server_start(&first, logger, &env_system, &error);
    assert_non_null(server);
    assert_false(server_reload(server, &bad, &error));
    assert_non_null(bad); /* still the caller's */
    assert_true(error.len > 0);
    config_free(&bad);
    int fd = local_connect();
    assert_int_equal(send(fd, HEADER, strlen(HEADER), 0), (ssize_t)strlen(HEADER));
    assert_true(reads(fd, "</stream:features>"));
    close(fd);
    server_stop(&server);
    xy_buf_free(&error);
}

/* Made once, the key readable by nobody else. */
static void test_certificate(void **state)
{
    (void)state;
    struct xy_buf error = { 0 };
    struct config *made = config("");
    struct stat first, second;
    unlink(path("tls-certificate.pem"));
    unlink(path("tls-key.pem"));
    struct xy_tls_config *tls = certificate_load(made, &env_system, &error);
    assert_non_null(tls);
    xy_tls_config_unref(&tls);
    assert_int_equal(stat(path("tls-key.pem"), &first), 0);
    assert_int_equal(first.st_mode & 0777, 0600);
    tls = certificate_load(made, &env_system, &error);
    assert_non_null(tls);
    xy_tls_config_unref(&tls);
    assert_int_equal(stat(path("tls-key.pem"), &second), 0);
    assert_int_equal(first.st_mtim.tv_nsec, second.st_mtim.tv_nsec);
    unlink(path("tls-key.pem")); /* half of it is worse than none */
    assert_null(certificate_load(made, &env_system, &error));
    assert_true(error.len > 0);
    unlink(path("tls-certificate.pem"));
    config_free(&made);
    xy_buf_free(&error);
}

static void test_notify(void **state)
{
    (void)state;
    char text[64];
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    unsetenv("NOTIFY_SOCKET");
    notify("READY=1"); /* nobody supervises */
    setenv("NOTIFY_SOCKET", "relative", 1);
    notify("READY=1");
    setenv("NOTIFY_SOCKET", path("nobody-listens"), 1);
    notify("READY=1");
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    setenv("NOTIFY_SOCKET", address.sun_path, 1);
    notify("READY=1");
    ssize_t n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
    assert_int_equal(n, 7);
    assert_memory_equal(text, "READY=1", 7);
    close(fd);
    unlink(address.sun_path);
    unsetenv("NOTIFY_SOCKET");
}

static int take_away(const char *name, const struct stat *there, int type, struct FTW *where)
{
    (void)there;
    (void)type;
    (void)where;
    return remove(name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),       cmocka_unit_test(test_cannot_start),
        cmocka_unit_test(test_bad_reload), cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_notify),
    };
    if (!mkdtemp(folder))
        return 1;
    int null = open("/dev/null", O_WRONLY);
    logger = log_new(&env_system, null);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    log_free(&logger);
    close(null);
    nftw(folder, take_away, 8, FTW_DEPTH | FTW_PHYS);
    return failed;
}
