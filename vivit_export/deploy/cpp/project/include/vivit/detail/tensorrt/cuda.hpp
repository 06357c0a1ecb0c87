// The few CUDA runtime calls that a session needs, each with its status checked.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

#include "vivit/backend.hpp"
#include "vivit/detail/self_test/device.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// One GPU.
class Cuda {
public:
    /// @param gpu  its ordinal
    /// @throws EnvironmentFault  the driver or the GPU is missing
    explicit Cuda(int gpu) : gpu_(gpu) {
        // This call comes first: without a working driver, TensorRT crashes or returns unusable objects.
        int count = 0;
        const cudaError_t status = cudaGetDeviceCount(&count);
        if (status != cudaSuccess || count < 1)
            throw EnvironmentFault("no NVIDIA GPU can be used here (" +
                                   std::string(status != cudaSuccess ? cudaGetErrorName(status) : "none is visible") +
                                   "); check that nvidia-smi lists it and that the driver is new enough");
        if (gpu < 0 || gpu >= count)
            throw EnvironmentFault("there is no GPU " + std::to_string(gpu) + ": this machine has " +
                                   std::to_string(count) + ", counted from 0");
        use();
        int major = 0, minor = 0;
        check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu));
        check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu));
        sm_ = 10 * major + minor;
        cudaDeviceProp properties{};
        int driver = 0;
        check(cudaGetDeviceProperties(&properties, gpu));
        check(cudaDriverGetVersion(&driver));
        device_ = {properties.name, gpu_driver(driver)};
    }

    [[nodiscard]] int gpu() const noexcept { return gpu_; }
    /// What identifies it.
    [[nodiscard]] const Device& device() const noexcept { return device_; }
    /// Compute capability, such as 90.
    [[nodiscard]] int sm() const noexcept { return sm_; }

    /// Select this GPU for the calling thread; CUDA stores the choice per thread.
    void use() const { check(cudaSetDevice(gpu_)); }

    /// Throw EnvironmentFault unless the status is success.
    void check(cudaError_t status) const {
        if (status == cudaSuccess) return;
        const std::string hint =
            status == cudaErrorMemoryAllocation ? "; free GPU memory, or take a smaller batch" : "";
        throw EnvironmentFault("GPU " + std::to_string(gpu_) + " failed with " + cudaGetErrorName(status) + hint);
    }

private:
    int gpu_;
    int sm_ = 0;
    Device device_;
};

/// A CUDA object, freed by `free`.
template <typename Handle, cudaError_t (*free)(Handle)>
struct Freed {
    void operator()(Handle handle) const { free(handle); }
};
template <typename Handle, cudaError_t (*free)(Handle)>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Freed<Handle, free>>;

using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
using Graph = Owned<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

/// A stream that does not wait for the default stream.
[[nodiscard]] inline Stream make_stream(const Cuda& cuda) {
    cudaStream_t stream = nullptr;
    cuda.check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return Stream(stream);
}

/// One tensor at its largest batch: pinned host memory and a buffer on the GPU.
class PinnedBuffer {
public:
    PinnedBuffer(const Cuda& cuda, std::size_t clip_bytes, std::size_t max_clips)
        : cuda_(cuda), clip_bytes_(clip_bytes) {
        void* memory = nullptr;
        cuda.check(cudaMallocHost(&memory, clip_bytes * max_clips));
        host_.reset(memory);
        cuda.check(cudaMalloc(&memory, clip_bytes * max_clips));
        device_.reset(memory);
    }

    [[nodiscard]] void* host() const noexcept { return host_.get(); }
    [[nodiscard]] void* device() const noexcept { return device_.get(); }
    [[nodiscard]] std::size_t bytes(std::size_t clips) const noexcept { return clips * clip_bytes_; }

    void upload(std::size_t clips, cudaStream_t stream) const {
        cuda_.check(cudaMemcpyAsync(device(), host(), bytes(clips), cudaMemcpyHostToDevice, stream));
    }
    void download(std::size_t clips, cudaStream_t stream) const {
        cuda_.check(cudaMemcpyAsync(host(), device(), bytes(clips), cudaMemcpyDeviceToHost, stream));
    }

private:
    struct FreeHost {
        void operator()(void* memory) const { cudaFreeHost(memory); }
    };
    struct FreeDevice {
        void operator()(void* memory) const { cudaFree(memory); }
    };

    const Cuda& cuda_;
    std::size_t clip_bytes_;
    std::unique_ptr<void, FreeHost> host_;
    std::unique_ptr<void, FreeDevice> device_;
};

}  // namespace vivit::detail
