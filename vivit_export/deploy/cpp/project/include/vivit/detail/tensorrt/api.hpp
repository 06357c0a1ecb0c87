// Functions of the TensorRT library as a whole. TensorRT and TensorRT for RTX share one API; the headers decide which
// of the two it is. Both define the same names, so a program can use only one of them.
#pragma once

#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string>

#include "vivit/errors.hpp"

namespace vivit::detail {

#ifdef TRT_MAJOR_RTX
inline constexpr const char* tensorrt_flavor = "tensorrt-rtx";
inline constexpr const char* tensorrt_title = "TensorRT for RTX";
#else
inline constexpr const char* tensorrt_flavor = "tensorrt";
inline constexpr const char* tensorrt_title = "TensorRT";
#endif

/// Version of the loaded library, such as 11.4.0.106.
[[nodiscard]] inline std::string tensorrt_version() {
    std::string text;
    for (int part :
         {getInferLibMajorVersion(), getInferLibMinorVersion(), getInferLibPatchVersion(), getInferLibBuildVersion()})
        text += (text.empty() ? "" : ".") + std::to_string(part);
    return text;
}

/// Keeps each thread's last error for our own messages instead of printing it.
///
/// TensorRT keeps the first logger of a process even after its runtime is gone, so all sessions share one that
/// lives as long as the process.
class Complaints final : public nvinfer1::ILogger {
public:
    [[nodiscard]] static Complaints& shared() {
        static Complaints complaints;
        return complaints;
    }

    void log(Severity severity, const char* message) noexcept override {
        if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
        const std::size_t length = std::min(std::strcspn(message, "\n"), last().size() - 1);
        std::memcpy(last().data(), message, length);
        last()[length] = '\0';
    }

    /// The last error on this thread, in brackets; it is cleared afterward.
    [[nodiscard]] static std::string said() {
        const std::string text = last().data();
        last()[0] = '\0';
        return text.empty() ? "" : " (" + text + ")";
    }

private:
    [[nodiscard]] static std::array<char, 512>& last() {
        thread_local std::array<char, 512> last{};
        return last;
    }
};

/// Throw TensorRT's error if it failed to do something.
inline void require(bool done, const std::string& what) {
    if (!done) throw EnvironmentFault("the engine could not " + what + Complaints::said());
}

}  // namespace vivit::detail
