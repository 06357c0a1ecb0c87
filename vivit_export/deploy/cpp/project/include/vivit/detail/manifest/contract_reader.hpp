// From JSON to the contract, with the checks and sentences of vivit_export/contract.py.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/detail/limits.hpp"
#include "vivit/detail/manifest/json.hpp"
#include "vivit/detail/text.hpp"
#include "vivit/errors.hpp"

namespace vivit::detail {

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
template <>
struct Names<Task> {
    static constexpr std::array<const char*, 3> all{"single_label_classification", "multi_label_classification",
                                                    "regression"};
};

/// A dimension: a number, or a name (stored as -1) if it is dynamic.
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

/// `require_input` and `require_outputs` then refuse what is not an input or output of a ViViT.
template <>
struct As<Tensor> {
    static Tensor read(const json& value, const std::string& where) {
        const Object object(value, where, {"name", "dtype", "shape"});
        Tensor tensor{object.get<std::string>("name"), object.get<std::string>("dtype"), {}};
        const auto shape = object.get<std::vector<Dim>>("shape");
        for (std::size_t i = 1; i < shape.size(); ++i) tensor.clip_shape.push_back(shape[i].size);
        return tensor;
    }
    static std::string words() { return "a JSON object"; }
};

/// Name, type and shape, for a message.
[[nodiscard]] inline std::string described(const Tensor& tensor, const json& value) {
    return shortly(tensor.name) + " " + shortly(tensor.dtype) + " " + shown_shortly(value["shape"]);
}

/// Whether the first dimension, the batch, is a name.
[[nodiscard]] inline bool has_batch(const json& tensor) {
    return !tensor["shape"].empty() && tensor["shape"][0].is_string();
}

inline void require_name(const std::string& name) {
    static const char* first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    static const std::string all = std::string(first) + ".-";
    const bool fits = !name.empty() && name.size() <= 64 && std::string(first).find(name[0]) != std::string::npos &&
                      name.find_first_not_of(all) == std::string::npos;
    if (!fits)
        throw InputError("io: the input's name " + shown_shortly(name) +
                         " is not possible; 1 to 64 letters, digits, '_', '-' and '.' are, with no '.' or '-' in "
                         "front");
}

/// Refuse an input that does not take the clip.
inline void require_input(const Clip& clip, const IO& io, const json& value) {
    const Size size = io.frame_size.value_or(Size{clip.height, clip.width});
    const bool pixels = io.mode == InputMode::pixels;
    const std::vector<int> frames{clip.num_frames, size[0], size[1], 3}, planes{clip.num_frames, 3, size[0], size[1]};
    const std::vector<int>& shape = pixels ? planes : frames;
    const std::string dtype = pixels ? "float32" : "uint8";
    if (has_batch(value) && io.input.dtype == dtype && io.input.clip_shape == shape) return;
    json taken = json::array({"batch"});
    for (const int side : shape) taken.push_back(side);
    throw InputError("io: input " + described(io.input, value) + " does not take the clip; mode " +
                     Names<InputMode>::all[std::size_t(io.mode)] + " takes " + dtype + " " + shown(taken));
}

inline void require_outputs(const std::vector<Tensor>& outputs, const json& values) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        const Tensor& tensor = outputs[i];
        const auto same = [&](const Tensor& other) { return other.name == tensor.name; };
        const bool known = tensor.name == "logits" || tensor.name == "embedding";
        const bool fits = has_batch(values[i]) && tensor.clip_shape.size() == 1 && tensor.clip_shape[0] >= 1 &&
                          tensor.clip_shape[0] <= most_width && tensor.dtype == "float32";
        if (!known || !fits || std::count_if(outputs.begin(), outputs.end(), same) > 1)
            throw InputError("io: output " + described(tensor, values[i]) +
                             " is not possible; outputs are logits and embedding, each once, float32 ['batch', 1 to " +
                             std::to_string(most_width) + "]");
    }
    if (outputs.empty()) throw InputError("io: a model has logits, an embedding or both, got no output");
}

inline void require_valid(const Clip& clip) {
    const std::array<const char*, 3> names{"num_frames", "height", "width"};
    const std::array<int, 3> sides{clip.num_frames, clip.height, clip.width};
    for (std::size_t i = 0; i < 3; ++i) {
        const int tube = clip.tubelet_size[i];
        if (sides[i] < 1 || tube < 1 || sides[i] % tube)
            throw InputError("clip " + std::string(names[i]) + "=" + std::to_string(sides[i]) +
                             " is not a positive multiple of the tubelet's " + std::to_string(tube) +
                             "; image_size, num_frames and tubelet_size of the config must divide");
    }
    if (clip.num_frames > most_frames || clip.height > most_side || clip.width > most_side ||
        std::int64_t(clip.num_bytes()) > most_clip_bytes)
        throw InputError("clip of " + std::to_string(clip.num_frames) + " frames of " + by(clip.height, clip.width) +
                         " (height x width) is too large; at most " + std::to_string(most_frames) + " frames, " +
                         std::to_string(most_side) + " pixels a side and " + std::to_string(most_clip_bytes >> 20) +
                         " MiB are possible");
    if (clip.stride > most_stride)
        throw InputError("clip stride=" + std::to_string(clip.stride) + " is too large; at most " +
                         std::to_string(most_stride) + " is possible");
    const std::string sampling = Names<Sampling>::all[std::size_t(clip.sampling)];
    if (clip.stride < 1 || (clip.stride > 1 && clip.sampling != Sampling::stride))
        throw InputError("clip stride=" + std::to_string(clip.stride) + " with sampling=" + sampling +
                         "; stride is 1 or more, and more than 1 only with sampling=stride");
    const auto [temporal, spatial] = clip.views;
    if (temporal < 1 || (spatial != 1 && spatial != 3))
        throw InputError("clip views=" + by(temporal, spatial) +
                         "; 1 or more temporal and 1 or 3 spatial views are needed");
    if (temporal > most_views)
        throw InputError("clip views=" + by(temporal, spatial) + "; at most " + std::to_string(most_views) +
                         " temporal views are possible");
    if (temporal > 1 && clip.sampling != Sampling::stride)
        throw InputError("clip views=" + by(temporal, spatial) + " with sampling=" + sampling +
                         "; several temporal views need sampling=stride (the paper's protocol is stride 2, views 4x3)");
}

[[nodiscard]] inline std::string shown_size(const std::optional<Size>& size) {
    return size ? "(" + std::to_string((*size)[0]) + ", " + std::to_string((*size)[1]) + ")" : "None";
}

inline void require_factors(const Preprocess& p) {
    bool fits = std::fabs(p.rescale_factor) <= largest_factor;
    for (std::size_t i = 0; i < 3; ++i) {
        const double deviation = std::fabs(p.standard_deviation[i]);
        fits = fits && std::fabs(p.mean[i]) <= largest_factor && deviation <= largest_factor &&
               (!p.do_normalize || deviation >= 1 / largest_factor);
    }
    if (!fits)
        throw InputError(
            "preprocess: rescale_factor, image_mean and image_std do not make pixel values; none may be beyond 1e+06, "
            "and no deviation below 1e-06");
}

inline void require_valid(const Preprocess& p) {
    const std::string edge = p.shortest_edge ? std::to_string(*p.shortest_edge) : "None";
    const Size size = p.size.value_or(Size{1, 1});
    if (p.crop_size[0] < 1 || p.crop_size[1] < 1 || size[0] < 1 || size[1] < 1 || p.shortest_edge.value_or(1) < 1)
        throw InputError("preprocess: sizes must be 1 pixel or more, got shortest_edge=" + edge +
                         ", size=" + shown_size(p.size) + ", crop_size=" + shown_size(p.crop_size));
    if (std::max({p.crop_size[0], p.crop_size[1], size[0], size[1], p.shortest_edge.value_or(1)}) > most_side)
        throw InputError("preprocess: sizes must be " + std::to_string(most_side) +
                         " pixels or less, got shortest_edge=" + edge + ", size=" + shown_size(p.size) +
                         ", crop_size=" + shown_size(p.crop_size));
    if (p.do_resize && p.shortest_edge.has_value() == p.size.has_value())
        throw InputError(
            "preprocess: exactly one of size.shortest_edge and size.height/width is needed, got shortest_edge=" + edge +
            " and size=" + shown_size(p.size));
    if (p.resample < 0 || p.resample > 5)
        throw InputError("preprocess: resample=" + std::to_string(p.resample) + " is not a Pillow filter (0 to 5)");
    if (p.do_normalize &&
        (p.standard_deviation[0] == 0 || p.standard_deviation[1] == 0 || p.standard_deviation[2] == 0))
        throw InputError("preprocess: image_std=" + shown(json(p.standard_deviation)) +
                         " contains a zero; normalizing would divide by it");
    require_factors(p);
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
        require_valid(clip);
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
        object.take("std", p.standard_deviation);
        object.take("resize_order", p.resize_order);
        object.take("processor", p.processor);
        require_valid(p);
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
        require_name(io.input.name);
        if ((io.mode == InputMode::frames) != io.frame_size.has_value())
            throw InputError("io: frame_size belongs to mode frames alone, got " + shown_size(io.frame_size) +
                             " with " + Names<InputMode>::all[std::size_t(io.mode)]);
        const Size frame = io.frame_size.value_or(Size{1, 1});
        if (std::min(frame[0], frame[1]) < 1 || std::max(frame[0], frame[1]) > most_camera_side)
            throw InputError("io: frame_size=" + shown_size(io.frame_size) + " is not 1 to " +
                             std::to_string(most_camera_side) + " pixels a side");
        require_outputs(io.outputs, value["outputs"]);
        return io;
    }
};

template <>
struct As<Contract> {
    static Contract read(const json& value, const std::string& where) {
        const Object object(value, where, {"clip", "preprocess", "io", "labels", "task"});
        Contract contract;
        contract.clip = object.get<Clip>("clip");
        contract.preprocess = object.get<Preprocess>("preprocess");
        contract.io = object.get<IO>("io");
        object.take("labels", contract.labels);
        object.take("task", contract.task);
        require_agreement(contract.clip, contract.preprocess);
        require_input(contract.clip, contract.io, value["io"]["inputs"][0]);
        const Tensor* logits = contract.output("logits");
        if (logits && std::size_t(logits->clip_shape.back()) != contract.labels.size())
            throw InputError("there are " + std::to_string(contract.labels.size()) + " labels for " +
                             std::to_string(logits->clip_shape.back()) + " logits; id2label of the config is wrong");
        for (std::size_t i = 0; i < contract.labels.size(); ++i) {
            const std::size_t length = count_characters(contract.labels[i]);
            if (length > std::size_t(longest_label))
                throw InputError("label " + std::to_string(i) + " has " + std::to_string(length) +
                                 " characters; at most " + std::to_string(longest_label) + " are possible");
        }
        return contract;
    }
};

}  // namespace vivit::detail
