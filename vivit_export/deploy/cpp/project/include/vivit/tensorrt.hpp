// Run a compiled engine of a bundle with TensorRT or TensorRT for RTX, which share one API. The headers and the
// library that a program is built with decide which of the two it is.
//
// An engine's sidecar decides whether it fits, before anything is deserialized: an engine holds machine code
// for one compiler version and GPU. Host code inside an engine is never allowed.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/contract.hpp"
#include "vivit/detail/engine_registry.hpp"
#include "vivit/detail/pool.hpp"
#include "vivit/detail/tensorrt/api.hpp"
#include "vivit/detail/tensorrt/context.hpp"
#include "vivit/detail/tensorrt/cuda.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"

namespace vivit {

namespace detail {

/// Why an engine cannot run with this library on this GPU, or an empty string if it can.
[[nodiscard]] inline std::string misfit(const Engine& engine, const std::string& version, int sm) {
    if (engine.version == version && std::count(engine.sms.begin(), engine.sms.end(), sm)) return "";
    std::string targets;
    for (int built : engine.sms) targets += (targets.empty() ? "sm_" : ", sm_") + std::to_string(built);
    return std::string("was built for ") + tensorrt_title + " " + engine.version + " on " + targets +
           "; this machine has " + tensorrt_title + " " + version + " on sm_" + std::to_string(sm);
}

}  // namespace detail

/// One engine on one GPU.
class TensorRTBackend final : public Backend {
public:
    /// @param bundle  the bundle with the engine; it need not outlive this call
    /// @param gpu     its ordinal
    /// @param engine  the name of an engine of the bundle; none: the first that fits
    /// @throws EnvironmentFault  there is none, none fits, there is no GPU, or TensorRT refuses it
    /// @throws BundleError       the engine was altered, or does not have the contract's inputs and outputs
    explicit TensorRTBackend(const Bundle& bundle, int gpu = 0, const std::optional<std::string>& engine = {})
        : TensorRTBackend(bundle, choose(bundle, gpu, engine)) {}

    ~TensorRTBackend() override {
        if (cudaSetDevice(cuda_->gpu()) == cudaSuccess) contexts_.clear();
    }

    [[nodiscard]] Outputs run(const void* clips, std::size_t count) override {
        cuda_->use();
        return contexts_.lend([&](detail::Context& context) { return context.run(clips, count); });
    }

    [[nodiscard]] std::vector<std::string> notes() const override {
        const std::lock_guard<std::mutex> guard(lock_);
        return notes_;
    }

private:
    /// An engine that fits a GPU.
    struct Choice {
        std::unique_ptr<detail::Cuda> cuda;
        std::string engine;
    };

    TensorRTBackend(const Bundle& bundle, Choice choice)
        : Backend(facts_of(bundle, choice)), io_(bundle.contract().io), cuda_(std::move(choice.cuda)) {
        const std::string& chosen = choice.engine;
        const std::vector<char> plan = bundle.read_plan(chosen);
        runtime_.reset(nvinfer1::createInferRuntime(detail::Complaints::shared()));
        if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        if (!engine_)
            throw EnvironmentFault(std::string(detail::tensorrt_title) + " refuses the engine " + chosen +
                                   detail::Complaints::said());
        check_signature(chosen);
    }

    [[nodiscard]] static Facts facts_of(const Bundle& bundle, const Choice& choice) {
        const Device& device = choice.cuda->device();
        Place place{{detail::plan_name(choice.engine)}, device};
        for (const Verification& on : bundle.engines().at(choice.engine).verified_on)
            place.is_verified = place.is_verified || (on.device == device.name && on.driver == device.driver);
        return {detail::tensorrt_flavor,
                std::string(detail::tensorrt_title) + " " + detail::tensorrt_version() + ", GPU " +
                    std::to_string(choice.cuda->gpu()) + " (sm_" + std::to_string(choice.cuda->sm()) + "), " +
                    bundle.precision() + ", engine " + choice.engine,
                bundle.engines().at(choice.engine).batches, place};
    }

    [[nodiscard]] static std::vector<std::string> candidates_in(const Bundle& bundle,
                                                                const std::optional<std::string>& wanted) {
        std::vector<std::string> names;
        for (const auto& [engine_name, engine] : bundle.engines())
            if (engine.flavor == detail::tensorrt_flavor && (!wanted || *wanted == engine_name))
                names.push_back(engine_name);
        if (names.empty())
            throw EnvironmentFault(std::string("the bundle has no ") + detail::tensorrt_title +
                                   " engine; add one with: " + build_command(bundle));
        return names;
    }

    [[nodiscard]] static Choice choose(const Bundle& bundle, int gpu, const std::optional<std::string>& wanted) {
        const std::vector<std::string> candidates = candidates_in(bundle, wanted);
        auto cuda = std::make_unique<detail::Cuda>(gpu);  // before anything of TensorRT
        std::string reasons;
        for (const std::string& candidate : candidates) {
            const std::string reason =
                detail::misfit(bundle.engines().at(candidate), detail::tensorrt_version(), cuda->sm());
            if (reason.empty()) return {std::move(cuda), candidate};
            reasons += (reasons.empty() ? "" : "; ") + candidate + " " + reason;
        }
        throw EnvironmentFault(reasons + "; build one here with: " + build_command(bundle));
    }

    [[nodiscard]] static std::string build_command(const Bundle& bundle) {
        return "vivit build " + bundle.path().string() + " --target " + detail::tensorrt_flavor;
    }

    /// TensorRT silently reinterprets bytes of another type, so compare before anything is bound.
    void check_signature(const std::string& engine) const {
        check_tensor(io_.input, nvinfer1::TensorIOMode::kINPUT, engine);
        for (const Tensor& output : io_.outputs) check_tensor(output, nvinfer1::TensorIOMode::kOUTPUT, engine);
    }

    void check_tensor(const Tensor& tensor, nvinfer1::TensorIOMode mode, const std::string& engine) const {
        bool found = false;
        for (int i = 0; i < engine_->getNbIOTensors(); ++i) found = found || tensor.name == engine_->getIOTensorName(i);
        if (!found || engine_->getTensorIOMode(tensor.name.c_str()) != mode)
            throw BundleError("engine " + engine + " has no " +
                              (mode == nvinfer1::TensorIOMode::kINPUT ? "input " : "output ") + tensor.name +
                              "; build it again");
        const nvinfer1::Dims dims = engine_->getTensorShape(tensor.name.c_str());
        const std::vector<std::int64_t> shape(dims.d + 1, dims.d + std::max(1, int(dims.nbDims)));
        const auto type = engine_->getTensorDataType(tensor.name.c_str());
        const bool same_type =
            type == (tensor.dtype == "uint8" ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT);
        if (!same_type || !std::equal(shape.begin(), shape.end(), tensor.clip_shape.begin(), tensor.clip_shape.end()))
            throw BundleError("engine " + engine + " has " + tensor.name + " as " + type_name(type) + " " +
                              detail::tuple(shape) + ", but the contract says " + tensor.dtype + " " +
                              detail::tuple(tensor.clip_shape) + "; build it again");
    }

    [[nodiscard]] static std::string type_name(nvinfer1::DataType type) {
        constexpr std::array<const char*, 9> names{"FLOAT", "HALF", "INT8", "INT32", "BOOL",
                                                   "UINT8", "FP8",  "BF16", "INT64"};
        const auto index = std::size_t(type);
        return index < names.size() ? names[index] : "type " + std::to_string(index);
    }

    [[nodiscard]] std::unique_ptr<detail::Context> make_context() {
#ifdef TRT_MAJOR_RTX
        const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
        // Kernels for a new batch size are compiled before it runs: otherwise a slower kernel would run first, and
        // the graph would capture that one.
        if (config)
            config->setDynamicShapesKernelSpecializationStrategy(
                nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
        std::unique_ptr<nvinfer1::IExecutionContext> context(config ? engine_->createExecutionContext(config.get())
                                                                    : nullptr);
#else
        std::unique_ptr<nvinfer1::IExecutionContext> context(engine_->createExecutionContext());
#endif
        if (!context)
            throw EnvironmentFault(std::string(detail::tensorrt_title) + " cannot make an execution context" +
                                   detail::Complaints::said() + "; free GPU memory");
        return std::make_unique<detail::Context>(std::move(context), *cuda_, io_, batches().second,
                                                 [this](std::string text) {
                                                     const std::lock_guard<std::mutex> guard(lock_);
                                                     notes_.push_back(std::move(text));
                                                 });
    }

    IO io_;
    std::unique_ptr<detail::Cuda> cuda_;
    // The runtime must outlive the engine, and the engine the contexts.
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    mutable std::mutex lock_;
    std::vector<std::string> notes_;
    detail::Pool<detail::Context> contexts_{[this] { return make_context(); }};
};

namespace detail {

[[nodiscard]] inline std::unique_ptr<Backend> open_tensorrt(const Bundle& bundle, const EngineRequest& request) {
    return std::make_unique<TensorRTBackend>(bundle, request.gpu, request.plan);
}

inline const bool tensorrt_is_registered = register_engine(tensorrt_flavor, open_tensorrt);

}  // namespace detail

}  // namespace vivit
