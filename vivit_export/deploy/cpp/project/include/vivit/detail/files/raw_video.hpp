// Frames that need no conversion: raw rgb24 and .npy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/detail/files/seekable_file.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"

namespace vivit::detail {

/// Frames stored in a file without encoding: rgb24, with or without a header.
class RawVideo final : public Video {
public:
    /// Raw rgb24 of a known size.
    RawVideo(const std::filesystem::path& path, Size size) : Video(path.string()), file_(path) {
        const auto [rows, columns] = size;
        if (std::min(rows, columns) < 1 || std::max(rows, columns) > max_side)
            throw UsageError("a frame size of " + by(columns, rows) + " (width x height) is not possible");
        const std::int64_t frame_bytes = bytes_of(rows, columns);
        if (file_.size() % frame_bytes)
            throw ClipError(name() + " has " + std::to_string(file_.size()) +
                            " bytes, which are not whole rgb24 frames of " + by(columns, rows) + " (width x height, " +
                            std::to_string(frame_bytes) + " bytes each); give the right --size");
        describe(file_.size() / frame_bytes, rows, columns);
    }

    /// A NumPy file.
    explicit RawVideo(const std::filesystem::path& path) : Video(path.string()), file_(path) {
        const std::string head = file_.text(0, 12);
        if (head.size() < 12 || head.compare(0, 6, "\x93NUMPY") || head[6] < 1 || head[6] > 3)
            file_.refuse("no NumPy file");
        const auto byte = [&](std::size_t i) { return std::int64_t(static_cast<unsigned char>(head[i])); };
        const bool old = head[6] == 1;
        const std::int64_t size =
            old ? byte(8) | byte(9) << 8 : byte(8) | byte(9) << 8 | byte(10) << 16 | byte(11) << 24;
        start_ = (old ? 10 : 12) + size;
        read_shape(file_.text(old ? 10 : 12, std::min<std::int64_t>(size, 1 << 16)));
        if ((file_.size() - start_) / bytes_of(height(), width()) < num_frames())
            throw ClipError(name() + " is cut short: its last data are incomplete; copy or record it again");
    }

private:
    [[nodiscard]] static std::int64_t bytes_of(int rows, int columns) noexcept {
        return std::int64_t(rows) * columns * 3;
    }

    void read_shape(const std::string& header) {
        const auto value = [&](const std::string& key, char end) {
            const auto at = header.find("'" + key + "': ");
            if (at == std::string::npos) file_.refuse("no NumPy file");
            const auto from = at + key.size() + 4;
            return header.substr(from, header.find(end, from) - from);
        };
        const std::string dtype = value("descr", ','), shape = value("shape", ')');
        std::istringstream numbers(shape.substr(std::min<std::size_t>(1, shape.size())));
        std::vector<std::int64_t> sides;
        char comma = 0;
        for (std::int64_t side = 0; numbers >> side; numbers >> comma) sides.push_back(side);
        const auto is_side = [](std::int64_t side) { return side >= 1 && side <= max_side; };
        if (dtype != "'|u1'" || value("fortran_order", ',') != "False" || sides.size() != 4 || sides[0] < 0 ||
            !is_side(sides[1]) || !is_side(sides[2]) || sides[3] != 3)
            throw ClipError(name() + " holds an array of type " + dtype + " and shape " + shape +
                            "); frames must be a uint8 array (T, h, w, 3) in C order");
        describe(sides[0], int(sides[1]), int(sides[2]));
    }

    void read_frame(std::int64_t index, std::uint8_t* out) override {
        const std::int64_t size = bytes_of(height(), width());
        file_.read(start_ + index * size, out, std::size_t(size));
    }

    SeekableFile file_;
    std::int64_t start_ = 0;
};

}  // namespace vivit::detail
