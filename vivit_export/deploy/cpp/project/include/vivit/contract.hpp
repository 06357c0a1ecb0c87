// The contract: everything a caller must know about the input and output of a model, as
// vivit_export/contract.py writes it into bundle.json. No other header states a fact about the input.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"

namespace vivit {

/// What the graph's input takes.
enum class InputMode {
    crops,   ///< uint8 (B, T, H, W, 3), resized and cropped
    pixels,  ///< float32 (B, T, 3, H, W), normalized
    frames   ///< uint8 (B, T, h, w, 3) at one camera size; the graph resizes
};

/// Which axis is resized first.
enum class ResizeOrder {
    horizontal_first,
    pillow_13  ///< vertical first if the height shrinks far more, as in Pillow 13
};

/// Which frames of a video make a clip.
enum class Sampling {
    uniform,  ///< spread over the whole video
    center,   ///< a run of frames in the middle
    head,     ///< the first frames
    stride    ///< every n-th frame, in the middle
};

/// What to do with a video that is shorter than a clip.
enum class Short {
    refuse,  ///< a ClipError
    repeat,  ///< its last frame again
    loop     ///< from the start again
};

/// (height, width) in pixels.
using Size = std::array<int, 2>;

/// Geometry of one clip for the network, and how it is drawn from a video.
struct Clip {
    int num_frames = 0;                        ///< T
    int height = 0;                            ///< pixels of a frame after cropping
    int width = 0;                             ///< pixels of a frame after cropping
    std::array<int, 3> tubelet_size{1, 1, 1};  ///< (frames, rows, columns); divides the clip
    Sampling sampling = Sampling::uniform;
    int stride = 1;  ///< frames from one to the next, 1 or more
    Short when_short = Short::refuse;
    std::array<int, 2> views{1, 1};  ///< (temporal, spatial) clips per video whose logits are averaged

    /// How many tubelets a clip is cut into; each becomes one token.
    [[nodiscard]] int num_tubelets() const noexcept {
        return (num_frames / tubelet_size[0]) * (height / tubelet_size[1]) * (width / tubelet_size[2]);
    }

    /// Bytes of one uint8 clip (T, H, W, 3).
    [[nodiscard]] std::size_t num_bytes() const noexcept {
        return std::size_t(num_frames) * std::size_t(height) * std::size_t(width) * 3;
    }
};

/// The fields of VivitImageProcessor, from the checkpoint's own JSON.
struct Preprocess {
    bool do_resize = true;
    std::optional<int> shortest_edge;  ///< pixels; this or `size` where `do_resize`
    std::optional<Size> size;          ///< (height, width) after the resize
    int resample = 2;                  ///< Pillow filter number, 0 to 5
    bool do_center_crop = true;
    Size crop_size{224, 224};
    bool do_rescale = true;
    double rescale_factor = 1 / 127.5;
    bool offset = true;  ///< subtract 1 after rescaling
    bool do_normalize = true;
    std::array<double, 3> mean{0.5, 0.5, 0.5};                ///< per channel R, G, B
    std::array<double, 3> standard_deviation{0.5, 0.5, 0.5};  ///< per channel R, G, B; none is 0
    ResizeOrder resize_order = ResizeOrder::pillow_13;
    std::string processor = "VivitImageProcessor";

    /// Size of every output frame, or none if it depends on the video.
    [[nodiscard]] std::optional<Size> produces() const noexcept {
        if (do_center_crop) return crop_size;
        return do_resize ? size : std::nullopt;
    }
};

/// One input or output of the graph.
struct Tensor {
    std::string name;
    std::string dtype;            ///< as NumPy has it: uint8, float32
    std::vector<int> clip_shape;  ///< shape without the batch; every side is 1 or more

    /// Elements of one clip.
    [[nodiscard]] std::size_t clip_elements() const noexcept {
        std::size_t count = 1;
        for (const int side : clip_shape) count *= std::size_t(side);
        return count;
    }

    /// Bytes of one element.
    [[nodiscard]] std::size_t element_bytes() const noexcept { return dtype == "uint8" ? 1 : 4; }

    /// Bytes of one clip.
    [[nodiscard]] std::size_t clip_bytes() const noexcept { return clip_elements() * element_bytes(); }
};

/// The graph's signature.
struct IO {
    InputMode mode = InputMode::crops;
    Tensor input;
    std::vector<Tensor> outputs;
    std::optional<Size> frame_size;  ///< of input mode `frames` alone
};

/// What the logits mean.
enum class Task {
    single_label_classification,  ///< their softmax is one distribution over the labels
    multi_label_classification,   ///< the sigmoid of each is the probability of its label
    regression                    ///< each is a value
};

/// Clip, preprocessing, signature, labels and task of one model.
struct Contract {
    Clip clip;
    Preprocess preprocess;
    IO io;
    std::vector<std::string> labels;  ///< by index of the logits
    Task task = Task::single_label_classification;

    /// The output of that name, or nullptr; valid as long as the contract is not changed.
    [[nodiscard]] const Tensor* output(const std::string& name) const noexcept {
        for (const Tensor& tensor : io.outputs)
            if (tensor.name == name) return &tensor;
        return nullptr;
    }
};

/// Refuse a processor whose frames do not fit the network.
///
/// @throws InputError  its frames differ in size from `clip`
inline void require_agreement(const Clip& clip, const Preprocess& preprocess) {
    const auto produced = preprocess.produces();
    if (produced && *produced != Size{clip.height, clip.width})
        throw InputError("the processor makes frames of " + detail::by((*produced)[0], (*produced)[1]) +
                         " (height x width) but the model takes " + detail::by(clip.height, clip.width) +
                         "; make preprocessor_config.json and config.json agree");
}

}  // namespace vivit
