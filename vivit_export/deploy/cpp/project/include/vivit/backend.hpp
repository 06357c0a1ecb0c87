// What every back end has in common: an interface, and a pool for what only one thread may use at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace vivit {

/// float32 (B, ...) by output name.
using Outputs = std::map<std::string, std::vector<float>>;

/// Executes one graph or engine; any number of threads may call `run` at once.
class Backend {
public:
    virtual ~Backend() = default;
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    /// As Python names it: tensorrt, tensorrt-rtx, onnxruntime-cuda, onnxruntime-cpu.
    std::string name;
    /// Version, device and arithmetic, for people.
    std::string details;
    /// Smallest and largest number of clips that one call takes.
    std::pair<int, int> batches{1, 1};

    /// Run `count` clips of the contract's input, within `batches`.
    virtual Outputs run(const void* clips, std::size_t count) = 0;

    /// What went otherwise than it should, without being an error: batches that run without a CUDA graph.
    virtual std::vector<std::string> notes() const { return {}; }

protected:
    Backend() = default;
};

namespace detail {

/// Lends items to threads, each to one at a time; makes another when all are lent. There are never
/// more items than there were threads at once.
template <typename T>
class Pool {
public:
    explicit Pool(std::function<std::unique_ptr<T>()> make) : make_(std::move(make)) {}

    /// Call `use(item)` with an item that nobody else uses. After an exception the item is dropped, since its
    /// state is unknown.
    template <typename Use>
    auto lend(Use use) {
        std::unique_ptr<T> item = take();
        auto result = use(*item);
        const std::lock_guard<std::mutex> guard(lock_);
        idle_.push_back(std::move(item));
        return result;
    }

    void clear() { idle_.clear(); }

private:
    std::unique_ptr<T> take() {
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

}  // namespace detail

}  // namespace vivit
