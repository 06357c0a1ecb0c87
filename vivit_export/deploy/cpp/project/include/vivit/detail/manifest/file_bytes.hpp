// A file of a bundle as bytes.
#pragma once

#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <vector>

#include "vivit/errors.hpp"

namespace vivit::detail {

[[nodiscard]] inline BundleError unreadable(const std::filesystem::path& path) {
    return BundleError(path.string() + " cannot be read; copy the bundle again");
}

/// An open file, to read from its beginning. Links are followed; nothing is waited for, as a pipe would be for a
/// writer.
class OpenFile {
public:
    /// @throws BundleError  it cannot be read, or is not a file
    explicit OpenFile(const std::filesystem::path& path)
        : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
        struct stat facts{};
        if (descriptor_ < 0 || ::fstat(descriptor_, &facts) != 0 || !S_ISREG(facts.st_mode)) {
            if (descriptor_ >= 0) ::close(descriptor_);
            throw unreadable(path);
        }
        size_ = std::size_t(facts.st_size);
    }
    ~OpenFile() { ::close(descriptor_); }
    OpenFile(const OpenFile&) = delete;
    OpenFile& operator=(const OpenFile&) = delete;

    /// Its size when it was opened.
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /// Read up to `size` bytes; fewer only at the end.
    ///
    /// @return how many
    /// @throws BundleError  they cannot be read
    std::size_t read(char* to, std::size_t size) {
        std::size_t done = 0;
        while (done < size) {
            const auto count = ::read(descriptor_, to + done, size - done);
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) throw unreadable(path_);
            if (count == 0) break;
            done += std::size_t(count);
        }
        return done;
    }

private:
    std::filesystem::path path_;
    int descriptor_;
    std::size_t size_ = 0;
};

/// The contents of a file.
///
/// @throws BundleError  it cannot be read
[[nodiscard]] inline std::vector<char> read_bytes(const std::filesystem::path& path) {
    OpenFile file(path);
    std::vector<char> bytes(file.size());
    if (file.read(bytes.data(), bytes.size()) != bytes.size()) throw unreadable(path);
    return bytes;
}

/// Return memory that was freed to the system: glibc keeps it, and loading frees a copy of all weights.
inline void return_freed_memory() {
#ifdef __GLIBC__
    ::malloc_trim(0);
#endif
}

}  // namespace vivit::detail
