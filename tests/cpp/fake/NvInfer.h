// One engine that "TensorRT" runs on the GPU made of host memory: the calls that vivit uses, under their own names.
// TRT_MAJOR_RTX makes it TensorRT for RTX, as NVIDIA's headers do.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <utility>

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE, kINPUT, kOUTPUT };
struct Dims {
    std::int32_t nbDims;
    std::int64_t d[8];
};
class ILogger {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, const char* message) noexcept = 0;
    virtual ~ILogger() = default;
};
enum class DynamicShapesKernelSpecializationStrategy { kLAZY, kEAGER, kNONE };

}  // namespace nvinfer1

namespace fake {

struct Tensor {
    nvinfer1::TensorIOMode mode;
    nvinfer1::DataType type;
    std::vector<std::int64_t> clip_shape;

    std::size_t clip_elements() const {
        std::size_t count = 1;
        for (std::int64_t side : clip_shape) count *= std::size_t(side);
        return count;
    }
};

/// The engine that a test looks into, and changes.
struct Trt {
    std::vector<std::pair<std::string, Tensor>> tensors;
    std::set<std::string> failing;  ///< methods that shall fail; "capture" for running while a stream is captured
    std::vector<std::string> plans;
    std::mutex lock;
    int contexts = 0, alive = 0;  ///< contexts made; objects that live
    bool eager = false;
    int version[4] = {11, 4, 0, 106};
    nvinfer1::ILogger* logger = nullptr;

    const Tensor* find(const std::string& name) const {
        for (const auto& [key, tensor] : tensors)
            if (key == name) return &tensor;
        return nullptr;
    }
    bool works(const std::string& method) {
        if (!failing.count(method)) return true;
        logger->log(nvinfer1::ILogger::Severity::kERROR, ("[" + method + "] refused\nat line 1").c_str());
        logger->log(nvinfer1::ILogger::Severity::kWARNING, "by the way");
        return false;
    }
    void count(int change) {
        const std::lock_guard<std::mutex> guard(lock);
        alive += change;
    }
};

inline Trt& trt() {
    static Trt trt;
    return trt;
}

/// Counts the objects that live.
struct Counted {
    Counted() { trt().count(1); }
    ~Counted() { trt().count(-1); }
};

/// What the engine computes: for each clip the mean of its bytes, times the index of the output.
inline void compute(const unsigned char* input, std::size_t clip_bytes, float* output, std::size_t elements,
                    std::size_t clips) {
    for (std::size_t clip = 0; clip < clips; ++clip) {
        double sum = 0;
        for (std::size_t i = 0; i < clip_bytes; ++i) sum += input[clip * clip_bytes + i];
        for (std::size_t i = 0; i < elements; ++i)
            output[clip * elements + i] = float(sum / double(clip_bytes) * double(i + 1));
    }
}

}  // namespace fake

namespace nvinfer1 {

class IRuntimeConfig : fake::Counted {
public:
    void setDynamicShapesKernelSpecializationStrategy(DynamicShapesKernelSpecializationStrategy strategy) {
        fake::trt().eager = strategy == DynamicShapesKernelSpecializationStrategy::kEAGER;
    }
};

class IExecutionContext : fake::Counted {
public:
    bool setOptimizationProfileAsync(std::int32_t index, cudaStream_t) {
        return index == 0 && fake::trt().works("setOptimizationProfileAsync");
    }
    bool setInputShape(const char* name, const Dims& shape) {
        const fake::Tensor* tensor = fake::trt().find(name);
        fake::insist(tensor && tensor->mode == TensorIOMode::kINPUT, "setInputShape of what is not an input");
        clips_ = std::size_t(shape.d[0]);
        fake::insist(std::vector<std::int64_t>(shape.d + 1, shape.d + shape.nbDims) == tensor->clip_shape,
                     "another shape");
        return fake::trt().works("setInputShape");
    }
    bool setTensorAddress(const char* name, void* memory) {
        addresses_[name] = memory;
        return fake::trt().works("setTensorAddress");
    }
    bool enqueueV3(cudaStream_t stream) {
        if (!fake::trt().works("enqueueV3") || (stream->capturing && !fake::trt().works("capture"))) return false;
        fake::enqueue(stream, [addresses = addresses_, clips = clips_] {
            const auto& [source, input] = fake::trt().tensors[0];
            for (const auto& [name, tensor] : fake::trt().tensors)
                if (tensor.mode == TensorIOMode::kOUTPUT)
                    fake::compute(static_cast<const unsigned char*>(addresses.at(source)), input.clip_elements(),
                                  static_cast<float*>(addresses.at(name)), tensor.clip_elements(), clips);
        });
        return true;
    }

private:
    std::map<std::string, void*> addresses_;
    std::size_t clips_ = 0;
};

class ICudaEngine : fake::Counted {
public:
    std::int32_t getNbIOTensors() const { return std::int32_t(fake::trt().tensors.size()); }
    const char* getIOTensorName(std::int32_t index) const {
        return fake::trt().tensors[std::size_t(index)].first.c_str();
    }
    TensorIOMode getTensorIOMode(const char* name) const { return fake::trt().find(name)->mode; }
    DataType getTensorDataType(const char* name) const { return fake::trt().find(name)->type; }
    Dims getTensorShape(const char* name) const {
        Dims dims{1, {-1}};
        for (std::int64_t side : fake::trt().find(name)->clip_shape) dims.d[dims.nbDims++] = side;
        return dims;
    }
    IExecutionContext* createExecutionContext() const {
        if (!fake::trt().works("createExecutionContext")) return nullptr;
        ++fake::trt().contexts;
        return std::make_unique<IExecutionContext>().release();
    }
#ifdef TRT_MAJOR_RTX
    IExecutionContext* createExecutionContext(IRuntimeConfig*) const { return createExecutionContext(); }
    IRuntimeConfig* createRuntimeConfig() const { return std::make_unique<IRuntimeConfig>().release(); }
#endif
};

class IRuntime : fake::Counted {
public:
    ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t size) {
        fake::trt().plans.emplace_back(static_cast<const char*>(plan), size);
        return fake::trt().works("deserializeCudaEngine") ? std::make_unique<ICudaEngine>().release() : nullptr;
    }
};

inline IRuntime* createInferRuntime(ILogger& logger) {
    fake::insist(fake::gpu().asked > 0, "CUDA must be asked before TensorRT");
    fake::trt().logger = &logger;
    return std::make_unique<IRuntime>().release();
}

}  // namespace nvinfer1

inline std::int32_t getInferLibMajorVersion() { return fake::trt().version[0]; }
inline std::int32_t getInferLibMinorVersion() { return fake::trt().version[1]; }
inline std::int32_t getInferLibPatchVersion() { return fake::trt().version[2]; }
inline std::int32_t getInferLibBuildVersion() { return fake::trt().version[3]; }
