// From JSON to the contract, with the checks and sentences of vivit_export/contract.py.
#pragma once

#include <array>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "vivit/contract.hpp"
#include "vivit/detail/json.hpp"
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

[[nodiscard]] inline std::string shown_size(const std::optional<Size>& size) {
    return size ? "(" + std::to_string((*size)[0]) + ", " + std::to_string((*size)[1]) + ")" : "None";
}

inline void require_valid(const Preprocess& p) {
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
    if (p.do_normalize &&
        (p.standard_deviation[0] == 0 || p.standard_deviation[1] == 0 || p.standard_deviation[2] == 0))
        throw InputError("preprocess: image_std=" + shown(json(p.standard_deviation)) +
                         " contains a zero; normalizing would divide by it");
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
        if ((io.mode == InputMode::frames) != io.frame_size.has_value())
            throw InputError("io: frame_size belongs to mode frames alone, got " + shown_size(io.frame_size) +
                             " with " + Names<InputMode>::all[std::size_t(io.mode)]);
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
        const Tensor* logits = contract.output("logits");
        if (logits && !logits->clip_shape.empty() && std::size_t(logits->clip_shape.back()) != contract.labels.size())
            throw InputError("there are " + std::to_string(contract.labels.size()) + " labels for " +
                             std::to_string(logits->clip_shape.back()) + " logits; id2label of the config is wrong");
        return contract;
    }
};

}  // namespace vivit::detail
