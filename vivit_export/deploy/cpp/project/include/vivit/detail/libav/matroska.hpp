// Whether a Matroska file is as long as it says, as vivit_export/runtime/clips/video/segment.py finds out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "vivit/detail/files/seekable_file.hpp"

namespace vivit::detail {

/// Whether a file is Matroska and its segment ends within it, or is endless.
[[nodiscard]] inline bool segment_is_whole(SeekableFile& file) {
    const std::string head = file.text(0, 4096);
    const auto byte = [&](std::size_t at) { return std::uint64_t(static_cast<unsigned char>(head[at])); };
    const auto length = [&](std::size_t at) {  // of an EBML number
        std::size_t bytes = 9;
        for (auto first = byte(at); first; first >>= 1) --bytes;
        return bytes;
    };
    for (std::uint64_t at = 0; at + 18 <= head.size() && byte(at);) {
        const std::size_t size_at = std::size_t(at) + length(at), begin = size_at + length(size_at);
        const std::uint64_t all = (std::uint64_t(1) << (7 * (begin - size_at))) - 1;  // the other bits mark the length
        std::uint64_t size = 0;
        for (std::size_t i = size_at; i < begin; ++i) size = size << 8 | byte(i);
        size &= all;
        if (std::string_view(head).substr(std::size_t(at), size_at - std::size_t(at)) == "\x18\x53\x80\x67")
            return size == all || begin + size <= std::uint64_t(file.size());
        at = begin + size;
    }
    return false;
}

}  // namespace vivit::detail
