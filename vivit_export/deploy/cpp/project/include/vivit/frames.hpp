// Frames in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vivit {

/// Frames that the caller owns: uint8 (count, height, width, 3), RGB, without gaps.
struct Frames {
    const std::uint8_t* data;  ///< must live as long as this view
    int count;
    int height;  ///< pixels
    int width;   ///< pixels

    /// Bytes of one frame.
    [[nodiscard]] std::size_t frame_bytes() const noexcept { return std::size_t(height) * std::size_t(width) * 3; }
};

/// Frames that own their pixels: uint8 (count, height, width, 3), RGB, without gaps.
struct FrameBuffer {
    std::vector<std::uint8_t> data;
    int count = 0;
    int height = 0;  ///< pixels
    int width = 0;   ///< pixels

    /// A view, like a string_view of a string; valid as long as `data` is neither destroyed nor resized.
    operator Frames() const noexcept { return {data.data(), count, height, width}; }
};

}  // namespace vivit
