// Load a graph of a bundle in ONNX Runtime: the one that was prepared for a device at deployment, or the portable one.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vivit/bundle.hpp"
#include "vivit/detail/manifest/file_bytes.hpp"
#include "vivit/detail/manifest/manifest.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// A graph that ONNX Runtime has loaded.
struct LoadedGraph {
    std::unique_ptr<Ort::Env> env;
    std::unique_ptr<Ort::Session> session;
    std::string file;     ///< of the bundle
    std::string details;  ///< arithmetic and attention, for people
};

[[nodiscard]] inline std::string first_line(const Ort::Exception& e) {
    const std::string text = e.what();
    return text.substr(0, text.find('\n'));
}

/// Load the bytes that were verified: ONNX Runtime opens no file of the bundle by its name. Meanwhile the weights are
/// in memory twice, in these bytes and as ONNX Runtime prepares them.
///
/// @throws Ort::Exception  it refuses the graph
[[nodiscard]] inline std::unique_ptr<Ort::Session> load_verified(const Ort::Env& env, const Bundle& bundle,
                                                                 const std::string& name,
                                                                 const Ort::SessionOptions& options) {
    std::unique_ptr<Ort::Session> session;
    {
        const std::vector<char> graph = bundle.read(name);
        Ort::SessionOptions own = options.Clone();  // the weights belong to one load
        std::vector<char> weights;
        if (bundle.lists(model_data_name)) {
            weights = bundle.read(model_data_name);
            own.AddExternalInitializersFromFilesInMemory({model_data_name}, {weights.data()}, {weights.size()});
        }
        session = std::make_unique<Ort::Session>(env, graph.data(), graph.size(), own);
    }
    return_freed_memory();
    return session;
}

/// Load the graph for the CPU.
///
/// @throws BuildError  ONNX Runtime refuses it
[[nodiscard]] inline LoadedGraph load_for_cpu(const Bundle& bundle, const Ort::SessionOptions& options) {
    LoadedGraph graph{std::make_unique<Ort::Env>(ORT_LOGGING_LEVEL_ERROR, "vivit"), nullptr,
                      bundle.cpu_model().lexically_relative(bundle.path()).generic_string(), bundle.cpu_details()};
    try {
        graph.session = load_verified(*graph.env, bundle, graph.file, options);
    } catch (const Ort::Exception& e) {
        throw BuildError("ONNX Runtime cannot load " + graph.file + ": " + first_line(e));
    }
    return graph;
}

/// Load the graph with fused attention, or the portable one where this ONNX Runtime has no such kernel.
///
/// @throws EnvironmentFault  the GPU cannot be used
[[nodiscard]] inline LoadedGraph load_for_gpu(const Bundle& bundle, int gpu, const Ort::SessionOptions& options) {
    LoadedGraph graph{std::make_unique<Ort::Env>(ORT_LOGGING_LEVEL_ERROR, "vivit"), nullptr, model_name,
                      bundle.precision() + ", attention as in the graph"};
    if (const std::optional<PreparedGraph>& fused = bundle.cuda_graph()) {
        try {
            graph.session = load_verified(*graph.env, bundle, fused->file, options);
            graph.file = fused->file;
            graph.details = bundle.precision() + ", " + fused->details;
            return graph;
        } catch (const Ort::Exception& e) {
            graph.details += ", because fused attention does not load: ONNX Runtime cannot load " + fused->file + ": " +
                             first_line(e);
        }
    }
    try {
        graph.session = load_verified(*graph.env, bundle, graph.file, options);
    } catch (const Ort::Exception& e) {
        throw EnvironmentFault("GPU " + std::to_string(gpu) + " cannot be used by ONNX Runtime (" + first_line(e) +
                               ")");
    }
    return graph;
}

}  // namespace vivit::detail
