// Turn frames into pixel values, bit-equal to VivitImageProcessor (Pillow), as
// vivit_export/runtime/clips/pixels/preprocess.py.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "vivit/axes.hpp"
#include "vivit/contract.hpp"
#include "vivit/detail/limits.hpp"
#include "vivit/detail/parallel.hpp"
#include "vivit/detail/pixels/loops.hpp"
#include "vivit/detail/pixels/resize.hpp"
#include "vivit/detail/pixels/taps.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"
#include "vivit/frames.hpp"

namespace vivit {

/// The pixel pipeline of one checkpoint. Immutable: any number of threads may use one.
class Preprocessor {
public:
    /// @param clip        the result
    /// @param preprocess  the steps
    /// @param threads     threads per clip; 0: one per processor, 8 at most
    /// @throws InputError  the processor's frames differ in size from `clip`
    explicit Preprocessor(const Clip& clip, const Preprocess& preprocess, int threads = 0)
        : clip_(clip), preprocess_(preprocess), threads_(detail::thread_count(threads)) {
        require_agreement(clip, preprocess);
        fill_table();
    }

    /// @copydoc Preprocessor(const Clip&, const Preprocess&, int)
    explicit Preprocessor(const Contract& contract, int threads = 0)
        : Preprocessor(contract.clip, contract.preprocess, threads) {}

    /// Resize and crop one clip, for an engine with the input `crops`.
    ///
    /// @param frames    T frames of one size
    /// @param position  of the crop along the longer side of the resized frame: 0.0 at the start (top or left), 0.5 in
    ///                  the center, 1.0 at the end
    /// @return uint8 (T, H, W, 3), zero where the crop reaches beyond the frame
    /// @throws ClipError   the wrong number of frames, or a size that the pipeline does not turn into H x W
    /// @throws UsageError  a position outside [0, 1]
    [[nodiscard]] std::vector<std::uint8_t> crops(const Frames& frames, double position = 0.5) const {
        std::vector<std::uint8_t> out(clip_.num_bytes());
        crops(frames, out.data(), position);
        return out;
    }

    /// The same, into the caller's memory: `out` has room for clip.num_bytes().
    void crops(const Frames& frames, std::uint8_t* out, double position = 0.5) const {
        if (frames.count != clip_.num_frames)
            throw ClipError("the clip has " + std::to_string(frames.count) + " frames but the model takes " +
                            std::to_string(clip_.num_frames) +
                            "; sample the video with read_clip, or pick that many frames");
        crop_frames(frames, out, position);
    }

    /// Resize and crop any number of frames, each by itself.
    ///
    /// @param frames    n frames of one size
    /// @param out       room for uint8 (n, H, W, 3)
    /// @param position  as for `crops`
    /// @throws ClipError   a size that the pipeline does not bring to H x W
    /// @throws UsageError  a position outside [0, 1]
    void crop_frames(const Frames& frames, std::uint8_t* out, double position = 0.5) const {
        const Plan plan(*this, frames, position);
        const std::size_t size = clip_.num_bytes() / std::size_t(clip_.num_frames);
        detail::in_parallel<Scratch>(frames.count, threads_, [&](int i, Scratch& scratch) {
            plan.run(frames.data + std::size_t(i) * frames.frame_bytes(), out + std::size_t(i) * size, scratch);
        });
    }

    /// Rescale, offset and normalize.
    ///
    /// @param crops      uint8 (B, T, H, W, 3)
    /// @param num_clips  B
    /// @param out        room for float32 (B, T, 3, H, W)
    void to_pixels(const std::uint8_t* crops, std::size_t num_clips, float* out) const {
        struct None {};
        const int count = int(num_clips) * clip_.num_frames;
        detail::in_parallel<None>(count, threads_, [&](int i, None&) { look_up(crops, std::size_t(i), out); });
    }

    /// The whole pipeline on one clip, bit-equal to VivitImageProcessor.
    ///
    /// @param frames    T frames of one size
    /// @param position  as for `crops`
    /// @return float32 (T, 3, H, W)
    /// @throws ClipError, UsageError  as for `crops`
    [[nodiscard]] std::vector<float> pixels(const Frames& frames, double position = 0.5) const {
        std::vector<float> out(clip_.num_bytes());
        to_pixels(crops(frames, position).data(), 1, out.data());
        return out;
    }

    /// The pixel value of each 8-bit level, per channel R, G, B.
    [[nodiscard]] const std::array<std::array<float, 256>, 3>& table() const noexcept { return table_; }

    /// The axes that lead from a frame to its crop.
    ///
    /// @param height, width  of the frame in pixels
    /// @param position       as for `crops`
    /// @return (rows, columns)
    /// @throws ClipError   a size that the pipeline does not bring to H x W
    /// @throws UsageError  a position outside [0, 1]
    [[nodiscard]] std::array<Axis, 2> axes(int height, int width, double position = 0.5) const {
        if (!(position >= 0 && position <= 1))
            throw UsageError("a crop's position is from 0.0 (start) to 1.0 (end), got position = " +
                             std::to_string(position));
        if (height < 1 || width < 1)
            throw ClipError("frames of " + detail::by(height, width) + " (height x width) hold no pixels");
        const Size resized = preprocess_.do_resize ? resized_size(height, width, preprocess_) : Size{height, width};
        if (preprocess_.do_resize && std::int64_t(resized[0]) * resized[1] > detail::most_resized_pixels)
            throw ClipError("frames of " + detail::by(height, width) + " (height x width) would become " +
                            detail::by(resized[0], resized[1]) + ", more than " +
                            std::to_string(detail::most_resized_pixels) +
                            " pixels; crop the video to a usual aspect ratio");
        const Size target = preprocess_.do_center_crop ? preprocess_.crop_size : resized;
        if (target != Size{clip_.height, clip_.width})
            throw ClipError(
                "frames of " + detail::by(height, width) + " become " + detail::by(target[0], target[1]) +
                " but the model takes " + detail::by(clip_.height, clip_.width) +
                " (height x width), and the processor does not crop; give frames that end up at that size, or "
                "set do_center_crop in preprocessor_config.json and export again");
        const bool tall = resized[0] >= resized[1];
        return {crop_axis(height, resized[0], target[0], tall ? position : 0.5),
                crop_axis(width, resized[1], target[1], tall ? 0.5 : position)};
    }

private:
    struct Scratch {
        std::vector<std::uint8_t> between, padded;
    };

    /// The facts that all frames of a clip share: where its pixels come from, and which pass runs first.
    class Plan {
    public:
        Plan(const Preprocessor& owner, const Frames& frames, double position)
            : Plan(owner.axes(frames.height, frames.width, position), owner, frames) {}

        /// Write the crop (H, W, 3) of one frame.
        void run(const std::uint8_t* frame, std::uint8_t* out, Scratch& scratch) const {
            const std::ptrdiff_t out_stride = columns_.length * 3, stride = width_ * 3;
            if (rows_.kept() < rows_.length || columns_.kept() < columns_.length)
                std::fill_n(out, out_stride * rows_.length, std::uint8_t(0));
            const detail::Target inner{out + rows_.pad * out_stride + columns_.pad * 3, out_stride};
            vertical_first_ ? run_y_then_x(frame, stride, inner, scratch) : run_x_then_y(frame, stride, inner, scratch);
        }

    private:
        Plan(const std::array<Axis, 2>& axes, const Preprocessor& owner, const Frames& frames)
            : rows_(axes[0]),
              columns_(axes[1]),
              width_(frames.width),
              y_(rows_, owner.preprocess_.resample),
              x_(columns_, owner.preprocess_.resample) {
            const int shrink = rows_.source - rows_.resized;
            vertical_first_ = owner.preprocess_.resize_order == ResizeOrder::pillow_13 &&
                              shrink > std::max(0, 2 * (columns_.source - columns_.resized));
        }

        void run_x_then_y(const std::uint8_t* frame, std::ptrdiff_t stride, const detail::Target& out,
                          Scratch& scratch) const {
            const int needed = y_.high() - y_.low();
            const std::ptrdiff_t between = columns_.kept() * 3;
            scratch.between.resize(std::size_t(needed * between));
            horizontal_pass({frame + y_.low() * stride, stride, needed, width_}, x_, {scratch.between.data(), between},
                            scratch.padded, loops_);
            vertical_pass({scratch.between.data(), between, needed, columns_.kept()}, y_.low(), y_, out, loops_);
        }

        void run_y_then_x(const std::uint8_t* frame, std::ptrdiff_t stride, const detail::Target& out,
                          Scratch& scratch) const {
            // Only the columns that the second pass reads, at their original positions: its taps count from the left.
            const std::ptrdiff_t between = width_ * 3, left = x_.low() * 3;
            scratch.between.resize(std::size_t(rows_.kept() * between));
            vertical_pass({frame + left, stride, rows_.source, x_.high() - x_.low()}, 0, y_,
                          {scratch.between.data() + left, between}, loops_);
            horizontal_pass({scratch.between.data(), between, rows_.kept(), width_}, x_, out, scratch.padded, loops_);
        }

        Axis rows_, columns_;
        int width_;
        detail::Taps y_, x_;
        bool vertical_first_;
        detail::Loops loops_ = detail::loops();
    };

    /// The NumPy arithmetic of transformers, in its order and types, on the 256 levels.
    void fill_table() {
        for (std::size_t c = 0; c < 3; ++c)
            for (int level = 0; level < 256; ++level) {
                float value = preprocess_.do_rescale ? float(level * preprocess_.rescale_factor) : float(level);
                if (preprocess_.offset) value -= 1.0f;
                if (preprocess_.do_normalize)
                    value = (value - float(preprocess_.mean[c])) / float(preprocess_.standard_deviation[c]);
                table_[c][std::size_t(level)] = value;
            }
    }

    void look_up(const std::uint8_t* crops, std::size_t image, float* out) const {
        const std::size_t size = std::size_t(clip_.height) * std::size_t(clip_.width);
        const std::uint8_t* pixel = crops + image * size * 3;
        float* red = out + image * size * 3;
        float *green = red + size, *blue = green + size;
        for (std::size_t i = 0; i < size; ++i, pixel += 3) {
            red[i] = table_[0][pixel[0]];
            green[i] = table_[1][pixel[1]];
            blue[i] = table_[2][pixel[2]];
        }
    }

    Clip clip_;
    Preprocess preprocess_;
    int threads_;
    std::array<std::array<float, 256>, 3> table_;
};

}  // namespace vivit
