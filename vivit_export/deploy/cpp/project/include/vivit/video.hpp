// Frames from files that need no decoder: .npy (uint8 (N, h, w, 3)), raw rgb24, and .y4m.
//
// YUV4MPEG2 is converted as swscale does it on x86 by default, and so PyAV: BT.601, limited range unless the
// header says full, halved chroma repeated. With even sides 4:2:0, 4:2:2 and grey give the same bits. Where a
// side is odd swscale interpolates the chroma instead, and 4:4:4 it converts in finer steps (by up to 3 levels
// another colour).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/errors.hpp"
#include "vivit/frames.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

/// A video whose frames can be read in any order.
class Video {
public:
    virtual ~Video() = default;
    Video(const Video&) = delete;
    Video& operator=(const Video&) = delete;

    std::int64_t num_frames() const { return num_frames_; }
    int height() const { return height_; }
    int width() const { return width_; }
    const std::string& name() const { return name_; }

    /// Read frames by number, in that order; one that comes twice in a row is read once. Throws ClipError.
    virtual FrameBuffer read(const Indices& indices) {
        FrameBuffer frames{{}, int(indices.size()), height_, width_};
        const std::size_t size = Frames(frames).frame_bytes();
        frames.data.resize(size * indices.size());
        for (std::size_t i = 0; i < indices.size(); ++i) {
            std::uint8_t* out = frames.data.data() + i * size;
            if (i && indices[i] == indices[i - 1])
                std::copy_n(out - size, size, out);
            else
                read_frame(indices[i], out);
        }
        return frames;
    }

protected:
    explicit Video(std::string name) : name_(std::move(name)) {}

    /// Write one frame, uint8 (h, w, 3), to `out`.
    virtual void read_frame(std::int64_t index, std::uint8_t* out) = 0;

    std::string name_;
    std::int64_t num_frames_ = 0;
    int height_ = 0, width_ = 0;
};

namespace detail {

/// A file that is read in places.
class File {
public:
    explicit File(const std::filesystem::path& path) : name_(path.string()) {
        if (std::filesystem::is_directory(path)) throw ClipError(name_ + " is a folder; give one video file");
        if (!std::filesystem::exists(path)) throw ClipError(name_ + " does not exist; give a video file");
        std::error_code failure;
        size_ = std::int64_t(std::filesystem::file_size(path, failure));
        stream_.open(path, std::ios::binary);
        if (failure || !stream_) throw ClipError(name_ + " cannot be read; check that it is a file you may read");
    }

    std::int64_t size() const { return size_; }

    void read(std::int64_t at, void* out, std::size_t count) {
        stream_.clear();
        stream_.seekg(at);
        if (!stream_.read(static_cast<char*>(out), std::streamsize(count)))
            throw ClipError(name_ + " is cut short: its last data are incomplete; copy or record it again");
    }

    /// Up to `count` bytes, as text.
    std::string text(std::int64_t at, std::int64_t count) {
        std::string text(std::size_t(std::clamp<std::int64_t>(size_ - at, 0, count)), '\0');
        if (!text.empty()) read(at, text.data(), text.size());
        return text;
    }

    [[noreturn]] void refuse(const std::string& why) const {
        throw ClipError(name_ + " cannot be read as a video (" + why +
                        "): it is not one, is cut short or is damaged; check that it plays");
    }

private:
    std::string name_;
    std::ifstream stream_;
    std::int64_t size_ = 0;
};

constexpr int max_side = 1 << 15;

/// Frames that lie in a file as they are: rgb24, behind a header or none.
class RawVideo : public Video {
public:
    /// Raw rgb24 of a known size.
    RawVideo(const std::filesystem::path& path, Size size) : Video(path.string()), file_(path) {
        height_ = size[0], width_ = size[1];
        if (std::min(height_, width_) < 1 || std::max(height_, width_) > max_side)
            throw UsageError("a frame size of " + by(width_, height_) + " (width x height) is not possible");
        if (file_.size() % frame_bytes())
            throw ClipError(name_ + " has " + std::to_string(file_.size()) +
                            " bytes, which are not whole rgb24 frames of " + by(width_, height_) +
                            " (width x height, " + std::to_string(frame_bytes()) +
                            " bytes each); give the right --size");
        num_frames_ = file_.size() / frame_bytes();
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
        if ((file_.size() - start_) / frame_bytes() < num_frames_)
            throw ClipError(name_ + " is cut short: its last data are incomplete; copy or record it again");
    }

private:
    std::int64_t frame_bytes() const { return std::int64_t(height_) * width_ * 3; }

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
            throw ClipError(name_ + " holds an array of type " + dtype + " and shape " + shape +
                            "); frames must be a uint8 array (T, h, w, 3) in C order");
        num_frames_ = sides[0], height_ = int(sides[1]), width_ = int(sides[2]);
    }

    void read_frame(std::int64_t index, std::uint8_t* out) override {
        file_.read(start_ + index * frame_bytes(), out, std::size_t(frame_bytes()));
    }

    File file_;
    std::int64_t start_ = 0;
};

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

/// YUV4MPEG2, 8 bits, in 4:2:0, 4:2:2, 4:4:4 or grey.
class Y4mVideo : public Video {
public:
    explicit Y4mVideo(const std::filesystem::path& path) : Video(path.string()), file_(path) {
        const std::string header = line(0);
        if (header.compare(0, 10, "YUV4MPEG2 ")) file_.refuse("no YUV4MPEG2 header");
        read_header(header);
        const std::int64_t luma = std::int64_t(height_) * width_,
                           chroma = std::int64_t(chroma_height()) * chroma_width();
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
            throw ClipError(name_ + " is cut short: its last data are incomplete; copy or record it again");
        num_frames_ = std::int64_t(starts_.size());
    }

private:
    int chroma_width() const { return grey_ ? 0 : (width_ + halved_x_) >> halved_x_; }
    int chroma_height() const { return grey_ ? 0 : (height_ + halved_y_) >> halved_y_; }

    std::string line(std::int64_t at) {
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
            if (word[0] == 'W') width_ = side(word);
            if (word[0] == 'H') height_ = side(word);
            if (word[0] == 'C') space = word.substr(1);
            full_range = full_range || word == "XCOLORRANGE=FULL";
        }
        if (!width_ || !height_) file_.refuse("its header states no size");
        grey_ = space == "mono";
        halved_y_ = space == "420" || space == "420jpeg" || space == "420mpeg2" || space == "420paldv";
        halved_x_ = halved_y_ || space == "422";
        if (!halved_x_ && !grey_ && space != "444")
            throw ClipError(name_ + " has the pixel format " + space + "; 8-bit 420, 422, 444 and mono are read here");
        convert_ = YuvToRgb(full_range || grey_);  // swscale takes grey as it is
    }

    int side(const std::string& word) const {
        const std::string digits = word.substr(1);
        if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos ||
            std::stoi(digits) < 1 || std::stoi(digits) > max_side)
            file_.refuse("its header states a size of " + word);
        return std::stoi(digits);
    }

    void read_frame(std::int64_t index, std::uint8_t* out) override {
        file_.read(starts_[std::size_t(index)], planes_.data(), planes_.size());
        const std::uint8_t* luma = planes_.data();
        const std::uint8_t* u = luma + std::ptrdiff_t(height_) * width_;
        const std::uint8_t* v = u + std::ptrdiff_t(chroma_height()) * chroma_width();
        for (int y = 0; y < height_; ++y) {
            const std::ptrdiff_t row = std::ptrdiff_t(y >> halved_y_) * chroma_width();
            for (int x = 0; x < width_; ++x, out += 3) {
                const std::ptrdiff_t at = row + (x >> halved_x_);
                convert_(*luma++, grey_ ? 128 : u[at], grey_ ? 128 : v[at], out);
            }
        }
    }

    File file_;
    std::vector<std::int64_t> starts_;
    std::vector<std::uint8_t> planes_;
    bool grey_ = false, halved_x_ = false, halved_y_ = false;
    YuvToRgb convert_{false};
};

}  // namespace detail

/// Opens files of a suffix that this library does not read itself, or returns nullptr (see libav.hpp).
using VideoOpener = std::function<std::unique_ptr<Video>(const std::filesystem::path&)>;

/// Open a file of frames: .npy, .y4m, or raw rgb24 where its frame `size` (height, width) is given.
///
/// Throws ClipError: no such file, or not a video.
inline std::unique_ptr<Video> open_video(const std::filesystem::path& path, std::optional<Size> size = {},
                                         const VideoOpener& other = {}) {
    if (size) return std::make_unique<detail::RawVideo>(path, *size);
    if (path.extension() == ".npy") return std::make_unique<detail::RawVideo>(path);
    if (path.extension() == ".y4m") return std::make_unique<detail::Y4mVideo>(path);
    if (auto video = other ? other(path) : nullptr) return video;
    detail::File{path};
    throw ClipError(path.string() +
                    " is neither .npy nor .y4m; give one of these, or raw rgb24 frames with their --size");
}

/// Draw one clip by the contract's sampling rule; throws ClipError.
inline FrameBuffer read_clip(Video& video, const Contract& contract) {
    return video.read(clip_indices(video.num_frames(), contract.clip, video.name()));
}

}  // namespace vivit
