// The file model.sig: a Sigstore bundle around a DSSE envelope, as OpenSSF Model Signing 1.0 has it. Errors are the
// same sentences as in vivit_export/bundle/signatures/envelope.py.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "vivit/detail/limits.hpp"
#include "vivit/detail/manifest/json.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

inline constexpr const char* sign_again = "sign the bundle again";
inline constexpr const char* signature_media_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
inline constexpr const char* signature_payload_type = "application/vnd.in-toto+json";

/// A signature as it was read. Only the payload is signed.
struct Envelope {
    std::string payload;
    std::string signature;                  ///< over `signed_bytes` of the payload
    std::vector<std::string> certificates;  ///< DER, the signer's first; empty: it was made with a bare key
};

/// What is signed for a payload: DSSE's pre-authentication encoding, which includes the type.
[[nodiscard]] inline std::string signed_bytes(const std::string& payload) {
    const std::string type = signature_payload_type;
    return "DSSEv1 " + std::to_string(type.size()) + " " + type + " " + std::to_string(payload.size()) + " " + payload;
}

/// A small file, or why it cannot be read.
struct SmallFile {
    std::string bytes;
    std::string fault;     ///< empty: it was read
    bool missing = false;  ///< there is no such file
};

[[nodiscard]] inline std::string kind_of_file(mode_t mode) {
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a pipe";
    return S_ISSOCK(mode) ? "a socket" : "a device";
}

/// Read a signature, a key or certificates. Links are followed; nothing is waited for.
///
/// @throws InputError  it has more than `most_signature_bytes`
[[nodiscard]] inline SmallFile read_small_file(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return {"", std::generic_category().message(errno), errno == ENOENT};
    SmallFile file;
    struct stat facts{};
    if (::fstat(descriptor, &facts) != 0 || !S_ISREG(facts.st_mode))
        file.fault = "it is " + kind_of_file(facts.st_mode) + ", not a file";
    std::array<char, 65536> piece{};
    while (file.fault.empty() && std::int64_t(file.bytes.size()) <= most_signature_bytes) {
        const auto count = ::read(descriptor, piece.data(), piece.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) file.fault = std::generic_category().message(errno);
        if (count <= 0) break;
        file.bytes.append(piece.data(), std::size_t(count));
    }
    ::close(descriptor);
    if (std::int64_t(file.bytes.size()) > most_signature_bytes)
        throw InputError(path.string() + " is larger than " + std::to_string(most_signature_bytes >> 20) +
                         " MiB; it holds no signature and no key");
    return file;
}

/// The bytes of text in Base64; none if it is not, in the standard alphabet and with all its padding.
[[nodiscard]] inline std::optional<std::string> decode_base64(const std::string& text) {
    static const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (text.empty() || text.size() % 4) return std::nullopt;
    const std::size_t padding = text[text.size() - 1] != '=' ? 0 : text[text.size() - 2] != '=' ? 1 : 2;
    std::string bytes;
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool padded = i >= text.size() - padding;
        const std::size_t value = padded ? 0 : alphabet.find(text[i]);
        if (value == std::string::npos) return std::nullopt;
        bits = bits << 6 | std::uint32_t(value);
        if (i % 4 < 3) continue;
        for (const int shift : {16, 8, 0}) bytes += static_cast<char>(bits >> shift & 255);
        bits = 0;
    }
    bytes.resize(bytes.size() - padding);
    return bytes;
}

[[nodiscard]] inline std::string decoded(const json& text, const std::string& where) {
    const auto bytes = text.is_string() ? decode_base64(text.get<std::string>()) : std::nullopt;
    if (!bytes) throw InputError(where + " must be text in Base64");
    return *bytes;
}

/// One signature of an envelope; it names no key that anyone relies on.
struct DsseSignature {
    std::string sig;
};

template <>
struct As<DsseSignature> {
    static std::string words() { return "a JSON object"; }
    static DsseSignature read(const json& value, const std::string& where) {
        const Object object(value, where, {"sig", "keyid"});
        object.require({"sig"});
        std::optional<std::string> keyid;
        object.take("keyid", keyid);
        return {object.get<std::string>("sig")};
    }
};

/// The certificates of a signature; none if it was made with a key.
[[nodiscard]] inline std::vector<std::string> read_certificates(const json& material) {
    if (!material.is_object())
        throw InputError("verificationMaterial must be a JSON object, got " + shown_shortly(material));
    const bool chained = material.contains("x509CertificateChain"), keyed = material.contains("publicKey");
    if (material.contains("certificate") && !chained && !keyed)
        throw InputError("it was made with Sigstore and no key, which only Sigstore's own tools verify");
    if (int(chained) + int(keyed) + int(material.contains("certificate")) != 1)
        throw InputError("verificationMaterial must have either publicKey or x509CertificateChain");
    if (keyed) return {};
    const std::string where = "verificationMaterial.x509CertificateChain";
    const json& chain = material["x509CertificateChain"];
    const json listed = chain.is_object() && chain.contains("certificates") ? chain["certificates"] : json();
    if (!listed.is_array() || listed.empty() || listed.size() > std::size_t(most_certificates))
        throw InputError(where + " must have a list of 1 to " + std::to_string(most_certificates) + " certificates");
    std::vector<std::string> certificates;
    for (const json& item : listed) {
        const json text = item.is_object() && item.contains("rawBytes") ? item["rawBytes"] : json();
        const std::string place = where + at(".certificates", certificates.size()) + ".rawBytes";
        certificates.push_back(decoded(text, place));
    }
    return certificates;
}

[[nodiscard]] inline Envelope read_envelope(const json& data) {
    const Object file(data, "signature", {"mediaType", "verificationMaterial", "dsseEnvelope"});
    file.require({"mediaType", "verificationMaterial", "dsseEnvelope"});
    const auto media_type = file.get<std::string>("mediaType");
    const Object dsse(data["dsseEnvelope"], "signature.dsseEnvelope", {"payload", "payloadType", "signatures"});
    dsse.require({"payload", "payloadType", "signatures"});
    const json payload = dsse.get<std::string>("payload");
    const auto type = dsse.get<std::string>("payloadType");
    const auto signatures = dsse.get<std::vector<DsseSignature>>("signatures");
    if (media_type != signature_media_type)
        throw InputError("mediaType must be " + std::string(signature_media_type) + ", got " +
                         shown_shortly(media_type));
    if (type != signature_payload_type)
        throw InputError("dsseEnvelope.payloadType must be " + std::string(signature_payload_type) + ", got " +
                         shown_shortly(type));
    if (signatures.size() != 1)
        throw InputError("dsseEnvelope.signatures must be one signature, got " + std::to_string(signatures.size()));
    return {decoded(payload, "dsseEnvelope.payload"), decoded(signatures.front().sig, "dsseEnvelope.signatures[0].sig"),
            read_certificates(data["verificationMaterial"])};
}

/// Parse JSON of a signature, and read it.
///
/// @param subject  what messages call the text
/// @param path     the signature, for messages
/// @throws SignatureError  it cannot be parsed, or `read` refuses it
template <typename Read>
auto parsed_signature(const std::string& text, const std::string& subject, const std::string& path, Read read) {
    json data;
    try {
        data = parse_json(text);
    } catch (const json::parse_error& e) {
        throw SignatureError(subject + " cannot be read as JSON (at byte " + std::to_string(e.byte) + "); " +
                             sign_again);
    } catch (const InputError& e) {
        throw SignatureError(subject + " cannot be read as JSON (" + e.what() + "); " + sign_again);
    }
    try {
        return read(data);
    } catch (const InputError& e) {
        const std::string why = e.what(), prefix = "signature.";
        const std::string what = why.compare(0, prefix.size(), prefix) == 0 ? why.substr(prefix.size()) : why;
        throw SignatureError(path + ": " + what + "; " + sign_again);
    }
}

/// Parse a signature strictly.
///
/// @throws SignatureError  it is not a signature of the kind that is made here
[[nodiscard]] inline Envelope parse_envelope(const std::string& text, const std::string& path) {
    return parsed_signature(text, path, path, read_envelope);
}

}  // namespace vivit::detail
