// What is asked of TensorRT's library as a whole. TensorRT and TensorRT for RTX share one API; which of the two it is
// depends on the headers. Both define the same names, so a program has one of them.
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

/// Version of the library that is loaded, as in 11.4.0.106.
[[nodiscard]] inline std::string tensorrt_version() {
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

    /// What was said last on this thread, in brackets; forgotten afterward.
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

/// Throw what TensorRT says where it did not do something.
inline void require(bool done, const std::string& what) {
    if (!done) throw EnvironmentFault("the engine could not " + what + Complaints::said());
}

}  // namespace vivit::detail
