// SHA-256 of bytes and files, by OpenSSL.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "vivit/detail/manifest/file_bytes.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// SHA-256 of bytes that arrive in pieces.
class Sha256 {
public:
    /// @throws EnvironmentFault  this OpenSSL has no SHA-256
    Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1)
            throw EnvironmentFault("OpenSSL offers no SHA-256; check its configuration");
    }

    void add(const void* data, std::size_t size) {
        if (EVP_DigestUpdate(context_.get(), data, size) != 1) throw EnvironmentFault("OpenSSL failed in SHA-256");
    }

    /// 64 hexadecimal digits; no bytes can be added afterward.
    [[nodiscard]] std::string hex() {
        std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
        unsigned size = 0;
        if (EVP_DigestFinal_ex(context_.get(), digest.data(), &size) != 1)
            throw EnvironmentFault("OpenSSL failed in SHA-256");
        std::string text;
        for (unsigned i = 0; i < size; ++i) {
            text += "0123456789abcdef"[digest[i] >> 4];
            text += "0123456789abcdef"[digest[i] & 15];
        }
        return text;
    }

private:
    std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

/// SHA-256 of a file, read in pieces.
[[nodiscard]] inline std::string sha256_of(const std::filesystem::path& path) {
    OpenFile file(path);
    std::vector<char> piece(1 << 20);
    Sha256 digest;
    while (const std::size_t count = file.read(piece.data(), piece.size())) digest.add(piece.data(), count);
    return digest.hex();
}

/// SHA-256 of bytes in memory: a vector or a string.
template <typename Bytes>
[[nodiscard]] std::string sha256_of_bytes(const Bytes& bytes) {
    Sha256 digest;
    digest.add(bytes.data(), bytes.size());
    return digest.hex();
}

}  // namespace vivit::detail
