// A pool of items that only one thread may use at a time.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace vivit::detail {

/// Lends items to threads, each to one thread at a time; makes another when all are lent. There are never
/// more items than there were threads at once.
template <typename T>
class Pool {
public:
    explicit Pool(std::function<std::unique_ptr<T>()> make) : make_(std::move(make)) {}

    /// Call `use(item)` with an item that no other thread uses. After an exception the item is dropped, because its
    /// state is unknown.
    template <typename Use>
    [[nodiscard]] auto lend(Use use) {
        std::unique_ptr<T> item = take();
        auto result = use(*item);
        const std::lock_guard<std::mutex> guard(lock_);
        idle_.push_back(std::move(item));
        return result;
    }

    /// Destroy the items that are not lent.
    void clear() {
        const std::lock_guard<std::mutex> guard(lock_);
        idle_.clear();
    }

private:
    [[nodiscard]] std::unique_ptr<T> take() {
        {
            const std::lock_guard<std::mutex> guard(lock_);
            if (!idle_.empty()) {
                std::unique_ptr<T> item = std::move(idle_.back());
                idle_.pop_back();
                return item;
            }
        }
        const std::lock_guard<std::mutex> guard(making_);
        return make_();
    }

    std::function<std::unique_ptr<T>()> make_;
    std::mutex lock_, making_;
    std::vector<std::unique_ptr<T>> idle_;
};

}  // namespace vivit::detail
