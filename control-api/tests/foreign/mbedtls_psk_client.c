/* A TLS-PSK client on mbedTLS: HOST PORT IDENTITY KEY(hex) SUITE (IANA's name, dashes for underscores).
 * Carries stdin there and what comes back to stdout. */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what, int code) {
    fprintf(stderr, "%s failed: -0x%04x\n", what, -code);
    return 1;
}

int main(int count, char **words) {
    if (count != 6) return 2;
    unsigned char key[64];
    size_t length = strlen(words[4]) / 2;
    for (size_t at = 0; at < length; at++) sscanf(words[4] + 2 * at, "%2hhx", &key[at]);
    mbedtls_net_context net;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    mbedtls_ssl_config config;
    mbedtls_ssl_context ssl;
    mbedtls_net_init(&net);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    mbedtls_ssl_config_init(&config);
    mbedtls_ssl_init(&ssl);
    int suites[2] = {mbedtls_ssl_get_ciphersuite_id(words[5]), 0};
    if (suites[0] == 0) return fail("the suite", 0);
    mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0);
    mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random);
    mbedtls_ssl_conf_ciphersuites(&config, suites);
    mbedtls_ssl_conf_psk(&config, key, length, (unsigned char *)words[3], strlen(words[3]));
    int result = mbedtls_net_connect(&net, words[1], words[2], MBEDTLS_NET_PROTO_TCP);
    if (result != 0) return fail("connect", result);
    if ((result = mbedtls_ssl_setup(&ssl, &config)) != 0) return fail("setup", result);
    mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
    if ((result = mbedtls_ssl_handshake(&ssl)) != 0) return fail("handshake", result);
    struct pollfd ends[2] = {{0, POLLIN, 0}, {net.fd, POLLIN, 0}};
    unsigned char bytes[16384];
    for (;;) {
        if (mbedtls_ssl_get_bytes_avail(&ssl) == 0) poll(ends, 2, -1);
        if (ends[0].revents) {
            ssize_t got = read(0, bytes, sizeof bytes);
            if (got <= 0) break;
            for (ssize_t at = 0; at < got; at += result)
                if ((result = mbedtls_ssl_write(&ssl, bytes + at, got - at)) <= 0)
                    return fail("write", result);
        }
        if (ends[1].revents || mbedtls_ssl_get_bytes_avail(&ssl) != 0) {
            result = mbedtls_ssl_read(&ssl, bytes, sizeof bytes);
            if (result <= 0) break;
            if (write(1, bytes, result) != result) break;
        }
    }
    mbedtls_ssl_close_notify(&ssl);
    return 0;
}
