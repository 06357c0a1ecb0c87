// Reads bundle.json and verifies the files it lists. The same checks and sentences as vivit_export/bundle.py; no other
// header knows how the manifest is written.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "vivit/detail/contract_reader.hpp"
#include "vivit/detail/json.hpp"
#include "vivit/detail/manifest.hpp"
#include "vivit/detail/sha256.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// Reads one bundle; `read` is called once.
class ManifestReader {
public:
    explicit ManifestReader(std::filesystem::path folder)
        : folder_(std::move(folder)), file_((folder_ / manifest_name).string()) {}

    [[nodiscard]] Manifest read() {
        try {
            read_json();
            for (const auto& [name, entry] : json_["files"].items()) check_file(name, entry);
            for (const auto& [name, sidecar] : json_["engines"].items()) read_engine(name, sidecar);
            read_cpu_graph();
        } catch (const std::filesystem::filesystem_error& e) {
            throw BundleError(e.path1().string() + " cannot be read: " + e.code().message() +
                              "; copy the bundle again");
        }
        const json& precision = json_["precision"]["name"];
        if (precision.is_string()) manifest_.precision = precision.get<std::string>();
        try {
            manifest_.contract = As<Contract>::read(json_["contract"], "contract");
        } catch (const InputError& e) {
            refuse(": " + std::string(e.what()));
        }
        return std::move(manifest_);
    }

private:
    [[noreturn]] void refuse(const std::string& why) const { throw BundleError(file_ + why); }

    void read_json() {
        namespace fs = std::filesystem;
        if (!fs::is_regular_file(file_)) {
            const std::string what =
                fs::is_directory(folder_) ? std::string("has no ") + manifest_name : "is not a folder";
            throw BundleError(folder_.string() + " " + what + "; make a bundle with: vivit-export MODEL -o " +
                              folder_.string());
        }
        if (fs::file_size(file_) > max_manifest_bytes) refuse(" is larger than 64 MiB; it is not a bundle's manifest");
        try {
            std::ifstream stream(file_, std::ios::binary);
            manifest_.text.assign(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
            json_ = json::parse(manifest_.text);
        } catch (const json::parse_error& e) {
            refuse(" cannot be read as JSON (at byte " + std::to_string(e.byte) + "); copy the bundle again");
        }
        const json found = json_.is_object() && json_.contains("format") ? json_["format"] : json();
        if (found != bundle_format)
            refuse(" has format " + shown(found) + "; this version reads '" + bundle_format + "'");
        require_sections();
    }

    void require_sections() const {
        static constexpr std::array<std::pair<const char*, std::array<const char*, 4>>, 6> sections{{
            {"model", {"id", "config", "parameters"}},
            {"contract", {"clip", "preprocess", "io", "labels"}},
            {"precision", {"name", "attention", "opset"}},
            {"engines", {}},
            {"checks", {}},
            {"files", {}},
        }};
        const auto refuse_lack = [&](const std::string& what) {
            refuse(" lacks '" + what + "'; the bundle is incomplete, export it again");
        };
        for (const auto& [section, keys] : sections) {
            if (!json_.contains(section) || !json_[section].is_object()) refuse_lack(section);
            for (const char* key : keys)
                if (key && !json_[section].contains(key)) refuse_lack(std::string(section) + "." + key);
        }
        std::vector<std::string> needed{model_name};
        for (const auto& [name, sidecar] : json_["engines"].items()) needed.push_back(plan_name(name));
        for (const std::string& name : needed)
            if (!json_["files"].contains(name))
                refuse(" does not list " + name + "; the bundle is incomplete, export it again");
    }

    void check_file(const std::string& name, const json& entry) {
        namespace fs = std::filesystem;
        const fs::path relative(name);
        bool outside = relative.is_absolute() || name.find('\\') != std::string::npos;
        for (const auto& part : relative) outside = outside || part == "..";
        if (outside) refuse(" lists " + quoted(name) + ", which lies outside the bundle");
        if (!entry.is_object() || !entry.contains("sha256") || !entry["sha256"].is_string() ||
            !entry.contains("size") || !entry["size"].is_number_integer())
            refuse(" has no size and sha256 for " + name);
        const auto file = folder_ / relative;
        if (!fs::is_regular_file(file) ||
            fs::canonical(file).parent_path() != (fs::canonical(folder_) / relative).parent_path())
            throw BundleError(file.string() +
                              " is missing (or a link out of the bundle); export again or restore the file");
        const auto sha256 = entry["sha256"].get<std::string>();
        if (json(fs::file_size(file)) != entry["size"] || sha256_of(file) != sha256) throw altered(file);
        manifest_.sha256s[name] = sha256;
    }

    void read_engine(const std::string& name, const json& sidecar) {
        Engine& engine = manifest_.engines[name];
        try {
            const json& profile = sidecar.at("profiles").at(0);
            engine = {sidecar.at("flavour").get<std::string>(),
                      sidecar.at("version").get<std::string>(),
                      sidecar.at("sms").get<std::vector<int>>(),
                      {profile.at("min").get<int>(), profile.at("max").get<int>()},
                      sidecar.at("onnx_sha256").get<std::string>()};
        } catch (const json::exception&) {
            refuse(" does not say what the engine " + name + " was built for; build it again");
        }
        if (const auto [low, high] = engine.batches; low < 1 || high < low)
            refuse(" gives the engine " + name + " a profile of " + std::to_string(low) + " to " +
                   std::to_string(high) + " clips; build it again");
    }

    void read_cpu_graph() {
        if (!json_.contains("cpu_graph")) return;
        const json& entry = json_["cpu_graph"];
        if (!entry.is_object() || !entry.contains("file") || !entry["file"].is_string() || !entry.contains("details") ||
            !entry["details"].is_string())
            refuse(" has no file and details in cpu_graph; deploy the bundle again");
        manifest_.cpu_model = entry["file"].get<std::string>();
        manifest_.cpu_details = entry["details"].get<std::string>();
        if (!json_["files"].contains(manifest_.cpu_model))
            refuse(" does not list " + manifest_.cpu_model + "; deploy the bundle again");
    }

    static constexpr std::uintmax_t max_manifest_bytes = std::uintmax_t(64) << 20;

    std::filesystem::path folder_;
    std::string file_;
    json json_;
    Manifest manifest_;
};

/// Read the manifest of a bundle and check every listed file against its size and SHA-256.
///
/// @throws BundleError  not a bundle, another format version, or a file that is missing or altered
[[nodiscard]] inline Manifest read_manifest(const std::filesystem::path& folder) {
    return ManifestReader(folder).read();
}

}  // namespace vivit::detail
