// The contents of a bundle's manifest as plain types; detail/manifest/manifest_reader.hpp fills them.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// A device on which an engine reproduced the golden clips when it was built.
struct Verification {
    std::string device;  ///< name of the GPU, such as NVIDIA H100 80GB HBM3
    std::string driver;  ///< such as 580.65.06, CUDA 13.0
};

/// What the bundle says about one compiled engine; its bytes are engines/NAME.plan.
struct Engine {
    std::string flavor;                 ///< tensorrt or tensorrt-rtx
    std::string version;                ///< of the compiler, such as 11.4.0.106
    std::vector<int> sms;               ///< compute capabilities it runs on, such as 90
    std::pair<int, int> batches{1, 1};  ///< smallest and largest of its profile, in clips
    std::string onnx_sha256;            ///< of the graph it was compiled from
    std::vector<Verification> verified_on{};
};

/// A graph that runs in ONNX Runtime in place of the portable one; `vivit deploy cpp` makes it.
struct PreparedGraph {
    std::string file;
    std::string details;  ///< its arithmetic or attention, for people
};

namespace detail {

inline constexpr const char* bundle_format = "vivit-bundle/2";
inline constexpr const char* earlier_bundle_format = "vivit-bundle/1";  // the parts read here are the same
inline constexpr const char* manifest_name = "bundle.json";
inline constexpr const char* model_name = "model.onnx";
inline constexpr const char* model_data_name = "model.onnx.data";
inline constexpr const char* signature_name = "model.sig";

/// The name of an engine's file, as bundle.json lists it.
[[nodiscard]] inline std::string plan_name(const std::string& engine) { return "engines/" + engine + ".plan"; }

/// The manifest of a bundle whose files were verified.
struct Manifest {
    std::string text;                            ///< bundle.json as it was read
    std::map<std::string, std::string> sha256s;  ///< by name of the file
    std::map<std::string, Engine> engines;
    std::string precision;
    std::map<std::string, double> limits;  ///< of the gate, by metric
    std::optional<PreparedGraph> cpu_graph{}, cuda_graph{};
    Contract contract;
    int tokens = 1;  ///< of a clip, at most, in a block of the network
};

[[nodiscard]] inline BundleError altered(const std::filesystem::path& path) {
    return BundleError(path.string() + " is not the file that bundle.json describes: it was altered or cut short");
}

}  // namespace detail

}  // namespace vivit
