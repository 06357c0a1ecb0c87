// What identifies the device that an engine runs on, as in vivit_export/runtime/session/device.py.
#pragma once

#include <sys/utsname.h>

#include <cctype>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "vivit/backend.hpp"
#include "vivit/detail/manifest/sha256.hpp"

namespace vivit::detail {

inline constexpr const char* gpu_driver_file = "/proc/driver/nvidia/version";
inline constexpr const char* cpu_file = "/proc/cpuinfo";

[[nodiscard]] inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The first version such as 580.65.06 in a text, or an empty string.
[[nodiscard]] inline std::string version_in(const std::string& text) {
    const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
    for (std::size_t begin = 0; begin < text.size(); ++begin) {
        if (!is_digit(text[begin]) || (begin && in_word(text[begin - 1]))) continue;
        std::size_t end = begin;
        const auto digits = [&] {
            const std::size_t first = end;
            while (end < text.size() && is_digit(text[end])) ++end;
            return end - first;
        };
        const std::size_t major = digits();
        if (major < 3 || major > 4 || end >= text.size() || text[end] != '.') continue;
        ++end;
        if (!digits()) continue;
        const std::size_t minor_end = end;
        if (end < text.size() && text[end] == '.') {
            ++end;
            if (!digits()) end = minor_end;
        }
        if (end == text.size() || !in_word(text[end])) return text.substr(begin, end - begin);
    }
    return "";
}

/// The version of the kernel's NVIDIA driver, if Linux tells, and of the CUDA that is used with it.
///
/// @param cuda_version  as cudaDriverGetVersion returns it, such as 13000
[[nodiscard]] inline std::string gpu_driver(int cuda_version, const std::string& file = gpu_driver_file) {
    std::string line;
    std::ifstream stream(file);
    std::getline(stream, line);
    const std::string found = version_in(line), cuda = "CUDA " + std::to_string(cuda_version / 1000) + "." +
                                                       std::to_string(cuda_version % 1000 / 10);
    return found.empty() ? cuda : found + ", " + cuda;
}

/// What Linux says of the first processor.
[[nodiscard]] inline std::map<std::string, std::string> cpu_facts(const std::string& file) {
    std::ifstream stream(file);
    std::map<std::string, std::string> facts;
    std::string line;
    while (std::getline(stream, line) && !line.empty()) {
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::size_t key = line.find_last_not_of(" \t", colon - 1),
                          value = line.find_first_not_of(" \t", colon + 1);
        facts[line.substr(0, key + 1)] = value == std::string::npos ? "" : line.substr(value);
    }
    return facts;
}

/// This machine's architecture, such as x86_64.
[[nodiscard]] inline std::string machine() {
    utsname system{};
    return ::uname(&system) == 0 ? system.machine : "";
}

/// This machine's CPU: its model, and its architecture with a digest of its instruction sets.
[[nodiscard]] inline Device cpu(const std::string& file = cpu_file) {
    std::map<std::string, std::string> facts = cpu_facts(file);
    std::string name = facts["model name"];
    if (name.empty())  // it has no name on Arm
        for (const char* key : {"CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"})
            if (!facts[key].empty()) name += (name.empty() ? "" : " ") + facts[key];
    const std::string instructions = facts["flags"].empty() ? facts["Features"] : facts["flags"];
    return {name.empty() ? machine() : name,
            machine() + ", instructions " + sha256_of_bytes(instructions).substr(0, 12)};
}

/// Whether usual INT8 kernels add pairs of products in 16 bits, which is too few for codes of 8 bits.
///
/// So do AVX2 and AVX-512 without VNNI.
[[nodiscard]] inline bool saturates(const std::string& file = cpu_file) {
    const std::string flags = cpu_facts(file)["flags"];
    const auto has = [&](const char* name) { return flags.find(name) != std::string::npos; };
    return machine() == "x86_64" && !has("avx512_vnni") && !has("avx_vnni");
}

}  // namespace vivit::detail
