// Which packets of a video show a frame, as vivit_export/runtime/clips/video/index.py finds out.
#pragma once

#include <cstdint>  // before FFmpeg's headers, which need its macros

extern "C" {
#include <libavutil/avutil.h>
}

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace vivit::detail {

/// A frame as the decoder shows it.
struct Shown {
    std::int64_t pts;  ///< of its packet
    bool is_b;         ///< it may refer to a later frame
};

/// Whether H.264 data have a NAL unit of type 5, after start codes or lengths of four bytes.
[[nodiscard]] inline bool holds_idr(const std::uint8_t* data, std::int64_t size) {
    const auto is_idr = [&](std::int64_t at) { return at < size && (data[at] & 31) == 5; };
    const auto is_start = [&](std::int64_t at) {
        return at + 2 < size && !data[at] && !data[at + 1] && data[at + 2] == 1;
    };
    if (is_start(0) || (size && !data[0] && is_start(1))) {
        for (std::int64_t at = 0; at + 3 < size; ++at)
            if (is_start(at) && is_idr(at + 3)) return true;
        return false;
    }
    for (std::int64_t at = 0; at + 4 < size;) {
        if (is_idr(at + 4)) return true;
        at += 4 + (std::int64_t(data[at]) << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]);
    }
    return false;
}

/// The packets of a video that are decoded, in order of decoding.
struct PacketIndex {
    struct Packet {
        std::int64_t pts;
        bool is_key;
        bool is_shown;  ///< it is not outside the edit list
    };

    std::string codec;             ///< FFmpeg's name
    std::vector<Packet> packets;   ///< those that have data
    bool begins_with_idr = false;  ///< the first holds a picture of H.264 before which nothing is needed
    bool is_reordered = false;     ///< times are in order of decoding though the pictures are not: AVI stores none
    bool has_index = false;        ///< the container has a frame index of its own, so each packet must hold a frame

    /// How many packets, from the first, are never decoded: a codec that draws on gray begins at a key frame.
    [[nodiscard]] std::size_t skip() const {
        for (const char* name : {"h264", "hevc", "vvc", "mpeg1video", "mpeg2video"})
            if (codec == name) return 0;
        const auto key =
            std::find_if(packets.begin(), packets.end(), [](const Packet& packet) { return packet.is_key; });
        return key == packets.end() ? 0 : std::size_t(key - packets.begin());
    }

    /// How many frames the packets promise.
    ///
    /// @param frames  all that the decoder shows
    [[nodiscard]] std::size_t num_frames(const std::vector<Shown>& frames) const {
        std::vector<Packet> used;
        std::copy_if(packets.begin() + std::ptrdiff_t(skip()), packets.end(), std::back_inserter(used),
                     [](const Packet& packet) { return packet.is_shown; });
        return used.size() - num_hidden(used, frames);
    }

private:
    using Packets = std::vector<Packet>;

    [[nodiscard]] static std::size_t number_of(const Packets& used, const Shown& frame) {
        const auto is_its = [&](const Packet& packet) { return packet.pts == frame.pts; };
        return std::size_t(std::find_if(used.begin(), used.end(), is_its) - used.begin());
    }

    [[nodiscard]] static bool is_before(const Packet& packet, const Packet& other) {
        return packet.pts != AV_NOPTS_VALUE && packet.pts < other.pts;
    }

    [[nodiscard]] bool begins_plainly(const Packets& used) const {
        return !used.empty() && used[0].is_key && (codec != "h264" || begins_with_idr) &&
               std::none_of(used.begin(), used.end(), [&](const Packet& packet) { return is_before(packet, used[0]); });
    }

    /// The packets that come before the first frame shown, in order of decoding or of presentation.
    [[nodiscard]] std::size_t num_hidden(const Packets& used, const std::vector<Shown>& frames) const {
        if (frames.empty() || (!is_reordered && begins_plainly(used))) return 0;
        const std::size_t first = number_of(used, frames[0]);
        if (first == used.size()) return 0;
        const std::size_t leaders_end = is_reordered ? end_of_lost_leaders(used, frames, first) : first;
        std::size_t count = 0;
        for (std::size_t n = 0; n < used.size(); ++n) {
            // Where times tell, a later picture may come first, to be decoded before the ones that refer to it.
            const bool by_order = is_reordered || used[n].pts == AV_NOPTS_VALUE;
            if (by_order ? n == first || n >= leaders_end : !is_before(used[n], used[first])) continue;
            // A key frame always shows, unless it is one of H.264's points of recovery, or the file is damaged there.
            if (used[n].is_key && codec != "h264") return 0;
            ++count;
        }
        return count;
    }

    /// The packet behind those that led up to the first one shown; see `_lost_leaders` in Python.
    [[nodiscard]] static std::size_t end_of_lost_leaders(const Packets& used, const std::vector<Shown>& frames,
                                                         std::size_t first) {
        std::size_t earliest = used.size();  // of the B pictures shown
        for (std::size_t i = 1; i < frames.size(); ++i) {
            const std::size_t number = number_of(used, frames[i]);
            if (number == used.size()) break;
            if (!frames[i].is_b) return i > 1 && earliest > number ? number : first;
            earliest = std::min(earliest, number);
        }
        return first;
    }
};

}  // namespace vivit::detail
