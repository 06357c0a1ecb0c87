// The artefact on disk: bundle.json names every other file with its size and SHA-256, and nothing is
// loaded before all of them were compared. The same checks and sentences as vivit_export/bundle.py.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// What the bundle says about one compiled engine; its bytes are engines/NAME.plan.
struct Engine {
    std::string flavour;  ///< tensorrt or tensorrt-rtx
    std::string version;  ///< of the compiler, as in 11.4.0.106
    std::vector<int> sms;
    std::pair<int, int> batches;  ///< smallest and largest of its profile
    std::string onnx_sha256;
};

namespace detail {

/// SHA-256 of bytes that come in pieces (OpenSSL).
class Sha256 {
public:
    Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
        if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1)
            throw EnvironmentFault("OpenSSL offers no SHA-256; check its configuration");
    }
    void add(const void* data, std::size_t size) {
        if (EVP_DigestUpdate(context_.get(), data, size) != 1) throw EnvironmentFault("OpenSSL failed in SHA-256");
    }
    std::string hex() {
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

inline BundleError unreadable(const std::filesystem::path& path) {
    return BundleError(path.string() + " cannot be read; copy the bundle again");
}

inline std::string sha256_of(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> piece(1 << 20);
    Sha256 digest;
    do {
        file.read(piece.data(), std::streamsize(piece.size()));
        if (file.bad() || (!file && !file.eof())) throw unreadable(path);
        digest.add(piece.data(), std::size_t(file.gcount()));
    } while (file);
    return digest.hex();
}

inline std::vector<char> read_bytes(const std::filesystem::path& path) {
    std::error_code failure;
    const auto size = std::filesystem::file_size(path, failure);
    if (failure) throw unreadable(path);
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes(size);
    if (!file.read(bytes.data(), std::streamsize(bytes.size()))) throw unreadable(path);
    return bytes;
}

inline std::string altered(const std::filesystem::path& path) {
    return path.string() + " is not the file that bundle.json describes: it was altered or cut short";
}

}  // namespace detail

/// A bundle whose manifest was read and whose files were verified.
class Bundle {
public:
    static constexpr const char* format = "vivit-bundle/1";
    static constexpr const char* manifest_name = "bundle.json";
    static constexpr const char* model_name = "model.onnx";

    /// Read a bundle and check every listed file against its size and SHA-256.
    ///
    /// Throws BundleError: not a bundle, another format version, or a file that is missing or altered.
    explicit Bundle(std::filesystem::path folder) : path_(std::move(folder)) {
        try {
            manifest_ = read_manifest();
            for (const auto& [name, entry] : manifest_["files"].items()) check_file(name, entry);
            read_engines();
            read_cpu_graph();
        } catch (const std::filesystem::filesystem_error& e) {
            throw BundleError(e.path1().string() + " cannot be read: " + e.code().message() +
                              "; copy the bundle again");
        }
        try {
            contract_ = Contract::from_json(manifest_["contract"]);
        } catch (const InputError& e) {
            throw BundleError((path_ / manifest_name).string() + ": " + e.what());
        }
    }

    const std::filesystem::path& path() const { return path_; }
    const nlohmann::json& manifest() const { return manifest_; }
    const Contract& contract() const { return contract_; }
    std::filesystem::path model() const { return path_ / model_name; }

    /// The graph as ONNX Runtime runs it best on the CPU, where `vivit deploy cpp` added it; else the portable one.
    std::filesystem::path cpu_model() const { return path_ / cpu_graph_.first; }

    /// The arithmetic of `cpu_model`, for people.
    std::string cpu_details() const { return cpu_graph_.second.empty() ? precision() : cpu_graph_.second; }

    /// fp32, fp16 or bf16: the type of the graph's GEMMs.
    std::string precision() const {
        return manifest_["precision"]["name"].is_string() ? manifest_["precision"]["name"] : "";
    }

    /// The compiled engines by name.
    const std::map<std::string, Engine>& engines() const { return engines_; }

    /// Bytes of an engine: these very bytes are the ones that the manifest describes.
    ///
    /// Throws BundleError: they were altered since, or made from another graph.
    std::vector<char> read_plan(const std::string& name) const {
        const auto path = path_ / "engines" / (name + ".plan");
        std::vector<char> plan = detail::read_bytes(path);
        detail::Sha256 digest;
        digest.add(plan.data(), plan.size());
        if (digest.hex() != manifest_["files"]["engines/" + name + ".plan"]["sha256"])
            throw BundleError(detail::altered(path));
        if (engines_.at(name).onnx_sha256 != manifest_["files"][model_name]["sha256"])
            throw BundleError(path.string() + " was built from another " + model_name +
                              " than the one beside it; build it again");
        return plan;
    }

private:
    using json = nlohmann::json;

    json read_manifest() const {
        namespace fs = std::filesystem;
        const auto file = path_ / manifest_name;
        if (!fs::is_regular_file(file)) {
            const std::string what =
                fs::is_directory(path_) ? std::string("has no ") + manifest_name : "is not a folder";
            throw BundleError(path_.string() + " " + what + "; make a bundle with: vivit-export MODEL -o " +
                              path_.string());
        }
        if (fs::file_size(file) > max_manifest_bytes)
            throw BundleError(file.string() + " is larger than 64 MiB; it is not a bundle's manifest");
        json manifest;
        try {
            std::ifstream stream(file, std::ios::binary);
            manifest = json::parse(stream);
        } catch (const json::parse_error& e) {
            throw BundleError(file.string() + " cannot be read as JSON (at byte " + std::to_string(e.byte) +
                              "); copy the bundle again");
        }
        const json found = manifest.is_object() && manifest.contains("format") ? manifest["format"] : json();
        if (found != format)
            throw BundleError(file.string() + " has format " + detail::shown(found) + "; this version reads '" +
                              format + "'");
        require_sections(manifest, file);
        return manifest;
    }

    static void require_sections(const json& manifest, const std::filesystem::path& file) {
        static constexpr std::array<std::pair<const char*, std::array<const char*, 4>>, 6> sections{{
            {"model", {"id", "config", "parameters"}},
            {"contract", {"clip", "preprocess", "io", "labels"}},
            {"precision", {"name", "attention", "opset"}},
            {"engines", {}},
            {"checks", {}},
            {"files", {}},
        }};
        const auto refuse = [&](const std::string& what) {
            throw BundleError(file.string() + " lacks '" + what + "'; the bundle is incomplete, export it again");
        };
        for (const auto& [section, keys] : sections) {
            if (!manifest.contains(section) || !manifest[section].is_object()) refuse(section);
            for (const char* key : keys)
                if (key && !manifest[section].contains(key)) refuse(std::string(section) + "." + key);
        }
        std::vector<std::string> needed{model_name};
        for (const auto& [name, sidecar] : manifest["engines"].items()) needed.push_back("engines/" + name + ".plan");
        for (const std::string& name : needed)
            if (!manifest["files"].contains(name))
                throw BundleError(file.string() + " does not list " + name +
                                  "; the bundle is incomplete, export it again");
    }

    void check_file(const std::string& name, const json& entry) const {
        namespace fs = std::filesystem;
        const auto manifest = (path_ / manifest_name).string();
        const fs::path relative(name);
        bool outside = relative.is_absolute() || name.find('\\') != std::string::npos;
        for (const auto& part : relative) outside = outside || part == "..";
        if (outside) throw BundleError(manifest + " lists " + detail::quoted(name) + ", which lies outside the bundle");
        if (!entry.is_object() || !entry.contains("sha256") || !entry["sha256"].is_string() ||
            !entry.contains("size") || !entry["size"].is_number_integer())
            throw BundleError(manifest + " has no size and sha256 for " + name);
        const auto file = path_ / relative;
        if (!fs::is_regular_file(file) ||
            fs::canonical(file).parent_path() != (fs::canonical(path_) / relative).parent_path())
            throw BundleError(file.string() +
                              " is missing (or a link out of the bundle); export again or restore the file");
        if (json(fs::file_size(file)) != entry["size"] || detail::sha256_of(file) != entry["sha256"])
            throw BundleError(detail::altered(file));
    }

    void read_engines() {
        for (const auto& [name, sidecar] : manifest_["engines"].items()) {
            try {
                const json& profile = sidecar.at("profiles").at(0);
                engines_[name] = {sidecar.at("flavour"),
                                  sidecar.at("version"),
                                  sidecar.at("sms"),
                                  {profile.at("min"), profile.at("max")},
                                  sidecar.at("onnx_sha256")};
            } catch (const json::exception&) {
                throw BundleError((path_ / manifest_name).string() + " does not say what the engine " + name +
                                  " was built for; build it again");
            }
            if (const auto [low, high] = engines_[name].batches; low < 1 || high < low)
                throw BundleError((path_ / manifest_name).string() + " gives the engine " + name + " a profile of " +
                                  std::to_string(low) + " to " + std::to_string(high) + " clips; build it again");
        }
    }

    void read_cpu_graph() {
        if (!manifest_.contains("cpu_graph")) return;
        const json& entry = manifest_["cpu_graph"];
        const auto file = (path_ / manifest_name).string();
        if (!entry.is_object() || !entry.contains("file") || !entry["file"].is_string() || !entry.contains("details") ||
            !entry["details"].is_string())
            throw BundleError(file + " has no file and details in cpu_graph; deploy the bundle again");
        if (!manifest_["files"].contains(entry["file"].get<std::string>()))
            throw BundleError(file + " does not list " + entry["file"].get<std::string>() +
                              "; deploy the bundle again");
        cpu_graph_ = {entry["file"], entry["details"]};
    }

    static constexpr std::uintmax_t max_manifest_bytes = std::uintmax_t(64) << 20;

    std::filesystem::path path_;
    nlohmann::json manifest_;
    Contract contract_;
    std::map<std::string, Engine> engines_;
    std::pair<std::string, std::string> cpu_graph_{model_name, ""};
};

}  // namespace vivit
