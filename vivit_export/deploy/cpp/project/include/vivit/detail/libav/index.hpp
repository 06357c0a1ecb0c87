// Which packets of a video show a frame, and when, as vivit_export/runtime/clips/video/index.py finds out.
#pragma once

#include <cstdint>  // before FFmpeg's headers, which need its macros

extern "C" {
#include <libavformat/avformat.h>
#include <libavutil/avutil.h>
}

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "vivit/detail/libav/container.hpp"
#include "vivit/detail/libav/decoder.hpp"
#include "vivit/detail/libav/flv.hpp"
#include "vivit/detail/libav/matroska.hpp"
#include "vivit/detail/libav/nal.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// Whether FFmpeg's name of a container begins with one of these.
template <std::size_t Count>
[[nodiscard]] bool is_one_of(const std::string& container, const std::array<const char*, Count>& beginnings) {
    return std::any_of(beginnings.begin(), beginnings.end(),
                       [&](const char* beginning) { return container.rfind(beginning, 0) == 0; });
}

/// The packets of a video that are decoded, numbered from 0 in order of decoding.
struct PacketIndex {
    std::string container;           ///< FFmpeg's name of its kind of file
    std::size_t skip = 0;            ///< how many packets before the first of these are never decoded
    std::vector<std::int64_t> pts;   ///< when the frame of each is shown, in the container's ticks, or AV_NOPTS_VALUE
    std::vector<std::int64_t> keys;  ///< times of the key frames in ticks, rising
    std::size_t num_hidden = 0;      ///< of those at the beginning that show nothing
    std::int64_t pixels = 0;         ///< of a frame, as the header says
    bool has_index = false;          ///< the container has a frame index of its own, so each packet must hold a frame
    bool shows_each_packet = false;  ///< the codec has no other packets that show nothing

    /// Frames that are shown, unless the codec hides more.
    [[nodiscard]] std::int64_t num_frames() const noexcept { return std::int64_t(pts.size() - num_hidden); }
};

[[nodiscard]] inline ClipError several_recordings(const std::string& name) {
    return ClipError(name + " is several recordings in one file, of which players show only the first; join them " +
                     "with a program for videos");
}

/// Puts the times of a stream on one line, even if recordings were joined and each starts over.
class Clock {
public:
    Clock(const Container& container, double frame_seconds)
        : name_(container.name()),
          frame_seconds_(frame_seconds),
          may_be_joined_(container.kind() == "mpegts" || container.kind() == "mpeg"),
          is_one_line_(is_one_of(container.kind(), std::array{"mov", "avi"})) {}

    /// When a packet's frame is first shown, in seconds, or nothing.
    ///
    /// @throws ClipError  recordings were joined that cannot be
    [[nodiscard]] std::optional<double> place(const AVPacket& packet, double tick) {
        if (packet.pts == AV_NOPTS_VALUE) return {};
        const double start = double(packet.pts) * tick, end = double(packet.pts + packet.duration) * tick;
        if (begins_anew(packet)) {
            if (!may_be_joined_) throw several_recordings(name_);
            shift_ = end_ - start;
        }
        end_ = std::max({end_, end + shift_, start + shift_ + (packet.duration ? 0 : frame_seconds_)});
        return start + shift_;
    }

private:
    /// Whether time falls: that of decoding where it is stored, else that of a key frame below an earlier one's.
    bool begins_anew(const AVPacket& packet) {
        const std::int64_t time = may_be_joined_ ? packet.dts : packet.pts;
        if (is_one_line_ || time == AV_NOPTS_VALUE) return false;
        const bool anew = latest_ && time < *latest_ && (may_be_joined_ || packet.flags & AV_PKT_FLAG_KEY);
        latest_ = anew || !latest_ ? time : std::max(*latest_, time);
        return anew;
    }

    std::string name_;
    double frame_seconds_, end_ = 0, shift_ = 0;
    bool may_be_joined_, is_one_line_;
    std::optional<std::int64_t> latest_;
};

/// All packets of the video stream that have data, in order of decoding.
class Scan {
public:
    struct Packet {
        std::int64_t pts;
        std::optional<double> start;  ///< the same in seconds; see `Clock`
        bool is_key;
        bool is_shown;  ///< it is not outside the edit list
    };

    /// @throws ClipError  the file ends early: with damaged packets, or before the end that its header states
    explicit Scan(Container& container)
        : codec_(container.codec()), knows_size_(container.video().codecpar->width > 0) {
        const std::string kind = container.kind();
        const std::size_t length_bytes = length_bytes_of("h264", container.extradata());
        is_reordered_ = kind == "avi" && container.video().codecpar->video_delay;
        Clock clock(container, 1 / rate(container));
        const AvPacket packet(av_packet_alloc());
        double data_end = 0;
        while (container.read(*packet)) {
            if (packet->flags & AV_PKT_FLAG_CORRUPT && kind != "mpegts")  // there it only means a lost transport packet
                throw ClipError(container.name() +
                                " is cut short: its last data are incomplete; copy or record it again");
            const double tick = av_q2d(container.format().streams[packet->stream_index]->time_base);
            const bool is_shown = !(packet->flags & AV_PKT_FLAG_DISCARD);
            if (packet->size && is_shown && packet->pts != AV_NOPTS_VALUE)
                data_end = std::max(data_end, double(packet->pts + packet->duration) * tick);
            if (!container.is_of_video(*packet)) continue;
            if (packets_.empty()) begins_with_idr_ = holds_idr({packet->data, std::size_t(packet->size)}, length_bytes);
            packets_.push_back({packet->pts, is_shown ? clock.place(*packet, tick) : std::nullopt,
                                bool(packet->flags & AV_PKT_FLAG_KEY), is_shown});
        }
        if (kind == "flv" && is_joined_flv(container.file())) throw several_recordings(container.name());
        require_whole(container, data_end);
        if (!knows_size_ && first_key() == packets_.end())
            throw ClipError(container.name() +
                            " has no key frame, at which decoding could begin; record or cut it again from one");
    }

    /// Leave out what is never decoded or is outside the edit list.
    ///
    /// @return how many packets, from the first, are never decoded: a codec that draws on gray begins at a key frame
    std::size_t leave_out() {
        std::size_t skip = 0;
        // What is shown before a size is known cannot be decoded.
        if (!knows_size_ || !begins_anywhere()) {
            const auto key = first_key();
            if (key != packets_.end()) skip = std::size_t(key - packets_.begin());
        }
        packets_.erase(packets_.begin(), packets_.begin() + std::ptrdiff_t(skip));
        const auto is_outside = [](const Packet& packet) { return !packet.is_shown; };
        packets_.erase(std::remove_if(packets_.begin(), packets_.end(), is_outside), packets_.end());
        return skip;
    }

    [[nodiscard]] const std::vector<Packet>& packets() const noexcept { return packets_; }

    /// Whether the first packet surely holds the first frame.
    [[nodiscard]] bool begins_plainly() const {
        if (is_reordered_ || packets_.empty() || !packets_[0].is_key || (codec_ == "h264" && !begins_with_idr_))
            return false;
        const auto is_before = [&](const Packet& packet) { return packet.start && *packet.start < *packets_[0].start; };
        return !packets_[0].start || std::none_of(packets_.begin(), packets_.end(), is_before);
    }

    /// How many packets come before the first frame shown, in order of decoding or of presentation.
    ///
    /// @param frames  all that the decoder shows; as many are decoded as it takes
    [[nodiscard]] std::size_t num_hidden(DecodedFrames& frames) const {
        const AVFrame* frame = frames.next();
        const std::size_t first = frame ? number_of(frame->pts) : packets_.size();
        if (first == packets_.size()) return 0;  // also of bare streams, which have no times
        const std::size_t leaders_end = is_reordered_ ? end_of_lost_leaders(frames, first) : first;
        const double begin = packets_[first].start.value_or(0);
        std::size_t count = 0;
        for (std::size_t n = 0; n < packets_.size(); ++n) {
            // Where times tell, a later picture may come first, to be decoded before the ones that refer to it.
            const bool by_order = is_reordered_ || !packets_[n].start;
            if (by_order ? n == first || n >= leaders_end : *packets_[n].start >= begin) continue;
            // A key frame always shows, unless it is one of H.264's points of recovery, or the file is damaged there.
            if (packets_[n].is_key && codec_ != "h264") return 0;
            ++count;
        }
        return count;
    }

private:
    static double rate(const Container& container) {
        AVStream& video = container.video();
        const double average = video.avg_frame_rate.num ? av_q2d(video.avg_frame_rate) : 0;
        const AVRational guessed = av_guess_frame_rate(&container.format(), &video, nullptr);
        return average > 0 ? average : guessed.num ? av_q2d(guessed) : 25;
    }

    static void require_whole(Container& container, double data_end) {
        const std::int64_t duration = container.format().duration;
        const double stated = duration == AV_NOPTS_VALUE ? 0 : double(duration) / AV_TIME_BASE;
        const bool states_it = is_one_of(container.kind(), std::array{"matroska", "mov"});  // others estimate it
        if (states_it && data_end < stated - 0.5 && !segment_is_whole(container.file()))
            throw ClipError(container.name() + " is cut short: its header states " + tenths(stated) +
                            " s but the data end at " + tenths(data_end) + " s; copy or record it again");
    }

    static std::string tenths(double seconds) {
        std::array<char, 32> text{};
        std::snprintf(text.data(), text.size(), "%.1f", seconds);
        return text.data();
    }

    /// Whether its decoder finds a point from which pictures are whole, which need not be a key frame.
    [[nodiscard]] bool begins_anywhere() const {
        static const std::set<std::string> codecs{"h264", "hevc", "vvc", "mpeg1video", "mpeg2video"};
        return codecs.count(codec_) != 0;
    }

    [[nodiscard]] std::vector<Packet>::const_iterator first_key() const {
        return std::find_if(packets_.begin(), packets_.end(), [](const Packet& packet) { return packet.is_key; });
    }

    [[nodiscard]] std::size_t number_of(std::int64_t pts) const {
        const auto is_its = [&](const Packet& packet) { return packet.pts == pts; };
        return std::size_t(std::find_if(packets_.begin(), packets_.end(), is_its) - packets_.begin());
    }

    /// The packet after those that led up to the first one shown; see `_lost_leaders` in Python.
    [[nodiscard]] std::size_t end_of_lost_leaders(DecodedFrames& frames, std::size_t first) const {
        std::size_t earliest = packets_.size();  // of the B pictures shown
        while (const AVFrame* frame = frames.next()) {
            const std::size_t number = number_of(frame->pts);
            if (number == packets_.size()) break;
            if (frame->pict_type != AV_PICTURE_TYPE_B)
                return earliest < packets_.size() && earliest > number ? number : first;
            earliest = std::min(earliest, number);
        }
        return first;
    }

    std::string codec_;
    bool knows_size_;  ///< FFmpeg found the size of its frames while it looked into the file
    std::vector<Packet> packets_;
    bool begins_with_idr_ = false;  ///< the first holds a picture of H.264 before which nothing is needed
    bool is_reordered_ = false;     ///< times are in order of decoding though the pictures are not: AVI stores none
};

/// Read all packets of a video, and decode its first frame where that may not be in the first packet.
///
/// @param container  just opened
/// @param threads    of the decoder; 0: as many as there are cores
/// @throws ClipError  it is cut short
[[nodiscard]] inline PacketIndex read_index(Container& container, int threads) {
    Scan scan(container);
    PacketIndex index;
    index.container = container.kind();
    index.skip = scan.leave_out();
    index.pixels = std::int64_t(container.video().codecpar->width) * container.video().codecpar->height;
    index.has_index = container.video().nb_frames > 0;
    index.shows_each_packet = container.codec() != "vp8";
    if (!scan.begins_plainly()) {
        DecodedFrames frames(container.path(), index.skip, threads);
        index.num_hidden = scan.num_hidden(frames);
    }
    for (const Scan::Packet& packet : scan.packets()) {
        index.pts.push_back(packet.pts);
        if (packet.is_key && packet.pts != AV_NOPTS_VALUE) index.keys.push_back(packet.pts);
    }
    std::sort(index.keys.begin(), index.keys.end());
    return index;
}

}  // namespace vivit::detail
