// The views of one video, made of its frames as they are read: each frame once, however many views show it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/frames.hpp"

namespace vivit::detail {

/// Collects the frames of all temporal views, and prepares them for the engine, once for each spatial view.
class ViewBatch {
public:
    /// Turns n frames of one size into what the engine takes of them, for a position of the crop.
    using Prepare = std::function<void(const Frames& frames, double position, std::uint8_t* out)>;

    /// @param clip        the rule; as many frames are prepared together as a clip has
    /// @param clip_bytes  of a prepared clip
    ViewBatch(const Clip& clip, std::size_t clip_bytes, Prepare prepare)
        : prepare_(std::move(prepare)),
          clip_frames_(std::size_t(clip.num_frames)),
          frame_bytes_(clip_bytes / clip_frames_),
          positions_(clip.views[1] == 1 ? std::vector<double>{0.5} : std::vector<double>{0.0, 0.5, 1.0}) {}

    /// Expect the frames of some clips, and forget those that came before.
    void begin(std::size_t num_frames) {
        clips_.assign(num_frames * positions_.size() * frame_bytes_, 0);
        forget();
    }

    /// Add one frame, which the clips show at `slots`, counted from the first frame of the first clip.
    void add(const Frames& frame, const std::vector<std::size_t>& slots) {
        const bool is_new_size = frame.height != waiting_.height || frame.width != waiting_.width;
        if (std::size_t(waiting_.count) == clip_frames_ || (waiting_.count && is_new_size)) prepare_waiting();
        waiting_.height = frame.height, waiting_.width = frame.width, ++waiting_.count;
        waiting_.data.insert(waiting_.data.end(), frame.data, frame.data + frame.frame_bytes());
        slots_.push_back(slots);
    }

    /// @return the prepared clips, with the spatial views of each temporal one side by side
    [[nodiscard]] const std::vector<std::uint8_t>& finish() {
        prepare_waiting();
        return clips_;
    }

    /// How long it took to prepare them.
    [[nodiscard]] double milliseconds() const noexcept { return milliseconds_; }

private:
    void prepare_waiting() {
        const auto start = std::chrono::steady_clock::now();
        prepared_.resize(slots_.size() * frame_bytes_);
        for (std::size_t view = 0; view < positions_.size() && waiting_.count; ++view) {
            prepare_(waiting_, positions_[view], prepared_.data());
            for (std::size_t i = 0; i < slots_.size(); ++i)
                for (const std::size_t slot : slots_[i]) {
                    const std::size_t clip = slot / clip_frames_ * positions_.size() + view;
                    std::copy_n(prepared_.data() + i * frame_bytes_, frame_bytes_,
                                clips_.data() + (clip * clip_frames_ + slot % clip_frames_) * frame_bytes_);
                }
        }
        forget();
        milliseconds_ += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    }

    void forget() {
        waiting_.data.clear(), waiting_.count = 0;
        slots_.clear();
    }

    Prepare prepare_;
    std::size_t clip_frames_, frame_bytes_;
    std::vector<double> positions_;
    std::vector<std::uint8_t> clips_, prepared_;
    FrameBuffer waiting_;
    std::vector<std::vector<std::size_t>> slots_;  ///< of each waiting frame
    double milliseconds_ = 0;
};

}  // namespace vivit::detail
