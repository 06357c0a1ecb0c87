// Files that are not videos but text, as vivit_export/runtime/clips/video/container.py recognizes them.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace vivit::detail {

/// Whether the beginning of a file is UTF-8 without control characters; its last character may be cut.
[[nodiscard]] inline bool is_text(std::string_view head) {
    if (head.substr(0, 10) == "YUV4MPEG2 ")
        return false;  // a video whose header, and dark first frame, may pass for text
    for (std::size_t i = 0; i < head.size();) {
        const auto byte = static_cast<unsigned char>(head[i++]);
        if (byte < 0x80) {
            if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\f' && byte != '\r') || byte == 0x7f)
                return false;
            continue;
        }
        if (byte < 0xc2 || byte > 0xf4) return false;
        for (int more = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3; more && i < head.size(); --more)
            if ((static_cast<unsigned char>(head[i++]) & 0xc0) != 0x80) return false;
    }
    return true;
}

/// What a text file is, and what to do instead: the end of a sentence.
[[nodiscard]] inline std::string kind_of_text(std::string text) {
    if (text.substr(0, 3) == "\xef\xbb\xbf") text.erase(0, 3);
    text.erase(0, std::min(text.find_first_not_of(" \t\n\f\r"), text.size()));
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
    const auto begins = [&](std::string_view word) { return std::string_view(text).substr(0, word.size()) == word; };
    const auto holds = [&](std::string_view word) { return text.find(word) != std::string::npos; };
    constexpr std::array<std::string_view, 4> scripts{"#extm3u", "ffconcat", "[playlist]", "v=0"};
    constexpr std::array<std::string_view, 5> tags{"<mpd", "<smil", "<asx", "<smoothstreamingmedia", "<playlist"};
    if (begins("version https://git-lfs")) return "a pointer of Git LFS, not the video itself; run git lfs pull";
    if (begins("<!doctype html") || begins("<html") || begins("<head"))
        return "a web page, not a video; download the video itself";
    if (std::any_of(scripts.begin(), scripts.end(), begins) || std::any_of(tags.begin(), tags.end(), holds))
        return "a playlist, which only names other files; give one of these";
    return "a text file; give a video file";
}

}  // namespace vivit::detail
