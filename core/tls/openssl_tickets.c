/* The keys of session tickets on OpenSSL, which by itself would seal with one key for as long as the configuration lives: a
 * broker that is not reloaded for a year would keep for a year what opens every recorded ticket. Called by the library
 * for each ticket made or shown, from any thread. */
#include "core/tls/openssl_backend.h"

#include <openssl/core_names.h>
#include <openssl/rand.h>

#include "core/base/assert.h"

#define DAY_S 86400

static void key_drop(struct tls_ticket_key *key)
{
    ASN1_TIME_free(key->born);
    OPENSSL_cleanse(key, sizeof *key);
    key->born = NULL;
}

static bool key_make(struct tls_ticket_key *key)
{
    key_drop(key);
    if (RAND_bytes(key->name, sizeof key->name) != 1 ||
        RAND_priv_bytes(key->cipher, sizeof key->cipher) != 1 ||
        RAND_priv_bytes(key->mac, sizeof key->mac) != 1)
        return false;
    key->born = X509_gmtime_adj(NULL, 0);
    return key->born != NULL;
}

/* A clock that went back makes a key young, not old. */
static bool key_is_older(const struct tls_ticket_key *key, uint64_t seconds)
{
    int days, rest;
    if (key->born == NULL || !ASN1_TIME_diff(&days, &rest, key->born, NULL))
        return true;
    int64_t age = (int64_t)days * DAY_S + rest;
    return age >= 0 && (uint64_t)age >= seconds;
}

/* Under the lock: the key to seal with now, made anew when the last one has served its time. NULL: there is none. */
static const struct tls_ticket_key *key_current(struct tls_tickets *tickets)
{
    xy_assert(tickets->used < 2);
    if (key_is_older(&tickets->keys[tickets->used], tickets->lifetime_s)) {
        tickets->used = 1 - tickets->used;
        if (!key_make(&tickets->keys[tickets->used]))
            return NULL;
    }
    return &tickets->keys[tickets->used];
}

/* Under the lock: the key of this name, as long as a ticket of it may be alive. */
static const struct tls_ticket_key *key_find(const struct tls_tickets *tickets, const unsigned char *name)
{
    for (size_t i = 0; i < 2; i++) {
        const struct tls_ticket_key *key = &tickets->keys[i];
        if (key->born != NULL && CRYPTO_memcmp(key->name, name, sizeof key->name) == 0)
            return key_is_older(key, 2 * (uint64_t)tickets->lifetime_s) ? NULL : key;
    }
    return NULL;
}

static bool mac_set(EVP_MAC_CTX *mac, const struct tls_ticket_key *key)
{
    unsigned char secret[sizeof key->mac];
    char digest[] = "SHA256";
    memcpy(secret, key->mac, sizeof secret);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, secret, sizeof secret),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    int done = EVP_MAC_CTX_set_params(mac, params);
    OPENSSL_cleanse(secret, sizeof secret);
    return done == 1;
}

/* The library's convention: 1 sealed or opened with the key set here, 0 no such key (a full handshake), -1 failed. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int seal)
{
    const struct openssl *openssl = SSL_get_app_data(ssl);
    struct tls_tickets *tickets = &openssl_config_of(openssl->base.config)->tickets;
    if (!CRYPTO_THREAD_write_lock(tickets->lock))
        return -1;
    const struct tls_ticket_key *key = seal ? key_current(tickets) : key_find(tickets, name);
    int result = seal ? -1 : 0;
    if (key != NULL && seal) {
        memcpy(name, key->name, sizeof key->name);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 && mac_set(mac, key))
            result = EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv) == 1 ? 1 : -1;
    } else if (key != NULL && mac_set(mac, key)) {
        result = EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->cipher, iv) == 1 ? 1 : -1;
    }
    CRYPTO_THREAD_unlock(tickets->lock);
    return result;
}

bool tls_openssl_tickets_start(struct openssl_config *config, uint32_t lifetime_s)
{
    struct tls_tickets *tickets = &config->tickets;
    tickets->lifetime_s = lifetime_s != 0 ? lifetime_s : TLS_TICKET_LIFETIME_S;
    tickets->lock = CRYPTO_THREAD_lock_new();
    if (tickets->lock == NULL || !key_make(&tickets->keys[0]))
        return false;
    SSL_CTX_set_timeout(config->ctx, (long)tickets->lifetime_s);
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(config->ctx, on_ticket) == 1;
}

void tls_openssl_tickets_free(struct tls_tickets *tickets)
{
    key_drop(&tickets->keys[0]);
    key_drop(&tickets->keys[1]);
    CRYPTO_THREAD_lock_free(tickets->lock);
}
