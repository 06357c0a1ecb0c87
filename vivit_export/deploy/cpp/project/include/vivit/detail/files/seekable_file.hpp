// A video file with random access.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <ios>
#include <string>
#include <system_error>

#include "vivit/detail/limits.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

/// The longest side of a frame that is accepted, in pixels.
inline constexpr int max_side = 1 << 15;

/// A file with random access.
class SeekableFile {
public:
    /// Never waits for a pipe.
    ///
    /// @throws ClipError  it does not exist, is not a regular file, or is not readable
    explicit SeekableFile(const std::filesystem::path& path) : name_(path.string()) {
        std::error_code failure;
        const auto type = std::filesystem::status(path, failure).type();
        if (type == std::filesystem::file_type::not_found) throw ClipError(why_missing());
        if (type == std::filesystem::file_type::directory) throw ClipError(name_ + " is a folder; give one video file");
        if (!failure && type != std::filesystem::file_type::regular)
            throw ClipError(name_ + " is " + kind(type) + ", not a file; save the video to a file first");
        if (!failure) size_ = std::int64_t(std::filesystem::file_size(path, failure));
        if (!failure) {
            errno = 0;
            stream_.open(path, std::ios::binary);
            if (!stream_) failure = std::error_code(errno ? errno : EIO, std::generic_category());
        }
        if (!failure) require_written(path);
        if (failure)
            throw ClipError(name_ + " cannot be read: " + std::strerror(failure.value()) +
                            "; give a video file that you may read");
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
    /// Refuse a file with a large part that was never written: a decoder would search it for hours.
    void require_written(const std::filesystem::path& path) const {
        const int descriptor = size_ > most_hole_bytes ? ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
        std::int64_t largest = 0, at = 0;
        for (int i = 0; i < 1000 && descriptor >= 0 && at >= 0 && at < size_; ++i) {
            const std::int64_t hole = ::lseek(descriptor, at, SEEK_HOLE);
            if (hole < 0 || hole >= size_) break;  // the file system cannot tell, or there is none
            at = ::lseek(descriptor, hole, SEEK_DATA);
            if (at < 0 && errno == ENXIO) at = size_;  // there are no data any more
            largest = std::max(largest, at - hole);
        }
        if (descriptor >= 0) ::close(descriptor);
        if (largest > most_hole_bytes)
            throw ClipError(name_ + " has a hole of " + std::to_string(largest) +
                            " bytes, as a download has that is not finished; get all of it, or copy it again");
    }

    [[nodiscard]] std::string why_missing() const {
        if (name_ == "-") return "standard input cannot be searched as a video must be; save the video to a file first";
        const auto colon = name_.find(":/");
        const bool is_scheme = colon != std::string::npos && colon > 1 && is_letter(name_[0]) &&
                               std::all_of(name_.begin(), name_.begin() + std::ptrdiff_t(colon), [](char c) {
                                   return is_letter(c) || (c >= '0' && c <= '9') || c == '+' || c == '.' || c == '-';
                               });
        if (is_scheme) return name_ + " is an address, and only files are read; download the video first";
        return name_ + " does not exist; give a video file";
    }

    static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

    static const char* kind(std::filesystem::file_type type) {
        if (type == std::filesystem::file_type::fifo) return "a pipe";
        return type == std::filesystem::file_type::socket ? "a socket" : "a device";
    }

    std::string name_;
    std::ifstream stream_;
    std::int64_t size_ = 0;
};

}  // namespace vivit::detail
