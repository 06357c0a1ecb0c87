// A bundle on disk: bundle.json names every other file with its size and SHA-256. All of them are verified
// before anything is loaded.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/detail/manifest/file_bytes.hpp"
#include "vivit/detail/manifest/manifest.hpp"
#include "vivit/detail/manifest/manifest_reader.hpp"
#include "vivit/detail/manifest/sha256.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// A bundle with a parsed manifest and verified files. Immutable: any number of threads may use one.
class Bundle {
public:
    static constexpr const char* format = detail::bundle_format;
    static constexpr const char* manifest_name = detail::manifest_name;
    static constexpr const char* model_name = detail::model_name;

    /// Read a bundle and check every listed file against its size and SHA-256.
    ///
    /// @param folder  the bundle
    /// @throws BundleError       not a bundle, another format version, or a file that is missing or altered
    /// @throws EnvironmentFault  OpenSSL offers no SHA-256
    explicit Bundle(std::filesystem::path folder) : path_(std::move(folder)), manifest_(detail::read_manifest(path_)) {}

    /// The folder, as it was given.
    [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

    /// The text of bundle.json, for anything that no other member returns.
    [[nodiscard]] const std::string& manifest_text() const noexcept { return manifest_.text; }

    [[nodiscard]] const Contract& contract() const noexcept { return manifest_.contract; }
    /// Tokens of a clip that a block of the network holds at once, at most; 1 or more.
    [[nodiscard]] int tokens() const noexcept { return manifest_.tokens; }

    /// The portable graph.
    [[nodiscard]] std::filesystem::path model() const { return path_ / model_name; }

    /// The graph prepared for ONNX Runtime on the CPU, if `vivit deploy cpp` added it; else the portable graph.
    [[nodiscard]] std::filesystem::path cpu_model() const {
        return manifest_.cpu_graph ? path_ / manifest_.cpu_graph->file : model();
    }

    /// The arithmetic of `cpu_model`, for people.
    [[nodiscard]] const std::string& cpu_details() const noexcept {
        const auto& graph = manifest_.cpu_graph;
        return graph && !graph->details.empty() ? graph->details : manifest_.precision;
    }

    /// The graph with fused attention for ONNX Runtime on a GPU, if `vivit deploy cpp` added one.
    [[nodiscard]] const std::optional<PreparedGraph>& cuda_graph() const noexcept { return manifest_.cuda_graph; }

    /// fp32, fp16 or bf16: the type of the graph's GEMMs.
    [[nodiscard]] const std::string& precision() const noexcept { return manifest_.precision; }

    /// The limits of the gate that the bundle was exported with, by metric; empty if it was not checked.
    [[nodiscard]] const std::map<std::string, double>& limits() const noexcept { return manifest_.limits; }

    /// The compiled engines by name.
    [[nodiscard]] const std::map<std::string, Engine>& engines() const noexcept { return manifest_.engines; }

    /// Bytes of a file that the manifest lists, verified to be the ones that it describes: what is hashed is returned.
    ///
    /// @throws BundleError        they were altered since, or cannot be read
    /// @throws std::out_of_range  the manifest does not list the file
    [[nodiscard]] std::vector<char> read(const std::string& name) const {
        std::vector<char> bytes = detail::read_bytes(path_ / name);
        if (detail::sha256_of_bytes(bytes) != manifest_.sha256s.at(name)) throw detail::altered(path_ / name);
        return bytes;
    }

    /// SHA-256 of each file that the manifest lists, by its name.
    [[nodiscard]] const std::map<std::string, std::string>& files() const noexcept { return manifest_.sha256s; }

    /// Whether the manifest lists a file.
    [[nodiscard]] bool lists(const std::string& name) const { return manifest_.sha256s.count(name) != 0; }

    /// Bytes of an engine, verified to be the ones that the manifest describes.
    ///
    /// @param name  one of `engines`
    /// @throws BundleError        they were altered since, or made from another graph
    /// @throws std::out_of_range  there is no such engine
    [[nodiscard]] std::vector<char> read_plan(const std::string& name) const {
        const Engine& engine = engines().at(name);
        std::vector<char> plan = read(detail::plan_name(name));
        if (engine.onnx_sha256 != manifest_.sha256s.at(model_name))
            throw BundleError((path_ / detail::plan_name(name)).string() + " was built from another " + model_name +
                              " than the one beside it; build it again");
        return plan;
    }

private:
    std::filesystem::path path_;
    detail::Manifest manifest_;
};

}  // namespace vivit
