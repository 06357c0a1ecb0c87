// Numbers as both runtimes write them in their sentences.
#pragma once

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

}  // namespace vivit::detail
