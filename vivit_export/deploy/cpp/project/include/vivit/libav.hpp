// Any video, through FFmpeg's libraries, as vivit_export/runtime/clips/video/frames.py reads it: decoded in full and in
// presentation order, without seeking; upright 8-bit RGB from swscale with PyAV's defaults.
#pragma once

extern "C" {
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
#include "vivit/detail/libav_index.hpp"
#include "vivit/detail/libav_picture.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"
#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

namespace detail {

/// Frames by number, as Python's sentences write them: "13-15, 40".
[[nodiscard]] inline std::string runs_of(const std::vector<std::int64_t>& numbers) {
    constexpr int most_runs = 8;
    std::string text;
    int runs = 0;
    for (std::size_t from = 0, to = 0; from < numbers.size(); from = to) {
        for (to = from + 1; to < numbers.size() && numbers[to] == numbers[to - 1] + 1;) ++to;
        if (runs++ == most_runs) return text + ", …";
        text += (from ? ", " : "") + std::to_string(numbers[from]);
        if (to - from > 1) text += "-" + std::to_string(numbers[to - 1]);
    }
    return text;
}

/// A video that FFmpeg reads.
class LibavVideo final : public Video {
public:
    explicit LibavVideo(const std::filesystem::path& path) : Video(path.string()), path_(path) {
        const PacketIndex index = Decoder(path_).index();
        skip_ = index.skip();
        std::vector<Shown> shown;
        std::vector<std::int64_t> damaged;
        Decoder decoder(path_);
        const ToUprightRgb to_rgb(name(), decoder.stream());
        decoder.run(skip_, [&](std::int64_t number, const AVFrame& frame) {
            shown.push_back({frame.pts, frame.pict_type == AV_PICTURE_TYPE_B});
            if (frame.decode_error_flags || frame.flags & AV_FRAME_FLAG_CORRUPT) damaged.push_back(number);
            if (!damaged.empty()) return true;
            to_rgb.require_conversion(frame);
            const auto [rows, columns] = to_rgb.size(frame);
            if (!number) describe(0, rows, columns);
            if (rows != height() || columns != width())
                throw ClipError(name() + " changes its frame size from " + by(width(), height()) + " to " +
                                by(columns, rows) + " (width x height); convert it to one size");
            return true;
        });
        require_undamaged(index, shown, damaged);
        describe(std::int64_t(shown.size()), height(), width());
    }

    [[nodiscard]] FrameBuffer read(const Indices& indices) override {
        FrameBuffer frames{{}, int(indices.size()), height(), width()};
        const std::size_t size = Frames(frames).frame_bytes();
        frames.data.resize(size * indices.size());
        std::multimap<std::int64_t, std::size_t> slots;
        for (std::size_t i = 0; i < indices.size(); ++i) slots.emplace(indices[i], i);
        Decoder decoder(path_);
        ToUprightRgb to_rgb(name(), decoder.stream());
        decoder.run(skip_, [&](std::int64_t number, const AVFrame& frame) {
            const auto [from, to] = slots.equal_range(number);
            if (from != to) {
                std::vector<std::uint8_t> rgb(size);
                to_rgb(frame, rgb.data());
                for (auto slot = from; slot != to; ++slot)
                    std::copy(rgb.begin(), rgb.end(), frames.data.begin() + std::ptrdiff_t(slot->second * size));
            }
            return slots.upper_bound(number) != slots.end();
        });
        return frames;
    }

private:
    void read_frame(std::int64_t index, std::uint8_t* out) override {
        const FrameBuffer frame = read({index});
        std::copy(frame.data.begin(), frame.data.end(), out);
    }

    void require_undamaged(const PacketIndex& index, const std::vector<Shown>& shown,
                           const std::vector<std::int64_t>& damaged) const {
        if (!damaged.empty())
            throw ClipError(name() + " is damaged: the decoder reports errors in " + std::to_string(damaged.size()) +
                            (damaged.size() == 1 ? " frame (" : " frames (") + runs_of(damaged) +
                            "); copy or encode it again");
        const std::size_t promised = index.num_frames(shown);
        if (index.has_index && shown.size() != promised)
            throw ClipError(name() + " is damaged: " + std::to_string(shown.size()) + " of its " +
                            std::to_string(promised) + " frames can be decoded; copy or encode it again");
    }

    std::filesystem::path path_;
    std::size_t skip_ = 0;
};

}  // namespace detail

/// Open any video; pass this to `open_video` to read formats that it does not read itself.
///
/// @throws ClipError  no such file, not a video, cut short, damaged, of changing size, of a color matrix without a
///                    conversion, or turned by something else than quarter turns
[[nodiscard]] inline std::unique_ptr<Video> open_with_libav(const std::filesystem::path& path) {
    return std::make_unique<detail::LibavVideo>(path);
}

}  // namespace vivit
