// Which frames of a video make a clip: pure functions of counts, by the contract's rule. The rules are
// drawn in vivit_export/runtime/clips/sampling.py; the indices are the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// Numbers of frames, from 0.
using Indices = std::vector<std::int64_t>;

/// How many frames a video must have so that no index lies beyond it.
[[nodiscard]] inline std::int64_t frames_needed(const Clip& clip) noexcept {
    return std::int64_t(clip.num_frames - 1) * clip.stride + 1;
}

namespace detail {

/// The length to draw from: the video's, or the shortest usable length if the video is continued.
[[nodiscard]] inline std::int64_t extended(std::int64_t num_frames, const Clip& clip, const std::string& source) {
    const std::int64_t needed = frames_needed(clip);
    if (num_frames < 1) throw ClipError(source + " holds no video frames; it is empty or cut short");
    if (num_frames < needed && clip.when_short == Short::refuse) {
        const std::string span =
            clip.stride > 1 ? ", one in " + std::to_string(clip.stride) + ", out of " + std::to_string(needed) : "";
        throw ClipError(source + " has " + std::to_string(num_frames) + (num_frames == 1 ? " frame" : " frames") +
                        " but the model takes " + std::to_string(clip.num_frames) + span +
                        "; give a longer one, or choose short=repeat or short=loop");
    }
    return std::max(num_frames, needed);
}

/// How far the window can move.
[[nodiscard]] inline std::int64_t room(std::int64_t num_frames, const Clip& clip) noexcept {
    return std::max<std::int64_t>(0, num_frames - std::int64_t(clip.num_frames) * clip.stride);
}

[[nodiscard]] inline std::int64_t inside(std::int64_t index, std::int64_t num_frames, const Clip& clip) noexcept {
    return clip.when_short == Short::loop ? index % num_frames : std::min(index, num_frames - 1);
}

}  // namespace detail

/// Choose the frames of one clip.
///
/// @param num_frames  of the video, N
/// @param clip        the rule
/// @param source      what an error calls the video
/// @return T indices in [0, N)
/// @throws ClipError  the video is empty, or too short for a rule that refuses
[[nodiscard]] inline Indices clip_indices(std::int64_t num_frames, const Clip& clip,
                                          const std::string& source = "the video") {
    const std::int64_t total = detail::extended(num_frames, clip, source), count = clip.num_frames;
    const std::int64_t start = detail::room(total, clip) / 2;
    Indices indices;
    indices.reserve(std::size_t(count));
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t index = clip.sampling == Sampling::uniform ? i * total / count
                                   : clip.sampling == Sampling::head  ? i
                                                                      : start + i * clip.stride;
        indices.push_back(detail::inside(index, num_frames, clip));
    }
    return indices;
}

/// Choose the frames of every temporal view, one after the other.
///
/// @param num_frames  of the video, N
/// @param clip        the rule; V = clip.views[0]
/// @param source      what an error calls the video
/// @return V * T indices in [0, N)
/// @throws ClipError  the video is empty, or too short for a rule that refuses
[[nodiscard]] inline Indices view_indices(std::int64_t num_frames, const Clip& clip,
                                          const std::string& source = "the video") {
    const int num_views = clip.views[0];
    if (num_views == 1) return clip_indices(num_frames, clip, source);
    const std::int64_t space = detail::room(detail::extended(num_frames, clip, source), clip);
    Indices indices;
    indices.reserve(std::size_t(num_views) * std::size_t(clip.num_frames));
    for (int view = 0; view < num_views; ++view)
        for (int i = 0; i < clip.num_frames; ++i)
            indices.push_back(
                detail::inside(view * space / (num_views - 1) + std::int64_t(i) * clip.stride, num_frames, clip));
    return indices;
}

}  // namespace vivit
