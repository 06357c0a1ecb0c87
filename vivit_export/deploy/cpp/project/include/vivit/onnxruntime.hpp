// Run a bundle's graph in ONNX Runtime, as it was prepared for the CPU or a GPU at deployment.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/contract.hpp"
#include "vivit/detail/cores.hpp"
#include "vivit/detail/engine_registry.hpp"
#include "vivit/detail/manifest/manifest.hpp"
#include "vivit/detail/onnxruntime/load.hpp"
#include "vivit/detail/self_test/device.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// A bundle's graph in ONNX Runtime. On a GPU, TF32 is off, so that fp32 means fp32, and attention is fused if `vivit
/// deploy cpp` wrote the bundle and the library has such kernels.
class OnnxRuntimeBackend : public Backend {
public:
    /// @param bundle   the bundle to run; it need not outlive this call
    /// @param gpu      the ordinal, or none for the CPU
    /// @param threads  on the CPU; 0: as many as ONNX Runtime chooses, or as this process may use
    /// @throws EnvironmentFault  the library is too old, or the GPU cannot be used
    /// @throws BuildError        ONNX Runtime refuses the graph
    /// @throws BundleError       the graph does not have the contract's inputs and outputs
    explicit OnnxRuntimeBackend(const Bundle& bundle, std::optional<int> gpu = {}, int threads = 0)
        : OnnxRuntimeBackend(bundle, gpu, options_for(gpu, threads)) {}

    [[nodiscard]] Outputs run(const void* clips, std::size_t count) override {
        try {
            return run_batch(clips, count);
        } catch (const Ort::Exception& e) {
            throw EnvironmentFault("ONNX Runtime failed on a batch of " + std::to_string(count) + ": " +
                                   detail::first_line(e));
        }
    }

protected:
    /// With settings of one's own, such as those of a CPU, to try without a GPU what one would run.
    OnnxRuntimeBackend(const Bundle& bundle, std::optional<int> gpu, const Ort::SessionOptions& options)
        : OnnxRuntimeBackend(
              bundle, gpu, gpu ? detail::load_for_gpu(bundle, *gpu, options) : detail::load_for_cpu(bundle, options)) {}

private:
    OnnxRuntimeBackend(const Bundle& bundle, std::optional<int> gpu, detail::LoadedGraph&& graph)
        : Backend(facts_of(bundle, gpu, graph)),
          io_(bundle.contract().io),
          env_(std::move(graph.env)),
          session_(std::move(graph.session)) {
        check_signature();
    }

    // The same values as in vivit_export/runtime/session/onnxruntime.py.
    static constexpr int tokens_per_call = 4096, clips_per_call_cuda = 8;

    [[nodiscard]] static Facts facts_of(const Bundle& bundle, std::optional<int> gpu,
                                        const detail::LoadedGraph& graph) {
        const std::string runtime = std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString();
        Place place{{graph.file}};
        if (bundle.lists(detail::model_data_name)) place.files.emplace_back(detail::model_data_name);
        if (gpu)  // whose name ONNX Runtime does not tell
            return {"onnxruntime-cuda",
                    runtime + ", GPU " + std::to_string(*gpu) + ", " + graph.details,
                    {1, clips_per_call_cuda},
                    place};
        place.device = detail::cpu();
        const int most = std::max(1, tokens_per_call / bundle.tokens());
        return {"onnxruntime-cpu", runtime + ", CPU, " + graph.details, {1, most}, place};
    }

    [[nodiscard]] static Ort::SessionOptions options_for(std::optional<int> gpu, int threads) {
        require_version();
        Ort::SessionOptions options;
        options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
        // Otherwise its threads continue to spin after a run, and occupy the processors that preprocess the next clip.
        options.AddConfigEntry("session.force_spinning_stop", "1");
        // Silently, without this; elsewhere it makes INT8 products take twice the time.
        if (detail::saturates()) options.AddConfigEntry("session.x64quantprecision", "1");
        // ONNX Runtime takes as many threads as the machine has cores, whatever a container may use.
        if (threads > 0 || detail::is_restricted())
            options.SetIntraOpNumThreads(threads > 0 ? threads : detail::usable_cores());
        if (gpu) use_cuda(options, *gpu);
        return options;
    }

    static void require_version() {
        const OrtApiBase* base = OrtGetApiBase();
        if (!base->GetApi(ORT_API_VERSION))
            throw EnvironmentFault(std::string("ONNX Runtime is ") + base->GetVersionString() +
                                   " but this program was compiled for 1." + std::to_string(ORT_API_VERSION) +
                                   " or newer; put a newer library on its path");
    }

    static void use_cuda(Ort::SessionOptions& options, int gpu) {
        const auto found = Ort::GetAvailableProviders();
        if (std::find(found.begin(), found.end(), "CUDAExecutionProvider") == found.end())
            throw EnvironmentFault("this ONNX Runtime has no CUDA; link its GPU build, or choose another engine");
        const OrtApi& api = Ort::GetApi();
        OrtCUDAProviderOptionsV2* cuda = nullptr;
        try {
            Ort::ThrowOnError(api.CreateCUDAProviderOptions(&cuda));
            const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> owner(
                cuda, api.ReleaseCUDAProviderOptions);
            const std::string ordinal = std::to_string(gpu);
            // Memory grows by what is asked for, not to the next power of two.
            const std::array<const char*, 3> keys{"device_id", "use_tf32", "arena_extend_strategy"},
                values{ordinal.c_str(), "0", "kSameAsRequested"};
            Ort::ThrowOnError(api.UpdateCUDAProviderOptions(cuda, keys.data(), values.data(), keys.size()));
            options.AppendExecutionProvider_CUDA_V2(*cuda);
        } catch (const Ort::Exception& e) {
            throw EnvironmentFault("GPU " + std::to_string(gpu) + " cannot be used by ONNX Runtime (" +
                                   detail::first_line(e) + ")");
        }
    }

    [[nodiscard]] static ONNXTensorElementDataType type_of(const Tensor& tensor) {
        return tensor.dtype == "uint8" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }

    /// The graph must match the contract, or the memory of a tensor would have the wrong size.
    void check_signature() const {
        const auto refuse = [](const Tensor& tensor) {
            throw BundleError(std::string(Bundle::model_name) + " does not have " + tensor.name +
                              " as the contract says; export it again");
        };
        const Ort::AllocatorWithDefaultOptions allocator;
        const auto matches = [](const Tensor& tensor, const Ort::TypeInfo& info) {
            const auto found = info.GetTensorTypeAndShapeInfo();
            const std::vector<std::int64_t> shape = found.GetShape();
            return found.GetElementType() == type_of(tensor) && !shape.empty() &&
                   std::equal(shape.begin() + 1, shape.end(), tensor.clip_shape.begin(), tensor.clip_shape.end());
        };
        if (session_->GetInputCount() != 1 || io_.input.name != session_->GetInputNameAllocated(0, allocator).get() ||
            !matches(io_.input, session_->GetInputTypeInfo(0)))
            refuse(io_.input);
        for (const Tensor& output : io_.outputs) {
            bool found = false;
            for (std::size_t i = 0; i < session_->GetOutputCount(); ++i)
                found = found || (output.name == session_->GetOutputNameAllocated(i, allocator).get() &&
                                  matches(output, session_->GetOutputTypeInfo(i)));
            if (!found) refuse(output);
        }
    }

    [[nodiscard]] Outputs run_batch(const void* clips, std::size_t count) {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto bind = [&](const Tensor& tensor, void* data) {
            std::vector<std::int64_t> shape{std::int64_t(count)};
            shape.insert(shape.end(), tensor.clip_shape.begin(), tensor.clip_shape.end());
            return Ort::Value::CreateTensor(memory, data, count * tensor.clip_bytes(), shape.data(), shape.size(),
                                            type_of(tensor));
        };
        // ONNX Runtime only reads inputs; its API has no const for them.
        const Ort::Value input = bind(io_.input, const_cast<void*>(clips));
        const char* input_name = io_.input.name.c_str();
        Outputs results;
        std::vector<const char*> names;
        std::vector<Ort::Value> values;
        for (const Tensor& output : io_.outputs) {
            std::vector<float>& result = results[output.name];
            result.resize(count * output.clip_elements());
            names.push_back(output.name.c_str());
            values.push_back(bind(output, result.data()));
        }
        session_->Run(Ort::RunOptions{nullptr}, &input_name, &input, 1, names.data(), values.data(), names.size());
        return results;
    }

    IO io_;
    std::unique_ptr<Ort::Env> env_;
    std::unique_ptr<Ort::Session> session_;
};

namespace detail {

[[nodiscard]] inline std::unique_ptr<Backend> open_onnxruntime_cpu(const Bundle& bundle, const EngineRequest& request) {
    return std::make_unique<OnnxRuntimeBackend>(bundle, std::nullopt, request.threads);
}

[[nodiscard]] inline std::unique_ptr<Backend> open_onnxruntime_cuda(const Bundle& bundle,
                                                                    const EngineRequest& request) {
    return std::make_unique<OnnxRuntimeBackend>(bundle, request.gpu, request.threads);
}

inline const bool onnxruntime_is_registered = register_engine("onnxruntime-cpu", open_onnxruntime_cpu) &&
                                              register_engine("onnxruntime-cuda", open_onnxruntime_cuda);

}  // namespace detail

}  // namespace vivit
