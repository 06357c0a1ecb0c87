// Whom a verifier trusts, and whether they signed. Errors are the same sentences as in
// vivit_export/bundle/signatures/trust.py and verify.py.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/bundle.hpp"
#include "vivit/detail/signature/certificates.hpp"
#include "vivit/detail/signature/envelope.hpp"
#include "vivit/detail/signature/keys.hpp"
#include "vivit/detail/signature/statement.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// Environment variable with PEM files, ":" between them: every bundle that is opened must be signed by one of theirs.
inline constexpr const char* signature_variable = "VIVIT_REQUIRE_SIGNATURE";
/// Environment variable with the name that the signer's certificate must have.
inline constexpr const char* identity_variable = "VIVIT_REQUIRE_IDENTITY";

/// Who signed a bundle, verified.
struct Signer {
    std::string key;                 ///< fingerprint: SHA-256 of the key's PEM form, hexadecimal
    std::vector<std::string> names;  ///< in the signer's certificate; none for a bare key

    /// Who it is, for people, on one line.
    [[nodiscard]] std::string title() const {
        const std::string mark = "key " + key.substr(0, 16) + "…";
        return names.empty() ? mark : detail::one_line(names.front()) + " (" + mark + ")";
    }
};

}  // namespace vivit

namespace vivit::detail {

/// Whom a verifier trusts.
struct Trust {
    std::string source;  ///< the files, for messages
    std::vector<PublicKey> keys;
    std::vector<Certificate> certificates;
    std::string identity;  ///< name that the signer's certificate must have; empty: any
};

/// Read files with keys and certificates.
[[nodiscard]] inline Trust read_trust(const std::vector<std::filesystem::path>& files, const std::string& identity) {
    if (files.empty()) throw UsageError("require_signature names no file; name one with a public key or certificates");
    Trust trust;
    trust.identity = identity;
    for (const std::filesystem::path& path : files) {
        const std::string pem = read_pem(path), name = path.string();
        const std::vector<std::string> kinds = kinds_in(pem);
        const auto all = [&](const char* kind) {
            return !kinds.empty() && std::count(kinds.begin(), kinds.end(), kind) == std::ptrdiff_t(kinds.size());
        };
        for (const std::string& kind : kinds)
            if (kind.find("PRIVATE KEY") != std::string::npos)
                throw InputError(name +
                                 " holds a private key, which only the signer may have; make the public one with: "
                                 "openssl pkey -in " +
                                 name + " -pubout");
        if (kinds.size() == 1 && all("PUBLIC KEY"))
            trust.keys.push_back(parse_public_key(pem, name));
        else if (all("CERTIFICATE"))
            for (Certificate& one : parse_certificates(pem, name)) trust.certificates.push_back(std::move(one));
        else
            throw InputError(name + " holds neither one public key nor certificates; give a PEM file");
        trust.source += (trust.source.empty() ? "" : ", ") + name;
    }
    if (!identity.empty() && !trust.keys.empty())
        throw UsageError("identity is the name in a certificate, but " + trust.source + " holds a key, which has none");
    return trust;
}

/// Whom this machine's environment trusts; nothing: it requires no signature.
[[nodiscard]] inline std::optional<Trust> trust_of_environment() {
    const char *listed = std::getenv(signature_variable), *identity = std::getenv(identity_variable);
    for (const auto& [variable, value] :
         {std::pair(signature_variable, listed), std::pair(identity_variable, identity)})
        if (value && !*value)
            throw UsageError(std::string("the environment variable ") + variable +
                             " is empty; give it a value, or unset it");
    if (!listed && identity)
        throw UsageError(std::string("the environment variable ") + identity_variable + " is for " +
                         signature_variable + "; set both");
    if (!listed) return std::nullopt;
    std::vector<std::filesystem::path> files;
    const std::string text = listed;
    for (std::size_t start = 0; start <= text.size();) {
        const std::size_t stop = std::min(text.find(':', start), text.size());
        files.emplace_back(text.substr(start, stop - start));
        start = stop + 1;
    }
    return read_trust(files, identity ? identity : "");
}

[[nodiscard]] inline Signer verify_certificate(const Envelope& envelope, const Trust& trust, const std::string& bytes,
                                               const std::string& path) {
    const std::vector<Certificate> chain = parse_chain(envelope.certificates, path);
    require_chain(chain, trust.certificates, trust.source);
    const Certificate& signer = chain.front();
    const std::vector<std::string>& names = signer.names();
    if (!trust.identity.empty() && std::find(names.begin(), names.end(), trust.identity) == names.end()) {
        std::string all;
        for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
        throw SignatureError(path + " was made by " + (all.empty() ? "no name" : all) + ", not by " + trust.identity);
    }
    const PublicKey key = signer.public_key();
    if (!key.verifies(envelope.signature, bytes))
        throw SignatureError(path + " was not made with the key of " + signer.title() + ", or was altered since");
    return {key.fingerprint(), names};
}

[[nodiscard]] inline Signer verify_envelope(const Envelope& envelope, const Trust& trust, const std::string& path) {
    const std::string bytes = signed_bytes(envelope.payload);
    for (const PublicKey& key : trust.keys)
        if (key.verifies(envelope.signature, bytes)) return {key.fingerprint(), {}};
    const bool certified = !envelope.certificates.empty();
    if (certified && !trust.certificates.empty()) return verify_certificate(envelope, trust, bytes, path);
    if (!trust.keys.empty() && certified)
        throw SignatureError(path + " was made with a certificate, and not with the key of " + trust.source);
    if (!trust.keys.empty())
        throw SignatureError(path + " was not made with the key of " + trust.source + ", or was altered since");
    throw SignatureError(path + " was made with a key, but " + trust.source +
                         " holds certificates; give the signer's public key");
}

[[nodiscard]] inline std::string read_signature(const Bundle& bundle) {
    const std::filesystem::path path = bundle.path() / signature_name;
    SmallFile file;
    try {
        file = read_small_file(path);
    } catch (const InputError& e) {
        throw SignatureError(e.what());
    }
    std::error_code none;
    if (file.missing && std::filesystem::is_symlink(path, none))
        throw SignatureError(path.string() + " leads to nothing; " + sign_again);
    if (file.missing)
        throw SignatureError(bundle.path().string() + " is not signed: it has no " + signature_name +
                             "; sign it with: vivit sign " + bundle.path().string() + " --key FILE");
    if (!file.fault.empty())
        throw SignatureError(path.string() + " cannot be read: " + file.fault + "; copy the bundle again");
    return std::move(file.bytes);
}

[[nodiscard]] inline Signer verify_signature(const Bundle& bundle, const Trust& trust) {
    const std::string path = (bundle.path() / signature_name).string();
    const Envelope envelope = parse_envelope(read_signature(bundle), path);
    Signer signer = verify_envelope(envelope, trust, path);
    require_statement_on(parse_statement(envelope.payload, path), sha256_of_bytes(bundle.manifest_text()),
                         bundle.files(), path);
    return signer;
}

}  // namespace vivit::detail
