// A session: an opened bundle that turns clips into logits and embeddings. It owns everything that does not
// depend on what executes the graph: checking, preprocessing, batches of any size.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/bundle.hpp"
#include "vivit/preprocess.hpp"
#include "vivit/video.hpp"

namespace vivit {

/// What the model says about one clip.
struct Prediction {
    std::vector<float> logits;     ///< (num_labels,), empty for a bundle without that output
    std::vector<float> embedding;  ///< (hidden,), empty for a bundle without that output
    std::vector<std::string> labels;
    double preprocess_ms = 0;  ///< resize and crop
    double inference_ms = 0;   ///< everything after it

    /// Softmax of the logits, computed in double; throws UsageError where there are none.
    std::vector<float> probabilities() const {
        if (logits.empty())
            throw UsageError("this bundle has an embedding but no logits; export it with --outputs logits,embedding");
        const float largest = *std::max_element(logits.begin(), logits.end());
        std::vector<double> powers;
        for (float logit : logits) powers.push_back(std::exp(double(logit) - double(largest)));
        const double sum = std::accumulate(powers.begin(), powers.end(), 0.0);
        std::vector<float> chances;
        for (double power : powers) chances.push_back(float(power / sum));
        return chances;
    }

    /// The k most probable labels, best first, each with its probability.
    std::vector<std::pair<std::string, float>> top(int k = 5) const {
        const std::vector<float> chances = probabilities();
        std::vector<std::size_t> order(chances.size());
        std::iota(order.begin(), order.end(), std::size_t(0));
        std::stable_sort(order.begin(), order.end(),
                         [&](std::size_t a, std::size_t b) { return chances[a] > chances[b]; });
        std::vector<std::pair<std::string, float>> best;
        for (std::size_t i = 0; i < order.size() && int(i) < k; ++i)
            best.emplace_back(labels[order[i]], chances[order[i]]);
        return best;
    }
};

/// An opened bundle; any number of threads may use one at once. Opening one is `open_session` (open.hpp).
class Session {
public:
    Session(Contract contract, std::unique_ptr<Backend> backend, std::map<std::string, std::string> passed_over,
            int threads = 0)
        : contract_(std::move(contract)),
          preprocessor_(contract_, threads),
          backend_(std::move(backend)),
          passed_over_(std::move(passed_over)) {}

    const Contract& contract() const { return contract_; }
    const Preprocessor& preprocessor() const { return preprocessor_; }
    const std::string& engine() const { return backend_->name; }
    const std::string& details() const { return backend_->details; }
    std::pair<int, int> batches() const { return backend_->batches; }
    /// Why each other engine was not taken, by name.
    const std::map<std::string, std::string>& passed_over() const { return passed_over_; }
    /// What went otherwise than it should, without being an error.
    std::vector<std::string> notes() const { return backend_->notes(); }

    /// Preprocess and run one clip of T frames; throws ClipError where they do not fit the contract.
    Prediction operator()(const Frames& frames) const {
        const auto start = Clock::now();
        const std::vector<std::uint8_t> clip = prepare(frames, 0.5);
        const double preprocess_ms = milliseconds_since(start);
        const auto middle = Clock::now();
        return predicted(run(clip), preprocess_ms, middle);
    }

    /// All views of the contract (temporal windows, spatial crops) of one video; their logits, and embeddings,
    /// are averaged. With one view, that of `read_clip` and `operator()`. Memory: the frames of one window.
    Prediction operator()(Video& video) const {
        const int spatial = contract_.clip.views[1];
        require_moving_crop(spatial);
        const Indices indices = view_indices(video.num_frames(), contract_.clip, video.name());
        std::vector<std::uint8_t> clips;
        double preprocess_ms = 0;
        for (auto window = indices.begin(); window != indices.end(); window += contract_.clip.num_frames) {
            const FrameBuffer frames = video.read({window, window + contract_.clip.num_frames});
            const auto start = Clock::now();
            for (double position : spatial == 1 ? std::vector<double>{0.5} : std::vector<double>{0.0, 0.5, 1.0}) {
                const std::vector<std::uint8_t> clip = prepare(frames, position);
                clips.insert(clips.end(), clip.begin(), clip.end());
            }
            preprocess_ms += milliseconds_since(start);
        }
        const auto start = Clock::now();
        return predicted(run(clips), preprocess_ms, start);
    }

    /// Logits (B, num_labels) of a batch, as for `run`; throws UsageError where the bundle has none.
    std::vector<float> infer(const std::vector<std::uint8_t>& clips) const {
        if (!contract_.output("logits"))
            throw UsageError("this bundle has an embedding but no logits; take run(clips)[\"embedding\"]");
        return run(clips)["logits"];
    }

    /// Every output of a batch of any size.
    ///
    /// Args: uint8 (B, T, H, W, 3), resized and cropped (Preprocessor::crops); for a bundle of input mode `frames`
    /// (B, T, h, w, 3) at its frame size. Not modified.
    Outputs run(const std::vector<std::uint8_t>& clips) const {
        return run(clips.data(), whole_clips(clips.size(), byte_clip()));
    }

    /// The same for memory of the caller's: `count` clips, one behind the other.
    Outputs run(const std::uint8_t* clips, std::size_t count) const {
        if (contract_.io.mode != InputMode::pixels)
            return run_parts(clips, count, byte_clip(), [](const std::uint8_t* part, std::size_t) { return part; });
        std::vector<float> pixels;
        return run_parts(clips, count, byte_clip(), [&](const std::uint8_t* part, std::size_t size) {
            pixels.resize(size * contract_.clip.num_bytes());
            preprocessor_.to_pixels(part, size, pixels.data());
            return reinterpret_cast<const std::uint8_t*>(pixels.data());
        });
    }

    /// For a bundle of input mode `pixels`: float32 (B, T, 3, H, W).
    Outputs run(const std::vector<float>& pixels) const {
        if (contract_.io.mode != InputMode::pixels)
            throw ClipError("clips must be uint8, got float32; only a bundle of input mode pixels takes that");
        const std::size_t count = whole_clips(pixels.size(), contract_.io.input.clip_elements());
        return run_parts(reinterpret_cast<const std::uint8_t*>(pixels.data()), count, contract_.io.input.clip_bytes(),
                         [](const std::uint8_t* part, std::size_t) { return part; });
    }

private:
    using Clock = std::chrono::steady_clock;

    static double milliseconds_since(Clock::time_point start) {
        return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    }

    /// Bytes of one uint8 clip as `run` takes it.
    std::size_t byte_clip() const {
        return contract_.io.mode == InputMode::frames ? contract_.io.input.clip_bytes() : contract_.clip.num_bytes();
    }

    static std::size_t whole_clips(std::size_t size, std::size_t clip) {
        if (size % clip)
            throw ClipError("a batch of " + std::to_string(size) + " values is not a whole number of clips of " +
                            std::to_string(clip));
        return size / clip;
    }

    /// Do what the graph does not do itself: one uint8 clip for `run`.
    std::vector<std::uint8_t> prepare(const Frames& frames, double position) const {
        if (contract_.io.mode != InputMode::frames) return preprocessor_.crops(frames, position);
        const auto [height, width] = *contract_.io.frame_size;
        if (frames.count != contract_.clip.num_frames || frames.height != height || frames.width != width)
            throw ClipError("this bundle resizes in the graph and takes uint8 frames " +
                            shape(contract_.clip.num_frames, height, width) + ", got uint8 " +
                            shape(frames.count, frames.height, frames.width) +
                            "; for videos of other sizes export with --input crops");
        return {frames.data, frames.data + std::size_t(frames.count) * frames.frame_bytes()};
    }

    static std::string shape(int count, int height, int width) {
        return "(" + std::to_string(count) + ", " + std::to_string(height) + ", " + std::to_string(width) + ", 3)";
    }

    void require_moving_crop(int spatial) const {
        const bool whole = contract_.io.mode == InputMode::frames;
        if (spatial > 1 && (whole || !contract_.preprocess.do_center_crop))
            throw UsageError(std::to_string(spatial) + " spatial views need a crop to move, but this model " +
                             (whole ? "takes whole frames; export with --input crops" : "does not crop"));
    }

    /// The mean over the clips of a run.
    Prediction predicted(const Outputs& results, double preprocess_ms, Clock::time_point inference_start) const {
        Prediction prediction;
        prediction.preprocess_ms = preprocess_ms;
        prediction.inference_ms = milliseconds_since(inference_start);
        for (const auto& [name, values] : results) {
            const std::size_t size = contract_.output(name)->clip_elements(), count = values.size() / size;
            std::vector<double> sums(size);
            for (std::size_t i = 0; i < values.size(); ++i) sums[i % size] += double(values[i]);
            std::vector<float>& mean = name == "logits" ? prediction.logits : prediction.embedding;
            for (double sum : sums) mean.push_back(float(sum / double(count)));
        }
        prediction.labels = contract_.labels;
        return prediction;
    }

    /// Run a batch in parts that the engine takes, each prepared just before it is run.
    template <typename Ready>
    Outputs run_parts(const std::uint8_t* clips, std::size_t count, std::size_t clip_bytes, Ready ready) const {
        if (!count) throw ClipError("there are no clips in the batch; pass at least one");
        const auto low = std::size_t(backend_->batches.first), high = std::size_t(backend_->batches.second);
        Outputs results;
        for (std::size_t start = 0; start < count; start += high) {
            const std::size_t size = std::min(high, count - start);
            const std::uint8_t* part = clips + start * clip_bytes;
            std::vector<std::uint8_t> padded;
            if (size < low) {  // the engine has no such small batch: its last clip again, dropped below
                padded.assign(part, part + size * clip_bytes);
                while (padded.size() < low * clip_bytes)
                    padded.insert(padded.end(), part + (size - 1) * clip_bytes, part + size * clip_bytes);
                part = padded.data();
            }
            const std::size_t padded_size = std::max(size, low);
            for (auto& [name, values] : backend_->run(ready(part, padded_size), padded_size)) {
                std::vector<float>& all = results[name];
                all.insert(all.end(), values.begin(),
                           values.begin() + std::ptrdiff_t(values.size() / padded_size * size));
            }
        }
        return results;
    }

    Contract contract_;
    Preprocessor preprocessor_;
    std::unique_ptr<Backend> backend_;
    std::map<std::string, std::string> passed_over_;
};

}  // namespace vivit
