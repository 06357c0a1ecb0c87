// Frames in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vivit {

/// Frames that somebody else owns: uint8 (count, height, width, 3), RGB, without gaps.
struct Frames {
    const std::uint8_t* data;
    int count;
    int height;
    int width;

    std::size_t frame_bytes() const { return std::size_t(height) * std::size_t(width) * 3; }
};

/// Frames that own their pixels.
struct FrameBuffer {
    std::vector<std::uint8_t> data;
    int count = 0;
    int height = 0;
    int width = 0;

    operator Frames() const { return {data.data(), count, height, width}; }
};

}  // namespace vivit
