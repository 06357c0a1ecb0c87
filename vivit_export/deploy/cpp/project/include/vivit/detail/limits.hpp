// Limits on what others hand us; repeated from vivit_export/limits.py, and a test compares them.
#pragma once

#include <cstdint>

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
inline constexpr std::int64_t most_manifest_bytes = std::int64_t(16) << 20;
inline constexpr int most_levels = 64;

}  // namespace vivit::detail
