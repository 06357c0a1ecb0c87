// Runs an engine on one thread, with a stream and pinned buffers of its own. For each batch size, the copies and the
// network are captured once into a CUDA graph and replayed.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "vivit/backend.hpp"
#include "vivit/contract.hpp"
#include "vivit/detail/tensorrt/api.hpp"
#include "vivit/detail/tensorrt/cuda.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

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
        // Work that was enqueued before a failure must finish with the buffers before they are freed.
        cudaStreamSynchronize(stream_.get());
    }

    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    [[nodiscard]] Outputs run(const void* clips, std::size_t count) {
        const PinnedBuffer& input = *buffers_.at(io_.input.name);
        std::memcpy(input.host(), clips, input.bytes(count));
        const auto graph = graphs_.find(count);
        if (graph == graphs_.end()) {
            enqueue_new(count);  // loads kernels and allocates memory outside the capture
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
            std::make_unique<PinnedBuffer>(cuda_, tensor.clip_bytes(), std::size_t(largest));
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

    /// Record copies and network for a batch size; none, with a note, if that is impossible.
    [[nodiscard]] GraphExec capture(std::size_t count) {
        // Thread-local, so that allocations of other threads do not invalidate the capture.
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
    std::map<std::string, std::unique_ptr<PinnedBuffer>> buffers_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::map<std::size_t, GraphExec> graphs_;
};

}  // namespace vivit::detail
