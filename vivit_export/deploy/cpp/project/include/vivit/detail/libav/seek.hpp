// Decode only what the wanted frames of a video need. The rules, and where they are not certain to give the bits of a
// full decode, are explained in vivit_export/runtime/clips/video/seek.py.
#pragma once

#include <cstdint>  // before FFmpeg's headers, which need its macros

extern "C" {
#include <libavcodec/avcodec.h>
}

#include <algorithm>
#include <array>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "vivit/detail/libav/container.hpp"
#include "vivit/detail/libav/decoder.hpp"
#include "vivit/detail/libav/index.hpp"
#include "vivit/detail/libav/nal.hpp"

namespace vivit::detail {

/// The video must be decoded in full; `what()` says why. Not a fault of the video.
struct CannotSeekError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Wanted frames that follow one key frame.
struct Group {
    std::optional<std::int64_t> key;              ///< its time in ticks, or nothing: decode from the beginning
    std::map<std::int64_t, std::int64_t> wanted;  ///< number of each frame by its time in ticks
};

/// The time of each frame in ticks, in order of presentation.
///
/// @throws CannotSeekError  it is not certain which packet holds which frame
[[nodiscard]] inline std::vector<std::int64_t> certain_times(const PacketIndex& index) {
    if (!is_one_of(index.container, std::array{"matroska", "mov"}))
        throw CannotSeekError("seeking in " + index.container.substr(0, index.container.find(',')) +
                              " files is not exact");
    if (index.skip || index.num_hidden) throw CannotSeekError("its first packets show nothing");
    if (!index.has_index && !index.shows_each_packet) throw CannotSeekError("its codec may hide frames");
    std::vector<std::int64_t> times = index.pts;
    std::sort(times.begin(), times.end());
    if (!times.empty() && times[0] == AV_NOPTS_VALUE)  // the lowest number
        throw CannotSeekError("it has frames without a time");
    if (std::adjacent_find(times.begin(), times.end()) != times.end())
        throw CannotSeekError("it has several frames with one time");
    return times;
}

/// Find the key frame of each wanted frame.
///
/// @param wanted  frame numbers, rising
/// @throws CannotSeekError  as for `certain_times`
[[nodiscard]] inline std::vector<Group> plan_groups(const PacketIndex& index, const std::vector<std::int64_t>& wanted) {
    const std::vector<std::int64_t> times = certain_times(index);
    std::vector<Group> groups;
    for (const std::int64_t number : wanted) {
        const std::int64_t time = times.at(std::size_t(number));
        const auto after = std::upper_bound(index.keys.begin(), index.keys.end(), time);
        const auto key = after == index.keys.begin() ? std::nullopt : std::optional<std::int64_t>(*(after - 1));
        if (groups.empty() || groups.back().key != key) groups.push_back({key, {}});
        groups.back().wanted[time] = number;
    }
    return groups;
}

/// Tells the decoder to skip pictures to which no other refers; only where a packet's own header says that.
class Needed {
public:
    Needed(const Container& container, Decoder& decoder)
        : decoder_(decoder), codec_(container.codec()), length_bytes_(length_bytes_of(codec_, container.extradata())) {}

    /// Whether the packet will be decoded.
    ///
    /// @throws CannotSeekError  it holds no picture
    bool operator()(const AVPacket& packet, bool is_wanted) {
        if (!has_nal_headers(codec_)) return true;
        const auto is_referred = is_referred_to({packet.data, std::size_t(packet.size)}, codec_, length_bytes_);
        if (!is_referred) throw CannotSeekError("a packet holds no picture");
        const bool is_decoded = is_wanted || *is_referred;
        decoder_.skip_unreferenced(!is_decoded);
        return is_decoded;
    }

private:
    Decoder& decoder_;
    std::string codec_;
    std::size_t length_bytes_;
};

/// Receives a wanted frame by its number.
using TakeFrame = std::function<void(std::int64_t number, const AVFrame& frame)>;

/// Decodes from a key frame until all wanted frames are there; the decoder holds nothing from before.
///
/// A packet that shows nothing is damaged, and what refers to it is wrong. So a frame is only passed on when all that
/// was decoded before it has appeared, which takes as many frames more as the decoder puts in order.
class GroupDecoder {
public:
    GroupDecoder(Container& container, Decoder& decoder, const Group& group, const TakeFrame& take)
        : container_(container), decoder_(decoder), group_(group), take_(take), is_needed_(container, decoder) {
        for (const auto& [time, number] : group.wanted) unsent_.insert(time);
    }

    /// @throws CannotSeekError  what is decoded is not certain to be what a full decode gives
    void run() {
        const AvPacket packet(av_packet_alloc());
        for (bool more = true; more;) {
            more = container_.read(*packet);
            if (more && !container_.is_of_video(*packet)) continue;
            if (more) account(*packet);
            decoder_.send(more ? packet.get() : nullptr);
            while (decoder_.receive(*frame_)) accept();
            if (unsent_.empty() && waiting_.empty() && owed_.empty()) return;
        }
        throw CannotSeekError(std::to_string(unsent_.size() + owed_.size()) + " frames do not appear");
    }

private:
    struct Waiting {
        std::int64_t place, number;
        AvFrame frame;
    };

    /// Note what a packet will show.
    void account(const AVPacket& packet) {
        if (!place_) landed_ = landing(packet);
        ++place_;
        const bool is_decoded = is_needed_(packet, place_ == 1 || unsent_.count(packet.pts));
        if (packet.pts == AV_NOPTS_VALUE) return;
        // What leads up to the key frame, and what is outside the edit list, does not appear.
        const bool appears = !(packet.flags & AV_PKT_FLAG_DISCARD) && packet.pts >= landed_;
        if (!unsent_.empty() && is_decoded && appears) owed_[packet.pts] = place_;
        unsent_.erase(packet.pts);
    }

    /// The time of the first packet after a seek, from which all wanted frames can be decoded.
    [[nodiscard]] std::int64_t landing(const AVPacket& packet) const {
        const bool is_key = packet.flags & AV_PKT_FLAG_KEY;
        if (packet.pts == AV_NOPTS_VALUE || (group_.key && (packet.pts > *group_.key || !is_key)))
            throw CannotSeekError("a seek to the tick " + (group_.key ? std::to_string(*group_.key) : "None") +
                                  " ends at " + (packet.pts == AV_NOPTS_VALUE ? "None" : std::to_string(packet.pts)));
        return packet.pts;
    }

    /// Take the frame off what is owed, and pass on what is certain.
    void accept() {
        const std::int64_t place = require_certain();
        const auto wanted = group_.wanted.find(frame_->pts);
        if (wanted != group_.wanted.end()) {
            waiting_.push_back({place, wanted->second, AvFrame(av_frame_alloc())});
            av_frame_move_ref(waiting_.back().frame.get(), frame_.get());
        }
        const auto is_certain = [&](const Waiting& first) {
            return std::all_of(owed_.begin(), owed_.end(),
                               [&](const auto& other) { return other.second > first.place; });
        };
        while (!waiting_.empty() && is_certain(waiting_.front())) {
            take_(waiting_.front().number, *waiting_.front().frame);
            waiting_.pop_front();
        }
    }

    /// @return the frame's place in order of decoding
    [[nodiscard]] std::int64_t require_certain() {
        if (is_corrupt(*frame_)) throw CannotSeekError("the decoder reports an error");
        if (is_interlaced(*frame_)) throw CannotSeekError("it is interlaced, and a packet may hold half a picture");
        if (frame_->pts == AV_NOPTS_VALUE) throw CannotSeekError("the decoder gives a frame no time");
        const auto owed = owed_.find(frame_->pts);
        const std::int64_t place = owed == owed_.end() ? 0 : owed->second;
        if (owed != owed_.end()) owed_.erase(owed);
        if (!owed_.empty() && owed_.begin()->first < frame_->pts)
            throw CannotSeekError("a packet on the way shows no frame");
        return place;
    }

    Container& container_;
    Decoder& decoder_;
    const Group& group_;
    const TakeFrame& take_;
    Needed is_needed_;
    std::set<std::int64_t> unsent_;
    std::map<std::int64_t, std::int64_t> owed_;  ///< what was decoded and is to appear, by its time, with its place in
                                                 ///< order of decoding
    std::deque<Waiting> waiting_;
    std::int64_t landed_ = 0, place_ = 0;
    AvFrame frame_{av_frame_alloc()};
};

/// Decodes groups of a video, one after the other.
class GroupReader {
public:
    /// @param threads  of the decoder
    /// @throws ClipError  as for `Container`
    GroupReader(const std::filesystem::path& path, int threads) : container_(path), threads_(threads) {}

    /// @param take  receives the wanted frames, in order of presentation
    /// @throws CannotSeekError  what is decoded is not certain to be what a full decode gives; also after some frames
    void read(const Group& group, const TakeFrame& take) {
        try {
            if (!decoder_) decoder_.emplace(container_, threads_);
            if (group.key) {
                container_.seek(*group.key);
                decoder_->flush();
            }
            GroupDecoder(container_, *decoder_, group, take).run();
        } catch (const LibavError& e) {
            throw CannotSeekError("the decoder fails (" + e.cause() + ")");
        }
    }

private:
    Container container_;
    std::optional<Decoder> decoder_;
    int threads_;
};

}  // namespace vivit::detail
