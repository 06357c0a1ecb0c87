// YUV4MPEG2, converted as swscale does it on x86 by default, and so PyAV: BT.601, limited range unless the
// header says full, halved chroma repeated. With even sides 4:2:0, 4:2:2 and gray give the same bits. Where a
// side is odd swscale interpolates the chroma instead, and 4:4:4 it converts in finer steps (by up to 3 levels
// another color).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "vivit/detail/files/seekable_file.hpp"
#include "vivit/detail/limits.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"

namespace vivit::detail {

/// From 8-bit YCbCr to RGB in the 16-bit arithmetic of swscale's x86 code (libswscale/x86/yuv_2_rgb.asm);
/// the coefficients are those of ff_yuv2rgb_c_init_tables in libswscale/yuv2rgb.c for BT.601.
class YuvToRgb {
public:
    explicit YuvToRgb(bool full_range) : luma_offset_(full_range ? 0 : 16 * 8) {
        const auto rounded = [](std::int64_t value) { return int((value * (1 << 13) + (1 << 15)) >> 16); };
        const auto chroma = [&](std::int64_t value) { return rounded(full_range ? value * 224 / 255 : value); };
        luma_ = rounded(full_range ? 1 << 16 : (std::int64_t(1) << 16) * 255 / 219);
        v_red_ = chroma(104597), u_blue_ = chroma(132201), u_green_ = -chroma(25675), v_green_ = -chroma(53279);
    }

    void operator()(int y, int u, int v, std::uint8_t* rgb) const {
        const auto high = [](int a, int b) { return (a * b) >> 16; };
        const int light = high(y * 8 - luma_offset_, luma_), du = (u - 128) * 8, dv = (v - 128) * 8;
        const std::array<int, 3> sums{light + high(dv, v_red_), light + high(du, u_green_) + high(dv, v_green_),
                                      light + high(du, u_blue_)};
        for (std::size_t c = 0; c < 3; ++c) rgb[c] = std::uint8_t(std::clamp(sums[c], 0, 255));
    }

private:
    int luma_offset_, luma_, v_red_, u_blue_, u_green_, v_green_;
};

/// YUV4MPEG2, 8 bits, in 4:2:0, 4:2:2, 4:4:4 or gray.
class Y4mVideo final : public Video {
public:
    explicit Y4mVideo(const std::filesystem::path& path) : Video(path.string()), file_(path) {
        const std::string header = line(0);
        if (header.compare(0, 10, "YUV4MPEG2 ")) file_.refuse("no YUV4MPEG2 header");
        read_header(header);
        const std::int64_t luma = std::int64_t(rows_) * columns_,
                           chroma = std::int64_t(chroma_rows()) * chroma_columns();
        if (luma > most_pixels()) throw ClipError(why_too_large(name()));
        planes_.resize(std::size_t(luma + 2 * chroma));
        std::int64_t at = std::int64_t(header.size()) + 1;
        while (at < file_.size()) {
            const std::string frame = line(at);
            if (frame.compare(0, 5, "FRAME")) file_.refuse("a frame does not begin where it should");
            at += std::int64_t(frame.size()) + 1;
            starts_.push_back(at);
            at += std::int64_t(planes_.size());
        }
        if (at > file_.size())
            throw ClipError(name() + " is cut short: its last data are incomplete; copy or record it again");
        describe(std::int64_t(starts_.size()), rows_, columns_);
    }

private:
    [[nodiscard]] int chroma_columns() const noexcept { return gray_ ? 0 : (columns_ + halved_x_) >> halved_x_; }
    [[nodiscard]] int chroma_rows() const noexcept { return gray_ ? 0 : (rows_ + halved_y_) >> halved_y_; }

    [[nodiscard]] std::string line(std::int64_t at) {
        const std::string text = file_.text(at, 256);
        const auto end = text.find('\n');
        if (end == std::string::npos) file_.refuse("a header has no end");
        return text.substr(0, end);
    }

    void read_header(const std::string& header) {
        std::istringstream words(header.substr(10));
        std::string space = "420";
        bool full_range = false;
        for (std::string word; words >> word;) {
            if (word[0] == 'W') columns_ = side(word);
            if (word[0] == 'H') rows_ = side(word);
            if (word[0] == 'C') space = word.substr(1);
            full_range = full_range || word == "XCOLORRANGE=FULL";
        }
        if (!columns_ || !rows_) file_.refuse("its header states no size");
        gray_ = space == "mono";
        halved_y_ = space == "420" || space == "420jpeg" || space == "420mpeg2" || space == "420paldv";
        halved_x_ = halved_y_ || space == "422";
        if (!halved_x_ && !gray_ && space != "444")
            throw ClipError(name() + " has the pixel format " + space + "; 8-bit 420, 422, 444 and mono are read here");
        convert_ = YuvToRgb(full_range || gray_);  // swscale takes gray as it is
    }

    [[nodiscard]] int side(const std::string& word) const {
        const std::string digits = word.substr(1);
        if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos ||
            std::stoi(digits) < 1 || std::stoi(digits) > max_side)
            file_.refuse("its header states a size of " + word);
        return std::stoi(digits);
    }

    void read_frame(std::int64_t index, std::uint8_t* out) override {
        file_.read(starts_[std::size_t(index)], planes_.data(), planes_.size());
        const std::uint8_t* luma = planes_.data();
        const std::uint8_t* u = luma + std::ptrdiff_t(rows_) * columns_;
        const std::uint8_t* v = u + std::ptrdiff_t(chroma_rows()) * chroma_columns();
        for (int y = 0; y < rows_; ++y) {
            const std::ptrdiff_t row = std::ptrdiff_t(y >> halved_y_) * chroma_columns();
            for (int x = 0; x < columns_; ++x, out += 3) {
                const std::ptrdiff_t at = row + (x >> halved_x_);
                convert_(*luma++, gray_ ? 128 : u[at], gray_ ? 128 : v[at], out);
            }
        }
    }

    SeekableFile file_;
    std::vector<std::int64_t> starts_;
    std::vector<std::uint8_t> planes_;
    int rows_ = 0, columns_ = 0;
    bool gray_ = false, halved_x_ = false, halved_y_ = false;
    YuvToRgb convert_{false};
};

}  // namespace vivit::detail
