// Public keys as PEM files: elliptic curves P-256, P-384 and P-521, each with its own hash. The curve of the key that
// the verifier trusts decides the algorithm. Errors are the same sentences as in
// vivit_export/bundle/signatures/keys.py.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "vivit/detail/manifest/sha256.hpp"
#include "vivit/detail/signature/envelope.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

using KeyHandle = std::shared_ptr<EVP_PKEY>;

/// Bytes as OpenSSL reads and writes them.
class Memory {
public:
    /// @throws EnvironmentFault  there is no memory
    explicit Memory(const std::string& bytes = "") : bio_(BIO_new(BIO_s_mem()), BIO_free) {
        if (!bio_ || (!bytes.empty() && BIO_write(bio_.get(), bytes.data(), int(bytes.size())) != int(bytes.size())))
            throw EnvironmentFault("OpenSSL failed to take memory");
    }

    [[nodiscard]] BIO* get() const noexcept { return bio_.get(); }

    /// What was written.
    [[nodiscard]] std::string text() const {
        char* data = nullptr;
        const long size = BIO_get_mem_data(bio_.get(), &data);
        return {data, std::size_t(size)};
    }

private:
    std::unique_ptr<BIO, int (*)(BIO*)> bio_;
};

/// The hash of an elliptic-curve key by its curve; nullptr: it is on another curve, or no such key.
[[nodiscard]] inline const EVP_MD* hash_of_curve(EVP_PKEY* key) {
    unsigned char* der = nullptr;
    const int size = i2d_PUBKEY(key, &der);
    const std::string bytes(reinterpret_cast<const char*>(der), std::size_t(size < 0 ? 0 : size));
    OPENSSL_free(der);
    const auto on = [&](const std::string& curve) {  // the object identifiers of such a key and of its curve
        const std::string algorithm("\x06\x07\x2a\x86\x48\xce\x3d\x02\x01", 9);
        return bytes.find(algorithm + curve) < 16;
    };
    if (on({"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", 10})) return EVP_sha256();
    if (on({"\x06\x05\x2b\x81\x04\x00\x22", 7})) return EVP_sha384();
    return on({"\x06\x05\x2b\x81\x04\x00\x23", 7}) ? EVP_sha512() : nullptr;
}

/// A key that verifies signatures.
class PublicKey {
public:
    /// @param key    never nullptr
    /// @param where  what messages call it
    /// @throws InputError  it is of a kind that is not used here
    PublicKey(KeyHandle key, const std::string& where) : key_(std::move(key)), hash_(hash_of_curve(key_.get())) {
        if (!hash_)
            throw InputError(where + " holds " + kind() +
                             ", but signatures are made with elliptic-curve keys on P-256, P-384 or P-521; make one "
                             "with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE");
        const Memory pem;
        PEM_write_bio_PUBKEY(pem.get(), key_.get());
        fingerprint_ = sha256_of_bytes(pem.text());
    }

    /// SHA-256 of its PEM form, hexadecimal.
    [[nodiscard]] const std::string& fingerprint() const noexcept { return fingerprint_; }

    /// Whether a signature over some bytes was made with its private half.
    [[nodiscard]] bool verifies(const std::string& signature, const std::string& bytes) const {
        const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
        if (!context || EVP_DigestVerifyInit(context.get(), nullptr, hash_, nullptr, key_.get()) != 1)
            throw EnvironmentFault("OpenSSL cannot verify signatures; check its configuration");
        const auto* made = reinterpret_cast<const unsigned char*>(signature.data());
        const bool holds = EVP_DigestVerifyUpdate(context.get(), bytes.data(), bytes.size()) == 1 &&
                           EVP_DigestVerifyFinal(context.get(), made, signature.size()) == 1;
        ERR_clear_error();
        return holds;
    }

private:
    [[nodiscard]] std::string kind() const {
        const int kind = EVP_PKEY_base_id(key_.get());
        if (kind == EVP_PKEY_RSA || kind == EVP_PKEY_RSA_PSS)
            return "an RSA key of " + std::to_string(EVP_PKEY_bits(key_.get())) + " bits";
        return kind == EVP_PKEY_EC ? "an elliptic-curve key on another curve" : "a key of another kind";
    }

    KeyHandle key_;
    const EVP_MD* hash_;
    std::string fingerprint_;
};

/// Read a file of keys or certificates.
///
/// @throws InputError  it cannot be read
[[nodiscard]] inline std::string read_pem(const std::filesystem::path& path) {
    SmallFile file = read_small_file(path);
    if (!file.fault.empty()) throw InputError(path.string() + " cannot be read (" + file.fault + "); give a PEM file");
    return std::move(file.bytes);
}

/// What a PEM file holds, such as "PUBLIC KEY", in order.
[[nodiscard]] inline std::vector<std::string> kinds_in(const std::string& pem) {
    const std::string begin = "-----BEGIN ", end = "-----";
    std::vector<std::string> kinds;
    for (std::size_t start = 0; start < pem.size();) {
        const std::size_t stop = std::min(pem.find('\n', start), pem.size());
        std::string line = pem.substr(start, stop - start);
        line.erase(line.find_last_not_of(" \t\r\f\v") + 1);
        start = stop + 1;
        if (line.size() <= begin.size() + end.size() || line.compare(0, begin.size(), begin) != 0) continue;
        const std::string kind = line.substr(begin.size(), line.size() - begin.size() - end.size());
        const bool known = kind.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ") == std::string::npos;
        if (known && line.compare(line.size() - end.size(), end.size(), end) == 0) kinds.push_back(kind);
    }
    return kinds;
}

/// Parse a public key.
///
/// @throws InputError  it cannot be parsed, or is of a kind that is not used here
[[nodiscard]] inline PublicKey parse_public_key(const std::string& pem, const std::string& path) {
    const Memory bytes(pem);
    const KeyHandle key(PEM_read_bio_PUBKEY(bytes.get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
    ERR_clear_error();
    if (!key) throw InputError(path + " holds no public key that can be read; copy it again");
    return {key, path};
}

}  // namespace vivit::detail
