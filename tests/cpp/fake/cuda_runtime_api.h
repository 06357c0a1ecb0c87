// A GPU made of host memory: the dozen calls of the CUDA runtime that vivit uses, under their own names.
//
// Work is queued on streams and done when they are synchronized, or recorded while they are captured, so that a
// missing synchronization or a graph of stale addresses gives wrong results, as on a GPU. Wrong use aborts.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100
};
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };
constexpr unsigned cudaStreamNonBlocking = 1;
struct cudaDeviceProp {
    char name[256];
};

namespace fake {

using Operations = std::vector<std::function<void()>>;

[[noreturn]] inline void misuse(const char* what) {
    std::fprintf(stderr, "wrong use of CUDA or TensorRT: %s\n", what);
    std::abort();
}
inline void insist(bool condition, const char* what) {
    if (!condition) misuse(what);
}

}  // namespace fake

struct CUstream_st {
    fake::Operations queue, recorded;
    bool capturing = false;
};
struct CUgraph_st {
    fake::Operations operations;
};
struct CUgraphExec_st {
    fake::Operations operations;
};
using cudaStream_t = CUstream_st*;
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraphExec_st*;

namespace fake {

/// The GPU that a test looks into, and changes.
struct Gpu {
    std::mutex lock;
    cudaError_t status = cudaSuccess;
    int devices = 1, sm = 90;
    std::string name = "NVIDIA H100 80GB HBM3";
    std::size_t budget = std::size_t(1) << 30;
    std::map<const void*, std::unique_ptr<char[]>> memory;
    std::set<const void*> pinned;
    int asked = 0, streams = 0, graphs = 0, launched = 0;
};

inline Gpu& gpu() {
    static Gpu gpu;
    return gpu;
}

inline int& current_device() {
    thread_local int device = -1;
    return device;
}

inline void enqueue(cudaStream_t stream, std::function<void()> operation) {
    (stream->capturing ? stream->recorded : stream->queue).push_back(std::move(operation));
}

inline cudaError_t allocate(void** memory, std::size_t size, bool pinned) {
    insist(current_device() >= 0, "cudaSetDevice comes first in every thread");
    const std::lock_guard<std::mutex> guard(gpu().lock);
    if (size > gpu().budget) return cudaErrorMemoryAllocation;
    gpu().budget -= size;
    std::unique_ptr<char[]> block(new char[size]);
    std::memset(block.get(), 0xAB, size);
    *memory = block.get();
    if (pinned) gpu().pinned.insert(*memory);
    gpu().memory[*memory] = std::move(block);
    return cudaSuccess;
}

inline cudaError_t release(void* memory) {
    const std::lock_guard<std::mutex> guard(gpu().lock);
    insist(gpu().memory.erase(memory) == 1, "memory that was not allocated is freed");
    gpu().pinned.erase(memory);
    return cudaSuccess;
}

}  // namespace fake

inline const char* cudaGetErrorName(cudaError_t status) {
    if (status == cudaErrorMemoryAllocation) return "cudaErrorMemoryAllocation";
    if (status == cudaErrorInsufficientDriver) return "cudaErrorInsufficientDriver";
    return status == cudaErrorNoDevice ? "cudaErrorNoDevice" : "cudaSuccess";
}
inline cudaError_t cudaGetDeviceCount(int* count) {
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    ++fake::gpu().asked;
    *count = fake::gpu().devices;
    return fake::gpu().status;
}
inline cudaError_t cudaSetDevice(int device) {
    fake::current_device() = device;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? fake::gpu().sm / 10 : fake::gpu().sm % 10;
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    std::snprintf(properties->name, sizeof properties->name, "%s", fake::gpu().name.c_str());
    return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}

inline cudaError_t cudaMalloc(void** memory, std::size_t size) { return fake::allocate(memory, size, false); }
inline cudaError_t cudaMallocHost(void** memory, std::size_t size) { return fake::allocate(memory, size, true); }
inline cudaError_t cudaFree(void* memory) { return fake::release(memory); }
inline cudaError_t cudaFreeHost(void* memory) { return fake::release(memory); }
inline cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t size, cudaMemcpyKind kind,
                                   cudaStream_t stream) {
    {
        const std::lock_guard<std::mutex> guard(fake::gpu().lock);
        const bool up = kind == cudaMemcpyHostToDevice;
        fake::insist(fake::gpu().pinned.count(up ? source : target) == 1, "the host's side of a copy must be pinned");
        fake::insist(fake::gpu().pinned.count(up ? target : source) == 0, "both sides of a copy are the host's");
    }
    fake::enqueue(stream, [=] { std::memcpy(target, source, size); });
    return cudaSuccess;
}

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    fake::insist(flags == cudaStreamNonBlocking, "the stream would wait for the default one");
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    ++fake::gpu().streams;
    *stream = std::make_unique<CUstream_st>().release();
    return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    fake::insist(stream->queue.empty(), "a stream is destroyed with work on it");
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    --fake::gpu().streams;
    const std::unique_ptr<CUstream_st> owner(stream);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    fake::insist(!stream->capturing, "a stream that is captured is synchronised");
    for (const auto& operation : stream->queue) operation();
    stream->queue.clear();
    return cudaSuccess;
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    fake::insist(mode == cudaStreamCaptureModeThreadLocal && stream->queue.empty(),
                 "a capture begins on a busy stream");
    stream->capturing = true;
    return cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    stream->capturing = false;
    ++fake::gpu().graphs;
    *graph = std::make_unique<CUgraph_st>(CUgraph_st{std::move(stream->recorded)}).release();
    stream->recorded.clear();
    return cudaSuccess;
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    ++fake::gpu().graphs;
    *executable = std::make_unique<CUgraphExec_st>(CUgraphExec_st{graph->operations}).release();
    return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    --fake::gpu().graphs;
    const std::unique_ptr<CUgraph_st> owner(graph);
    return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    --fake::gpu().graphs;
    const std::unique_ptr<CUgraphExec_st> owner(executable);
    return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    const std::lock_guard<std::mutex> guard(fake::gpu().lock);
    ++fake::gpu().launched;
    for (const auto& operation : executable->operations) stream->queue.push_back(operation);
    return cudaSuccess;
}
