// A file of a bundle as bytes.
#pragma once

#include <filesystem>
#include <fstream>
#include <ios>
#include <system_error>
#include <vector>

#include "vivit/errors.hpp"

namespace vivit::detail {

[[nodiscard]] inline BundleError unreadable(const std::filesystem::path& path) {
    return BundleError(path.string() + " cannot be read; copy the bundle again");
}

/// The contents of a file.
///
/// @throws BundleError  it cannot be read
[[nodiscard]] inline std::vector<char> read_bytes(const std::filesystem::path& path) {
    std::error_code failure;
    const auto size = std::filesystem::file_size(path, failure);
    if (failure) throw unreadable(path);
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes(size);
    if (!file.read(bytes.data(), std::streamsize(bytes.size()))) throw unreadable(path);
    return bytes;
}

}  // namespace vivit::detail
