// Run a compiled engine of a bundle: TensorRT and TensorRT for RTX, which share one API; which of the two
// it is depends on the headers and the library that a program is built with.
//
// Whether an engine fits is decided from its sidecar before anything is deserialised: an engine holds
// machine code for one compiler version and GPU. Host code inside an engine is never allowed. Each thread
// runs in an execution context of its own, with its own stream and pinned buffers; for each batch size the
// copies and the network are captured once into a CUDA graph and replayed.
#pragma once

#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/cuda.hpp"

namespace vivit {

namespace detail {

#ifdef TRT_MAJOR_RTX
constexpr const char* tensorrt_flavour = "tensorrt-rtx";
constexpr const char* tensorrt_title = "TensorRT for RTX";
#else
constexpr const char* tensorrt_flavour = "tensorrt";
constexpr const char* tensorrt_title = "TensorRT";
#endif

/// Version of the library that is loaded, as in 11.4.0.106.
inline std::string tensorrt_version() {
    std::string text;
    for (int part :
         {getInferLibMajorVersion(), getInferLibMinorVersion(), getInferLibPatchVersion(), getInferLibBuildVersion()})
        text += (text.empty() ? "" : ".") + std::to_string(part);
    return text;
}

/// Keeps each thread's last complaint for our own messages instead of printing it.
///
/// TensorRT remembers the first logger of a process beyond the runtime it was given for, so all sessions share
/// one that lives as long as the process.
class Complaints final : public nvinfer1::ILogger {
public:
    static Complaints& shared() {
        static Complaints complaints;
        return complaints;
    }

    void log(Severity severity, const char* message) noexcept override {
        if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
        const std::size_t length = std::min(std::strcspn(message, "\n"), last().size() - 1);
        std::memcpy(last().data(), message, length);
        last()[length] = '\0';
    }

    /// What was said last on this thread, in brackets; forgotten afterwards.
    static std::string said() {
        const std::string text = last().data();
        last()[0] = '\0';
        return text.empty() ? "" : " (" + text + ")";
    }

private:
    static std::array<char, 512>& last() {
        thread_local std::array<char, 512> last{};
        return last;
    }
};

/// "(8, 64, 64, 3)", as Python shows a tuple.
template <typename Sides>
std::string tuple(const Sides& sides) {
    std::string text;
    for (const auto side : sides) text += (text.empty() ? "" : ", ") + std::to_string(side);
    return "(" + text + (sides.size() == 1 ? ",)" : ")");
}

inline void require(bool done, const std::string& what) {
    if (!done) throw EnvironmentFault("the engine could not " + what + Complaints::said());
}

/// An execution context with its stream, buffers and CUDA graphs; for one thread at a time.
class Context {
public:
    Context(std::unique_ptr<nvinfer1::IExecutionContext> context, const Cuda& cuda, const IO& io, int largest,
            std::function<void(std::string)> note)
        : cuda_(cuda), io_(io), note_(std::move(note)), stream_(make_stream(cuda)), context_(std::move(context)) {
        require(context_->setOptimizationProfileAsync(0, stream_.get()), "take its profile");
        cuda.check(cudaStreamSynchronize(stream_.get()));
        bind(io.input, largest);
        for (const Tensor& output : io.outputs) bind(output, largest);
    }

    ~Context() {
        // What was enqueued before a failure must be done with the buffers before they are freed.
        cudaStreamSynchronize(stream_.get());
    }

    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    Outputs run(const void* clips, std::size_t count) {
        const Buffer& input = *buffers_.at(io_.input.name);
        std::memcpy(input.host(), clips, input.bytes(count));
        const auto graph = graphs_.find(count);
        if (graph == graphs_.end()) {
            enqueue_new(count);  // kernels are loaded, and memory is sized, outside of the capture
            cuda_.check(cudaStreamSynchronize(stream_.get()));
            graphs_[count] = capture(count);
        } else if (graph->second) {
            cuda_.check(cudaGraphLaunch(graph->second.get(), stream_.get()));
        } else {
            enqueue_new(count);
        }
        cuda_.check(cudaStreamSynchronize(stream_.get()));
        Outputs results;
        for (const Tensor& output : io_.outputs) {
            const auto* values = static_cast<const float*>(buffers_.at(output.name)->host());
            results[output.name].assign(values, values + count * output.clip_elements());
        }
        return results;
    }

private:
    void bind(const Tensor& tensor, int largest) {
        auto& buffer = buffers_[tensor.name] =
            std::make_unique<Buffer>(cuda_, tensor.clip_bytes(), std::size_t(largest));
        require(context_->setTensorAddress(tensor.name.c_str(), buffer->device()), "bind " + tensor.name);
    }

    void enqueue_new(std::size_t count) {
        nvinfer1::Dims shape{};
        shape.d[shape.nbDims++] = std::int64_t(count);
        for (int side : io_.input.clip_shape) shape.d[shape.nbDims++] = side;
        require(context_->setInputShape(io_.input.name.c_str(), shape), "take a batch of " + std::to_string(count));
        enqueue(count);
    }

    void enqueue(std::size_t count) {
        buffers_.at(io_.input.name)->upload(count, stream_.get());
        require(context_->enqueueV3(stream_.get()), "run a batch of " + std::to_string(count));
        for (const Tensor& output : io_.outputs) buffers_.at(output.name)->download(count, stream_.get());
    }

    /// Record copies and network for a batch size; none, with a note, where that is impossible.
    GraphExec capture(std::size_t count) {
        // Thread-local: what other threads allocate meanwhile does not spoil it.
        cuda_.check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal));
        cudaGraph_t recorded = nullptr;
        try {
            enqueue(count);
        } catch (const EnvironmentFault& e) {
            cudaStreamEndCapture(stream_.get(), &recorded);
            const Graph unfinished(recorded);
            note_("batches of " + std::to_string(count) + " run without a CUDA graph: " + e.what());
            return {};
        }
        cuda_.check(cudaStreamEndCapture(stream_.get(), &recorded));
        const Graph graph(recorded);
        cudaGraphExec_t executable = nullptr;
        cuda_.check(cudaGraphInstantiate(&executable, graph.get(), 0));
        return GraphExec(executable);
    }

    const Cuda& cuda_;
    const IO& io_;
    std::function<void(std::string)> note_;
    // Destroyed in reverse: graphs, then the context, then the buffers that both point to, then the stream.
    Stream stream_;
    std::map<std::string, std::unique_ptr<Buffer>> buffers_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::map<std::size_t, GraphExec> graphs_;
};

}  // namespace detail

/// Why an engine cannot run with this library on this GPU, or an empty string if it can.
inline std::string misfit(const Engine& engine, const std::string& version, int sm) {
    if (engine.version == version && std::count(engine.sms.begin(), engine.sms.end(), sm)) return "";
    std::string targets;
    for (int built : engine.sms) targets += (targets.empty() ? "sm_" : ", sm_") + std::to_string(built);
    return std::string("was built for ") + detail::tensorrt_title + " " + engine.version + " on " + targets +
           "; this machine has " + detail::tensorrt_title + " " + version + " on sm_" + std::to_string(sm);
}

/// One engine on one GPU.
class TensorRTBackend final : public Backend {
public:
    /// Args: `engine` names one engine of the bundle, or none for the first that fits.
    /// Throws EnvironmentFault: there is none, none fits, there is no GPU, or TensorRT refuses it; BundleError: the
    /// engine was altered, or does not have the contract's inputs and outputs.
    TensorRTBackend(const Bundle& bundle, int gpu, const std::optional<std::string>& engine = {})
        : io_(bundle.contract().io) {
        const std::vector<std::string> candidates = candidates_in(bundle, engine);
        cuda_ = std::make_unique<detail::Cuda>(gpu);  // before anything of TensorRT
        const std::string chosen = choose(bundle, candidates);
        const std::vector<char> plan = bundle.read_plan(chosen);
        name = detail::tensorrt_flavour;
        batches = bundle.engines().at(chosen).batches;
        details = std::string(detail::tensorrt_title) + " " + detail::tensorrt_version() + ", GPU " +
                  std::to_string(gpu) + " (sm_" + std::to_string(cuda_->sm()) + "), " + bundle.precision() +
                  ", engine " + chosen;
        runtime_.reset(nvinfer1::createInferRuntime(detail::Complaints::shared()));
        if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        if (!engine_)
            throw EnvironmentFault(std::string(detail::tensorrt_title) + " refuses the engine " + chosen +
                                   detail::Complaints::said());
        check_signature(chosen);
    }

    ~TensorRTBackend() override {
        if (cudaSetDevice(cuda_->gpu()) == cudaSuccess) contexts_.clear();
    }

    Outputs run(const void* clips, std::size_t count) override {
        cuda_->use();
        return contexts_.lend([&](detail::Context& context) { return context.run(clips, count); });
    }

    std::vector<std::string> notes() const override {
        const std::lock_guard<std::mutex> guard(lock_);
        return notes_;
    }

private:
    static std::vector<std::string> candidates_in(const Bundle& bundle, const std::optional<std::string>& wanted) {
        std::vector<std::string> names;
        for (const auto& [name, engine] : bundle.engines())
            if (engine.flavour == detail::tensorrt_flavour && (!wanted || *wanted == name)) names.push_back(name);
        if (names.empty())
            throw EnvironmentFault(std::string("the bundle has no ") + detail::tensorrt_title +
                                   " engine; add one with: " + build_command(bundle));
        return names;
    }

    std::string choose(const Bundle& bundle, const std::vector<std::string>& candidates) const {
        std::string reasons;
        for (const std::string& candidate : candidates) {
            const std::string reason = misfit(bundle.engines().at(candidate), detail::tensorrt_version(), cuda_->sm());
            if (reason.empty()) return candidate;
            reasons += (reasons.empty() ? "" : "; ") + candidate + " " + reason;
        }
        throw EnvironmentFault(reasons + "; build one here with: " + build_command(bundle));
    }

    static std::string build_command(const Bundle& bundle) {
        return "vivit build " + bundle.path().string() + " --target " + detail::tensorrt_flavour;
    }

    /// TensorRT reinterprets bytes of another type without a word: compare before anything is bound.
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

    static std::string type_name(nvinfer1::DataType type) {
        constexpr std::array<const char*, 9> names{"FLOAT", "HALF", "INT8", "INT32", "BOOL",
                                                   "UINT8", "FP8",  "BF16", "INT64"};
        const auto index = std::size_t(type);
        return index < names.size() ? names[index] : "type " + std::to_string(index);
    }

    std::unique_ptr<detail::Context> make_context() {
#ifdef TRT_MAJOR_RTX
        const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine_->createRuntimeConfig());
        // Kernels for a new batch size are compiled before it runs, not while a slow one stands in: that one
        // would be captured.
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
        return std::make_unique<detail::Context>(std::move(context), *cuda_, io_, batches.second,
                                                 [this](std::string text) {
                                                     const std::lock_guard<std::mutex> guard(lock_);
                                                     notes_.push_back(std::move(text));
                                                 });
    }

    IO io_;
    std::unique_ptr<detail::Cuda> cuda_;
    // The runtime must outlive the engine, and that the contexts.
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    mutable std::mutex lock_;
    std::vector<std::string> notes_;
    detail::Pool<detail::Context> contexts_{[this] { return make_context(); }};
};

}  // namespace vivit
