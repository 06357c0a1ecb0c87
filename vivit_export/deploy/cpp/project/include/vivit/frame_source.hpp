// A video as a source of frames, independent of the decoder.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "vivit/errors.hpp"
#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

/// Chooses frames of a video by how many it has: numbers in [0, num_frames), in any order. It may throw.
using ChooseFrames = std::function<Indices(std::int64_t num_frames)>;

/// Receives one chosen frame, and where it stands in the order in which the frames were chosen.
using UseFrame = std::function<void(const Frames& frame, const std::vector<std::size_t>& slots)>;

/// A video whose frames can be read in any order.
class Video {
public:
    virtual ~Video() = default;
    Video(const Video&) = delete;
    Video& operator=(const Video&) = delete;
    Video(Video&&) = delete;
    Video& operator=(Video&&) = delete;

    /// How many frames it has. Where only a decoder can tell, it is decoded for that, unless it was before.
    [[nodiscard]] virtual std::int64_t num_frames() const { return num_frames_; }
    [[nodiscard]] virtual int height() const { return height_; }  ///< pixels; its first frame is decoded if need be
    [[nodiscard]] virtual int width() const { return width_; }    ///< pixels; its first frame is decoded if need be

    /// The name of the video in errors.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    /// Read frames that are chosen by how many there are, each only once.
    ///
    /// @param choose  is called again, and all is read again, if decoding shows that there are fewer frames than the
    ///                file promises
    /// @param use     receives the frames in order of presentation
    /// @throws ClipError  the file cannot be read
    virtual void visit(const ChooseFrames& choose, const UseFrame& use) {
        std::map<std::int64_t, std::vector<std::size_t>> slots = slots_of(choose(num_frames_), num_frames_);
        std::vector<std::uint8_t> pixels(Frames{nullptr, 1, height_, width_}.frame_bytes());
        for (const auto& [number, places] : slots) {
            read_frame(number, pixels.data());
            use({pixels.data(), 1, height_, width_}, places);
        }
    }

    /// Read frames that are chosen by how many there are, as `visit` does.
    ///
    /// @return the frames, in the order in which they were chosen
    /// @throws ClipError  the file cannot be read
    [[nodiscard]] FrameBuffer read_chosen(const ChooseFrames& choose) {
        FrameBuffer frames;
        visit(
            [&](std::int64_t num_frames) {
                Indices indices = choose(num_frames);
                frames = {{}, int(indices.size()), 0, 0};
                return indices;
            },
            [&](const Frames& frame, const std::vector<std::size_t>& slots) {
                const std::size_t size = frame.frame_bytes();
                frames.height = frame.height, frames.width = frame.width;
                frames.data.resize(size * std::size_t(frames.count));  // at the first one
                for (const std::size_t slot : slots) std::copy_n(frame.data, size, frames.data.data() + slot * size);
            });
        return frames;
    }

    /// Read frames by number.
    ///
    /// @param indices  in [0, num_frames), in any order
    /// @return the frames, in that order
    /// @throws ClipError  the file cannot be read
    [[nodiscard]] virtual FrameBuffer read(const Indices& indices) {
        return read_chosen([&](std::int64_t) { return indices; });
    }

protected:
    explicit Video(std::string name) : name_(std::move(name)) {}

    /// Where each frame stands in a list of frames, by its number.
    ///
    /// @throws ClipError  there is no such frame
    [[nodiscard]] std::map<std::int64_t, std::vector<std::size_t>> slots_of(const Indices& indices,
                                                                            std::int64_t num_frames) const {
        std::map<std::int64_t, std::vector<std::size_t>> slots;
        for (std::size_t slot = 0; slot < indices.size(); ++slot) {
            if (indices[slot] < 0 || indices[slot] >= num_frames)
                throw ClipError(name_ + " has " + std::to_string(num_frames) +
                                " frames, numbered from 0: there is no frame " + std::to_string(indices[slot]));
            slots[indices[slot]].push_back(slot);
        }
        return slots;
    }

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
