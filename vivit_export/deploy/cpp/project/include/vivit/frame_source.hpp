// A video as a source of frames, independent of the decoder.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

/// A video whose frames can be read in any order.
class Video {
public:
    virtual ~Video() = default;
    Video(const Video&) = delete;
    Video& operator=(const Video&) = delete;
    Video(Video&&) = delete;
    Video& operator=(Video&&) = delete;

    [[nodiscard]] std::int64_t num_frames() const noexcept { return num_frames_; }
    [[nodiscard]] int height() const noexcept { return height_; }  ///< pixels
    [[nodiscard]] int width() const noexcept { return width_; }    ///< pixels

    /// The name of the video in errors.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    /// Read frames by number; consecutive repeats are read only once.
    ///
    /// @param indices  in [0, num_frames), in any order
    /// @return the frames, in that order
    /// @throws ClipError  the file cannot be read
    [[nodiscard]] virtual FrameBuffer read(const Indices& indices) {
        FrameBuffer frames{{}, int(indices.size()), height_, width_};
        const std::size_t size = Frames(frames).frame_bytes();
        frames.data.resize(size * indices.size());
        for (std::size_t i = 0; i < indices.size(); ++i) {
            std::uint8_t* out = frames.data.data() + i * size;
            if (i && indices[i] == indices[i - 1])
                std::copy_n(out - size, size, out);
            else
                read_frame(indices[i], out);
        }
        return frames;
    }

protected:
    explicit Video(std::string name) : name_(std::move(name)) {}

    /// Set what the file holds: the number of frames, and the size of each in pixels.
    void describe(std::int64_t num_frames, int height, int width) noexcept {
        num_frames_ = num_frames, height_ = height, width_ = width;
    }

    /// Write one frame, uint8 (h, w, 3), to `out`.
    virtual void read_frame(std::int64_t index, std::uint8_t* out) = 0;

private:
    std::string name_;
    std::int64_t num_frames_ = 0;
    int height_ = 0, width_ = 0;
};

}  // namespace vivit
