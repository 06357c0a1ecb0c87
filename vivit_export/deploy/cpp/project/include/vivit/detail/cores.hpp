// How many cores this process may use, which in a container are fewer than the machine has: vivit_export/cores.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#include <unistd.h>
#endif

namespace vivit::detail {

/// Where the kernel says which control groups there are, and which of them this process is in.
struct ControlGroups {
    std::filesystem::path all{"/sys/fs/cgroup"};
    std::filesystem::path own{"/proc/self/cgroup"};
};

/// The time that one control group grants, in cores; 0: it sets no limit.
[[nodiscard]] inline double quota_of(const std::filesystem::path& group) {
    double microseconds = 0, period = 0;
    std::ifstream(group / "cpu.max") >> microseconds >> period;  // version 2; of "max" nothing is read
    if (period <= 0) {
        std::ifstream(group / "cpu.cfs_quota_us") >> microseconds;  // version 1; -1: no limit
        std::ifstream(group / "cpu.cfs_period_us") >> period;
    }
    return microseconds > 0 && period > 0 ? microseconds / period : 0;
}

/// The folders that may hold the limits of one line of `ControlGroups::own`, from the innermost group outward.
[[nodiscard]] inline std::vector<std::filesystem::path> groups_of(const std::string& line,
                                                                  const std::filesystem::path& all) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) return {};
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos) return {};
    std::vector<std::filesystem::path> roots{all}, found;
    if (!controllers.empty()) roots = {all / controllers, all / "cpu"};
    const std::filesystem::path name = std::filesystem::path(line.substr(second + 1)).relative_path();
    for (const std::filesystem::path& root : roots) {
        // A container sees its own group as the root, though its name may be that on the host.
        for (std::filesystem::path inner = name; !inner.empty(); inner = inner.parent_path())
            found.push_back(root / inner);
        found.push_back(root);
    }
    return found;
}

/// The number of cores on which this process may run.
[[nodiscard]] inline int cores_of_this_process() {
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    return int(std::max(1u, std::thread::hardware_concurrency()));
}

/// The number of cores that this process may keep busy, 1 or more: those on which it may run, or the time that its
/// control group or one around it grants, rounded up (https://docs.kernel.org/admin-guide/cgroup-v2.html).
[[nodiscard]] inline int usable_cores(const ControlGroups& groups = {}) {
    int cores = cores_of_this_process();
    std::ifstream own(groups.own);
    for (std::string line; std::getline(own, line);)
        for (const std::filesystem::path& group : groups_of(line, groups.all))
            if (const double quota = quota_of(group); quota > 0) cores = std::min(cores, int(std::ceil(quota)));
    return std::max(1, cores);
}

/// Whether this process may use fewer cores than the machine has.
[[nodiscard]] inline bool is_restricted() {
#ifdef __linux__
    return usable_cores() < int(sysconf(_SC_NPROCESSORS_ONLN));
#else
    return false;
#endif
}

}  // namespace vivit::detail
