// What the headers of H.264 and HEVC say about a packet, without decoding it (ITU-T H.264 and H.265, clause 7.3.1), as
// vivit_export/runtime/clips/video/nal.py reads them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace vivit::detail {

/// Bytes that another owns.
struct Bytes {
    const std::uint8_t* data;
    std::size_t size;
};

/// Whether packets of a codec, by FFmpeg's name, have the headers that this file reads.
[[nodiscard]] inline bool has_nal_headers(const std::string& codec) { return codec == "h264" || codec == "hevc"; }

/// How long the lengths before NAL units are, as the stream's own header says, or 0 if there are none.
///
/// That header is an avcC or hvcC box (ISO/IEC 14496-15, clauses 5.3.3 and 8.3.3) where units have lengths, as in MP4
/// and Matroska, and something else or nothing where they follow start codes, as in transport streams.
[[nodiscard]] inline std::size_t length_bytes_of(const std::string& codec, const Bytes& extradata) {
    const std::size_t at = codec == "h264" ? 4 : 21;
    if (!has_nal_headers(codec) || extradata.size <= at || extradata.data[0] != 1) return 0;
    return (extradata.data[at] & 3u) + 1;
}

/// Call `see(header)` with the first byte of each NAL unit of a packet, until it returns true.
///
/// @param length_bytes  from `length_bytes_of`
/// @return whether it returned true
template <typename See>
bool any_nal_header(const Bytes& packet, std::size_t length_bytes, See see) {
    if (!length_bytes) {
        const auto is_start = [&](std::size_t i) {
            return i + 2 < packet.size && !packet.data[i] && !packet.data[i + 1] && packet.data[i + 2] == 1;
        };
        for (std::size_t at = 0; at + 3 < packet.size; ++at)
            if (is_start(at) && !is_start(at + 3) && see(packet.data[at + 3])) return true;
        return false;
    }
    for (std::uint64_t at = 0; at + length_bytes < packet.size;) {
        if (see(packet.data[at + length_bytes])) return true;
        std::uint64_t length = 0;
        for (std::size_t i = 0; i < length_bytes; ++i) length = length << 8 | packet.data[at + i];
        at += length_bytes + length;
    }
    return false;
}

/// Whether a packet of H.264 holds a picture before which nothing is needed.
[[nodiscard]] inline bool holds_idr(const Bytes& packet, std::size_t length_bytes) {
    return any_nal_header(packet, length_bytes, [](unsigned header) { return (header & 31) == 5; });
}

/// Whether later pictures may refer to the one in a packet; nothing if it holds no picture.
///
/// @param codec  one that `has_nal_headers`
[[nodiscard]] inline std::optional<bool> is_referred_to(const Bytes& packet, const std::string& codec,
                                                        std::size_t length_bytes) {
    std::optional<bool> found;
    const bool is_h264 = codec == "h264";
    any_nal_header(packet, length_bytes, [&](unsigned header) {
        const unsigned kind = is_h264 ? header & 31 : header >> 1 & 63;
        if (is_h264 && (kind == 1 || kind == 2 || kind == 5)) found = (header >> 5 & 3) != 0;  // nal_ref_idc
        if (!is_h264 && kind < 32) found = kind >= 16 || (kind & 1);  // the even ones up to 14 are not referred to
        return found.has_value();
    });
    return found;
}

}  // namespace vivit::detail
