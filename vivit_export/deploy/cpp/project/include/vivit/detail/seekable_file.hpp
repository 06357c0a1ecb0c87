// A video file with random access.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <string>
#include <system_error>

#include "vivit/errors.hpp"

namespace vivit::detail {

/// The longest side of a frame that is accepted, in pixels.
inline constexpr int max_side = 1 << 15;

/// A file with random access.
class SeekableFile {
public:
    /// @throws ClipError  the file does not exist, is a folder, or is not readable
    explicit SeekableFile(const std::filesystem::path& path) : name_(path.string()) {
        if (std::filesystem::is_directory(path)) throw ClipError(name_ + " is a folder; give one video file");
        if (!std::filesystem::exists(path)) throw ClipError(name_ + " does not exist; give a video file");
        std::error_code failure;
        size_ = std::int64_t(std::filesystem::file_size(path, failure));
        stream_.open(path, std::ios::binary);
        if (failure || !stream_) throw ClipError(name_ + " cannot be read; check that it is a file you may read");
    }

    [[nodiscard]] std::int64_t size() const noexcept { return size_; }

    /// Read `count` bytes from position `at`; throws ClipError if the file has fewer.
    void read(std::int64_t at, void* out, std::size_t count) {
        stream_.clear();
        stream_.seekg(at);
        if (!stream_.read(static_cast<char*>(out), std::streamsize(count)))
            throw ClipError(name_ + " is cut short: its last data are incomplete; copy or record it again");
    }

    /// Up to `count` bytes, as text.
    [[nodiscard]] std::string text(std::int64_t at, std::int64_t count) {
        std::string bytes(std::size_t(std::clamp<std::int64_t>(size_ - at, 0, count)), '\0');
        if (!bytes.empty()) read(at, bytes.data(), bytes.size());
        return bytes;
    }

    /// Throw the error for a file that is not a video.
    [[noreturn]] void refuse(const std::string& why) const {
        throw ClipError(name_ + " cannot be read as a video (" + why +
                        "): it is not one, is cut short or is damaged; check that it plays");
    }

private:
    std::string name_;
    std::ifstream stream_;
    std::int64_t size_ = 0;
};

}  // namespace vivit::detail
