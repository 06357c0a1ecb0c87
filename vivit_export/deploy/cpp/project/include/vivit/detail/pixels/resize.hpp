// Pillow's resize of 8-bit images, bit for bit: two passes, each along one axis, with 8-bit pixels in
// between, on only the pixels that the crop depends on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "vivit/detail/pixels/loops.hpp"
#include "vivit/detail/pixels/taps.hpp"

namespace vivit::detail {

/// Some rows of interleaved RGB inside a larger image.
struct Image {
    const std::uint8_t* data;  ///< of the first row
    std::ptrdiff_t stride;     ///< bytes from one row to the next
    int height;
    int width;  ///< pixels
};

/// Destination of a pass's rows.
struct Target {
    std::uint8_t* data;
    std::ptrdiff_t stride;
};

/// Resize all rows of `image` along x.
///
/// @param padded  buffer that may grow; it replaces the last row, after which there may be no memory to read
inline void horizontal_pass(const Image& image, const Taps& taps, const Target& out, std::vector<std::uint8_t>& padded,
                            const Loops& loops) {
    const auto source = [&](int y) { return image.data + y * image.stride; };
    const auto target = [&](int y) { return out.data + y * out.stride; };
    if (taps.copies()) {
        for (int y = 0; y < image.height; ++y)
            for (int i = 0; i < taps.size(); ++i) std::memcpy(target(y) + i * 3, source(y) + taps[i].first * 3, 3);
        return;
    }
    const int last = image.height - 1;
    padded.assign(std::size_t(image.width) * 3 + 8, 0);
    std::memcpy(padded.data(), source(last), std::size_t(image.width) * 3);
    int y = 0;
    for (; y + 4 <= last; y += 4) {
        const std::uint8_t* rows[]{source(y), source(y + 1), source(y + 2), source(y + 3)};
        std::uint8_t* outs[]{target(y), target(y + 1), target(y + 2), target(y + 3)};
        loops.four_rows(rows, outs, taps);
    }
    for (; y <= last; ++y) loops.row(y == last ? padded.data() : source(y), target(y), taps);
}

/// Resize `width` pixels of each column along y; taps count from row `first_row` of the whole frame.
inline void vertical_pass(const Image& image, int first_row, const Taps& taps, const Target& out, const Loops& loops) {
    for (int i = 0; i < taps.size(); ++i) {
        const std::uint8_t* rows = image.data + (taps[i].first - first_row) * image.stride;
        if (taps.copies())
            std::memcpy(out.data + i * out.stride, rows, std::size_t(image.width) * 3);
        else
            loops.column(rows, image.stride, taps[i].count, taps.weights(i), image.width * 3,
                         out.data + i * out.stride);
    }
}

}  // namespace vivit::detail
