// Any video, through FFmpeg's libraries, as vivit_export/runtime/clips/video/frames.py reads it: its packets say which
// frames there are, and only what the wanted frames need is decoded, wherever that is certain to give the bits of a
// full decode; upright 8-bit RGB from swscale with PyAV's defaults.
#pragma once

#include <cstdint>  // before FFmpeg's headers, which need its macros

extern "C" {
#include <libavutil/frame.h>
}

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/detail/libav/container.hpp"
#include "vivit/detail/libav/decoder.hpp"
#include "vivit/detail/libav/index.hpp"
#include "vivit/detail/libav/picture.hpp"
#include "vivit/detail/libav/seek_at_once.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"
#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

/// How much of a video is decoded: what the wanted frames need, wherever that is certain to give the same bits, or all
/// of it, so that damage between the wanted frames is noticed too.
enum class Decode { automatic, full };

/// How videos are read: the choices that do not change a single bit of the frames.
struct Reading {
    Decode decode = Decode::automatic;
    int threads = 0;  ///< of all decoders; 0: as many as there are cores

    /// With Decode::automatic, receives each video that is decoded in full, and why: once, if that does not change.
    std::function<void(const std::filesystem::path& path, const std::string& why)> note;
};

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

/// A whole video was decoded, and has another number of frames than its packets promised.
struct MiscountError : ClipError {
    MiscountError(const std::string& name, std::int64_t frames, std::int64_t promised)
        : ClipError(name + " is damaged: " + std::to_string(frames) + " of its " + std::to_string(promised) +
                    " frames can be decoded; copy or encode it again"),
          decoded(frames) {}

    std::int64_t decoded;  ///< how many it has
};

/// A video that FFmpeg reads.
class LibavVideo final : public Video {
public:
    LibavVideo(const std::filesystem::path& path, Reading reading)
        : LibavVideo(std::make_unique<Container>(path), std::move(reading)) {}

    [[nodiscard]] std::int64_t num_frames() const override {
        if (!counted_) counted_ = is_certain() ? index_.num_frames() : count();
        return *counted_;
    }
    [[nodiscard]] int height() const override { return size()[0]; }
    [[nodiscard]] int width() const override { return size()[1]; }

    void visit(const ChooseFrames& choose, const UseFrame& use) override {
        const std::int64_t promised = counted_.value_or(index_.num_frames());
        // Packets that promise too much do not tell which holds which frame.
        const Decode decode = promised == index_.num_frames() ? reading_.decode : Decode::full;
        try {
            collect(promised, choose(promised), use, decode);
        } catch (const MiscountError& e) {
            if (index_.has_index) throw;
            // Some packets of these containers show no frame (VP8's hidden references, the second field of a picture):
            // count by the decoder instead.
            counted_ = e.decoded;
            collect(e.decoded, choose(e.decoded), use, Decode::full);
        }
    }

private:
    LibavVideo(const std::unique_ptr<Container>& container, Reading reading)
        : Video(container->name()),
          path_(container->path()),
          reading_(std::move(reading)),
          index_(read_index(*container, reading_.threads)),
          to_rgb_(container->name(), container->video()) {}

    void read_frame(std::int64_t index, std::uint8_t* out) override {
        const FrameBuffer frame = read({index});
        std::copy(frame.data.begin(), frame.data.end(), out);
    }

    /// Whether its packets say which frames there are.
    [[nodiscard]] bool is_certain() const {
        if (index_.has_index) return true;
        try {
            return !certain_times(index_).empty();
        } catch (const CannotSeekError& e) {
            if (reading_.decode == Decode::automatic) note(e.what());
            return false;
        }
    }

    [[nodiscard]] std::int64_t count() const {
        DecodedFrames frames(path_, index_.skip, reading_.threads);
        std::int64_t count = 0;
        while (frames.next()) ++count;
        return count;
    }

    [[nodiscard]] Size size() const {
        if (!size_) {
            DecodedFrames frames(path_, index_.skip, reading_.threads);
            const AVFrame* first = frames.next();
            size_ = first ? to_rgb_.size(*first) : Size{0, 0};
        }
        return *size_;
    }

    /// Pass on the frames at `indices`.
    void collect(std::int64_t num_frames, const Indices& indices, const UseFrame& use, Decode decode) {
        const auto slots = slots_of(indices, num_frames);
        Indices wanted;
        for (const auto& [number, places] : slots) wanted.push_back(number);
        std::vector<std::uint8_t> pixels;
        std::optional<Size> size;
        const auto take = [&](std::int64_t number, const AVFrame& frame) {
            convert(frame, size, pixels);
            use({pixels.data(), 1, (*size)[0], (*size)[1]}, slots.at(number));
        };
        std::size_t done = 0;
        if (decode == Decode::full || !seek(wanted, take, done))
            decode_all(num_frames, {wanted.begin() + std::ptrdiff_t(done), wanted.end()}, take);
    }

    /// Decode only what the wanted frames need.
    ///
    /// @param done  counts the frames that are taken
    /// @return whether all were; else it is not certain what the others are
    bool seek(const Indices& wanted, const TakeFrame& take, std::size_t& done) const {
        try {
            seek_frames(path_, index_, wanted, reading_.threads, [&](std::int64_t number, const AVFrame& frame) {
                take(number, frame);
                ++done;
            });
            return true;
        } catch (const CannotSeekError& e) {
            note(e.what());
            return false;
        }
    }

    /// Decode the whole video in order of presentation, without seeking, and count the frames.
    ///
    /// @param wanted  frame numbers, rising
    /// @throws MiscountError  after all of it was decoded
    void decode_all(std::int64_t num_frames, const Indices& wanted, const TakeFrame& take) {
        DecodedFrames frames(path_, index_.skip, reading_.threads);
        std::vector<std::int64_t> damaged;
        auto following = wanted.begin();
        std::int64_t decoded = 0;
        for (; const AVFrame* frame = frames.next(); ++decoded) {
            if (is_corrupt(*frame)) damaged.push_back(decoded);
            if (!damaged.empty() || following == wanted.end() || *following != decoded) continue;
            take(decoded, *frame);
            ++following;
        }
        if (!damaged.empty())
            throw ClipError(name() + " is damaged: the decoder reports errors in " + std::to_string(damaged.size()) +
                            (damaged.size() == 1 ? " frame (" : " frames (") + runs_of(damaged) +
                            "); copy or encode it again");
        if (decoded != num_frames) throw MiscountError(name(), decoded, num_frames);
        counted_ = decoded;
    }

    /// @param size  of the frames before
    void convert(const AVFrame& frame, std::optional<Size>& size, std::vector<std::uint8_t>& pixels) {
        to_rgb_.require_conversion(frame);
        const Size found = to_rgb_.size(frame);
        if (!size_) size_ = found;
        if (!size) size = found;
        if (found != *size)
            throw ClipError(name() + " changes its frame size from " + by((*size)[1], (*size)[0]) + " to " +
                            by(found[1], found[0]) + " (width x height); convert it to one size");
        pixels.resize(Frames{nullptr, 1, found[0], found[1]}.frame_bytes());
        to_rgb_(frame, pixels.data());
    }

    void note(const std::string& why) const {
        if (reading_.note && why != noted_) reading_.note(path_, why);
        noted_ = why;
    }

    std::filesystem::path path_;
    Reading reading_;
    PacketIndex index_;
    ToUprightRgb to_rgb_;
    mutable std::string noted_;
    mutable std::optional<std::int64_t> counted_;  ///< how many frames it has for certain
    mutable std::optional<Size> size_;             ///< (height, width) of a frame, once one was seen
};

}  // namespace detail

/// Opens any video in a way of one's own; pass it to `open_video`, as `open_with_libav`.
struct LibavOpener {
    Reading reading;

    /// @throws ClipError  as for `open_with_libav`
    [[nodiscard]] std::unique_ptr<Video> operator()(const std::filesystem::path& path) const {
        return std::make_unique<detail::LibavVideo>(path, reading);
    }
};

/// Open any video; pass this to `open_video` to read formats that it does not read itself.
///
/// What is read of it may still show that it is damaged, changes its size, has a color matrix without a conversion, or
/// is turned by something else than quarter turns: a ClipError, too.
///
/// @throws ClipError  no such file, not a video, or cut short
[[nodiscard]] inline std::unique_ptr<Video> open_with_libav(const std::filesystem::path& path) {
    return LibavOpener{}(path);
}

}  // namespace vivit
