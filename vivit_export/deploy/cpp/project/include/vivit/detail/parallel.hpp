// A loop on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "vivit/detail/cores.hpp"

namespace vivit::detail {

/// The requested number of threads; for 0, one per core that this process may use, 8 at most.
[[nodiscard]] inline int thread_count(int wanted) { return wanted > 0 ? wanted : std::min(usable_cores(), 8); }

/// Call `work()` on `threads` threads, including this one; rethrow the first exception when all are done. If the system
/// has no more threads, those that it gave must do.
template <typename Work>
void on_threads(int threads, Work work) {
    std::exception_ptr first;
    std::mutex lock;
    const auto guarded = [&] {
        try {
            work();
        } catch (...) {
            const std::lock_guard<std::mutex> guard(lock);
            if (!first) first = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    others.reserve(std::size_t(std::max(1, threads)));
    try {
        for (int i = 1; i < threads; ++i) others.emplace_back(guarded);
    } catch (const std::exception&) {
        // Not rethrown: the threads that run already use what lies on this stack.
    }
    guarded();
    for (std::thread& thread : others) thread.join();
    if (first) std::rethrow_exception(first);
}

/// Call `work(i, scratch)` for each i in [0, count), each thread with a `Scratch` of its own.
template <typename Scratch, typename Work>
void in_parallel(int count, int threads, Work work) {
    std::atomic<int> next{0};
    on_threads(std::max(1, std::min(threads, count)), [&] {
        Scratch scratch;
        for (int i = next++; i < count; i = next++) work(i, scratch);
    });
}

}  // namespace vivit::detail
