// Any video, through FFmpeg's libraries, as vivit_export/runtime/clips/video.py reads it: decoded in full and in
// presentation order, without seeking; 8-bit RGB from swscale with PyAV's defaults. A video with rotation metadata is
// refused rather than rotated.
#pragma once

extern "C" {
#include <libavutil/display.h>
#include <libavutil/frame.h>
}

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "vivit/detail/libav_decoder.hpp"
#include "vivit/detail/seekable_file.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"
#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

namespace detail {

/// A video that FFmpeg reads.
class LibavVideo final : public Video {
public:
    explicit LibavVideo(const std::filesystem::path& path) : Video(path.string()), path_(path) {
        const SeekableFile existing(path);  // refuses a missing file
        Decoder(path_).require_whole();
        Decoder(path_).run([&](std::int64_t index, const AVFrame& frame) {
            if (!index) require_upright(frame), describe(0, frame.height, frame.width);
            if (frame.height != height() || frame.width != width())
                throw ClipError(name() + " changes its frame size from " + by(width(), height()) + " to " +
                                by(frame.width, frame.height) + " (width x height); convert it to one size");
            describe(index + 1, height(), width());
            return true;
        });
    }

    [[nodiscard]] FrameBuffer read(const Indices& indices) override {
        FrameBuffer frames{{}, int(indices.size()), height(), width()};
        const std::size_t size = Frames(frames).frame_bytes();
        frames.data.resize(size * indices.size());
        std::multimap<std::int64_t, std::size_t> slots;
        for (std::size_t i = 0; i < indices.size(); ++i) slots.emplace(indices[i], i);
        ToRgb convert(name());
        Decoder(path_).run([&](std::int64_t index, const AVFrame& frame) {
            const auto [from, to] = slots.equal_range(index);
            if (from != to) {
                std::vector<std::uint8_t> rgb(size);
                convert(frame, rgb.data());
                for (auto slot = from; slot != to; ++slot)
                    std::copy(rgb.begin(), rgb.end(), frames.data.begin() + std::ptrdiff_t(slot->second * size));
            }
            return slots.upper_bound(index) != slots.end();
        });
        return frames;
    }

private:
    void read_frame(std::int64_t index, std::uint8_t* out) override {
        const FrameBuffer frame = read({index});
        std::copy(frame.data.begin(), frame.data.end(), out);
    }

    void require_upright(const AVFrame& frame) const {
        const AVFrameSideData* matrix = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
        const double degrees =
            matrix ? av_display_rotation_get(reinterpret_cast<const std::int32_t*>(matrix->data)) : 0;
        if (degrees != 0)
            throw ClipError(name() + " is turned by " + std::to_string(int(degrees)) +
                            " degrees; turn it upright first");
    }

    std::filesystem::path path_;
};

}  // namespace detail

/// Open any video; pass this to `open_video` to read formats that it does not read itself.
///
/// @throws ClipError  no such file, not a video, cut short, turned, or of changing size
[[nodiscard]] inline std::unique_ptr<Video> open_with_libav(const std::filesystem::path& path) {
    return std::make_unique<detail::LibavVideo>(path);
}

}  // namespace vivit
