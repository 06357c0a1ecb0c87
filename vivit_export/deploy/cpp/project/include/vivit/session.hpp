// A session: an opened bundle that turns clips into logits and embeddings. It does everything that does not
// depend on the back end: checking, preprocessing, batches of any size.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "vivit/backend.hpp"
#include "vivit/contract.hpp"
#include "vivit/detail/pixels/view_batch.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"
#include "vivit/frame_source.hpp"
#include "vivit/frames.hpp"
#include "vivit/prediction.hpp"
#include "vivit/preprocess.hpp"
#include "vivit/sampling.hpp"

namespace vivit {

class Bundle;
struct Options;

/// An opened bundle; any number of threads may use one at once. Open one with `open_session` (open.hpp).
class Session {
public:
    /// @param contract     of the bundle
    /// @param backend      the back end that runs it; never nullptr
    /// @param passed_over  why each other engine was not chosen, by name
    /// @param threads      for preprocessing; 0: one per processor, 8 at most
    /// @throws InputError  the contract contradicts itself
    Session(Contract contract, std::unique_ptr<Backend> backend, std::map<std::string, std::string> passed_over,
            int threads = 0)
        : contract_(std::move(contract)),
          preprocessor_(contract_, threads),
          backend_(std::move(backend)),
          passed_over_(std::move(passed_over)) {}

    [[nodiscard]] const Contract& contract() const noexcept { return contract_; }
    [[nodiscard]] const Preprocessor& preprocessor() const noexcept { return preprocessor_; }

    /// The engine that runs the bundle, one of `engine_order`.
    [[nodiscard]] const std::string& engine() const noexcept { return backend_->name(); }

    /// Version, device and arithmetic, for people.
    [[nodiscard]] const std::string& details() const noexcept { return backend_->details(); }

    /// Smallest and largest number of clips per call of the engine; `run` accepts any number.
    [[nodiscard]] std::pair<int, int> batches() const noexcept { return backend_->batches(); }

    /// What `open_session` found when it compared the engine's result for a golden clip, for people.
    [[nodiscard]] const std::string& self_test() const noexcept { return self_test_; }

    /// Why each other engine was not chosen, by name.
    [[nodiscard]] const std::map<std::string, std::string>& passed_over() const noexcept { return passed_over_; }

    /// Problems that are not errors.
    [[nodiscard]] std::vector<std::string> notes() const { return backend_->notes(); }

    /// Preprocess and run one clip.
    ///
    /// @param frames  T frames of one size
    /// @throws ClipError         they do not fit the contract
    /// @throws EnvironmentFault  the engine fails
    [[nodiscard]] Prediction operator()(const Frames& frames) const {
        const auto start = Clock::now();
        const std::vector<std::uint8_t> clip = prepare(frames, 0.5);
        const double preprocess_ms = milliseconds_since(start);
        const auto middle = Clock::now();
        return predicted(run(clip), preprocess_ms, middle);
    }

    /// Preprocess and run all views of the contract (temporal windows, spatial crops) of one video, and average their
    /// logits and embeddings. One view is that of `read_clip` and `operator()`. Each frame is read once. Memory: the
    /// frames of one window.
    ///
    /// @throws ClipError         the video is too short, cannot be read, or does not fit the contract
    /// @throws UsageError        several spatial views of a model that does not crop
    /// @throws EnvironmentFault  the engine fails
    [[nodiscard]] Prediction operator()(Video& video) const {
        require_moving_crop(contract_.clip.views[1]);
        detail::ViewBatch batch(
            contract_.clip, byte_clip(),
            [&](const Frames& frames, double position, std::uint8_t* out) { prepare(frames, position, out); });
        video.visit(
            [&](std::int64_t num_frames) {
                Indices indices = view_indices(num_frames, contract_.clip, video.name());
                batch.begin(indices.size());
                return indices;
            },
            [&](const Frames& frame, const std::vector<std::size_t>& slots) { batch.add(frame, slots); });
        const std::vector<std::uint8_t>& clips = batch.finish();
        const auto start = Clock::now();
        return predicted(run(clips), batch.milliseconds(), start);
    }

    /// Logits of a batch.
    ///
    /// @param clips  as for `run`
    /// @return float32 (B, num_labels)
    /// @throws UsageError                   the bundle has no logits
    /// @throws ClipError, EnvironmentFault  as for `run`
    [[nodiscard]] std::vector<float> infer(const std::vector<std::uint8_t>& clips) const {
        if (!contract_.output("logits"))
            throw UsageError("this bundle has an embedding but no logits; take run(clips)[\"embedding\"]");
        return run(clips)["logits"];
    }

    /// Every output of a batch of any size.
    ///
    /// @param clips  uint8 (B, T, H, W, 3), resized and cropped (Preprocessor::crops); for a bundle of input mode
    ///               `frames` (B, T, h, w, 3) at its frame size
    /// @return float32 (B, ...) by name
    /// @throws ClipError         no clips, or not a whole number of them
    /// @throws EnvironmentFault  the engine fails
    [[nodiscard]] Outputs run(const std::vector<std::uint8_t>& clips) const {
        return run(clips.data(), whole_clips(clips.size(), byte_clip()));
    }

    /// The same for the caller's memory: `count` clips, one after the other.
    [[nodiscard]] Outputs run(const std::uint8_t* clips, std::size_t count) const {
        if (contract_.io.mode != InputMode::pixels)
            return run_parts(clips, count, byte_clip(), [](const std::uint8_t* part, std::size_t) { return part; });
        std::vector<float> pixels;
        return run_parts(clips, count, byte_clip(), [&](const std::uint8_t* part, std::size_t size) {
            pixels.resize(size * contract_.clip.num_bytes());
            preprocessor_.to_pixels(part, size, pixels.data());
            return reinterpret_cast<const std::uint8_t*>(pixels.data());
        });
    }

    /// Every output of a batch of any size, for a bundle of input mode `pixels`.
    ///
    /// @param pixels  float32 (B, T, 3, H, W), as Preprocessor::to_pixels makes them
    /// @return float32 (B, ...) by name
    /// @throws ClipError         no clips, not a whole number of them, or a bundle of another input mode
    /// @throws EnvironmentFault  the engine fails
    [[nodiscard]] Outputs run(const std::vector<float>& pixels) const {
        if (contract_.io.mode != InputMode::pixels)
            throw ClipError("clips must be uint8, got float32; only a bundle of input mode pixels takes that");
        const std::size_t count = whole_clips(pixels.size(), contract_.io.input.clip_elements());
        return run_parts(reinterpret_cast<const std::uint8_t*>(pixels.data()), count, contract_.io.input.clip_bytes(),
                         [](const std::uint8_t* part, std::size_t) { return part; });
    }

private:
    friend Session open_session(const Bundle& bundle, const Options& options);
    using Clock = std::chrono::steady_clock;

    [[nodiscard]] static double milliseconds_since(Clock::time_point start) {
        return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    }

    /// Bytes of one uint8 clip as `run` takes it.
    [[nodiscard]] std::size_t byte_clip() const noexcept {
        return contract_.io.mode == InputMode::frames ? contract_.io.input.clip_bytes() : contract_.clip.num_bytes();
    }

    [[nodiscard]] static std::size_t whole_clips(std::size_t size, std::size_t clip) {
        if (size % clip)
            throw ClipError("a batch of " + std::to_string(size) + " values is not a whole number of clips of " +
                            std::to_string(clip));
        return size / clip;
    }

    /// Do the preprocessing that the graph does not do itself: one uint8 clip for `run`.
    [[nodiscard]] std::vector<std::uint8_t> prepare(const Frames& frames, double position) const {
        if (contract_.io.mode != InputMode::frames) return preprocessor_.crops(frames, position);
        require_frame_size(frames, frames.count);
        return {frames.data, frames.data + std::size_t(frames.count) * frames.frame_bytes()};
    }

    /// The same for any frames of clips of the right length.
    void prepare(const Frames& frames, double position, std::uint8_t* out) const {
        if (contract_.io.mode != InputMode::frames) return preprocessor_.crop_frames(frames, out, position);
        require_frame_size(frames, contract_.clip.num_frames);
        std::copy_n(frames.data, std::size_t(frames.count) * frames.frame_bytes(), out);
    }

    /// Refuse a clip of `count` frames that the graph does not take as it is.
    void require_frame_size(const Frames& frames, int count) const {
        const auto [height, width] = *contract_.io.frame_size;
        if (count != contract_.clip.num_frames || frames.height != height || frames.width != width)
            throw ClipError("this bundle resizes in the graph and takes uint8 frames " +
                            detail::tuple(std::array{contract_.clip.num_frames, height, width, 3}) + ", got uint8 " +
                            detail::tuple(std::array{count, frames.height, frames.width, 3}) +
                            "; for videos of other sizes export with --input crops");
    }

    void require_moving_crop(int spatial) const {
        const bool whole = contract_.io.mode == InputMode::frames;
        if (spatial > 1 && (whole || !contract_.preprocess.do_center_crop))
            throw UsageError(std::to_string(spatial) + " spatial views need a crop to move, but this model " +
                             (whole ? "takes whole frames; export with --input crops" : "does not crop"));
    }

    /// The mean over the clips of a run.
    [[nodiscard]] Prediction predicted(const Outputs& results, double preprocess_ms,
                                       Clock::time_point inference_start) const {
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
        prediction.task = contract_.task;
        return prediction;
    }

    /// Run a batch in parts that the engine accepts, each prepared just before it runs.
    template <typename Ready>
    [[nodiscard]] Outputs run_parts(const std::uint8_t* clips, std::size_t count, std::size_t clip_bytes,
                                    Ready ready) const {
        if (!count) throw ClipError("there are no clips in the batch; pass at least one");
        const auto low = std::size_t(batches().first), high = std::size_t(batches().second);
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
    std::string self_test_ = "left out";
};

}  // namespace vivit
