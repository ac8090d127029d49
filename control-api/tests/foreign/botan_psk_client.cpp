// A TLS-PSK client on Botan: HOST PORT IDENTITY KEY(hex) CIPHER (key exchange and cipher as Botan names
// them, a colon between). Carries stdin there and what comes back to stdout.
#include <arpa/inet.h>
#include <botan/auto_rng.h>
#include <botan/credentials_manager.h>
#include <botan/hex.h>
#include <botan/tls_client.h>
#include <botan/tls_policy.h>
#include <botan/tls_session_manager.h>
#include <iostream>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

struct Key : Botan::Credentials_Manager {
    std::string identity, hex;
    std::string psk_identity(const std::string &, const std::string &, const std::string &) override {
        return identity;
    }
    Botan::SymmetricKey psk(const std::string &, const std::string &, const std::string &) override {
        return Botan::SymmetricKey(hex);
    }
};

struct Suite : Botan::TLS::Policy {
    std::string exchange, cipher;
    std::vector<std::string> allowed_key_exchange_methods() const override { return {exchange}; }
    std::vector<std::string> allowed_ciphers() const override { return {cipher}; }
    bool allow_tls10() const override { return false; }
    bool allow_tls11() const override { return false; }
};

struct Wire : Botan::TLS::Callbacks {
    int descriptor;
    bool over = false;
    void tls_emit_data(const uint8_t data[], size_t size) override {
        while (size > 0) {
            ssize_t sent = ::send(descriptor, data, size, MSG_NOSIGNAL);
            if (sent <= 0) throw std::runtime_error("send failed");
            data += sent;
            size -= sent;
        }
    }
    void tls_record_received(uint64_t, const uint8_t data[], size_t size) override {
        if (::write(1, data, size) != ssize_t(size)) over = true;
    }
    void tls_alert(Botan::TLS::Alert alert) override {
        std::cerr << alert.type_string() << std::endl;
        over = true;
    }
    bool tls_session_established(const Botan::TLS::Session &) override { return false; }
};

int main(int count, char **words) try {
    if (count != 6) return 2;
    Wire wire;
    wire.descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(std::stoi(words[2]));
    ::inet_pton(AF_INET, words[1], &address.sin_addr);
    if (::connect(wire.descriptor, (sockaddr *)&address, sizeof address) != 0) return 1;
    Botan::AutoSeeded_RNG random;
    Botan::TLS::Session_Manager_Noop sessions;
    Key key;
    key.identity = words[3];
    key.hex = words[4];
    Suite suite;
    std::string named = words[5];
    suite.exchange = named.substr(0, named.find(':'));
    suite.cipher = named.substr(named.find(':') + 1);
    Botan::TLS::Client client(wire, sessions, key, suite, random);
    pollfd ends[2] = {{0, 0, 0}, {wire.descriptor, POLLIN, 0}};
    uint8_t bytes[16384];
    while (!wire.over && !client.is_closed()) {
        ends[0].events = client.is_active() ? POLLIN : 0;
        ::poll(ends, 2, -1);
        if (ends[0].revents) {
            ssize_t got = ::read(0, bytes, sizeof bytes);
            if (got <= 0) break;
            client.send(bytes, got);
        }
        if (ends[1].revents) {
            ssize_t got = ::read(wire.descriptor, bytes, sizeof bytes);
            if (got <= 0) break;
            client.received_data(bytes, got);
        }
    }
    bool good = client.is_active() && !wire.over;
    if (good) client.close();
    return good ? 0 : 1;
} catch (const std::exception &error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
