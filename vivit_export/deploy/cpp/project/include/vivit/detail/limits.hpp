// Limits on what others hand us; repeated from vivit_export/limits.py, and a test compares them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace vivit::detail {

inline constexpr int most_frames = 1024;
inline constexpr int most_side = 4096;
inline constexpr std::int64_t most_clip_bytes = std::int64_t(256) << 20;
inline constexpr int most_camera_side = 16384;
inline constexpr int most_stride = 65536;
inline constexpr int most_views = 128;
inline constexpr int most_width = 65536;
inline constexpr int longest_label = 1000;
inline constexpr double largest_factor = 1e6;
inline constexpr int most_batch = 1024;
inline constexpr int most_sm = 9999;
inline constexpr int most_golden_clips = 4096;
inline constexpr std::int64_t most_manifest_bytes = std::int64_t(16) << 20;
inline constexpr std::int64_t most_signature_bytes = std::int64_t(4) << 20;
inline constexpr int most_certificates = 8;
inline constexpr int most_levels = 64;
inline constexpr int most_containers = 200000;
inline constexpr std::int64_t most_resized_pixels = std::int64_t(64) << 20;
inline constexpr std::int64_t default_most_pixels = std::int64_t(32) << 20;
inline constexpr std::int64_t most_hole_bytes = std::int64_t(1) << 30;
inline constexpr std::int64_t alignment_pixels = std::int64_t(64) << 16;
inline constexpr const char* pixels_variable = "VIVIT_MAX_PIXELS";

/// Pixels that a decoded frame may have, as the environment says; what is not a number is as if unset.
[[nodiscard]] inline std::int64_t most_pixels() {
    const char* variable = std::getenv(pixels_variable);
    const std::string given = variable ? variable : "";
    const bool is_number = given.find_first_not_of("0123456789") == std::string::npos;
    return is_number && !given.empty() && given.size() < 10 ? std::stoll(given) : default_most_pixels;
}

/// Why a video with frames of no size, or of more pixels, is not decoded.
[[nodiscard]] inline std::string why_too_large(const std::string& name) {
    return name + " has frames of no size, or of more than " + std::to_string(most_pixels()) +
           " pixels; if you trust it, set " + pixels_variable + " to how many you allow, or else scale it down";
}

}  // namespace vivit::detail
