// Decode several groups of pictures at once, each in a decoder of its own, and take their frames in order. As
// vivit_export/runtime/clips/video/seek.py does it.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "vivit/detail/cores.hpp"
#include "vivit/detail/libav/seek.hpp"

namespace vivit::detail {

/// Of the pictures of all decoders.
inline constexpr std::int64_t most_bytes_of_pictures = std::int64_t(512) << 20;
/// To which others refer, or that are put in order; H.264 allows 16 of small ones.
inline constexpr std::int64_t pictures_of_a_decoder = 8;

/// How many groups to decode at once.
///
/// The threads of one decoder wait for each other, while several decoders cost no more processor time than one. But
/// each has pictures of its own in memory, and for each there are the wanted frames of three groups: that which it is
/// at, one that waits, and the one being taken.
[[nodiscard]] inline int decoders_at_once(std::int64_t pixels, const std::vector<Group>& groups, int threads) {
    std::size_t most = 0;
    for (const Group& group : groups) most = std::max(most, group.wanted.size());
    const std::int64_t of_each = 2 * pixels * (3 * std::int64_t(most) + pictures_of_a_decoder);
    const std::int64_t fit = most_bytes_of_pictures / std::max<std::int64_t>(1, of_each);
    return int(std::max<std::int64_t>(1, std::min({std::int64_t(threads), std::int64_t(groups.size()), fit})));
}

/// Threads that decode groups, in order, a bounded number ahead of what is taken.
class GroupsAtOnce {
public:
    /// @param threads  of each decoder
    GroupsAtOnce(const std::filesystem::path& path, const std::vector<Group>& groups, int decoders, int threads)
        : path_(path),
          groups_(groups),
          threads_(threads),
          most_ahead_(2 * std::size_t(decoders)),
          found_(groups.size()) {
        workers_.reserve(std::size_t(decoders));
        try {
            for (int i = 0; i < decoders; ++i) workers_.emplace_back([this] { work(); });
        } catch (const std::system_error&) {
            if (workers_.empty()) throw;  // otherwise those that the system gave must do
        }
    }

    GroupsAtOnce(const GroupsAtOnce&) = delete;
    GroupsAtOnce& operator=(const GroupsAtOnce&) = delete;

    ~GroupsAtOnce() {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            is_dropped_ = true;
        }
        changed_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    /// Pass on the frames of all groups, in order.
    ///
    /// @throws CannotSeekError, ClipError  as for `seek_frames`, in the place of a group's frames
    void pass_on(const TakeFrame& take) {
        for (std::size_t number = 0; number < groups_.size(); ++number) {
            for (const auto& [frame_number, frame] : taken(number)) take(frame_number, *frame);
        }
    }

private:
    using Frames = std::vector<std::pair<std::int64_t, AvFrame>>;

    struct Found {
        bool is_there = false;
        Frames frames;
        std::exception_ptr error;
    };

    /// Wait for a group's frames.
    [[nodiscard]] Frames taken(std::size_t number) {
        std::unique_lock<std::mutex> guard(lock_);
        changed_.wait(guard, [&] { return found_[number].is_there; });
        taken_ = number + 1;
        changed_.notify_all();
        if (found_[number].error) std::rethrow_exception(found_[number].error);
        return std::move(found_[number].frames);
    }

    /// Decode group after group, until there are no more or nobody wants them.
    void work() {
        std::optional<GroupReader> reader;
        while (const auto number = begin()) {
            Found found;
            try {
                if (!reader) reader.emplace(path_, threads_);
                reader->read(groups_[*number], [&](std::int64_t frame_number, const AVFrame& frame) {
                    found.frames.emplace_back(frame_number, AvFrame(av_frame_clone(&frame)));
                });
            } catch (...) {
                found.error = std::current_exception();
            }
            found.is_there = true;
            const std::lock_guard<std::mutex> guard(lock_);
            found_[*number] = std::move(found);
            changed_.notify_all();
        }
    }

    /// The next group, when it may begin.
    [[nodiscard]] std::optional<std::size_t> begin() {
        std::unique_lock<std::mutex> guard(lock_);
        const std::size_t number = next_++;
        changed_.wait(guard, [&] { return is_dropped_ || number < taken_ + most_ahead_; });
        if (is_dropped_ || number >= groups_.size()) return std::nullopt;
        return number;
    }

    const std::filesystem::path& path_;
    const std::vector<Group>& groups_;
    int threads_;
    std::size_t most_ahead_;
    std::mutex lock_;
    std::condition_variable changed_;
    bool is_dropped_ = false;
    std::size_t next_ = 0, taken_ = 0;
    std::vector<Found> found_;
    std::vector<std::thread> workers_;
};

/// Decode the wanted frames.
///
/// @param path     of the video
/// @param wanted   frame numbers, rising
/// @param threads  of all decoders; 0: as many as this process may use
/// @param take     receives the wanted frames, in order of presentation
/// @throws CannotSeekError  what is decoded is not certain to be what a full decode gives; also after some frames
/// @throws ClipError        as for `Container`
inline void seek_frames(const std::filesystem::path& path, const PacketIndex& index,
                        const std::vector<std::int64_t>& wanted, int threads, const TakeFrame& take) {
    const std::vector<Group> groups = plan_groups(index, wanted);
    const int cores = threads > 0 ? threads : usable_cores();
    const int decoders = decoders_at_once(index.pixels, groups, cores);
    if (decoders > 1) {
        GroupsAtOnce(path, groups, decoders, cores / decoders).pass_on(take);
        return;
    }
    GroupReader reader(path, cores);
    for (const Group& group : groups) reader.read(group, take);
}

}  // namespace vivit::detail
