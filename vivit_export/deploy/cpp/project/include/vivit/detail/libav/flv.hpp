// Whether an FLV file is several, joined byte by byte, as vivit_export/runtime/clips/video/flv.py finds out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "vivit/detail/files/seekable_file.hpp"

namespace vivit::detail {

/// Whether another header follows a tag of an FLV file. Only the headers of the tags are read.
[[nodiscard]] inline bool is_joined_flv(SeekableFile& file) {
    const auto number = [](const std::string& text, std::size_t begin, std::size_t end) {
        std::int64_t value = 0;
        for (std::size_t i = begin; i < end; ++i) value = value << 8 | static_cast<unsigned char>(text[i]);
        return value;
    };
    const std::string head = file.text(0, 9);
    if (head.size() < 9 || head.compare(0, 3, "FLV") != 0) return false;
    for (std::int64_t at = number(head, 5, 9) + 4;;) {
        const std::string tag = file.text(at, 11);
        if (tag.compare(0, 3, "FLV") == 0) return true;
        if (tag.size() < 11) return false;
        at += 11 + number(tag, 1, 4) + 4;
    }
}

}  // namespace vivit::detail
