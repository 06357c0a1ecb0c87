// The contract: everything a caller must know about the input and output of a model, as
// vivit_export/contract.py writes it into bundle.json. No other header states a fact about the input.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "vivit/errors.hpp"
#include "vivit/json.hpp"

namespace vivit {

enum class InputMode { crops, pixels, frames };
enum class ResizeOrder { horizontal_first, pillow_13 };
enum class Sampling { uniform, center, head, stride };
enum class Short { refuse, repeat, loop };

/// (height, width) in pixels.
using Size = std::array<int, 2>;

/// Geometry of one clip as the network takes it, and how it is drawn from a video.
struct Clip {
    int num_frames = 0;  ///< T
    int height = 0;      ///< rows of a frame after cropping
    int width = 0;       ///< columns of a frame after cropping
    std::array<int, 3> tubelet_size{1, 1, 1};
    Sampling sampling = Sampling::uniform;
    int stride = 1;
    Short when_short = Short::refuse;
    std::array<int, 2> views{1, 1};  ///< (temporal, spatial) clips per video whose logits are averaged

    /// Sequence length of the encoder.
    int num_tokens() const {
        return (num_frames / tubelet_size[0]) * (height / tubelet_size[1]) * (width / tubelet_size[2]) + 1;
    }

    /// Bytes of one uint8 clip (T, H, W, 3).
    std::size_t num_bytes() const { return std::size_t(num_frames) * height * width * 3; }
};

/// The fields of VivitImageProcessor, as the checkpoint's own JSON has them.
struct Preprocess {
    bool do_resize = true;
    std::optional<int> shortest_edge;
    std::optional<Size> size;
    int resample = 2;  ///< Pillow filter number
    bool do_center_crop = true;
    Size crop_size{224, 224};
    bool do_rescale = true;
    double rescale_factor = 1 / 127.5;
    bool offset = true;
    bool do_normalize = true;
    std::array<double, 3> mean{0.5, 0.5, 0.5};
    std::array<double, 3> std{0.5, 0.5, 0.5};
    ResizeOrder resize_order = ResizeOrder::pillow_13;
    std::string processor = "VivitImageProcessor";

    /// Size of every frame that comes out, or none where it depends on the video.
    std::optional<Size> produces() const {
        if (do_center_crop) return crop_size;
        return do_resize ? size : std::nullopt;
    }
};

/// One input or output of the graph.
struct Tensor {
    std::string name;
    std::string dtype;            ///< as NumPy has it: uint8, float32
    std::vector<int> clip_shape;  ///< shape without the batch

    /// Elements of one clip.
    std::size_t clip_elements() const {
        std::size_t count = 1;
        for (int side : clip_shape) count *= std::size_t(side);
        return count;
    }
    std::size_t element_bytes() const { return dtype == "uint8" ? 1 : 4; }
    std::size_t clip_bytes() const { return clip_elements() * element_bytes(); }
};

/// The graph's signature.
struct IO {
    InputMode mode = InputMode::crops;
    Tensor input;
    std::vector<Tensor> outputs;
    std::optional<Size> frame_size;
};

/// Clip, preprocessing, signature and labels of one model.
struct Contract {
    Clip clip;
    Preprocess preprocess;
    IO io;
    std::vector<std::string> labels;

    /// The output of that name, or nullptr.
    const Tensor* output(const std::string& name) const {
        for (const Tensor& tensor : io.outputs)
            if (tensor.name == name) return &tensor;
        return nullptr;
    }

    /// Read it from `contract` of bundle.json; throws InputError where Python's does, with its sentence.
    static Contract from_json(const nlohmann::json& data);
};

/// "640x272": two numbers as both runtimes write them.
inline std::string by(int first, int second) { return std::to_string(first) + "x" + std::to_string(second); }

/// Refuse a processor whose frames do not fit the network.
inline void require_agreement(const Clip& clip, const Preprocess& preprocess) {
    const auto produced = preprocess.produces();
    if (produced && *produced != Size{clip.height, clip.width})
        throw InputError("the processor makes frames of " + by((*produced)[0], (*produced)[1]) +
                         " (height x width) but the model takes " + by(clip.height, clip.width) +
                         "; make preprocessor_config.json and config.json agree");
}

namespace detail {

template <>
struct Names<InputMode> {
    static constexpr std::array<const char*, 3> all{"crops", "pixels", "frames"};
};
template <>
struct Names<ResizeOrder> {
    static constexpr std::array<const char*, 2> all{"horizontal-first", "pillow-13"};
};
template <>
struct Names<Sampling> {
    static constexpr std::array<const char*, 4> all{"uniform", "center", "head", "stride"};
};
template <>
struct Names<Short> {
    static constexpr std::array<const char*, 3> all{"refuse", "repeat", "loop"};
};

/// A dimension: a number, or a name (kept as -1) where it is dynamic.
struct Dim {
    int size = -1;
};

template <>
struct As<Dim> {
    static std::string words() { return "int or str"; }
    static Dim read(const json& value, const std::string& where) {
        if (value.is_string()) return {};
        if (!value.is_number_integer()) refuse<Dim>(value, where);
        return {As<int>::read(value, where)};
    }
};

template <>
struct As<Tensor> {
    static Tensor read(const json& value, const std::string& where) {
        const Object object(value, where, {"name", "dtype", "shape"});
        Tensor tensor{object.get<std::string>("name"), object.get<std::string>("dtype"), {}};
        const auto shape = object.get<std::vector<Dim>>("shape");
        if (tensor.dtype != "uint8" && tensor.dtype != "float32")
            throw InputError(where + ".dtype is " + shown(tensor.dtype) + "; this library runs uint8 and float32");
        for (std::size_t i = 1; i < shape.size(); ++i) {
            if (shape[i].size < 1) throw InputError(where + ".shape must be fixed but for the batch");
            tensor.clip_shape.push_back(shape[i].size);
        }
        return tensor;
    }
    static std::string words() { return "Tensor"; }
};

inline void check(const Clip& clip) {
    const std::array<const char*, 3> names{"num_frames", "height", "width"};
    const std::array<int, 3> sides{clip.num_frames, clip.height, clip.width};
    for (std::size_t i = 0; i < 3; ++i) {
        const int tube = clip.tubelet_size[i];
        if (sides[i] < 1 || tube < 1 || sides[i] % tube)
            throw InputError("clip " + std::string(names[i]) + "=" + std::to_string(sides[i]) +
                             " is not a positive multiple of the tubelet's " + std::to_string(tube) +
                             "; image_size, num_frames and tubelet_size of the config must divide");
    }
    const std::string sampling = Names<Sampling>::all[std::size_t(clip.sampling)];
    if (clip.stride < 1 || (clip.stride > 1 && clip.sampling != Sampling::stride))
        throw InputError("clip stride=" + std::to_string(clip.stride) + " with sampling=" + sampling +
                         "; stride is 1 or more, and more than 1 only with sampling=stride");
    const auto [temporal, spatial] = clip.views;
    if (temporal < 1 || (spatial != 1 && spatial != 3))
        throw InputError("clip views=" + by(temporal, spatial) +
                         "; 1 or more temporal and 1 or 3 spatial views are needed");
    if (temporal > 1 && clip.sampling != Sampling::stride)
        throw InputError("clip views=" + by(temporal, spatial) + " with sampling=" + sampling +
                         "; several temporal views need sampling=stride (the paper's protocol is stride 2, views 4x3)");
}

inline std::string shown_size(const std::optional<Size>& size) {
    return size ? "(" + std::to_string((*size)[0]) + ", " + std::to_string((*size)[1]) + ")" : "None";
}

inline void check(const Preprocess& p) {
    const std::string edge = p.shortest_edge ? std::to_string(*p.shortest_edge) : "None";
    const Size size = p.size.value_or(Size{1, 1});
    if (p.crop_size[0] < 1 || p.crop_size[1] < 1 || size[0] < 1 || size[1] < 1 || p.shortest_edge.value_or(1) < 1)
        throw InputError("preprocess: sizes must be 1 pixel or more, got shortest_edge=" + edge +
                         ", size=" + shown_size(p.size) + ", crop_size=" + shown_size(p.crop_size));
    if (p.do_resize && p.shortest_edge.has_value() == p.size.has_value())
        throw InputError(
            "preprocess: exactly one of size.shortest_edge and size.height/width is needed, got shortest_edge=" + edge +
            " and size=" + shown_size(p.size));
    if (p.resample < 0 || p.resample > 5)
        throw InputError("preprocess: resample=" + std::to_string(p.resample) + " is not a Pillow filter (0 to 5)");
    if (p.do_normalize && (p.std[0] == 0 || p.std[1] == 0 || p.std[2] == 0))
        throw InputError("preprocess: image_std=" + shown(json(p.std)) +
                         " contains a zero; normalising would divide by it");
    if (p.offset && !p.do_rescale)
        throw InputError("preprocess: offset=true needs do_rescale=true (VivitImageProcessor refuses it too)");
}

template <>
struct As<Clip> {
    static Clip read(const json& value, const std::string& where) {
        const Object object(value, where,
                            {"num_frames", "height", "width", "tubelet_size", "sampling", "stride", "short", "views"});
        Clip clip;
        clip.num_frames = object.get<int>("num_frames");
        clip.height = object.get<int>("height");
        clip.width = object.get<int>("width");
        clip.tubelet_size = object.get<std::array<int, 3>>("tubelet_size");
        object.take("sampling", clip.sampling);
        object.take("stride", clip.stride);
        object.take("short", clip.when_short);
        object.take("views", clip.views);
        check(clip);
        return clip;
    }
};

template <>
struct As<Preprocess> {
    static Preprocess read(const json& value, const std::string& where) {
        const Object object(
            value, where,
            {"do_resize", "shortest_edge", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
             "rescale_factor", "offset", "do_normalize", "mean", "std", "resize_order", "processor"});
        Preprocess p;
        object.take("do_resize", p.do_resize);
        object.take("shortest_edge", p.shortest_edge);
        object.take("size", p.size);
        object.take("resample", p.resample);
        object.take("do_center_crop", p.do_center_crop);
        object.take("crop_size", p.crop_size);
        object.take("do_rescale", p.do_rescale);
        object.take("rescale_factor", p.rescale_factor);
        object.take("offset", p.offset);
        object.take("do_normalize", p.do_normalize);
        object.take("mean", p.mean);
        object.take("std", p.std);
        object.take("resize_order", p.resize_order);
        object.take("processor", p.processor);
        check(p);
        return p;
    }
};

template <>
struct As<IO> {
    static IO read(const json& value, const std::string& where) {
        const Object object(value, where, {"mode", "inputs", "outputs", "frame_size"});
        IO io;
        io.mode = object.get<InputMode>("mode");
        const auto inputs = object.get<std::vector<Tensor>>("inputs");
        io.outputs = object.get<std::vector<Tensor>>("outputs");
        object.take("frame_size", io.frame_size);
        if (inputs.size() != 1)
            throw InputError("io: a model has exactly one input, got " + std::to_string(inputs.size()));
        io.input = inputs[0];
        if ((io.mode == InputMode::frames) != io.frame_size.has_value())
            throw InputError("io: frame_size belongs to mode frames alone, got " + shown_size(io.frame_size) +
                             " with " + Names<InputMode>::all[std::size_t(io.mode)]);
        return io;
    }
};

}  // namespace detail

inline Contract Contract::from_json(const nlohmann::json& data) {
    const detail::Object object(data, "contract", {"clip", "preprocess", "io", "labels"});
    Contract contract;
    contract.clip = object.get<Clip>("clip");
    contract.preprocess = object.get<Preprocess>("preprocess");
    contract.io = object.get<IO>("io");
    object.take("labels", contract.labels);
    require_agreement(contract.clip, contract.preprocess);
    const Tensor* logits = contract.output("logits");
    if (logits && !logits->clip_shape.empty() && std::size_t(logits->clip_shape.back()) != contract.labels.size())
        throw InputError("there are " + std::to_string(contract.labels.size()) + " labels for " +
                         std::to_string(logits->clip_shape.back()) + " logits; id2label of the config is wrong");
    return contract;
}

}  // namespace vivit
