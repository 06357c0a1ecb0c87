// What is fuzzed in C++: each reader of something that others hand us, as a function of bytes.
//
// VIVIT_FUZZ_TARGET names one of the targets below for libFuzzer. A target returns, or throws a vivit::Error, whatever
// the bytes; all else ends the program. With VIVIT_FUZZ_SERVER, the program answers instead: for each manifest on
// standard input (eight bytes of length, little-endian, then the text) one line, which says why it is refused.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>
#include <vivit/detail/libav/nal.hpp>
#include <vivit/detail/manifest/contract_reader.hpp>
#include <vivit/detail/manifest/json.hpp>
#include <vivit/detail/manifest/manifest_reader.hpp>
#include <vivit/errors.hpp>
#include <vivit/video.hpp>

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A target broke its promise.
[[noreturn]] void find(const std::string& what) {
    std::cerr << "FIND: " << what << '\n';
    std::abort();
}

/// A folder in memory, for readers that take a path.
const fs::path& room() {
    static const fs::path folder = [] {
        const char* given = std::getenv("VIVIT_FUZZ_ROOM");
        std::string made = (fs::is_directory("/dev/shm") ? "/dev/shm" : "/tmp") + std::string("/vivit-fuzz-XXXXXX");
        return fs::path(given ? given : ::mkdtemp(made.data()));
    }();
    return folder;
}

fs::path written(const char* name, const std::string& data) {
    const fs::path path = room() / name;
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(data.data(), std::streamsize(data.size()));
    return path;
}

/// Strict JSON: written back, it is read as the same.
void strict_json(const std::string& text) {
    json found;
    try {
        found = vivit::detail::parse_json(text);
    } catch (const json::parse_error&) {
        return;  // which its callers turn into a sentence
    }
    if (vivit::detail::shown_shortly(found).empty()) find("a value that is shown as nothing");
    if (vivit::detail::parse_json(found.dump()) != found) find("JSON that is read as something else when written back");
}

void contract(const std::string& text) {
    try {
        static_cast<void>(vivit::detail::As<vivit::Contract>::read(vivit::detail::parse_json(text), "contract"));
    } catch (const json::parse_error&) {
    }
}

void manifest(const std::string& text) {
    written("bundle.json", text);
    static_cast<void>(vivit::detail::read_manifest(room()));
}

/// Videos that need no decoder; the first byte says of which kind.
void video(const std::string& data) {
    static const std::array<const char*, 4> names{"video.y4m", "video.npy", "video.rgb", "video.mp4"};
    if (data.empty()) return;
    const auto kind = static_cast<unsigned char>(data[0]) % names.size();
    const auto size = kind == 2 ? std::optional<vivit::Size>(vivit::Size{2, 3}) : std::nullopt;
    const auto opened = vivit::open_video(written(names[kind], data.substr(1)), size);
    vivit::Indices first(std::size_t(std::min<std::int64_t>(opened->num_frames(), 3)));
    std::iota(first.begin(), first.end(), 0);
    const auto frames = opened->read(first);
    const auto expected = first.size() * std::size_t(opened->height()) * std::size_t(opened->width()) * 3;
    if (frames.data.size() != expected) find("frames of another size");
}

/// Headers in the packets of a video; the first byte divides the bytes in two.
void packets(const std::string& data) {
    if (data.empty()) return;
    const std::size_t middle = std::min(data.size() - 1, std::size_t(static_cast<unsigned char>(data[0])));
    // Of exactly these sizes, so that a read beyond the last byte is seen.
    const std::vector<std::uint8_t> extradata(data.begin() + 1, data.begin() + 1 + std::ptrdiff_t(middle));
    const std::vector<std::uint8_t> packet(data.begin() + 1 + std::ptrdiff_t(middle), data.end());
    for (const char* codec : {"h264", "hevc"}) {
        const std::size_t length = vivit::detail::length_bytes_of(codec, {extradata.data(), extradata.size()});
        static_cast<void>(vivit::detail::holds_idr({packet.data(), packet.size()}, length));
        static_cast<void>(vivit::detail::is_referred_to({packet.data(), packet.size()}, codec, length));
    }
}

using Target = void (*)(const std::string&);
const std::map<std::string, Target> targets{{"cpp_json", strict_json},
                                            {"cpp_contract", contract},
                                            {"cpp_manifest", manifest},
                                            {"cpp_video", video},
                                            {"cpp_packets", packets}};

/// Why each manifest on standard input is refused, or null.
void answer() {
    for (std::array<char, 8> head{}; std::cin.read(head.data(), 8);) {
        std::size_t size = 0;
        for (std::size_t i = 8; i > 0; --i) size = size << 8U | static_cast<unsigned char>(head[i - 1]);
        std::string text(size, '\0');
        std::cin.read(text.data(), std::streamsize(size));
        json refused;
        try {
            manifest(text);
        } catch (const vivit::Error& e) {
            refused = e.what();
        }
        std::cout << refused.dump(-1, ' ', true, json::error_handler_t::replace) << std::endl;
    }
}

Target chosen = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    if (std::getenv("VIVIT_FUZZ_SERVER")) {
        answer();
        std::exit(0);
    }
    const char* name = std::getenv("VIVIT_FUZZ_TARGET");
    const auto found = targets.find(name ? name : "");
    if (found == targets.end()) throw std::logic_error("VIVIT_FUZZ_TARGET names no target");
    chosen = found->second;
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        chosen(std::string(reinterpret_cast<const char*>(data), size));
    } catch (const vivit::Error&) {
        return 0;
    }
    return 0;
}
