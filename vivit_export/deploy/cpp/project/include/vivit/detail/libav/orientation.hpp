// The eight orientations of a picture, as vivit_export/runtime/clips/video/orientation.py has them.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace vivit::detail {

/// How a stored picture becomes upright: rows and columns are swapped first, then mirrored.
struct Orientation {
    bool transpose = false;
    bool flip_columns = false;
    bool flip_rows = false;

    /// Copy a picture, upright.
    ///
    /// @param from    the stored picture, 3 bytes per pixel
    /// @param stride  bytes from one of its rows to the next
    /// @param height  of the stored picture, pixels
    /// @param width   of the stored picture, pixels
    /// @param out     height * width * 3 bytes
    void copy(const std::uint8_t* from, std::ptrdiff_t stride, int height, int width, std::uint8_t* out) const {
        const int rows = transpose ? width : height, columns = transpose ? height : width;
        for (int y = 0; y < rows; ++y)
            for (int x = 0; x < columns; ++x, out += 3) {
                const int row = flip_rows ? rows - 1 - y : y, column = flip_columns ? columns - 1 - x : x;
                const std::ptrdiff_t source_row = transpose ? column : row, source_column = transpose ? row : column;
                std::memcpy(out, from + source_row * stride + source_column * 3, 3);
            }
    }
};

/// By how many degrees a display matrix (nine numbers, see the Python module) turns a row of pixels, clockwise, in
/// [0, 360), or nothing if it has no angle.
[[nodiscard]] inline std::optional<int> angle_of(const std::int32_t* matrix) {
    const double a = matrix[0], b = matrix[1], c = matrix[3], d = matrix[4];
    const double width = std::hypot(a, c), height = std::hypot(b, d);
    if (width == 0 || height == 0) return std::nullopt;
    constexpr double degrees_per_radian = 180 / 3.14159265358979323846;
    const int angle = int(std::nearbyint(std::atan2(b / height, a / width) * degrees_per_radian));
    return (angle + 360) % 360;
}

/// How a display matrix shows a picture, or nothing if it turns it by another angle than quarter turns.
[[nodiscard]] inline std::optional<Orientation> orientation_of(const std::int32_t* matrix) {
    const std::optional<int> angle = angle_of(matrix);
    if (!angle) return Orientation{};
    if (*angle % 90) return std::nullopt;
    const std::int32_t c = matrix[3], d = matrix[4];
    if (*angle % 180) return Orientation{true, *angle == 90 ? c <= 0 : c < 0, *angle == 270};
    return Orientation{false, *angle == 180, d < 0};
}

}  // namespace vivit::detail
