// Numbers as both runtimes write them in their sentences.
#pragma once

#include <cstddef>
#include <string>

namespace vivit::detail {

/// "640x272".
[[nodiscard]] inline std::string by(int first, int second) {
    return std::to_string(first) + "x" + std::to_string(second);
}

/// "(8, 64, 64, 3)", a tuple in Python's notation.
template <typename Sides>
[[nodiscard]] std::string tuple(const Sides& sides) {
    std::string text;
    for (const auto side : sides) text += (text.empty() ? "" : ", ") + std::to_string(side);
    return "(" + text + (sides.size() == 1 ? ",)" : ")");
}

/// Text of others as one line that a terminal only shows: "\\x1b" in place of an escape character, and so on.
///
/// What is spelled out: controls, line breaks, and marks that reverse the direction of text.
[[nodiscard]] inline std::string one_line(const std::string& text) {
    static const char* digits = "0123456789abcdef";
    const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
    std::string shown;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const int first = byte(i), second = byte(i + 1), third = byte(i + 2);
        if (first < 0x20 || first == 0x7F) {
            shown += first == '\n' ? "\\n" : first == '\r' ? "\\r" : first == '\t' ? "\\t" : "";
            if (first != '\n' && first != '\r' && first != '\t')
                shown += std::string("\\x") + digits[first / 16] + digits[first % 16];
        } else if (first == 0xC2 && second >= 0x80 && second < 0xA0) {  // U+0080 to U+009F
            shown += std::string("\\x") + digits[second / 16] + digits[second % 16], ++i;
        } else if (first == 0xE2 && ((second == 0x80 && third >= 0xA8 && third <= 0xAE) ||
                                     (second == 0x81 && third >= 0xA6 && third <= 0xA9))) {  // U+2028 and so on
            const int code = 0x2000 + (second - 0x80) * 64 + (third - 0x80);
            shown += std::string("\\u20") + digits[code / 16 % 16] + digits[code % 16], i += 2;
        } else {
            shown += text[i];
        }
    }
    return shown;
}

}  // namespace vivit::detail
