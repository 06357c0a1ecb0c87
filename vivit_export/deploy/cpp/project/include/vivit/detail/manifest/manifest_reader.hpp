// Reads bundle.json and verifies the files that it lists. Errors are the same sentences as in
// vivit_export/bundle/reading.py. No other header knows the format of the manifest.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/detail/limits.hpp"
#include "vivit/detail/manifest/contract_reader.hpp"
#include "vivit/detail/manifest/json.hpp"
#include "vivit/detail/manifest/manifest.hpp"
#include "vivit/detail/manifest/sha256.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// A file of the bundle, as the manifest describes it.
struct FileRecord {
    std::string sha256;
    std::int64_t size = 0;
};

template <typename T>
struct As<std::map<std::string, T>> {
    static std::string words() { return "a JSON object"; }
    static std::map<std::string, T> read(const json& value, const std::string& where) {
        if (!value.is_object()) refuse<std::map<std::string, T>>(value, where);
        std::map<std::string, T> items;
        for (const auto& [key, item] : value.items()) items.emplace(key, As<T>::read(item, where + "." + shortly(key)));
        return items;
    }
};

template <>
struct As<FileRecord> {
    static std::string words() { return "a JSON object"; }
    static FileRecord read(const json& value, const std::string& where) {
        const Object object(value, where, {"sha256", "size"});
        object.require({"sha256", "size"});
        return {object.get<std::string>("sha256"), object.get<std::int64_t>("size")};
    }
};

/// Smallest and largest batch of a profile.
template <>
struct As<std::pair<int, int>> {
    static std::string words() { return "a JSON object"; }
    static std::pair<int, int> read(const json& value, const std::string& where) {
        const Object object(value, where, {"min", "opt", "max"});
        object.require({"min", "opt", "max"});
        const std::pair<int, int> batches{object.get<int>("min"), object.get<int>("max")};
        if (batches.first < 1 || object.get<int>("opt") < batches.first || batches.second < object.get<int>("opt") ||
            batches.second > most_batch)
            throw InputError(
                "an engine has the profile min=" + std::to_string(batches.first) +
                ", opt=" + std::to_string(object.get<int>("opt")) + ", max=" + std::to_string(batches.second) +
                ", which must rise from 1 or more to at most " + std::to_string(most_batch) + "; build it again");
        return batches;
    }
};

template <>
struct As<Verification> {
    static std::string words() { return "a JSON object"; }
    static Verification read(const json& value, const std::string& where) {
        const auto fields = {"device", "driver", "versions", "clips", "batches"};
        const Object object(value, where, fields);
        object.require(fields);
        return {object.get<std::string>("device"), object.get<std::string>("driver")};
    }
};

template <>
struct As<Engine> {
    static std::string words() { return "a JSON object"; }
    static Engine read(const json& value, const std::string& where) {
        const Object object(value, where,
                            {"flavour", "version", "sms", "profiles", "precision", "size", "onnx_sha256", "proof",
                             "plan", "verified_on"});
        object.require({"flavour", "version", "sms", "profiles", "precision", "size", "onnx_sha256", "proof", "plan"});
        const auto profiles = object.get<std::vector<std::pair<int, int>>>("profiles");
        if (profiles.empty()) throw InputError("an engine has no profile; build it again");
        std::vector<int> sms;
        for (const std::int64_t sm : object.get<std::vector<std::int64_t>>("sms")) {
            if (sm < 1 || sm > most_sm)
                throw InputError("an engine has the compute capability " + std::to_string(sm) +
                                 ", which does not exist; build it again");
            sms.push_back(int(sm));
        }
        Engine engine{object.get<std::string>("flavour"), object.get<std::string>("version"), sms, profiles.front(),
                      object.get<std::string>("onnx_sha256")};
        object.take("verified_on", engine.verified_on);
        return engine;
    }
};

/// Reads one bundle; `read` is called once.
class ManifestReader {
public:
    explicit ManifestReader(std::filesystem::path folder)
        : folder_(std::move(folder)), file_((folder_ / manifest_name).string()) {}

    [[nodiscard]] Manifest read() {
        try {
            read_json();
            read_sections();
            for (const auto& [name, file] : files_) check_file(name, file);
        } catch (const std::filesystem::filesystem_error& e) {
            throw BundleError(e.path1().string() + " cannot be read: " + e.code().message() +
                              "; copy the bundle again");
        } catch (const InputError& e) {
            if (dynamic_cast<const BundleError*>(&e)) throw;
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
        if (fs::file_size(file_) > std::uintmax_t(most_manifest_bytes))
            refuse(" is larger than " + std::to_string(most_manifest_bytes >> 20) +
                   " MiB; it is not a bundle's manifest");
        try {
            std::ifstream stream(file_, std::ios::binary);
            manifest_.text.assign(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
            json_ = parse_json(manifest_.text);
        } catch (const json::parse_error& e) {
            refuse(" cannot be read as JSON (at byte " + std::to_string(e.byte) + "); copy the bundle again");
        } catch (const InputError& e) {
            refuse(" cannot be read as JSON (" + std::string(e.what()) + "); copy the bundle again");
        }
        const json found = json_.is_object() && json_.contains("format") ? json_["format"] : json();
        if (found != bundle_format && found != earlier_bundle_format)
            refuse(" has format " + shown(found) + "; this version reads '" + bundle_format + "' and '" +
                   earlier_bundle_format + "'");
        for (const char* section : {"model", "contract", "precision", "engines", "checks", "files"})
            if (!json_.contains(section))
                refuse(std::string(" lacks '") + section + "'; the bundle is incomplete, export it again");
    }

    void read_sections() {
        manifest_.contract = As<Contract>::read(json_["contract"], "contract");
        read_tokens();
        const json& precision = json_["precision"];
        if (precision.is_object() && precision.contains("name"))
            manifest_.precision = As<std::string>::read(precision["name"], "precision.name");
        const json& checks = json_["checks"];  // of which this is all that is read
        if (checks.is_object() && checks.contains("gate"))
            manifest_.limits = As<std::map<std::string, double>>::read(checks["gate"], "checks.gate");
        manifest_.engines = As<std::map<std::string, Engine>>::read(json_["engines"], "engines");
        files_ = As<std::map<std::string, FileRecord>>::read(json_["files"], "files");
        require_listed(model_name, "export it again");
        for (const auto& [name, engine] : manifest_.engines) require_listed(plan_name(name), "export it again");
        for (const char* name : {manifest_name, signature_name})
            if (files_.count(name))
                refuse(std::string(" lists ") + name + ", which cannot describe itself; export the bundle again");
        manifest_.cpu_graph = read_graph("cpu_graph");
        manifest_.cuda_graph = read_graph("cuda_graph");
    }

    void read_tokens() {
        const json& model = json_["model"];
        if (!model.is_object() || !model.contains("anatomy")) {  // as long as all were ViViTs, with one class token
            manifest_.tokens = manifest_.contract.clip.num_tubelets() + 1;
            return;
        }
        const Object anatomy(model["anatomy"], "model.anatomy", {"stacks", "heads", "tokens", "pooling", "flops"});
        anatomy.require({"stacks", "heads", "tokens", "pooling", "flops"});
        manifest_.tokens = anatomy.get<int>("tokens");
        if (manifest_.tokens < 1)
            throw InputError("anatomy: tokens=" + std::to_string(manifest_.tokens) + " is not 1 or more");
    }

    void require_listed(const std::string& name, const char* remedy) const {
        if (!files_.count(name)) refuse(" does not list " + name + "; the bundle is incomplete, " + remedy);
    }

    void check_file(const std::string& name, const FileRecord& file) {
        namespace fs = std::filesystem;
        const fs::path relative(name);
        bool outside = relative.is_absolute() || name.find('\\') != std::string::npos;
        for (const auto& part : relative) outside = outside || part == "..";
        if (outside) refuse(" lists " + quoted(name) + ", which lies outside the bundle");
        const auto path = folder_ / relative;
        if (!fs::is_regular_file(path))  // a link to a file is as good: the hash says what it leads to
            throw BundleError(path.string() + " is missing (or not a file); export again or restore the file");
        if (json(fs::file_size(path)) != json(file.size) || sha256_of(path) != file.sha256) throw altered(path);
        manifest_.sha256s[name] = file.sha256;
    }

    [[nodiscard]] std::optional<PreparedGraph> read_graph(const char* field) const {
        if (!json_.contains(field) || json_[field].is_null()) return std::nullopt;
        const Object object(json_[field], field, {"file", "details"});
        object.require({"file", "details"});
        PreparedGraph graph{object.get<std::string>("file"), object.get<std::string>("details")};
        require_listed(graph.file, "deploy it again");
        return graph;
    }

    std::filesystem::path folder_;
    std::string file_;
    json json_;
    std::map<std::string, FileRecord> files_;
    Manifest manifest_;
};

/// Read the manifest of a bundle and check every listed file against its size and SHA-256.
///
/// @throws BundleError  not a bundle, another format version, or a file that is missing or altered
[[nodiscard]] inline Manifest read_manifest(const std::filesystem::path& folder) {
    return ManifestReader(folder).read();
}

}  // namespace vivit::detail
