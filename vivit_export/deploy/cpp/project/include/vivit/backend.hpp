// The interface that all back ends share.
#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace vivit {

/// Engines, named as in Python, best first: GPU before CPU, compiled before interpreted.
inline constexpr std::array<const char*, 4> engine_order{"tensorrt", "tensorrt-rtx", "onnxruntime-cuda",
                                                         "onnxruntime-cpu"};

/// float32 (B, ...) by output name.
using Outputs = std::map<std::string, std::vector<float>>;

/// A device of this machine.
struct Device {
    std::string name;    ///< of the GPU or the CPU, such as NVIDIA H100 80GB HBM3; empty: unknown
    std::string driver;  ///< of a GPU, such as 580.65.06, CUDA 13.0; of a CPU its architecture and instructions
};

/// What a back end runs, and where.
struct Place {
    std::vector<std::string> files{};  ///< names of the bundle's files
    Device device{};
    bool is_verified = false;  ///< whether they were proven on such a device when the bundle was made
};

/// Runs one graph or engine; any number of threads may call `run` at once.
class Backend {
public:
    virtual ~Backend() = default;
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;
    Backend(Backend&&) = delete;
    Backend& operator=(Backend&&) = delete;

    /// One of `engine_order`.
    [[nodiscard]] const std::string& name() const noexcept { return facts_.name; }

    /// Version, device and arithmetic, for people.
    [[nodiscard]] const std::string& details() const noexcept { return facts_.details; }

    /// Smallest and largest number of clips per call, 1 or more.
    [[nodiscard]] std::pair<int, int> batches() const noexcept { return facts_.batches; }

    [[nodiscard]] const Place& place() const noexcept { return facts_.place; }

    /// Run a batch.
    ///
    /// @param clips  the contract's input for `count` clips, one after the other; not modified
    /// @param count  number of clips, within `batches`
    /// @return every output of the contract, each float32 (count, ...)
    /// @throws EnvironmentFault  the device or its library fails
    [[nodiscard]] virtual Outputs run(const void* clips, std::size_t count) = 0;

    /// Problems that are not errors, such as batches that run without a CUDA graph.
    [[nodiscard]] virtual std::vector<std::string> notes() const { return {}; }

protected:
    /// The back end's description of itself; it never changes.
    struct Facts {
        std::string name;
        std::string details;
        std::pair<int, int> batches{1, 1};
        Place place{};
    };

    explicit Backend(Facts facts) : facts_(std::move(facts)) {}

private:
    Facts facts_;
};

}  // namespace vivit
