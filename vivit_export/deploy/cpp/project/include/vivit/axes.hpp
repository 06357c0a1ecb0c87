// Where the pixels of a crop come from: sizes and ranges along each axis, no pixels. The rounding is
// that of transformers, as in vivit_export/runtime/clips/axes.py.
#pragma once

#include <cstdint>

#include "vivit/contract.hpp"

namespace vivit {

/// One axis of a frame on its way to the crop.
///
///     source  |--------------------------------|   pixels of the frame
///     resized |----------------|                   after the resize
///     kept       [start, stop)                     the part of resized inside the crop
///     length  |0000|-----------|                   the crop: pad zeros, then kept
struct Axis {
    int source, resized, start, stop, pad, length;

    int kept() const { return stop - start; }
};

/// Lay the crop over a resized axis; position 0.0 is the start, 0.5 the centre, 1.0 the end.
inline Axis crop_axis(int source, int resized, int length, double position) {
    if (resized >= length) {
        const int start = int((resized - length) * position);
        return {source, resized, start, start + length, 0, length};
    }
    return {source, resized, 0, resized, (length - resized + 1) / 2, length};
}

/// (height, width) after the resize.
inline Size resized_size(int height, int width, const Preprocess& preprocess) {
    if (preprocess.size) return *preprocess.size;
    const int edge = *preprocess.shortest_edge;
    const auto scaled = [&](int along, int across) { return int(double(std::int64_t(edge) * along) / across); };
    return width <= height ? Size{scaled(height, width), edge} : Size{edge, scaled(width, height)};
}

}  // namespace vivit
