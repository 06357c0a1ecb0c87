// Where the pixels of a crop come from: sizes and ranges along each axis, without any pixels. Rounding follows
// transformers, as in vivit_export/runtime/clips/pixels/axes.py.
#pragma once

#include <cstdint>

#include "vivit/contract.hpp"

namespace vivit {

/// One axis of a frame on its way to the crop; all in pixels.
///
///     source  |--------------------------------|   pixels of the frame
///     resized |----------------|                   after the resize
///     kept       [start, stop)                     the part of resized inside the crop
///     length  |0000|-----------|                   the crop: pad zeros, then kept
struct Axis {
    int source;
    int resized;
    int start;
    int stop;
    int pad;
    int length;

    /// Pixels of the resized frame inside the crop.
    [[nodiscard]] int kept() const noexcept { return stop - start; }
};

/// Lay a crop over a resized axis.
///
/// @param source    pixels of the frame, 1 or more
/// @param resized   pixels after the resize, 1 or more
/// @param length    pixels of the crop, 1 or more
/// @param position  position of the crop: 0.0 at the start, 0.5 in the center, 1.0 at the end
[[nodiscard]] inline Axis crop_axis(int source, int resized, int length, double position) noexcept {
    if (resized >= length) {
        const int start = int((resized - length) * position);
        return {source, resized, start, start + length, 0, length};
    }
    return {source, resized, 0, resized, (length - resized + 1) / 2, length};
}

/// The size of a frame after the resize.
///
/// @param height, width  of the frame in pixels, 1 or more
/// @param preprocess     has `size` or `shortest_edge`
[[nodiscard]] inline Size resized_size(int height, int width, const Preprocess& preprocess) {
    if (preprocess.size) return *preprocess.size;
    const int edge = preprocess.shortest_edge.value();
    const auto scaled = [&](int along, int across) { return int(double(std::int64_t(edge) * along) / across); };
    return width <= height ? Size{scaled(height, width), edge} : Size{edge, scaled(width, height)};
}

}  // namespace vivit
