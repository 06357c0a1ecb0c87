// What a signature says: the hash of every file of a folder, as an in-toto statement of OpenSSF Model Signing 1.0.
// Errors are the same sentences as in vivit_export/bundle/signatures/statement.py.
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "vivit/detail/manifest/json.hpp"
#include "vivit/detail/manifest/manifest.hpp"
#include "vivit/detail/signature/envelope.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// SHA-256 by name of the file, hexadecimal.
using Digests = std::map<std::string, std::string>;

inline constexpr const char* statement_type = "https://in-toto.io/Statement/v1";
inline constexpr const char* predicate_type = "https://model_signing/signature/v1.0";

/// Refuse files that were not hashed one by one with SHA-256.
inline void require_serialization(const json& data, const std::string& where) {
    const Object object(data, where, {"method", "hash_type", "allow_symlinks", "shard_size", "ignore_paths"});
    object.require({"method", "hash_type", "allow_symlinks"});
    const json method = object.get<std::string>("method"), hash = object.get<std::string>("hash_type");
    (void)object.get<bool>("allow_symlinks");
    std::vector<std::string> ignored;
    object.take("ignore_paths", ignored);
    if (method != "files" || hash != "sha256")
        throw InputError("it must have sha256 of files, got " + shown_shortly(hash) + " of " + shown_shortly(method));
}

/// Add the hash of one file; what the format adds to a resource is ignored.
inline void read_resource(const json& item, const std::string& where, Digests& digests) {
    json known = item;
    if (item.is_object()) {
        known = json::object();
        for (const char* name : {"name", "digest", "algorithm"})
            if (item.contains(name)) known[name] = item[name];
    }
    const Object object(known, where, {"name", "digest", "algorithm"});
    object.require({"name", "digest", "algorithm"});
    const auto name = object.get<std::string>("name"), digest = object.get<std::string>("digest");
    const bool is_hash = digest.size() == 64 && digest.find_first_not_of("0123456789abcdef") == std::string::npos;
    if (object.get<std::string>("algorithm") != "sha256" || !is_hash)
        throw InputError(where + " must have a sha256 of 64 hexadecimal digits, got " + shown_shortly(digest));
    if (!digests.emplace(name, digest).second) throw InputError("it names " + shown_shortly(name) + " twice");
}

[[nodiscard]] inline Digests read_statement(const json& data) {
    const Object statement(data, "payload", {"_type", "subject", "predicateType", "predicate"});
    statement.require({"_type", "subject", "predicateType", "predicate"});
    const json type = statement.get<std::string>("_type"), predicate_name = statement.get<std::string>("predicateType");
    if (!data["subject"].is_array())
        throw InputError("payload.subject must be a list of object, got " + shown_shortly(data["subject"]));
    const json& predicate = data["predicate"];
    const Object object(predicate, "payload.predicate", {"resources", "serialization"});
    object.require({"resources", "serialization"});
    if (!predicate["resources"].is_array())
        throw InputError("payload.predicate.resources must be a list of object, got " +
                         shown_shortly(predicate["resources"]));
    if (type != statement_type)
        throw InputError("payload._type must be " + std::string(statement_type) + ", got " + shown_shortly(type));
    if (predicate_name != predicate_type)
        throw InputError("payload.predicateType must be " + std::string(predicate_type) + ", got " +
                         shown_shortly(predicate_name));
    if (data["subject"].size() != 1)
        throw InputError("payload.subject must be one subject, got " + std::to_string(data["subject"].size()));
    require_serialization(predicate["serialization"], "payload.predicate.serialization");
    Digests digests;
    std::size_t index = 0;
    for (const json& item : predicate["resources"])
        read_resource(item, at("payload.predicate.resources", index++), digests);
    return digests;
}

/// The SHA-256 of each file that a signature covers, by its name; `path` is the signature, for messages.
///
/// @throws SignatureError  it is not a statement on a folder whose files were hashed one by one with SHA-256
[[nodiscard]] inline Digests parse_statement(const std::string& payload, const std::string& path) {
    return parsed_signature(payload, path + ": its payload", path, read_statement);
}

/// Refuse a statement on another state of a bundle, or on another bundle.
///
/// @param signed_digests   what the signature covers
/// @param manifest_sha256  of the manifest that was read
/// @param files            hash of each file that this manifest lists
/// @param path             the signature, for messages
inline void require_statement_on(const Digests& signed_digests, const std::string& manifest_sha256,
                                 const Digests& files, const std::string& path) {
    const auto holds = [&](const std::string& name, const std::string& sha256) {
        const auto found = signed_digests.find(name);
        return found != signed_digests.end() && found->second == sha256;
    };
    if (!holds(manifest_name, manifest_sha256))
        throw SignatureError(path + " does not sign this " + manifest_name +
                             ": the bundle was changed after it was signed, or the signature is of another one; " +
                             sign_again);
    for (const auto& [name, sha256] : files)
        if (!holds(name, sha256))
            throw SignatureError(path + " does not sign " + name + ", which " + manifest_name + " lists; " +
                                 sign_again);
}

}  // namespace vivit::detail
