// Remembers which self-tests passed, in the user's cache: empty files named by the SHA-256 of all that they depend on,
// as in vivit_export/runtime/drift/passed.py. There is nothing to read that could be damaged or hostile.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "vivit/detail/manifest/sha256.hpp"

namespace vivit::detail {

inline constexpr std::size_t most_remembered = 512;

/// The name of a test that depends on these facts alone; another than Python's, whose arithmetic may differ.
[[nodiscard]] inline std::string key_of(const std::map<std::string, std::string>& facts) {
    std::string text = "vivit-self-test/1 C++\n";
    for (const auto& [name, value] : facts) text += name + "=" + std::to_string(value.size()) + ":" + value + "\n";
    return sha256_of_bytes(text);
}

/// Where they are remembered; empty: this user has no home.
[[nodiscard]] inline std::filesystem::path passed_folder() {
    const auto variable = [](const char* name) {
        const char* value = std::getenv(name);
        return std::filesystem::path(value ? value : "");
    };
    std::filesystem::path root = variable("XDG_CACHE_HOME");
    if (root.empty() && !variable("HOME").empty()) root = variable("HOME") / ".cache";
    return root.empty() ? root : root / "vivit-export" / "self-tests";
}

/// Whether this user saw this test pass; false if that cannot be found out.
[[nodiscard]] inline bool passed_before(const std::string& key) {
    const std::filesystem::path folder = passed_folder();
    struct stat facts{};
    return !folder.empty() && ::lstat((folder / key).c_str(), &facts) == 0 && S_ISREG(facts.st_mode) &&
           facts.st_size == 0 && facts.st_uid == ::geteuid();
}

/// Remove the older half if there are too many.
inline void forget_the_oldest(const std::filesystem::path& folder) {
    namespace fs = std::filesystem;
    std::vector<std::pair<fs::file_time_type, fs::path>> found;
    std::error_code fault;
    for (fs::directory_iterator entry(folder, fault), end; !fault && entry != end; entry.increment(fault)) {
        const std::string name = entry->path().filename().string();
        const bool ours = name.size() == 64 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
        std::error_code unknown;
        if (ours && entry->symlink_status(unknown).type() == fs::file_type::regular)
            found.emplace_back(entry->last_write_time(unknown), entry->path());
    }
    if (found.size() <= most_remembered) return;
    std::sort(found.begin(), found.end());
    for (std::size_t i = 0; i < found.size() - most_remembered / 2; ++i) fs::remove(found[i].second, fault);
}

/// Remember that a test passed, if this user has a cache that can be written.
inline void remember(const std::string& key) {
    const std::filesystem::path folder = passed_folder();
    if (folder.empty()) return;
    std::error_code fault;
    std::filesystem::create_directories(folder.parent_path(), fault);
    (void)::mkdir(folder.c_str(), 0700);
    const int file = ::open((folder / key).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) return;
    ::close(file);
    forget_the_oldest(folder);
}

}  // namespace vivit::detail
