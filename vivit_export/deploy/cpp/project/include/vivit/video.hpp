// Frames from files that need no decoder: .npy (uint8 (N, h, w, 3)), raw rgb24, and .y4m.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "vivit/contract.hpp"
#include "vivit/detail/files/raw_video.hpp"
#include "vivit/detail/files/seekable_file.hpp"
#include "vivit/detail/files/y4m_video.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"
#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

/// Opens files with a suffix that this library does not read itself, or returns nullptr (see libav.hpp).
using VideoOpener = std::function<std::unique_ptr<Video>(const std::filesystem::path&)>;

/// Open a file of frames: .npy, .y4m, or raw rgb24.
///
/// @param path   the file; its suffix says what it is
/// @param size   (height, width) in pixels, only for raw rgb24
/// @param other  opens files of other suffixes, as `open_with_libav` does
/// @throws ClipError   no such file, or not a video
/// @throws UsageError  the size is not possible for a frame
[[nodiscard]] inline std::unique_ptr<Video> open_video(const std::filesystem::path& path, std::optional<Size> size = {},
                                                       const VideoOpener& other = {}) {
    if (size) return std::make_unique<detail::RawVideo>(path, *size);
    if (path.extension() == ".npy") return std::make_unique<detail::RawVideo>(path);
    if (path.extension() == ".y4m") return std::make_unique<detail::Y4mVideo>(path);
    if (auto video = other ? other(path) : nullptr) return video;
    const detail::SeekableFile existing(path);
    throw ClipError(path.string() +
                    " is neither .npy nor .y4m; give one of these, or raw rgb24 frames with their --size");
}

/// Draw one clip by the contract's sampling rule.
///
/// @throws ClipError  the video is too short, or cannot be read
[[nodiscard]] inline FrameBuffer read_clip(Video& video, const Contract& contract) {
    return video.read_chosen(
        [&](std::int64_t num_frames) { return clip_indices(num_frames, contract.clip, video.name()); });
}

}  // namespace vivit
