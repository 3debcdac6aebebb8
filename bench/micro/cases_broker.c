/* What a stanza costs on its way through the broker: session, router, publish-subscribe, store (in memory), sessions. One
 * shard, no sockets: what clients would read is counted and dropped. */
#include "bench/micro/micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config.h"
#include "broker/net/link.h"
#include "broker/pubsub/pubsub.h"
#include "broker/router/router.h"
#include "broker/session/session.h"
#include "broker/shard/workers.h"
#include "broker/store/backend.h"
#include "core/base/assert.h"
#include "core/base/encoding.h"
#include "core/base/list.h"
#include "core/namespaces.h"
#include "xylem/store/v1/records.pb-c.h"

#define DOMAIN  "example.org"
#define SERVICE "pubsub." DOMAIN

enum { SUBSCRIBERS = 100, ROOT = 0 };

struct client {
    struct link link;
    uint64_t bytes, writes; /* that reached it */
};

struct broker {
    struct xy_env env;
    uint64_t now_us, random;
    struct config *config;
    struct store *store;
    struct shard_group *group;
    struct shard *shard;
    struct client sender, readers[SUBSCRIBERS];
    struct xy_buf text; /* what the sender says each time */
};

/* --- the world ------------------------------------------------------------------------------------------------------ */

static uint64_t now_us(void *ctx)
{
    return ((struct broker *)ctx)->now_us;
}

static uint64_t wall_us(void *ctx)
{
    return UINT64_C(1767225600000000) + ((struct broker *)ctx)->now_us;
}

static void fixed_random(void *ctx, void *out, size_t len)
{
    struct broker *broker = ctx;
    for (size_t i = 0; i < len; i++) {
        broker->random = broker->random * UINT64_C(6364136223846793005) + 1;
        ((uint8_t *)out)[i] = (uint8_t)(broker->random >> 56);
    }
}

static void wake(void *ctx, unsigned shard)
{
    (void)ctx;
    (void)shard;
}

static void stop(void *ctx, const char *why)
{
    (void)ctx;
    (void)fprintf(stderr, "micro: the store failed: %s\n", why);
    exit(1);
}

/* Until nothing moves any more; a millisecond passes, so that timers are part of it. */
static void settle(struct broker *broker)
{
    do {
        while (shard_turn(broker->shard) == 0 || shard_has_mail(broker->shard)) {
        }
    } while (store_step_commit(broker->store));
    broker->now_us += 1000;
}

/* --- clients -------------------------------------------------------------------------------------------------------- */

static bool link_write(struct link *link, struct xy_str bytes)
{
    struct client *client = xy_container_of(link, struct client, link);
    client->bytes += bytes.len;
    client->writes++;
    return true;
}

static void link_pause(struct link *link, bool paused)
{
    (void)link;
    (void)paused;
}

static void link_sleep(struct link *link)
{
    (void)link;
}

static void link_close(struct link *link)
{
    (void)link;
    (void)fprintf(stderr, "micro: the broker closed a connection\n");
    exit(1);
}

static const struct link_calls link_calls = {
    .write = link_write,
    .read_pause = link_pause,
    .close = link_close,
    .sleep = link_sleep,
};

static void say(struct broker *broker, struct client *client, struct xy_str text)
{
    client->link.shard->link_events->input(&client->link, text.data, text.len);
    settle(broker);
}

/* Logged in by SASL EXTERNAL as on the local socket, which derives no key. */
static void login(struct broker *broker, struct client *client, const char *bare, unsigned number)
{
    static const struct xy_str header = XY_STR_INIT(
        "<stream:stream xmlns='jabber:client' xmlns:stream='" NS_STREAM "' to='" DOMAIN "' version='1.0'>");
    struct xy_buf text = { 0 };
    client->link = (struct link){
        .calls = &link_calls, .shard = broker->shard, .kind = LINK_LOCAL, .loopback = true, .uid = ROOT
    };
    broker->shard->link_events->opened(&client->link);
    say(broker, client, header);
    xy_buf_lit(&text, "<auth xmlns='" NS_SASL "' mechanism='EXTERNAL'>");
    xy_base64_encode(&text, xy_str(bare));
    xy_buf_lit(&text, "</auth>");
    say(broker, client, xy_buf_view(&text));
    say(broker, client, header);
    xy_buf_reset(&text);
    xy_buf_printf(&text,
                  "<iq type='set' id='b'><bind xmlns='" NS_BIND
                  "'><resource>r%u</resource></bind></iq><presence/>",
                  number);
    say(broker, client, xy_buf_view(&text));
    xy_buf_free(&text);
}

/* --- the broker ----------------------------------------------------------------------------------------------------- */

static void account_put(struct broker *broker, const char *jid)
{
    Xylem__Store__V1__AccountPut put = XYLEM__STORE__V1__ACCOUNT_PUT__INIT;
    put.jid = (char *)(uintptr_t)jid;
    (void)store_append(broker->shard->store, RECORD_ACCOUNT_PUT, &put.base);
}

static struct broker *broker_new(void)
{
    struct broker *broker = calloc(1, sizeof(*broker));
    struct xy_buf errors = { 0 };
    broker->now_us = 1000000;
    broker->env = (struct xy_env){ now_us, wall_us, fixed_random, broker };
    bool ok = config_parse("micro", XY_STR("domain = \"" DOMAIN "\";"), &broker->config, &errors);
    broker->store = store_open(&(struct store_options){ .backend = store_memory_backend(store_memory_new()),
                                                        .shards = 1,
                                                        .env = &broker->env,
                                                        .committed = wake,
                                                        .failed = stop },
                               &errors);
    xy_assert(ok && broker->store != NULL);
    broker->group = shard_group_new(&(struct shard_group_options){ .count = 1,
                                                                   .env = &broker->env,
                                                                   .config = broker->config,
                                                                   .store = broker->store,
                                                                   .hash_seed = 7,
                                                                   .wake = wake });
    broker->shard = shard_group_get(broker->group, 0);
    broker->shard->workers = workers_new(broker->group, 0);
    ok = sessions_init(broker->shard) && router_init(broker->shard) && pubsub_init(broker->shard);
    xy_assert(ok);
    account_put(broker, "juliet@" DOMAIN);
    account_put(broker, "romeo@" DOMAIN);
    settle(broker);
    login(broker, &broker->sender, "juliet@" DOMAIN, 0);
    return broker;
}

static void payload(struct broker *broker)
{
    for (unsigned i = 0; i < MICRO_PAYLOAD_BYTES; i++)
        xy_buf_char(&broker->text, (char)('a' + i % 26));
}

/* --- the cases ------------------------------------------------------------------------------------------------------ */

static void *prepare_message(void)
{
    struct broker *broker = broker_new();
    login(broker, &broker->readers[0], "romeo@" DOMAIN, 0);
    xy_buf_lit(&broker->text, "<message to='romeo@" DOMAIN "/r0' type='chat' id='m'><body>");
    payload(broker);
    xy_buf_lit(&broker->text, "</body></message>");
    return broker;
}

/* From one client to another. */
static void message(void *state, unsigned operations)
{
    struct broker *broker = state;
    uint64_t before = broker->readers[0].bytes;
    for (unsigned i = 0; i < operations; i++)
        say(broker, &broker->sender, xy_buf_view(&broker->text));
    xy_assert(broker->readers[0].bytes - before >= (uint64_t)operations * MICRO_PAYLOAD_BYTES);
}

static struct broker *with_node(const char *persist)
{
    struct broker *broker = broker_new();
    xy_buf_printf(&broker->text,
                  "<iq type='set' id='c' to='" SERVICE "'><pubsub xmlns='" NS_PUBSUB
                  "'><create node='n'/><configure><x xmlns='jabber:x:data' type='submit'>"
                  "<field var='FORM_TYPE'><value>" NS_PUBSUB "#node_config</value></field>"
                  "<field var='pubsub#persist_items'><value>%s</value></field>"
                  "<field var='pubsub#max_items'><value>10</value></field>"
                  "<field var='pubsub#notify_retract'><value>0</value></field></x></configure></pubsub></iq>",
                  persist);
    say(broker, &broker->sender, xy_buf_view(&broker->text));
    xy_buf_reset(&broker->text);
    xy_buf_lit(&broker->text, "<iq type='set' id='p' to='" SERVICE "'><pubsub xmlns='" NS_PUBSUB
                              "'><publish node='n'><item><reading xmlns='urn:example:reading'>");
    payload(broker);
    xy_buf_lit(&broker->text, "</reading></item></publish></pubsub></iq>");
    return broker;
}

static void *prepare_publish(void)
{
    return with_node("1");
}

/* To a node that keeps items: to disk, then the answer. */
static void publish(void *state, unsigned operations)
{
    struct broker *broker = state;
    struct store_stats before, after;
    store_stats(broker->store, &before);
    for (unsigned i = 0; i < operations; i++)
        say(broker, &broker->sender, xy_buf_view(&broker->text));
    store_stats(broker->store, &after);
    xy_assert(after.records - before.records >= operations);
}

static void *prepare_fan_out(void)
{
    struct broker *broker = with_node("0");
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        struct xy_buf subscribe = { 0 };
        login(broker, &broker->readers[i], "romeo@" DOMAIN, i);
        xy_buf_printf(&subscribe,
                      "<iq type='set' id='s' to='" SERVICE "'><pubsub xmlns='" NS_PUBSUB
                      "'><subscribe node='n' jid='romeo@" DOMAIN "/r%u'/></pubsub></iq>",
                      i);
        say(broker, &broker->readers[i], xy_buf_view(&subscribe));
        xy_buf_free(&subscribe);
    }
    return broker;
}

/* An operation is a delivery; one publish to a node that keeps nothing makes a hundred. */
static void fan_out(void *state, unsigned operations)
{
    struct broker *broker = state;
    uint64_t before = broker->readers[SUBSCRIBERS - 1].writes;
    for (unsigned i = 0; i < operations / SUBSCRIBERS; i++)
        say(broker, &broker->sender, xy_buf_view(&broker->text));
    xy_assert(broker->readers[SUBSCRIBERS - 1].writes - before == operations / SUBSCRIBERS);
}

const struct micro_case micro_message = { "message", 2000, prepare_message, message };
const struct micro_case micro_publish = { "publish", 1000, prepare_publish, publish };
const struct micro_case micro_fan_out = { "fan-out", 50000, prepare_fan_out, fan_out };
